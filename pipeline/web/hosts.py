"""The state of each host: its limiter, robots.txt and opt-out files."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.web.addresses import host_key
from pipeline.web.host_policy import HostPolicy
from pipeline.web.opt_out.robots_lines import NO_LINES, RobotsLines
from pipeline.web.politeness import HostLimiter, Politeness
from pipeline.web.responses import RawResponse, RequestFailure, UrlPolicy
from pipeline.web.robots import Robots, parse_robots


class Host:
    """The state that all requests to one host share. Hold `limiter.lock` to use it from threads.

    `is_fetching` is true while a policy file of the host is being fetched; other requests wait.
    """

    def __init__(self, name: str, politeness: Politeness) -> None:
        self.name = name
        self.limiter = HostLimiter(politeness)
        self.robots: Robots | None = None
        self.policy = HostPolicy(name, politeness)
        self.is_fetching = False
        self.robots_url = f"{name}/robots.txt"
        self._politeness = politeness

    def refusal(self, url: str, now: float) -> RequestFailure | None:
        """Return why robots.txt forbids `url`; None if it allows it or has not been fetched."""
        if self.robots is None or self._needs_robots(url, now):
            return None
        if not self._politeness.checks_robots(url):
            return None
        return self.robots.why_disallowed(url, self._politeness.user_agent)

    def missing_file(self, url: str, now: float) -> str | None:
        """Return the policy file to fetch before `url` may be requested, or None."""
        if self._needs_robots(url, now):
            return self.robots_url
        return self.policy.next_file(self._lines(url))

    def _needs_robots(self, url: str, now: float) -> bool:
        is_known = self.robots is not None and not self.robots.is_stale(now)
        return not is_known and self._politeness.checks_robots(url)

    def url_policy(self, url: str) -> UrlPolicy:
        """Return what the policy files say about `url`."""
        return self.policy.of_url(url, self._lines(url))

    def _lines(self, url: str) -> RobotsLines:
        if self.robots is None or not self._politeness.checks_robots(url):
            return NO_LINES
        return self.robots.lines

    def take_file(self, url: str, outcome: RawResponse | RequestFailure, now: float) -> None:
        """Store the policy file that was fetched from `url`, and wake waiting requests."""
        with self.limiter.lock:  # no thread sees a file that is half read
            try:
                if url != self.robots_url:
                    self.policy.take_file(url, outcome)
                    return
                agent = self._politeness.user_agent
                self.robots = parse_robots(outcome, agent, now + self._politeness.max_wait)
                self.limiter.crawl_delay(self.robots.crawl_delay(agent))
            finally:
                self.is_fetching = False
                self.limiter.lock.notify_all()

    def is_idle(self, now: float) -> bool:
        """Return True if the host has no request, cooldown or reduced rate."""
        limiter = self.limiter
        return not (
            self.is_fetching or limiter.busy or limiter.delay(now) > 0
            or limiter.slowdown > 1 or limiter.is_probing
        )  # fmt: skip


H = TypeVar("H", bound=Host)


class Hosts(Generic[H]):
    """The hosts by name. Idle hosts are forgotten when there are `most`, to bound the memory."""

    def __init__(
        self, politeness: Politeness, make: Callable[[str, Politeness], H], most: float = math.inf
    ) -> None:
        self.politeness = politeness
        self._make = make
        self._min_kept = self._most = most
        self._lock = threading.Lock()
        self._hosts: dict[str, H] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def all(self) -> list[H]:
        """Return a snapshot of all hosts."""
        with self._lock:
            return list(self._hosts.values())

    def of(self, url: str) -> H:
        """Return the host of `url`.

        Raises:
            ValueError: `url` cannot be requested.
        """
        name = host_key(url)
        with self._lock:
            if name not in self._hosts:
                if len(self._hosts) >= self._most:
                    self._forget_idle()
                self._hosts[name] = self._make(name, self.politeness)
            return self._hosts[name]

    def _forget_idle(self) -> None:
        now = time.monotonic()
        self._hosts = {name: host for name, host in self._hosts.items() if not host.is_idle(now)}
        # If most hosts are busy, look again only when there are twice as many.
        self._most = max(self._min_kept, 2 * len(self._hosts))
