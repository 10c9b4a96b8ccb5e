"""One GET as a state machine without I/O.

A driver performs the actions that `Request.next` returns and passes responses to `Request.receive`.
The rules are in `robots`, `hosts` (opt-outs), `politeness`, `attempts` and `failures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pipeline.errors import Failure
from pipeline.web.attempts import (
    FILE_ATTEMPTS,
    append_range,
    delay_before_retry,
    join_ranges,
    next_url,
    resume_headers,
)
from pipeline.web.failures import describe_internal, failure
from pipeline.web.hosts import Host, Hosts, linked_licenses
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.responses import (
    NO_HEADERS,
    NO_POLICY,
    REDIRECTS,
    RawResponse,
    RequestFailure,
    Response,
    check_response,
    response_of,
)
from pipeline.web.urls import request_url
from pipeline.web.waits import Wait

H = TypeVar("H", bound=Host)
Outcome = RawResponse | RequestFailure
_INTERNAL = RequestFailure("internal")


@dataclass(frozen=True)
class Send:
    """Send a GET now. It counts as in flight until `Request.receive` or `Request.abort`."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class WaitUntil:
    """Call `next` again at `time`, or when a request to the host or its policy file ends."""

    host: str
    time: float
    reason: str

    def describe(self, now: float) -> Wait:
        """Return the wait with the seconds left at `now`."""
        left = self.time - now if self.time < math.inf else None
        return Wait(self.host, self.reason, self.reason, left)


@dataclass(frozen=True)
class FetchFile(Generic[H]):
    """Fetch the policy file `url` of `host` (robots.txt, tdmrep.json or a licence) by `request`,
    and pass its outcome to `host.take_file`."""

    host: H
    url: str
    request: Request[H]


@dataclass(frozen=True)
class Done:
    """The request is over."""

    outcome: Outcome


class Request(Generic[H]):
    """A GET that observes robots.txt, opt-outs and rate, with redirects and retries.

    Args:
        hosts: state shared by all requests.
        headers: sent with every hop, unless the transport drops them as unsafe.
        is_file: whether this fetches a policy file, to which robots.txt and opt-outs do not apply.
        attempts: maximum number of attempts; None: the one of the politeness options.
        check: returns what is wrong with the body of a successful response, or None.
    """

    def __init__(
        self,
        hosts: Hosts[H],
        url: str,
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        is_file: bool = False,
        attempts: int | None = None,
        check: Callable[[RawResponse], RequestFailure | None] | None = None,
    ) -> None:
        self.url = url  # as given, for the failure log
        self.is_file = is_file
        self.attempts = 1
        self.not_before = -math.inf
        """Start of the next attempt, in seconds of the monotonic clock."""
        self.outcome: Outcome | None = None
        self._hosts = hosts
        self._politeness = hosts.politeness
        self._max_attempts = attempts
        self._headers = headers
        self._check = check
        self._visited = [url]
        self._partial: RawResponse | None = None
        self._signals: tuple[Signal, ...] = ()
        self._policy = NO_POLICY if is_file else None
        self._response: RawResponse | None = None
        self._sent_to: H | None = None
        try:
            self._visited = [request_url(url)]
        except ValueError as error:
            self.outcome = RequestFailure("bad_url", str(error))

    @property
    def current_url(self) -> str:
        """The URL after the redirects so far."""
        return self._visited[-1]

    @property
    def host(self) -> H:
        """The host of the current URL."""
        return self._hosts.of(self.current_url)

    @property
    def is_redirected(self) -> bool:
        """Whether the next hop follows a redirect."""
        return len(self._visited) > 1

    @property
    def has_response(self) -> bool:
        """Whether nothing more is sent for `url`; a licence may still have to be fetched."""
        return self.outcome is not None or self._response is not None

    def next(self, now: float) -> Send | WaitUntil | FetchFile[H] | Done:
        """Return what to do at `now` (seconds of the monotonic clock)."""
        if self.outcome is not None:
            return Done(self.outcome)
        host = self.host
        if self._response is not None:
            return self._check_licenses(host, self._response)
        if now < self.not_before:
            return WaitUntil(host.name, self.not_before, "a retry after a failure")
        with host.limiter.lock:
            if self._policy is None and (refused := host.refusal(self.current_url, now)):
                return self._end(refused)
            if host.limiter.is_unavailable(now):
                reason = host.limiter.describe_cooldown(now)
                return self._end(RequestFailure("host_cooldown", reason))
            if self._policy is None and (action := self._check_policies(host, now)) is not None:
                return action
            if (delay := host.limiter.delay(now)) > 0:
                return WaitUntil(host.name, now + delay, host.limiter.waits_for(now))
            host.limiter.start(now)
            self._sent_to = host
        return Send(self.current_url, {**self._headers, **resume_headers(self._partial)})

    def _check_policies(self, host: H, now: float) -> WaitUntil | FetchFile[H] | Done | None:
        """Apply the policy files of the host. Return None if the URL may be requested."""
        url = self.current_url
        if (file := host.missing_file(url, now)) is not None:
            return self._fetch(host, file)
        found = host.url_policy(url)
        policy = replace(found, signals=(*self._signals, *found.signals))
        if refusing := self._politeness.refusing(policy.signals):
            return self._end(RequestFailure("opt_out", describe(refusing)))
        self._policy = policy
        return None

    def _fetch(self, host: H, file: str) -> WaitUntil | FetchFile[H]:
        with host.limiter.lock:
            if host.is_fetching:
                return WaitUntil(host.name, math.inf, "robots.txt or an opt-out file of the host")
            host.is_fetching = True
        return FetchFile(host, file, file_request(self._hosts, host, file))

    def _check_licenses(self, host: H, response: RawResponse) -> WaitUntil | FetchFile[H] | Done:
        """End with a successful response if the licences that it links to allow it."""
        licenses = linked_licenses(response)
        if (file := host.policy.next_license(licenses)) is not None:
            return self._fetch(host, file)
        signals = host.policy.license_signals(response.url, licenses)
        if refusing := self._politeness.refusing(signals):
            return self._end(RequestFailure("opt_out", describe(refusing), response.status))
        response = replace(response, signals=(*response.signals, *signals))
        return self._end(response_of(response, self.attempts))

    def receive(self, outcome: Outcome, now: float) -> None:
        """Process the response or failure of the last `Send`."""
        checked: Outcome = _INTERNAL
        try:
            checked = self._join_and_check(outcome)
        finally:
            self.release(now, checked)
        if isinstance(checked, RequestFailure):
            self._retry(checked, now)
        elif checked.status in REDIRECTS:
            self._redirect(checked)
        elif self._check is not None and (wrong := self._check(checked)) is not None:
            self._partial = None
            self._retry(wrong, now)
        elif self.is_file:
            self.outcome = checked
        else:
            self._response = checked

    def abort(self, error: Exception | RequestFailure, now: float) -> None:
        """End the request with `error`, unless it has ended."""
        if isinstance(error, Exception):
            detail = describe_internal(error)
            error = RequestFailure("internal", detail, retries_exhausted=True)
        self.release(now, error)
        self.outcome = self.outcome or error

    def result(self, stage: str, size_option: str = "") -> Response | Failure:
        """Return the response, or the failure for the log of `stage`. Call it only after the end.

        Args:
            size_option: the option that allows larger bodies.
        """
        if isinstance(outcome := self.outcome, Response):
            return outcome
        assert isinstance(outcome, RequestFailure)
        kind, status, detail = outcome.kind, outcome.status, outcome.detail
        if kind == "too_large" and size_option:
            detail += f"; {size_option} can allow more"
        return failure(stage, self.url, kind, status=status, attempts=self.attempts, detail=detail)

    def _end(self, outcome: Outcome) -> Done:
        self.outcome = outcome
        return Done(outcome)

    def release(self, now: float, checked: Outcome = _INTERNAL) -> None:
        """Record at the host that the request is no longer in flight, if it was."""
        host, self._sent_to = self._sent_to, None
        if host is None:
            return
        with host.limiter.lock:
            if isinstance(checked, RequestFailure):
                host.limiter.finish(now, checked.kind, checked.retry_after)
            else:
                host.limiter.finish(now, None)

    def _join_and_check(self, outcome: Outcome) -> Outcome:
        """Return the whole response if it is a success or redirect, else the failure it means."""
        if isinstance(outcome, RequestFailure):
            is_restart = outcome.partial is not None and outcome.partial.status != 206
            if outcome.kind == "total_timeout" and self._partial and is_restart:
                # The server ignores the range and starts from the beginning.
                return replace(outcome, retries_exhausted=True)
            return outcome
        whole = join_ranges(self._partial, outcome, self._politeness.max_bytes)
        if isinstance(whole, RequestFailure):
            self._partial = None
            return whole
        policy = self._policy or NO_POLICY
        self.host.policy.note_response(policy.reservation, whole)
        return check_response(self._politeness, whole, is_policy=self.is_file, policy=policy)

    def _redirect(self, response: RawResponse) -> None:
        target = next_url(self._politeness, self._visited, response)
        if isinstance(target, RequestFailure):
            self.outcome = target
            return
        self._visited.append(target)
        self._signals = response.signals
        self._start_hop(None)

    def _retry(self, failed: RequestFailure, now: float) -> None:
        """Schedule another attempt if allowed. It resumes the body if possible."""
        polite, most = self._politeness, self._max_attempts
        if (delay := delay_before_retry(polite, self.attempts, failed, most)) is None:
            self.outcome = failed
            return
        self.attempts += 1
        self.not_before = now + delay
        self._start_hop(append_range(self._partial, failed.partial))
        if self._partial is None:
            self._visited, self._signals = self._visited[:1], ()

    def _start_hop(self, partial: RawResponse | None) -> None:
        self._partial = partial
        self._policy = NO_POLICY if self.is_file else None


def file_request(hosts: Hosts[H], host: H, url: str) -> Request[H]:
    """Return the request for the policy file `url` of `host`."""
    attempts = None if url == host.robots_url else FILE_ATTEMPTS
    return Request(hosts, url, is_file=True, attempts=attempts)
