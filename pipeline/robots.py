"""robots.txt (RFC 9309), by Protego: one answer a host, kept for a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protego import Protego

from pipeline.exchange import Answer, Trouble

MAX_BYTES = 512 * 1024
"""RFC 9309, 2.5: at least 500 KiB are read."""


@dataclass(frozen=True)
class Robots:
    """What a host's robots.txt says to us. `trouble` is why it could not be had, if so."""

    rules: Protego | None = None
    trouble: Trouble | None = None

    def allows(self, url: str, agent: str) -> bool:
        """Whether `agent` may fetch `url`."""
        return self.rules is None or self.rules.can_fetch(url, agent)

    def crawl_delay(self, agent: str) -> float | None:
        """The seconds between requests that robots.txt asks for."""
        if self.rules is None:
            return None
        delays = [self.rules.crawl_delay(agent)]
        rate = self.rules.request_rate(agent)
        if rate is not None and rate.requests:
            delays.append(rate.seconds / rate.requests)
        return max((float(delay) for delay in delays if delay is not None), default=None)


def read_robots(answer: Answer | Trouble) -> Robots:
    """robots.txt as answered. RFC 9309, 2.3.1: 4xx means no rules; no answer or 5xx means that
    nothing may be fetched for now."""
    if isinstance(answer, Answer):
        return Robots(Protego.parse(answer.body[:MAX_BYTES].decode("utf-8", "replace")))
    status = answer.status or 0
    if 400 <= status < 500 and status != 429:
        return Robots()
    if status:
        answer = replace(answer, kind="robots_unreachable", detail=f"status {status}")
    return Robots(trouble=answer)
