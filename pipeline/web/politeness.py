"""Politeness options of a recipe, and the limiter that enforces them per host.

The limiter never sleeps: it takes the current time as an argument, and the caller waits.
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
"""Longest wait in seconds that a server can request; longer ones are shortened to this."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, config=STRICT)
class Politeness:
    """The `[politeness]` options of a recipe.

    `rate` is the maximum number of requests per second and `concurrency` of requests in flight,
    both per host. `user_agent` is the name in the User-Agent; `contact` (an e-mail address or URL;
    default: the environment variable SHELLGAN_CONTACT) is added to the User-Agent.
    `connect_timeout`, `first_byte_timeout` and `total_timeout` are in seconds: until the
    connection, until the first byte of the response, and of the whole request. A body slower than
    `min_speed` bytes/s for `min_speed_window` seconds fails. `max_bytes` limits an image and
    `max_page_bytes` a page, which takes many times its size to parse (sources may allow more, see
    `sources.interface.Adapter`). If a Retry-After or cooldown is longer than `max_wait` seconds,
    the request fails and can be retried from the failure log. A host gets a cooldown after
    `rest_after` consecutive connection failures. `max_pixels` limits the pixels of an image, from
    its header. `max_redirects` limits the redirects of a request. A request is sent at most
    `attempts` times; before the next attempt there is a random pause of at most `backoff` seconds,
    doubled each time up to `max_backoff`. `obey_robots = false` ignores robots.txt. `allow_private`
    admits hosts in private networks. `robots_except` are URL prefixes to which robots.txt is not
    applied, such as an API for programs on a host that excludes search engines from it.
    `opt_out_overrides` maps an opt-out signal to the reason why it is ignored; `honour_opt_out =
    false` overrides all signals without a reason. `headers` are sent with every request, except
    that Authorization and Cookie are sent only to the hosts of the source's `start`. `host_headers`
    are sent to one host, given by its URL (`[politeness.host_headers]`, "https://example.org" =
    {Authorization = "…"}). A user and password in a URL of the recipe become an entry.
    """

    user_agent: str = Field(default="ShellGAN/0.2", min_length=1, pattern=r"^[\x20-\x7e]+$")
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
        """Number of processes that send requests with these options at once."""
        return 1

    def checks_robots(self, url: str) -> bool:
        """Return True if robots.txt applies to `url`."""
        return self.obey_robots and not url.startswith(self.robots_except)

    def override_reason(self, signal: str) -> str | None:
        """Return why the recipe overrides an opt-out signal; None if it does not."""
        if not self.honour_opt_out:
            return "honour_opt_out = false"
        return self.opt_out_overrides.get(signal)

    def refusing(self, signals: Iterable[Signal]) -> list[Signal]:
        """Return those of `signals` that the recipe does not override."""
        return [signal for signal in signals if self.override_reason(signal.name) is None]

    @property
    def full_user_agent(self) -> str:
        """The complete User-Agent, with the purpose and the contact."""
        contact = self.contact or os.environ.get(CONTACT_VARIABLE, "")
        return f"{self.user_agent} (image data set builder; +{contact or 'no contact given'})"


@dataclass(frozen=True, config=STRICT)
class PolitenessShare(Politeness):
    """The options of one of `workers` processes that send requests to the same hosts. Returned by
    `share`; never part of a recipe."""

    workers: int = Field(default=1, ge=1)

    @property
    def num_processes(self) -> int:
        return self.workers


def share(politeness: Politeness, workers: int) -> Politeness:
    """Return the options of one of `workers` processes, so that together they stay within
    `politeness`: rate and concurrency are divided, and a crawl-delay is multiplied.

    `workers` must not exceed `concurrency`.
    """
    values = {name: getattr(politeness, name) for name in Politeness.__dataclass_fields__}
    values["rate"] = politeness.rate / workers
    values["concurrency"] = politeness.concurrency // workers
    return PolitenessShare(**values, workers=workers)


_BURST_SECONDS = 0.05
"""A request may start this many seconds late without delaying the next ones."""

_CONNECTION_KINDS = frozenset(
    ("dns", "refused", "unreachable", "tls", "connect_timeout", "first_byte_timeout")
)


class HostLimiter:
    """Limits the requests to one host: at most `concurrency` in flight, at `rate` per second.

    A status of 429 or 503 halves the rate, down to a hundredth; each success restores a twentieth
    of it. Retry-After and repeated connection failures start a cooldown. To use it from threads,
    hold `lock`.
    """

    def __init__(self, politeness: Politeness) -> None:
        self.lock = threading.Condition()
        self.interval = 1.0 / politeness.rate
        self.slowdown = 1.0
        self.busy = 0
        self._politeness = politeness
        self._next = -math.inf
        self._cooldown_until = -math.inf
        self._cooldown_reason = ""
        self._has_crawl_delay = False
        self._lost = 0

    def crawl_delay(self, seconds: float | None) -> None:
        """Apply the crawl-delay of robots.txt if it is stricter than the recipe."""
        if seconds is not None and seconds >= 0:
            seconds = min(seconds, MAX_DELAY) * self._politeness.num_processes
            self._has_crawl_delay = self._has_crawl_delay or seconds > self.interval
            self.interval = max(self.interval, seconds)

    def delay(self, now: float) -> float:
        """Return the seconds until a request may start; infinite at the maximum concurrency."""
        if self.busy >= (1 if self.is_probing else self._politeness.concurrency):
            return math.inf
        return max(0.0, self._next - now, self._cooldown_until - now)

    @property
    def is_probing(self) -> bool:
        """Whether the host failed so often that only one request at a time is sent to it."""
        return self._lost >= self._politeness.rest_after

    def cooldown_left(self, now: float) -> float:
        """Return the remaining seconds of the cooldown."""
        return max(0.0, self._cooldown_until - now)

    def describe_cooldown(self, now: float) -> str:
        """Return the reason for the cooldown and its remaining time."""
        return f"{self._cooldown_reason}; {self.cooldown_left(now):.0f} s left"

    def start(self, now: float) -> None:
        """Record that a request starts. Call it only if `delay` is 0."""
        interval = self.interval * self.slowdown
        late = _BURST_SECONDS if interval < _BURST_SECONDS else 0.0
        self._next = max(self._next, now - late) + interval
        self.busy += 1

    def finish(self, now: float, kind: str | None, retry_after: float | None = None) -> None:
        """Record that a request succeeded (`kind` None) or failed with `kind`."""
        self.busy -= 1
        if kind in ("rate_limited", "unavailable"):
            self.slowdown = min(100.0, self.slowdown * 2)
            self._next = max(self._next, now + self.interval * self.slowdown)
        elif kind is None:
            # Each success restores a twentieth of the full rate.
            self.slowdown = 1.0 / min(1.0, 1.0 / self.slowdown + 0.05)
        if retry_after is not None and retry_after >= 0:
            self._start_cooldown(
                now + min(retry_after, MAX_DELAY), "a pause requested by the server"
            )
        self._lost = self._lost + 1 if kind in _CONNECTION_KINDS else 0
        if self.is_probing:
            more = self._lost - self._politeness.rest_after
            pause = max(self._politeness.backoff, 0.01) * 2.0 ** min(more + 3, 16)
            until = now + min(pause, MAX_DELAY)
            self._start_cooldown(until, f"a cooldown after consecutive failures (the last: {kind})")
        self.lock.notify_all()

    def _start_cooldown(self, until: float, reason: str) -> None:
        if until > self._cooldown_until:
            self._cooldown_until, self._cooldown_reason = until, reason

    def waits_for(self, now: float) -> str:
        """Return the reason why a request to the host must wait."""
        if self._cooldown_until > max(now, self._next):
            return self._cooldown_reason
        if self._next > now:
            if self._has_crawl_delay:
                return "the crawl-delay in robots.txt"
            if self.slowdown > 1:
                return "a rate reduced after a status of 429 or 503"
            return "politeness.rate"
        return "its turn, behind other requests to the host"

    def is_unavailable(self, now: float) -> bool:
        """Return True if the host's cooldown is longer than the recipe accepts."""
        return self.cooldown_left(now) > self._politeness.max_wait
