"""Many URLs at once: a queue a host, so that a slow or dead one holds up nobody else.

The rules are those of `pipeline.fetcher.Fetcher`, from the same functions;
only the waiting differs.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

import tenacity

from pipeline.errors import Failure
from pipeline.web.addresses import host_key
from pipeline.web.curl_transport import CurlTransport
from pipeline.web.failures import describe_internal, failure
from pipeline.web.host_policy import UnreadFile, linked_licenses, policy_file_retries
from pipeline.web.host_queue import FetchJob, HostQueue
from pipeline.web.local_files import SCHEME, LocalFileReader
from pipeline.web.opt_out.signals import Signal, describe
from pipeline.web.politeness import Politeness
from pipeline.web.responses import (
    MAX_POLICY,
    NO_HEADERS,
    REDIRECTS,
    RawResponse,
    RequestFailure,
    Response,
    check_response,
    redirect_target,
    response_of,
    retry_policy,
)
from pipeline.web.resume import append_range, join_ranges, resume_headers
from pipeline.web.robots import parse_robots
from pipeline.web.urls import request_url
from pipeline.web.waits import OnWait, Wait, WaitTeller

T = TypeVar("T")
_SLOTS = 256
_HOSTS = 4096
_LOCAL_AT_ONCE = 8


class BulkFetcher(Generic[T]):
    """Fetches what is added; `pump` hands out what came of it. One thread but for `wake`.

    Args:
        politeness: the rules.
        stage: the name in the failures.
        slots: most requests under way, over all hosts.
        check: says what is wrong with the body of a good answer, if anything.
        local: reads file: URLs; without it they are refused.
        on_wait: told of long waits.
    """

    def __init__(
        self,
        politeness: Politeness,
        stage: str,
        slots: int = _SLOTS,
        check: Callable[[RawResponse], RequestFailure | None] | None = None,
        local: LocalFileReader | None = None,
        on_wait: OnWait | None = None,
    ) -> None:
        self.politeness = politeness
        self._check = check
        self._local = local
        self._local_jobs: deque[FetchJob[T]] = deque()
        self._stage = stage
        self._slots = slots
        self._curl = CurlTransport(politeness)
        self._policy = retry_policy(politeness)
        self._hosts: dict[str, HostQueue[T]] = {}
        self._most_hosts = _HOSTS
        self._ready: list[tuple[float, int, HostQueue[T]]] = []
        self._delayed: list[tuple[float, int, FetchJob[T]]] = []
        self._order = itertools.count()
        self._results: list[tuple[T, Response | Failure]] = []
        self._file_policy = policy_file_retries(politeness)
        self._unread: list[UnreadFile] = []
        self._teller = WaitTeller(on_wait) if on_wait else None
        self._looked = 0.0
        self.pending = 0

    def close(self) -> None:
        self._curl.close()
        if self._local is not None:
            self._local.close()

    def __enter__(self) -> BulkFetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wake(self) -> None:
        """End a `pump` that waits. From any thread."""
        self._curl.wake()

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._curl)

    @property
    def received(self) -> int:
        """Bytes held for requests under way."""
        return self._curl.received

    def take_unread(self) -> list[UnreadFile]:
        """The policy files that could not be read, since the last call."""
        unread, self._unread = self._unread, []
        return unread

    def add(self, token: T, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Fetch `url`; its outcome comes with `token`."""
        self.pending += 1
        job = FetchJob(token, url, headers)
        if self._local is not None and url.startswith(SCHEME):
            self._local_jobs.append(job)
        else:
            self._guarded(job, self._begin, job)

    def poll(self, timeout: float, may_start: bool = True) -> list[tuple[T, Response | Failure]]:
        """Move everything on; the outcomes that are there, after `timeout` seconds at most."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            job = heapq.heappop(self._delayed)[2]
            self._guarded(job, self._enqueue, job)
        if may_start:
            self._start_ready(now)
            self._read_local()
        wait = 0.0 if self._results else min(timeout, self._next_wake(now, may_start))
        for job, answer in self._curl.poll(max(0.0, wait)):
            self._guarded(job, self._finish, job, answer)
        self._tell_waits(time.monotonic())
        results, self._results = self._results, []
        return results

    def _tell_waits(self, now: float) -> None:
        if self._teller is not None and now - self._looked >= 1.0:
            self._looked = now
            self._teller.look(self._waits(now), now)

    def _waits(self, now: float) -> Iterator[tuple[float, Wait]]:
        """What is waited for, with the seconds that it lasts already where that counts."""
        for elapsed, job, reason in self._curl.waits(now):
            yield elapsed, Wait(host_key(job.current_url), reason.partition("(")[0], reason)
        for when, _, host in self._ready:
            if host.queue:
                reason = host.limiter.waits_for(now)
                yield 0.0, Wait(host.name, reason, reason, when - now)
        for when, _, job in self._delayed:
            yield (
                0.0,
                Wait(host_key(job.current_url), "again", "another try after a failure", when - now),
            )

    def _guarded(self, job: FetchJob[T], work: Callable[..., None], *args: object) -> None:
        """Do something for one job. If it fails in a way that nobody thought of, that ends the job
        and no other."""
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001 - the boundary of one URL
            if not job.is_over:
                self._complete(
                    job,
                    RequestFailure("internal", describe_internal(error), retries_exhausted=True),
                )

    def _read_local(self) -> None:
        """Read a few files: they are there at once, so the caller says by `may_start` when."""
        for _ in range(min(_LOCAL_AT_ONCE, len(self._local_jobs))):
            job = self._local_jobs.popleft()
            self._guarded(job, self._read_file, job)

    def _read_file(self, job: FetchJob[T]) -> None:
        assert self._local is not None
        result = self._local.get(job.url, stage=self._stage)
        if isinstance(result, Response) and self._check is not None:
            wrong = self._check(RawResponse(result.url, result.status, result.headers, result.body))
            if wrong is not None:
                result = failure(self._stage, job.url, wrong.kind, detail=wrong.detail)
        self._hand_out(job, result)

    def _begin(self, job: FetchJob[T]) -> None:
        try:
            job.url = request_url(job.url)
        except ValueError as error:
            self._complete(job, RequestFailure("bad_url", str(error)))
            return
        self._enqueue(job)

    def _next_wake(self, now: float, may_start: bool) -> float:
        times = [self._delayed[0][0]] if self._delayed else []
        if may_start and self._ready and len(self._curl) < self._slots:
            times.append(self._ready[0][0])
        return max(0.0, min(times, default=math.inf) - now)

    def _host(self, name: str) -> HostQueue[T]:
        if name not in self._hosts:
            if len(self._hosts) >= self._most_hosts:
                self._forget_idle_hosts()
            self._hosts[name] = HostQueue(name, self.politeness)
        return self._hosts[name]

    def _forget_idle_hosts(self) -> None:
        """Keep memory flat over a million hosts: drop those that are owed nothing."""
        now = time.monotonic()
        self._hosts = {name: host for name, host in self._hosts.items() if not host.idle(now)}
        # Where most are at work, look again only when there are twice as many.
        self._most_hosts = max(_HOSTS, 2 * len(self._hosts))

    def _enqueue(self, job: FetchJob[T], first: bool = False) -> None:
        host = self._host(host_key(job.current_url))
        if first or job.robots_of is not None:
            host.queue.appendleft(job)
        else:
            host.queue.append(job)
        self._schedule(host, time.monotonic())

    def _schedule(self, host: HostQueue[T], now: float) -> None:
        """Put the host in the line of those that may start a request, if it is not there."""
        if host.queue and host.limiter.is_unavailable(now):
            self._fail_queued(host, now)
        waits = host.robots_pending and not (host.queue and host.queue[0].robots_of)
        if host.queue and not host.scheduled and not waits:
            delay = host.limiter.delay(now)
            if delay < math.inf:
                host.scheduled = True
                heapq.heappush(self._ready, (now + delay, next(self._order), host))

    def _start_ready(self, now: float) -> None:
        while self._ready and self._ready[0][0] <= now and len(self._curl) < self._slots:
            host = heapq.heappop(self._ready)[2]
            host.scheduled = False
            if host.limiter.is_unavailable(now):
                self._fail_queued(host, now)
                continue
            if host.queue and host.limiter.delay(now) == 0:
                job = self._next_job(host)
                self._guarded(job, self._start, host, job, now)
            self._schedule(host, now)

    def _next_job(self, host: HostQueue[T]) -> FetchJob[T]:
        """The job whose turn it is; robots.txt comes before the first of all others."""
        job = host.queue[0]
        if job.robots_of is None and self.politeness.checks_robots(job.current_url) and (
            host.robots is None or host.robots.is_stale(time.monotonic())
        ):  # fmt: skip
            host.robots_pending = True
            return FetchJob(None, f"{host.name}/robots.txt", NO_HEADERS, robots_of=host)
        if job.robots_of is None and self._refusal(host, job) is None:
            file = host.policy.next_file(host.lines(job.current_url, self.politeness))
            if file is not None:
                host.robots_pending = True
                return FetchJob(None, file, NO_HEADERS, robots_of=host, policy_file=file)
        return host.queue.popleft()

    def _refusal(self, host: HostQueue[T], job: FetchJob[T]) -> RequestFailure | None:
        """Why robots.txt does not let the job start, or None."""
        if host.robots is None or not self.politeness.checks_robots(job.current_url):
            return None
        return host.robots.why_disallowed(job.current_url, self.politeness.user_agent)

    def _start(self, host: HostQueue[T], job: FetchJob[T], now: float) -> None:
        if job.robots_of is None:
            refused = self._refusal(host, job) or self._policy_refusal(host, job)
            if refused is not None:
                self._complete(job, refused)
                return
        elif host_key(job.current_url) != host.name:  # a licence on another host
            self._enqueue(job)
            return
        headers = {**job.headers, **resume_headers(job.partial)}
        policy_bytes = MAX_POLICY if job.robots_of else None
        self._curl.start(job, job.current_url, headers, policy_bytes)
        host.limiter.start(now)

    def _policy_refusal(self, host: HostQueue[T], job: FetchJob[T]) -> RequestFailure | None:
        """Why the policy files do not let the job start, or None; notes in it what they say."""
        policy = host.policy.of_url(job.current_url, host.lines(job.current_url, self.politeness))
        job.policy = replace(policy, signals=(*job.signals, *policy.signals))
        refusing = self.politeness.refusing(job.policy.signals)
        return RequestFailure("opt_out", describe(refusing)) if refusing else None

    def _fail_queued(self, host: HostQueue[T], now: float) -> None:
        trouble = RequestFailure("host_resting", host.limiter.describe_rest(now))
        while host.queue:
            self._complete(host.queue.popleft(), trouble)

    def _finish(self, job: FetchJob[T], answer: RawResponse | RequestFailure) -> None:
        now = time.monotonic()
        host = self._host(host_key(job.current_url))
        judged: RawResponse | RequestFailure = RequestFailure("internal")
        try:
            judged = self._judged(job, answer)
        finally:  # whatever comes of this answer, the host has a place again
            with host.limiter.lock:
                if isinstance(judged, RequestFailure):
                    host.limiter.finish(now, judged.kind, judged.retry_after)
                else:
                    host.limiter.finish(now, None)
            if host.limiter.is_unavailable(now):
                self._fail_queued(host, now)
            self._schedule(host, now)
        if isinstance(judged, RequestFailure):
            self._retry(job, judged, now)
        elif judged.status in REDIRECTS:
            self._redirect(job, judged)
        elif self._check is None or job.robots_of or (wrong := self._check(judged)) is None:
            self._complete(job, judged)
        else:
            job.partial = None
            self._retry(job, wrong, now)

    def _judged(
        self, job: FetchJob[T], answer: RawResponse | RequestFailure
    ) -> RawResponse | RequestFailure:
        """The answer, whole and found good or redirecting, or what is wrong with it."""
        if isinstance(answer, RequestFailure):
            starts_anew = answer.partial is not None and answer.partial.status != 206
            if answer.kind == "total_timeout" and job.partial and starts_anew:
                return replace(
                    answer, retries_exhausted=True
                )  # the server does not go on, it begins again
            return answer
        whole = join_ranges(job.partial, answer, self.politeness.max_bytes)
        if isinstance(whole, RequestFailure):
            job.partial = None
            return whole
        if job.robots_of is None:
            self._host(host_key(job.current_url)).policy.note_answer(job.policy.reservation, whole)
        is_policy = job.robots_of is not None
        return check_response(self.politeness, whole, is_policy=is_policy, policy=job.policy)

    def _redirect(self, job: FetchJob[T], answer: RawResponse) -> None:
        target = redirect_target(answer)
        if isinstance(target, RequestFailure):
            self._complete(job, target)
            return
        job.seen = job.seen or [job.url]
        if target in job.seen or len(job.seen) > self.politeness.max_redirects:
            detail = f"{len(job.seen)} redirects, to {target}"
            self._complete(job, RequestFailure("redirect_loop", detail))
            return
        job.seen.append(target)
        job.signals = answer.signals
        job.partial = None
        self._enqueue(job, first=True)

    def _retry(self, job: FetchJob[T], trouble: RequestFailure, now: float) -> None:
        """Try again later where the policy says so, from where it broke off if that can be."""
        policy = self._file_policy if job.policy_file else self._policy
        delay = delay_before_retry(policy, job.attempts, trouble)
        if delay is None:
            self._complete(job, trouble)
            return
        job.attempts += 1
        job.partial = append_range(job.partial, trouble.partial)
        if job.partial is None:
            job.seen, job.signals = [], ()
        heapq.heappush(self._delayed, (now + delay, next(self._order), job))

    def _complete(self, job: FetchJob[T], outcome: RawResponse | RequestFailure) -> None:
        """The job is over: hand out the outcome, or take note of a policy file."""
        if job.robots_of is not None:
            job.is_over = True
            if job.policy_file:
                self._take_file(job.robots_of, job.policy_file, outcome)
            else:
                self._take_robots(job.robots_of, outcome)
        elif isinstance(outcome, RawResponse):
            self._settle_answer(job, outcome)
        else:
            detail = outcome.detail
            if outcome.kind == "too_large":
                detail += "; politeness.max_bytes can allow more"
            self._hand_out(
                job,
                failure(
                    self._stage,
                    job.url,
                    outcome.kind,
                    status=outcome.status,
                    attempts=job.attempts,
                    detail=detail,
                ),
            )

    def _hand_out(self, job: FetchJob[T], result: Response | Failure) -> None:
        assert job.token is not None
        job.is_over = True
        self.pending -= 1
        self._results.append((job.token, result))

    def _settle_answer(self, job: FetchJob[T], answer: RawResponse) -> None:
        """Hand out a good answer, once the licences that it links to are known and let it be."""
        licenses = linked_licenses(answer)
        signals: list[Signal] = []
        if licenses:
            host = self._host(host_key(job.current_url))
            file = host.policy.next_license(licenses)
            if file is not None:
                host.parked.append((job, answer))
                if not host.robots_pending:
                    self._ask_license(host, file)
                return
            signals = host.policy.license_signals(answer.url, licenses)
        if refusing := self.politeness.refusing(signals):
            self._complete(job, RequestFailure("opt_out", describe(refusing), answer.status))
            return
        answer = replace(answer, signals=(*answer.signals, *signals))
        self._hand_out(job, response_of(answer, job.attempts))

    def _ask_license(self, host: HostQueue[T], file: str) -> None:
        host.robots_pending = True
        self._enqueue(FetchJob(None, file, NO_HEADERS, robots_of=host, policy_file=file))

    def _take_file(
        self, host: HostQueue[T], file: str, outcome: RawResponse | RequestFailure
    ) -> None:
        host.policy.take_file(file, outcome)
        self._unread += host.policy.take_unread()
        self._policy_known(host)

    def _policy_known(self, host: HostQueue[T]) -> None:
        """A policy file of the host has been read: go on with what waited for it."""
        host.robots_pending = False
        parked, host.parked = host.parked, []
        for job, answer in parked:
            self._guarded(job, self._complete, job, answer)
        self._schedule(host, time.monotonic())

    def _take_robots(self, host: HostQueue[T], outcome: RawResponse | RequestFailure) -> None:
        agent = self.politeness.user_agent
        host.robots = parse_robots(outcome, agent, time.monotonic() + self.politeness.max_wait)
        host.limiter.crawl_delay(host.robots.crawl_delay(agent))
        self._policy_known(host)


def delay_before_retry(
    policy: tenacity.Retrying, attempts: int, trouble: RequestFailure
) -> float | None:
    """What the retry policy says after `attempts` requests: seconds to wait, or None for an end."""
    state = tenacity.RetryCallState(policy, None, (), {})
    state.attempt_number = attempts
    state.set_result(trouble)
    if not policy.retry(state) or policy.stop(state):
        return None
    return float(policy.wait(state))
