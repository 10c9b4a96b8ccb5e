"""Fetches many URLs at once, with one queue per host, so that a slow host does not delay others.

An event loop drives `pipeline.web.request.Request` over libcurl.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from pipeline.errors import Failure
from pipeline.web.curl_transport import CurlTransport
from pipeline.web.failures import failure, internal_failure
from pipeline.web.host_queue import FetchJob, HostQueue
from pipeline.web.hosts import Hosts, UnreadFile
from pipeline.web.local_files import SCHEME, LocalFileReader
from pipeline.web.politeness import Politeness
from pipeline.web.request import Done, FetchFile, Request, Send
from pipeline.web.responses import MAX_POLICY, NO_HEADERS, RawResponse, RequestFailure, Response
from pipeline.web.waits import OnWait, Wait, WaitReporter

T = TypeVar("T")
_SLOTS = 256
_HOSTS = 4096
_LOCAL_AT_ONCE = 8


class BulkFetcher(Generic[T]):
    """Fetches the URLs that are added; `poll` returns results. Not thread-safe, except for `wake`.

    Args:
        stage: the stage named in failures.
        slots: maximum number of requests in flight, over all hosts.
        check: returns what is wrong with the body of a successful response, or None.
        local: reads file: URLs; without it they are refused.
        on_wait: called for long waits.
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
        self._local_urls: deque[tuple[T, str]] = deque()
        self._stage = stage
        self._slots = slots
        self._curl = CurlTransport(politeness)
        self._hosts: Hosts[HostQueue[T]] = Hosts(politeness, HostQueue, _HOSTS)
        self._ready: list[tuple[float, int, HostQueue[T]]] = []
        self._delayed: list[tuple[float, int, FetchJob[T]]] = []
        self._order = itertools.count()
        self._results: list[tuple[T, Response | Failure]] = []
        self._unread: list[UnreadFile] = []
        self._reporter = WaitReporter(on_wait) if on_wait else None
        self._reported = 0.0
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
        """Interrupt a waiting `poll`. Safe to call from any thread."""
        self._curl.wake()

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._curl)

    @property
    def received(self) -> int:
        """Bytes in memory for requests in flight."""
        return self._curl.received

    def take_unread(self) -> list[UnreadFile]:
        """Return the policy files that could not be read since the last call."""
        unread, self._unread = self._unread, []
        return unread

    def add(self, token: T, url: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Fetch `url`; `poll` returns its result with `token`."""
        self.pending += 1
        if self._local is not None and url.startswith(SCHEME):
            self._local_urls.append((token, url))
            return
        job = FetchJob(token, Request(self._hosts, url, headers, check=self._check))
        self._guard(job, self._route, job)

    def poll(self, timeout: float, may_start: bool = True) -> list[tuple[T, Response | Failure]]:
        """Make progress with everything; return results after at most `timeout` seconds."""
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            job = heapq.heappop(self._delayed)[2]
            self._guard(job, self._enqueue, job)
        if may_start:
            self._start_ready(now)
            self._read_local()
        wait = 0.0 if self._results else min(timeout, self._next_wake(now, may_start))
        for job, response in self._curl.poll(max(0.0, wait)):
            self._guard(job, self._finish, job, response)
        self._report_waits(time.monotonic())
        results, self._results = self._results, []
        return results

    def _next_wake(self, now: float, may_start: bool) -> float:
        times = [self._delayed[0][0]] if self._delayed else []
        if may_start and self._ready and len(self._curl) < self._slots:
            times.append(self._ready[0][0])
        return max(0.0, min(times, default=math.inf) - now)

    def _report_waits(self, now: float) -> None:
        if self._reporter is not None and now - self._reported >= 1.0:
            self._reported = now
            self._reporter.update(self._waits(now), now)

    def _waits(self, now: float) -> Iterator[tuple[float, Wait]]:
        """Yield all current waits, each with the seconds since its request was sent, or 0."""
        for elapsed, job, reason in self._curl.waits(now):
            yield elapsed, Wait(job.request.host.name, reason.partition("(")[0], reason)
        for when, _, host in self._ready:
            if host.has_next:
                reason = host.limiter.waits_for(now)
                yield 0.0, Wait(host.name, reason, reason, when - now)
        for when, _, job in self._delayed:
            name = job.request.host.name
            yield 0.0, Wait(name, "again", "a retry after a failure", when - now)

    def _guard(self, job: FetchJob[T], work: Callable[..., None], *args: object) -> None:
        """Call `work` for one job. An unexpected exception ends only that job."""
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001 - errors of one URL are caught here
            if not job.is_over:
                job.request.abort(error, time.monotonic())
                self._complete(job)

    def _read_local(self) -> None:
        """Read a few local files."""
        assert self._local is not None or not self._local_urls
        for _ in range(min(_LOCAL_AT_ONCE, len(self._local_urls))):
            token, url = self._local_urls.popleft()
            self._hand_out(token, self._read_file(url))

    def _read_file(self, url: str) -> Response | Failure:
        assert self._local is not None
        try:
            result = self._local.get(url, stage=self._stage)
            if isinstance(result, Response) and self._check is not None:
                wrong = self._check(
                    RawResponse(result.url, result.status, result.headers, result.body)
                )
                if wrong is not None:
                    return failure(self._stage, url, wrong.kind, detail=wrong.detail)
        except Exception as error:  # noqa: BLE001 - errors of one file are caught here
            return internal_failure(self._stage, url, error)
        return result

    def _route(self, job: FetchJob[T]) -> None:
        """Queue a job, delay it, or advance it if its response has arrived."""
        request = job.request
        if request.has_response:
            self._advance(job)
        elif request.not_before > time.monotonic():
            heapq.heappush(self._delayed, (request.not_before, next(self._order), job))
        else:
            self._enqueue(job)

    def _enqueue(self, job: FetchJob[T]) -> None:
        """Queue a job at its host: policy files go first, then followed redirects."""
        host = job.request.host
        if job.file is not None:
            host.files.append(job)
        elif job.request.is_redirected:
            host.queue.appendleft(job)
        else:
            host.queue.append(job)
        self._schedule(host, time.monotonic())

    def _schedule(self, host: HostQueue[T], now: float) -> None:
        """Schedule the next request to the host, unless it is already scheduled."""
        if host.limiter.is_unavailable(now):
            for job in host.take_all():  # these fail because of the cooldown
                self._guard(job, self._advance, job)
        if host.has_next and not host.scheduled:
            delay = host.limiter.delay(now)
            if delay < math.inf:
                host.scheduled = True
                heapq.heappush(self._ready, (now + delay, next(self._order), host))

    def _start_ready(self, now: float) -> None:
        while self._ready and self._ready[0][0] <= now and len(self._curl) < self._slots:
            host = heapq.heappop(self._ready)[2]
            host.scheduled = False
            if host.has_next and host.limiter.delay(now) == 0:
                job = host.take_next()
                self._guard(job, self._advance, job)
            self._schedule(host, now)

    def _advance(self, job: FetchJob[T]) -> None:
        """Do what the request needs next."""
        request = job.request
        action = request.next(time.monotonic())
        if isinstance(action, Done):
            self._complete(job)
        elif isinstance(action, Send):
            limit = MAX_POLICY if request.is_file else None
            self._curl.start(job, action.url, action.headers, limit)
        else:
            host = request.host
            if request.has_response:
                host.parked.append(job)
            elif job.file is not None:
                host.files.appendleft(job)
            else:
                host.queue.appendleft(job)
            if isinstance(action, FetchFile):
                child: FetchJob[T] = FetchJob(None, action.request, action)
                self._guard(child, self._route, child)

    def _finish(self, job: FetchJob[T], response: RawResponse | RequestFailure) -> None:
        host = job.request.host
        try:
            job.request.receive(response, time.monotonic())
        finally:  # in any case, the host has a free place again
            self._schedule(host, time.monotonic())
        self._route(job)

    def _complete(self, job: FetchJob[T]) -> None:
        """Return the result from `poll`, or read the policy file."""
        job.is_over = True
        outcome = job.request.outcome
        if job.file is None:
            assert job.token is not None
            self._hand_out(job.token, job.request.result(self._stage, "politeness.max_bytes"))
            return
        assert outcome is not None
        host = job.file.host
        host.take_file(job.file.url, outcome, time.monotonic())
        self._unread += host.policy.take_unread()
        parked, host.parked = host.parked, []
        for waiting in parked:
            self._guard(waiting, self._advance, waiting)
        self._schedule(host, time.monotonic())

    def _hand_out(self, token: T, result: Response | Failure) -> None:
        self.pending -= 1
        self._results.append((token, result))
