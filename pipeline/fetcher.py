"""Polite HTTP: one call that waits its turn, follows, retries, and fails as a value."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.errors import Failure
from pipeline.web.addresses import host_key
from pipeline.web.failures import (
    FAILURE_KINDS,
    describe_internal,
    failure,
    internal_failure,
)
from pipeline.web.host_policy import (
    HostPolicy,
    UnreadFile,
    linked_licenses,
    policy_file_retries,
    requestable,
)
from pipeline.web.opt_out.robots_lines import NO_LINES
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.politeness import HostLimiter, Politeness
from pipeline.web.requests_transport import BodyLimit, DiskError, RequestsTransport, Watch
from pipeline.web.responses import (
    MAX_POLICY,
    NO_HEADERS,
    NO_POLICY,
    REDIRECTS,
    RawResponse,
    RequestFailure,
    Response,
    UrlPolicy,
    check_response,
    redirect_target,
    response_of,
    retry_policy,
)
from pipeline.web.robots import Robots, parse_robots
from pipeline.web.urls import request_url
from pipeline.web.waits import OnWait, Wait, WaitWatcher

__all__ = ["FAILURE_KINDS", "Fetcher", "FileTarget", "Politeness", "Response"]

_POLICY_LIMIT = BodyLimit(MAX_POLICY, may_cut=True)


@dataclass(frozen=True)
class FileTarget:
    """Where the body of a 200 goes instead of into memory: it may be of `max_bytes`, and take as
    long as it comes fast enough."""

    path: Path
    max_bytes: int


class Fetcher:
    """Gets pages politely. Safe to use from several threads.

    A request waits its turn at the gate of its host, is refused where robots.txt, an opt-out
    header or a private address says so, follows redirects by the same rules, and is tried again
    after a backoff while that can help.

    Args:
        politeness: the rules.
        on_wait: told of long waits, from a thread of its own.
    """

    def __init__(self, politeness: Politeness, on_wait: OnWait | None = None) -> None:
        self.politeness = politeness
        self._waits = WaitWatcher(on_wait)
        self._stopped = threading.Event()
        self._transport = RequestsTransport(politeness)
        self._policy = retry_policy(politeness)
        self._lock = threading.Lock()
        self._gates: dict[str, HostLimiter] = {}
        self._robots: dict[str, Robots] = {}
        self._file_policy = policy_file_retries(politeness)
        self._policies: dict[str, HostPolicy] = {}
        self._policy_locks: dict[str, threading.Lock] = {}

    def close(self) -> None:
        self.stop()
        self._waits.close()
        self._transport.close()

    def stop(self) -> None:
        """End what waits in other threads: it fails as a host that rests."""
        self._stopped.set()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(
        self,
        url: str,
        *,
        stage: str,
        headers: Mapping[str, str] | None = None,
        copy: FileTarget | None = None,
        max_bytes: int | None = None,
    ) -> Response | Failure:
        """The answer to a GET, or the failure it ended in.

        A 304 is a `Response` (send `If-None-Match` in `headers`); other statuses but 2xx are
        failures. With `copy` the body of a 200 is in that file, and empty here.

        Args:
            max_bytes: of the body; None is what the politeness allows a page.

        Raises:
            OSError: the body cannot be copied to the disk.
        """
        limit = BodyLimit(max_bytes or self.politeness.max_page_bytes)
        if copy is not None:
            limit = BodyLimit(copy.max_bytes, copy=copy.path)
        attempts = 0

        def once() -> Response | RequestFailure:
            nonlocal attempts
            attempts += 1
            return self._follow(url, headers or NO_HEADERS, attempts, limit)

        try:
            result = self._policy.copy(sleep=partial(self._sleep, url))(once)
        except DiskError as error:
            raise error.reason from None
        except Exception as error:  # noqa: BLE001 - the boundary of one page
            return internal_failure(stage, url, error)
        if isinstance(result, Response):
            return result
        detail = result.detail
        if result.kind == "too_large" and copy is None:
            detail += "; politeness.max_page_bytes can allow more"
        return failure(
            stage, url, result.kind, status=result.status, attempts=attempts, detail=detail
        )

    def _follow(
        self, url: str, headers: Mapping[str, str], attempts: int, limit: BodyLimit
    ) -> Response | RequestFailure:
        try:
            seen = [request_url(url)]
        except ValueError as error:
            return RequestFailure("bad_url", str(error))
        signals: tuple[Signal, ...] = ()
        while True:
            host = host_key(seen[-1])
            refused = self._refused_by_robots(host, seen[-1])
            if refused is not None:
                return refused
            policy = self._url_policy(host, seen[-1])
            policy = replace(policy, signals=(*signals, *policy.signals))
            if refusing := self.politeness.refusing(policy.signals):
                return RequestFailure("opt_out", describe(refusing))
            answer = self._at_gate(host, seen[-1], headers, limit, policy=policy)
            if isinstance(answer, RequestFailure):
                return answer
            signals = answer.signals
            if answer.status not in REDIRECTS:
                signals += tuple(self.license_signals(answer.url, linked_licenses(answer)))
                if refusing := self.politeness.refusing(signals):
                    return RequestFailure("opt_out", describe(refusing), answer.status)
                answer = replace(answer, signals=signals)
                return response_of(answer, attempts)
            target = redirect_target(answer)
            if isinstance(target, RequestFailure):
                return target
            if target in seen or len(seen) > self.politeness.max_redirects:
                return RequestFailure("redirect_loop", f"{len(seen)} redirects, to {target}")
            seen.append(target)

    def _sleep(self, url: str, seconds: float) -> None:
        """Until the next try."""
        until, host = time.monotonic() + seconds, host_key(url)
        again = "another try after a failure"
        with self._waits.during(lambda now: Wait(host, again, again, until - now)):
            self._stopped.wait(seconds)

    def _gate(self, host: str) -> HostLimiter:
        with self._lock:
            return self._gates.setdefault(host, HostLimiter(self.politeness))

    def _at_gate(
        self,
        host: str,
        url: str,
        headers: Mapping[str, str],
        limit: BodyLimit,
        is_policy: bool = False,
        policy: UrlPolicy = NO_POLICY,
    ) -> RawResponse | RequestFailure:
        gate = self._gate(host)
        with self._waits.during(partial(_gate_wait, host, gate)), gate.lock:
            while (delay := gate.delay(time.monotonic())) > 0 or self._stopped.is_set():
                if self._stopped.is_set():
                    return RequestFailure("host_resting", "stopped")
                if gate.is_unavailable(time.monotonic()):
                    return RequestFailure("host_resting", gate.describe_rest(time.monotonic()))
                gate.lock.wait(min(delay, 1.0))
            gate.start(time.monotonic())
        kind: str | None = "internal"
        asked: float | None = None
        watch = Watch()
        try:
            with self._waits.during(lambda _: _request_wait(host, watch)):
                answer = self._transport.request(url, headers, limit, watch)
            judged = answer
            if isinstance(answer, RawResponse):
                judged = check_response(self.politeness, answer, is_policy=is_policy, policy=policy)
                self._host_policy(host).note_answer(policy.reservation, answer)
            kind = judged.kind if isinstance(judged, RequestFailure) else None
            asked = judged.retry_after if isinstance(judged, RequestFailure) else None
            return judged
        finally:
            with gate.lock:
                gate.finish(time.monotonic(), kind, asked)

    def _refused_by_robots(self, host: str, url: str) -> RequestFailure | None:
        if not self.politeness.checks_robots(url):
            return None
        with self._policy_lock(host):
            robots = self._robots.get(host)
            if robots is None or robots.is_stale(time.monotonic()):
                robots = self._robots[host] = self._ask_robots(host)
                gate = self._gate(host)
                with gate.lock:
                    gate.crawl_delay(robots.crawl_delay(self.politeness.user_agent))
        return robots.why_disallowed(url, self.politeness.user_agent)

    def _policy_lock(self, host: str) -> threading.Lock:
        with self._lock:
            return self._policy_locks.setdefault(host, threading.Lock())

    def _host_policy(self, host: str) -> HostPolicy:
        with self._lock:
            if host not in self._policies:
                self._policies[host] = HostPolicy(host, self.politeness)
            return self._policies[host]

    def _url_policy(self, host: str, url: str) -> UrlPolicy:
        """What the policy files of the host say about `url`; they are fetched at the first one."""
        policy = self._host_policy(host)
        with self._policy_lock(host):
            robots = self._robots.get(host) if self.politeness.checks_robots(url) else None
            lines = robots.lines if robots else NO_LINES
            while (file := policy.next_file(lines)) is not None:
                self._take_file(policy, file)
        return policy.of_url(url, lines)

    def license_signals(self, url: str, licenses: Sequence[str]) -> list[Signal]:
        """The opt-out signals for `url` in RSL licences that an answer or a page links to."""
        if not licenses:
            return []
        host = host_key(url)
        policy = self._host_policy(host)
        wanted = requestable(licenses)
        with self._policy_lock(host):
            while (file := policy.next_license(wanted)) is not None:
                self._take_file(policy, file)
        return policy.license_signals(url, wanted)

    def _take_file(self, policy: HostPolicy, url: str) -> None:
        """Fetch a policy file. Whatever comes of it, the pages of the host are fetched."""
        try:
            outcome = self._file_policy.copy(sleep=partial(self._sleep, url))(
                self._fetch_policy, url
            )
        except Exception as error:  # noqa: BLE001 - the boundary of one policy file
            outcome = RequestFailure("internal", describe_internal(error))
        policy.take_file(url, outcome)

    def take_unread(self) -> list[UnreadFile]:
        """The policy files that could not be read, since the last call."""
        with self._lock:
            policies = list(self._policies.values())
        return [file for policy in policies for file in policy.take_unread()]

    def _ask_robots(self, host: str) -> Robots:
        policy = self._policy.copy(sleep=partial(self._sleep, host))
        answer = policy(self._fetch_policy, f"{host}/robots.txt")
        until = time.monotonic() + self.politeness.max_wait
        return parse_robots(answer, self.politeness.user_agent, until)

    def _fetch_policy(self, url: str) -> RawResponse | RequestFailure:
        host = host_key(url)
        for _ in range(self.politeness.max_redirects + 1):
            answer = self._at_gate(host, url, NO_HEADERS, _POLICY_LIMIT, is_policy=True)
            if isinstance(answer, RequestFailure) or answer.status not in REDIRECTS:
                return answer
            target = redirect_target(answer)
            if isinstance(target, RequestFailure):
                return target
            url, host = target, host_key(target)
        return RequestFailure("redirect_loop", url, 302)


def _gate_wait(host: str, gate: HostLimiter, now: float) -> Wait:
    reason, left = gate.waits_for(now), gate.delay(now)
    return Wait(host, reason, reason, left if left < math.inf else None)


def _request_wait(host: str, watch: Watch) -> Wait:
    reason = watch.waits_for()
    so_far = f" ({watch.nbytes / 1e6:.1f} MB so far)" if watch.nbytes else ""
    return Wait(host, reason, reason + so_far)
