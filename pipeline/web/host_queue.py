"""The URLs that wait for one host, and what is known of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.web.host_policy import HostPolicy
from pipeline.web.opt_out.robots_lines import NO_LINES, RobotsLines
from pipeline.web.opt_out.signals import Signal
from pipeline.web.politeness import HostLimiter, Politeness
from pipeline.web.responses import NO_POLICY, RawResponse, UrlPolicy
from pipeline.web.robots import Robots

T = TypeVar("T")


@dataclass(eq=False)
class FetchJob(Generic[T]):
    """One URL on its way. A job without a token fetches a policy file of the host `robots_of`: its
    robots.txt, or `policy_file`.

    `policy` is what the policy files say about the URL; `signals` are overridden opt-out signals
    of the URLs that redirected here.
    """

    token: T | None
    url: str
    headers: Mapping[str, str]
    robots_of: HostQueue[T] | None = None
    seen: list[str] = field(default_factory=list)
    attempts: int = 1
    partial: RawResponse | None = None
    is_over: bool = False
    policy_file: str = ""
    policy: UrlPolicy = NO_POLICY
    signals: tuple[Signal, ...] = ()

    @property
    def current_url(self) -> str:
        """Where redirects have led to."""
        return self.seen[-1] if self.seen else self.url


class HostQueue(Generic[T]):
    """A host: its gate, its policy files and the jobs that wait for it. `parked` are answers that
    wait for a licence they link to."""

    def __init__(self, name: str, politeness: Politeness) -> None:
        self.name = name
        self.limiter = HostLimiter(politeness)
        self.queue: deque[FetchJob[T]] = deque()
        self.robots: Robots | None = None
        self.policy = HostPolicy(name, politeness)
        self.parked: list[tuple[FetchJob[T], RawResponse]] = []
        self.robots_pending = False
        self.scheduled = False

    def lines(self, url: str, politeness: Politeness) -> RobotsLines:
        """The lines of robots.txt on the use of `url`; none if robots.txt is not asked about it."""
        asks = self.robots is not None and politeness.checks_robots(url)
        return self.robots.lines if self.robots is not None and asks else NO_LINES

    def idle(self, now: float) -> bool:
        """Whether nothing is lost by forgetting the host: no work, no rest, no slower rate."""
        gate = self.limiter
        return not (
            self.queue or self.scheduled or self.robots_pending or self.parked or gate.busy
            or gate.delay(now) > 0 or gate.slowdown > 1 or gate.is_probing
        )  # fmt: skip
