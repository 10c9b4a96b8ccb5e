"""The state of each host: its limiter, robots.txt and opt-out files."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.web.failures import describe_internal
from pipeline.web.opt_out.directives import PATH, Reservation, TdmRep, read_tdmrep
from pipeline.web.opt_out.robots_lines import NO_LINES, RobotsLines
from pipeline.web.opt_out.rsl import RslDocument, header_licenses, read_rsl
from pipeline.web.opt_out.signals import Signal
from pipeline.web.politeness import HostLimiter, Politeness
from pipeline.web.responses import RawResponse, RequestFailure, UrlPolicy, stated_reservation
from pipeline.web.robots import Robots, parse_robots
from pipeline.web.urls import host_key, request_url

TRIALS = 10
"""A header or a page may lift the reservation of a tdmrep.json. If none of this many responses of a
host does, its reserved URLs are refused without a request."""

MAX_FILES = 16
"""Maximum number of licence files to fetch per host."""


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


@dataclass(frozen=True)
class UnreadFile:
    """A policy file that could not be read, and why; reported once per host."""

    url: str
    reason: str


class HostPolicy:
    """The policy files of one host: usage lines of robots.txt, tdmrep.json and licences.

    A driver fetches the URL that `next_file` returns and passes the outcome to `take_file`, until
    there is none. Then `of_url` returns what applies to a URL. Missing and invalid files state
    nothing.
    """

    def __init__(self, host: str, politeness: Politeness) -> None:
        self._unread: list[UnreadFile] = []
        self._politeness = politeness
        self._tdmrep_url = host + PATH
        self._tdmrep: TdmRep | None = None
        self._licenses: dict[str, RslDocument | None] = {}
        self._confirmed = 0
        self._is_lifted = False

    def next_file(self, lines: RobotsLines) -> str | None:
        """Return the URL of the next policy file to fetch, or None. `lines` are the usage lines of
        robots.txt."""
        if not self._politeness.honour_opt_out:
            return None
        if self._tdmrep is None:
            return self._tdmrep_url
        return self.next_license(requestable(lines.licenses))

    def next_license(self, licenses: list[str]) -> str | None:
        """Return the first of `licenses` that has not been fetched, or None."""
        if not self._politeness.honour_opt_out or len(self._licenses) >= MAX_FILES:
            return None
        return next((one for one in licenses if one not in self._licenses), None)

    def take_file(self, url: str, outcome: RawResponse | RequestFailure) -> None:
        """Store the contents of a policy file from the outcome of its request."""
        body = outcome.body if isinstance(outcome, RawResponse) else b""
        if isinstance(outcome, RequestFailure):
            status = outcome.status or 0
            if not 400 <= status < 500 or status == 429:
                suffix = f", status {status}" if status else ""
                self._unread.append(UnreadFile(url, f"{outcome.kind}{suffix}"))
        if url == self._tdmrep_url:
            self._tdmrep = TdmRep()
        else:
            self._licenses[url] = None
        try:
            self._read(url, body)
        except Exception as error:  # noqa: BLE001 - errors of one policy file are caught here
            self._unread.append(UnreadFile(url, describe_internal(error)))
            return
        if isinstance(outcome, RawResponse) and self._licenses.get(url, self) is None:
            self._unread.append(UnreadFile(url, "not RSL"))

    def _read(self, url: str, body: bytes) -> None:
        if url == self._tdmrep_url:
            self._tdmrep = read_tdmrep(body)
        else:
            self._licenses[url] = read_rsl(body)

    def take_unread(self) -> list[UnreadFile]:
        """Return the policy files that could not be read since the last call."""
        unread, self._unread = self._unread, []
        return unread

    def of_url(self, url: str, lines: RobotsLines) -> UrlPolicy:
        """Return what the policy files say about `url`."""
        signals = lines.signals(url)
        signals += self.license_signals(url, requestable(lines.licenses))
        reservation = self._tdmrep.reservation(url) if self._tdmrep else None
        if reservation and self._confirmed >= TRIALS and not self._is_lifted:
            return UrlPolicy((*signals, *reservation.signals()))
        return UrlPolicy(tuple(signals), reservation)

    def license_signals(self, url: str, licenses: list[str]) -> list[Signal]:
        """Return the signals of the fetched licences among `licenses` for `url`."""
        documents = [(one, self._licenses.get(one)) for one in licenses]
        return [
            signal for one, document in documents if document
            for signal in document.signals(url, one)
        ]  # fmt: skip

    def note_response(self, reservation: Reservation | None, response: RawResponse) -> None:
        """Count whether a response lifts the reservation of the host's tdmrep.json."""
        if reservation is not None and reservation.reserved and 200 <= response.status < 300:
            stated = stated_reservation(response, reservation)
            if stated is not None and not stated.reserved:
                self._is_lifted = True
            else:
                self._confirmed += 1


def linked_licenses(response: RawResponse) -> list[str]:
    """Return the URLs of the licences that the headers of a response link to."""
    if "link" not in response.headers:
        return []
    return requestable(header_licenses(response.headers, response.url))


def requestable(licenses: Sequence[str]) -> list[str]:
    """Return the URLs in `licenses` that can be requested, normalized."""
    found = []
    for one in licenses:
        try:
            found.append(request_url(one))
        except ValueError:
            continue
    return found
