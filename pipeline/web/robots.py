"""robots.txt (RFC 9309), by Protego: one answer a host, kept for a run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from protego import Protego

from pipeline.web.exchange import Answer, Trouble

MAX_BYTES = 512 * 1024
"""RFC 9309, 2.5: at least 500 KiB are read."""


@dataclass(frozen=True)
class Robots:
    """What a host's robots.txt says to us.

    `trouble` is why it could not be had, if so: until the time `until` it is not asked for again.
    """

    rules: Protego | None = None
    trouble: Trouble | None = None
    until: float = math.inf

    def stale(self, now: float) -> bool:
        """Whether it is to be asked for again."""
        return now >= self.until

    def refuses(self, url: str, agent: str) -> Trouble | None:
        """Why `agent` may not fetch `url`, or None."""
        if self.trouble is not None:
            return self.trouble
        if self.rules is None or self.rules.can_fetch(url, agent):
            return None
        return Trouble("robots", "robots.txt")

    def crawl_delay(self, agent: str) -> float | None:
        """The seconds between requests that robots.txt asks for."""
        if self.rules is None:
            return None
        delays = [self.rules.crawl_delay(agent)]
        rate = self.rules.request_rate(agent)
        if rate is not None and rate.requests:
            delays.append(rate.seconds / rate.requests)
        return max((float(delay) for delay in delays if delay is not None), default=None)


def read_robots(answer: Answer | Trouble, until: float = math.inf) -> Robots:
    """robots.txt as answered.

    RFC 9309, 2.3.1: a 4xx, or more redirects than are followed, mean that there are no rules; no
    answer, or a 5xx, that nothing may be fetched, here until the time `until`.
    """
    if isinstance(answer, Answer):
        return Robots(Protego.parse(answer.body[:MAX_BYTES].decode("utf-8", "replace")))
    status = answer.status or 0
    if 300 <= status < 500 and status != 429:
        return Robots()
    if status:
        answer = replace(answer, kind="robots_unreachable", detail=f"status {status}")
    return Robots(trouble=replace(answer, final=True, retry_after=None), until=until)
