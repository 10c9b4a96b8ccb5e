"""How polite to be, and the gate in front of each host that keeps to it.

Decisions are pure functions of the time handed in; who sleeps and how is the caller's business.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.web.opt_out.signals import Signal, check_overrides

CONTACT_VARIABLE: Final = "SHELLGAN_CONTACT"
MAX_DELAY: Final = 7 * 86400.0
"""Seconds: the longest wait that a server can ask for; a longer one counts as this."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, config=STRICT)
class Politeness:
    """The `[politeness]` table of a recipe.

    `rate` is in requests a second and `concurrency` in requests under way, both a host; `contact`
    (an address or URL, else the environment's SHELLGAN_CONTACT) goes into the User-Agent. Timeouts
    are in seconds: to the connection, to the first byte of the answer, and of one request in
    all; a body slower than `min_speed` bytes/s for `min_speed_window` seconds is given up.
    `max_bytes` bounds an image, and `max_page_bytes` a page, which takes many times its size to
    read (sitemaps, feeds and answers of an API may be larger, see `sources`). A Retry-After or
    rest longer than `max_wait` seconds is not waited for: the failure is logged and retried from
    the log. A host is rested after `rest_after` connection failures in a row.
    `robots_except` are beginnings of URLs that robots.txt is not asked about: the endpoint of an
    API that is there for programs, on a host that shuts it to search engines.
    `opt_out_overrides` maps an opt-out signal to the reason why it does not count here;
    `honour_opt_out = false` overrides all of them without one.
    `headers` go with every request; but Authorization and Cookie only to the hosts of the source's
    `start`. `host_headers` are those of one host, by its URL (`[politeness.host_headers]`,
    "https://example.org" = {Authorization = "…"}); the user and password in a URL of the recipe
    become one.
    """

    user_agent: str = Field(default="ShellGAN/0.1", min_length=1, pattern=r"^[\x20-\x7e]+$")
    contact: str = Field(default="", pattern=r"^[\x21-\x7e]*$")
    rate: float = Field(default=2.0, gt=0)
    concurrency: int = Field(default=2, ge=1, le=256)
    obey_robots: bool = True
    robots_except: tuple[str, ...] = ()
    honour_opt_out: bool = True
    opt_out_overrides: Annotated[dict[str, str], AfterValidator(check_overrides)] = Field(
        default_factory=dict
    )
    allow_private: bool = False
    connect_timeout: float = Field(default=10.0, gt=0)
    first_byte_timeout: float = Field(default=30.0, gt=0)
    total_timeout: float = Field(default=120.0, gt=0)
    min_speed: int = Field(default=1024, ge=0)
    min_speed_window: float = Field(default=20.0, gt=0)
    max_bytes: int = Field(default=64 << 20, ge=1)
    max_page_bytes: int = Field(default=4 << 20, ge=1)
    max_pixels: int = Field(default=100_000_000, ge=1)
    max_redirects: int = Field(default=8, ge=0)
    attempts: int = Field(default=4, ge=1)
    backoff: float = Field(default=1.0, ge=0)
    max_backoff: float = Field(default=60.0, gt=0)
    max_wait: float = Field(default=120.0, ge=0)
    rest_after: int = Field(default=5, ge=1)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    host_headers: dict[str, dict[str, str]] = Field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        tables = (self.headers, *self.host_headers.values())
        for name, value in (one for table in tables for one in table.items()):
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"headers: {name!r} cannot be sent as a header")

    @property
    def num_processes(self) -> int:
        """How many processes ask the hosts at once, each by such rules."""
        return 1

    def checks_robots(self, url: str) -> bool:
        """Return True if robots.txt applies to `url`."""
        return self.obey_robots and not url.startswith(self.robots_except)

    def override_reason(self, signal: str) -> str | None:
        """Why the recipe does not count an opt-out signal, or None if it counts."""
        if not self.honour_opt_out:
            return "honour_opt_out = false"
        return self.opt_out_overrides.get(signal)

    def refusing(self, signals: Iterable[Signal]) -> list[Signal]:
        """Return those of `signals` that the recipe does not override."""
        return [signal for signal in signals if self.override_reason(signal.name) is None]

    @property
    def full_user_agent(self) -> str:
        """The whole User-Agent: who we are, what for, and how to reach the operator."""
        contact = self.contact or os.environ.get(CONTACT_VARIABLE, "")
        return f"{self.user_agent} (image data set builder; +{contact or 'no contact given'})"


@dataclass(frozen=True, config=STRICT)
class PolitenessShare(Politeness):
    """The rules for one of `workers` processes that ask the same hosts at once. Never in a
    recipe; made by `share`."""

    workers: int = Field(default=1, ge=1)

    @property
    def num_processes(self) -> int:
        return self.workers


def share(politeness: Politeness, workers: int) -> Politeness:
    """Return what one of `workers` processes may do, so that a host never sees more than
    `politeness` allows: that part of the rate and of the places; a crawl-delay becomes that much
    longer.

    The number of workers must not exceed `concurrency`: each needs a place.
    """
    values = {name: getattr(politeness, name) for name in Politeness.__dataclass_fields__}
    values["rate"] = politeness.rate / workers
    values["concurrency"] = politeness.concurrency // workers
    return PolitenessShare(**values, workers=workers)


_BURST_SECONDS = 0.05
"""A turn may be taken up to so many seconds' worth of tokens late without losing them."""

_CONNECTION_KINDS = frozenset(
    ("dns", "refused", "unreachable", "tls", "connect_timeout", "first_byte_timeout")
)


class HostLimiter:
    """Lets requests to one host through: at most `concurrency` at a time, by a token bucket.

    The rate adapts: a 429 or 503 halves it, down to a hundredth; successes bring it back by a
    twentieth each. Retry-After and repeated connection failures rest the host. Not thread-safe by
    itself: hold `lock`.
    """

    def __init__(self, politeness: Politeness) -> None:
        self.lock = threading.Condition()
        self.interval = 1.0 / politeness.rate
        self.slowdown = 1.0
        self.busy = 0
        self._politeness = politeness
        self._next = -math.inf
        self._rest_until = -math.inf
        self._rest_reason = ""
        self._has_crawl_delay = False
        self._lost = 0

    def crawl_delay(self, seconds: float | None) -> None:
        """Keep to robots.txt's crawl-delay where it is stricter than the recipe."""
        if seconds is not None and seconds >= 0:
            seconds = min(seconds, MAX_DELAY) * self._politeness.num_processes
            self._has_crawl_delay = self._has_crawl_delay or seconds > self.interval
            self.interval = max(self.interval, seconds)

    def delay(self, now: float) -> float:
        """Seconds from `now` until a request may start; infinite while all places are taken."""
        if self.busy >= (1 if self.is_probing else self._politeness.concurrency):
            return math.inf
        return max(0.0, self._next - now, self._rest_until - now)

    @property
    def is_probing(self) -> bool:
        """Whether the host failed so often in a row that only one request at a time probes it."""
        return self._lost >= self._politeness.rest_after

    def cooldown_left(self, now: float) -> float:
        """Seconds the host is still to be left alone."""
        return max(0.0, self._rest_until - now)

    def describe_rest(self, now: float) -> str:
        """Why the host is left alone, and for how long."""
        return f"{self._rest_reason}; {self.cooldown_left(now):.0f} s are left"

    def start(self, now: float) -> None:
        """Count a request that starts; call it only if `delay` is 0."""
        interval = self.interval * self.slowdown
        late = _BURST_SECONDS if interval < _BURST_SECONDS else 0.0
        self._next = max(self._next, now - late) + interval
        self.busy += 1

    def finish(self, now: float, kind: str | None, retry_after: float | None = None) -> None:
        """Count a request that ended: successfully (`kind` None) or with a failure of `kind`."""
        self.busy -= 1
        if kind in ("rate_limited", "unavailable"):
            self.slowdown = min(100.0, self.slowdown * 2)
            self._next = max(self._next, now + self.interval * self.slowdown)
        elif kind is None:
            # Back by a twentieth of the full rate for each success.
            self.slowdown = 1.0 / min(1.0, 1.0 / self.slowdown + 0.05)
        if retry_after is not None and retry_after >= 0:
            self._rest(now + min(retry_after, MAX_DELAY), "a pause that the server asks for")
        self._lost = self._lost + 1 if kind in _CONNECTION_KINDS else 0
        if self.is_probing:
            more = self._lost - self._politeness.rest_after
            pause = max(self._politeness.backoff, 0.01) * 2.0 ** min(more + 3, 16)
            until = now + min(pause, MAX_DELAY)
            self._rest(until, f"a rest after failures in a row (the last: {kind})")
        self.lock.notify_all()

    def _rest(self, until: float, reason: str) -> None:
        if until > self._rest_until:
            self._rest_until, self._rest_reason = until, reason

    def waits_for(self, now: float) -> str:
        """Return the reason why a request to the host must wait."""
        if self._rest_until > max(now, self._next):
            return self._rest_reason
        if self._next > now:
            if self._has_crawl_delay:
                return "the crawl-delay in robots.txt"
            if self.slowdown > 1:
                return "a slower rate after answers of 429 or 503"
            return "politeness.rate"
        return "its turn, behind other requests to the host"

    def is_unavailable(self, now: float) -> bool:
        """Return True if the host's cooldown is longer than the recipe accepts."""
        return self.cooldown_left(now) > self._politeness.max_wait
