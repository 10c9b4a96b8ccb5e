"""robots.txt (RFC 9309), by Protego: one answer a host, kept for a run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from protego import Protego

from pipeline.outside_text import decode_text, text_encoding
from pipeline.web.opt_out.robots_lines import NO_LINES, RobotsLines, read_robots_lines
from pipeline.web.politeness import MAX_DELAY
from pipeline.web.responses import MAX_POLICY, RawResponse, RequestFailure

_AGENT_LINE = re.compile(r"(?im)^([ \t]*user[ -]?agent(?:[ \t]*:|[ \t])[ \t]*)([^\n#]*)")
_INVALID = re.compile("[\udc80-\udcff]")
"""The bytes that are not UTF-8, as `surrogateescape` decodes them."""
_SOMEBODY_ELSE = "\N{WHITE SHOGI PIECE}"
"""No agent of ours has this name: a User-Agent is printable ASCII."""


@dataclass(frozen=True)
class Robots:
    """What a host's robots.txt says to us.

    `failure` is why it could not be fetched; it is not requested again before the time `until`.
    `lines` are its usage preferences and licences.
    """

    rules: Protego | None = None
    lines: RobotsLines = NO_LINES
    failure: RequestFailure | None = None
    until: float = math.inf

    def is_stale(self, now: float) -> bool:
        """Return True if it must be fetched again."""
        return now >= self.until

    def why_disallowed(self, url: str, agent: str) -> RequestFailure | None:
        """Why `agent` may not fetch `url`, or None."""
        if self.failure is not None:
            return self.failure
        if self.rules is None:
            return None
        try:
            allowed = self.rules.can_fetch(url, agent)
        except Exception as error:  # noqa: BLE001 - the boundary of one robots.txt
            return _unreadable(error)
        return None if allowed else RequestFailure("robots", "robots.txt")

    def crawl_delay(self, agent: str) -> float | None:
        """Return the seconds between requests that robots.txt asks for."""
        if self.rules is None:
            return None
        rate = self.rules.request_rate(agent)
        delays = [self.rules.crawl_delay(agent)]
        if rate is not None and rate.requests:
            # Both have as many digits as the file gives them.
            delays.append(min(rate.seconds, 10**9) / min(rate.requests, 10**9))
        known = [float(delay) for delay in delays if delay is not None and delay >= 0]
        return min(max(known), MAX_DELAY) if known else None


_HOST_KINDS = frozenset(
    ("private_address", "dns", "refused", "unreachable", "tls", "connect_timeout")
)
"""What no file of the host would have got over."""


def parse_robots(
    answer: RawResponse | RequestFailure, agent: str, until: float = math.inf
) -> Robots:
    """robots.txt as answered, for `agent`.

    RFC 9309, 2.3.1: a 4xx, or more redirects than are followed, mean that there are no rules; no
    answer, or a 5xx, that nothing may be fetched, here until the time `until`.
    """
    if isinstance(answer, RawResponse):
        try:
            text = robots_text(answer.body)
            lines = read_robots_lines(text, answer.url, agent)
            return Robots(Protego.parse(_for_agent(text, agent)), lines)
        except Exception as error:  # noqa: BLE001 - the boundary of one robots.txt
            return Robots(failure=_unreadable(error), until=until)
    status = answer.status or 0
    if answer.kind == "redirect_loop" or (300 <= status < 500 and status != 429):
        return Robots()
    kind = "robots_unreachable" if status else answer.kind
    said = [f"status {status}"] if status else []
    said += [answer.detail] if answer.detail else []
    detail = ", ".join(said)
    if kind not in _HOST_KINDS:  # for it is the page's URL that the failure names
        detail = f"robots.txt: {detail}"
    failure = replace(answer, kind=kind, detail=detail, retries_exhausted=True, retry_after=None)
    return Robots(failure=failure, until=until)


def robots_text(body: bytes) -> str:
    """Return the text of a robots.txt without a byte order mark; of one that is too large, the
    lines that begin and end in its first `MAX_POLICY` bytes. Bytes that are not UTF-8 become
    escapes, as in a URL with the same bytes."""
    if len(body) >= MAX_POLICY:
        body = body[:MAX_POLICY].rpartition(b"\n")[0]
    encoding = text_encoding(body)
    if not encoding.startswith("utf-8"):
        return decode_text(body)
    text = body.decode(encoding, "surrogateescape")
    return _INVALID.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def _for_agent(text: str, agent: str) -> str:
    """Return the text with one name for all agents that are not `agent`: a rule then belongs to a
    few at most, though a file may name thousands of agents before each of thousands of rules."""
    lower = agent.lower()

    def one(match: re.Match[str]) -> str:
        name = match[2].strip().lower()
        bare = name.replace("*", "") or name[:1]
        return match[1] + (bare if bare == "*" or bare in lower else _SOMEBODY_ELSE)

    return _AGENT_LINE.sub(one, "\n".join(text.splitlines()))


def _unreadable(error: Exception) -> RequestFailure:
    """Rules that cannot be read are not taken for a permission."""
    detail = f"robots.txt cannot be read: {type(error).__name__}: {error}"
    return RequestFailure("robots_unreachable", detail[:200], retries_exhausted=True)
