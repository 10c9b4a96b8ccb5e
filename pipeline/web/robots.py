"""robots.txt (RFC 9309), parsed by Protego."""

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
"""Bytes that are not UTF-8, as decoded by `surrogateescape`."""
_OTHER_AGENT = "\N{WHITE SHOGI PIECE}"
"""A name that no User-Agent of a recipe contains: those are printable ASCII."""


@dataclass(frozen=True)
class Robots:
    """The robots.txt of a host.

    `failure` is why it could not be fetched; it is not requested again before `until` (seconds of
    the monotonic clock). `lines` are its usage preferences and licences.
    """

    rules: Protego | None = None
    lines: RobotsLines = NO_LINES
    failure: RequestFailure | None = None
    until: float = math.inf

    def is_stale(self, now: float) -> bool:
        """Return True if it must be fetched again."""
        return now >= self.until

    def why_disallowed(self, url: str, agent: str) -> RequestFailure | None:
        """Return why `agent` may not fetch `url`, or None."""
        if self.failure is not None:
            return self.failure
        if self.rules is None:
            return None
        try:
            allowed = self.rules.can_fetch(url, agent)
        except Exception as error:  # noqa: BLE001 - errors of one robots.txt are caught here
            return _parse_failure(error)
        return None if allowed else RequestFailure("robots", "robots.txt")

    def crawl_delay(self, agent: str) -> float | None:
        """Return the seconds between requests that robots.txt requires, or None."""
        if self.rules is None:
            return None
        rate = self.rules.request_rate(agent)
        delays = [self.rules.crawl_delay(agent)]
        if rate is not None and rate.requests:
            # Both can have any number of digits.
            delays.append(min(rate.seconds, 10**9) / min(rate.requests, 10**9))
        known = [float(delay) for delay in delays if delay is not None and delay >= 0]
        return min(max(known), MAX_DELAY) if known else None


_HOST_KINDS = frozenset(
    ("private_address", "dns", "refused", "unreachable", "tls", "connect_timeout")
)
"""Failures that affect every URL of the host, not only robots.txt."""


def parse_robots(
    outcome: RawResponse | RequestFailure, agent: str, until: float = math.inf
) -> Robots:
    """Return the rules of robots.txt for `agent`, from the outcome of its request.

    RFC 9309, 2.3.1: after a 4xx or too many redirects there are no rules; without a response, or
    after a 5xx, nothing may be fetched (until the time `until`).
    """
    if isinstance(outcome, RawResponse):
        try:
            text = robots_text(outcome.body)
            lines = read_robots_lines(text, outcome.url, agent)
            return Robots(Protego.parse(_for_agent(text, agent)), lines)
        except Exception as error:  # noqa: BLE001 - errors of one robots.txt are caught here
            return Robots(failure=_parse_failure(error), until=until)
    status = outcome.status or 0
    if outcome.kind == "redirect_loop" or (300 <= status < 500 and status != 429):
        return Robots()
    kind = "robots_unreachable" if status else outcome.kind
    parts = [f"status {status}"] if status else []
    parts += [outcome.detail] if outcome.detail else []
    detail = ", ".join(parts)
    if kind not in _HOST_KINDS:  # the failure names the URL of the page, not of robots.txt
        detail = f"robots.txt: {detail}"
    failure = replace(outcome, kind=kind, detail=detail, retries_exhausted=True, retry_after=None)
    return Robots(failure=failure, until=until)


def robots_text(body: bytes) -> str:
    """Return the text of a robots.txt without a byte order mark, truncated to whole lines in its
    first `MAX_POLICY` bytes. Bytes that are not UTF-8 become %XX, as in URLs."""
    is_cut, body = len(body) >= MAX_POLICY, body[:MAX_POLICY]
    encoding = text_encoding(body)
    is_utf8 = encoding.startswith("utf-8")
    text = body.decode(encoding, "surrogateescape") if is_utf8 else decode_text(body)
    if is_cut:  # lines may end with LF, CR or both (RFC 9309, 2.2)
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    return _INVALID.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", text)


def _for_agent(text: str, agent: str) -> str:
    """Return the text with one name for all agents except `agent`, which bounds the time: a file
    may name thousands of agents before each of thousands of rules."""
    lower = agent.lower()

    def one(match: re.Match[str]) -> str:
        name = match[2].strip().lower()
        bare = name.replace("*", "") or name[:1]
        return match[1] + (bare if bare == "*" or bare in lower else _OTHER_AGENT)

    return _AGENT_LINE.sub(one, "\n".join(text.splitlines()))


def _parse_failure(error: Exception) -> RequestFailure:
    """Return the failure for rules that cannot be parsed: they do not count as permission."""
    detail = f"robots.txt cannot be read: {type(error).__name__}: {error}"
    return RequestFailure("robots_unreachable", detail[:200], retries_exhausted=True)
