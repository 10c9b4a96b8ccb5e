"""Many URLs at once: one queue per host, so that a slow host delays no other.

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
from pipeline.web.host_policy import UnreadFile
from pipeline.web.host_queue import FetchJob, HostQueue
from pipeline.web.hosts import Hosts
from pipeline.web.local_files import SCHEME, LocalFileReader
from pipeline.web.politeness import Politeness
from pipeline.web.request import Done, FetchFile, Request, Send
from pipeline.web.responses import (
    MAX_POLICY,
    NO_HEADERS,
    RawResponse,
    RequestFailure,
    Response,
)
from pipeline.web.waits import OnWait, Wait, WaitTeller

T = TypeVar("T")
_SLOTS = 256
_HOSTS = 4096
_LOCAL_AT_ONCE = 8


class BulkFetcher(Generic[T]):
    """Fetches the URLs that are added; `poll` returns results. One thread, except for `wake`.

    Args:
        politeness: the rules.
        stage: the stage named in failures.
        slots: most requests in flight, over all hosts.
        check: returns what is wrong with the body of a good response, if anything.
        local: reads file: URLs; without it they are refused.
        on_wait: called with long waits.
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
        """End a `poll` that waits. From any thread."""
        self._curl.wake()

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._curl)

    @property
    def received(self) -> int:
        """Bytes held for requests in flight."""
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
        self._guarded(job, self._route, job)

    def poll(self, timeout: float, may_start: bool = True) -> list[tuple[T, Response | Failure]]:
        """Make progress with everything; return results after at most `timeout` seconds."""
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

    def _next_wake(self, now: float, may_start: bool) -> float:
        times = [self._delayed[0][0]] if self._delayed else []
        if may_start and self._ready and len(self._curl) < self._slots:
            times.append(self._ready[0][0])
        return max(0.0, min(times, default=math.inf) - now)

    def _tell_waits(self, now: float) -> None:
        if self._teller is not None and now - self._looked >= 1.0:
            self._looked = now
            self._teller.look(self._waits(now), now)

    def _waits(self, now: float) -> Iterator[tuple[float, Wait]]:
        """Yield what is waited for, with the seconds it has lasted if they count."""
        for elapsed, job, reason in self._curl.waits(now):
            yield elapsed, Wait(job.request.host.name, reason.partition("(")[0], reason)
        for when, _, host in self._ready:
            if host.has_next:
                reason = host.limiter.waits_for(now)
                yield 0.0, Wait(host.name, reason, reason, when - now)
        for when, _, job in self._delayed:
            name = job.request.host.name
            yield 0.0, Wait(name, "again", "another try after a failure", when - now)

    def _guarded(self, job: FetchJob[T], work: Callable[..., None], *args: object) -> None:
        """Work for one job. An unexpected exception ends that job and no other."""
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001 - the boundary of one URL
            if not job.is_over:
                job.request.abort(error, time.monotonic())
                self._complete(job)

    def _read_local(self) -> None:
        """Read a few files. They arrive at once, so `may_start` decides when."""
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
        except Exception as error:  # noqa: BLE001 - the boundary of one file
            return internal_failure(self._stage, url, error)
        return result

    def _route(self, job: FetchJob[T]) -> None:
        """Put a job where it waits for what it needs next."""
        request = job.request
        if request.is_answered:
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
        """Plan when the host may start its next request, unless it is planned."""
        if host.limiter.is_unavailable(now):
            for job in host.take_all():  # they fail: the host rests
                self._guarded(job, self._advance, job)
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
                self._guarded(job, self._advance, job)
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
            if request.is_answered:
                host.parked.append(job)
            elif job.file is not None:
                host.files.appendleft(job)
            else:
                host.queue.appendleft(job)
            if isinstance(action, FetchFile):
                child: FetchJob[T] = FetchJob(None, action.request, action)
                self._guarded(child, self._route, child)

    def _finish(self, job: FetchJob[T], answer: RawResponse | RequestFailure) -> None:
        host = job.request.host
        try:
            job.request.receive(answer, time.monotonic())
        finally:  # whatever comes of this response, the host has a place again
            self._schedule(host, time.monotonic())
        self._route(job)

    def _complete(self, job: FetchJob[T]) -> None:
        """Hand out the result, or read the policy file."""
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
            self._guarded(waiting, self._advance, waiting)
        self._schedule(host, time.monotonic())

    def _hand_out(self, token: T, result: Response | Failure) -> None:
        self.pending -= 1
        self._results.append((token, result))
