"""Queues of requests to one host."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.web.hosts import Host
from pipeline.web.politeness import Politeness
from pipeline.web.request import FetchFile, Request

T = TypeVar("T")


@dataclass(eq=False)
class FetchJob(Generic[T]):
    """A request, and the `token` that is returned with its result.

    A job without a token fetches the policy `file` of a host.
    """

    token: T | None
    request: Request[HostQueue[T]]
    file: FetchFile[HostQueue[T]] | None = None
    is_over: bool = False


class HostQueue(Host, Generic[T]):
    """A host with its jobs: policy `files` go first, then the `queue`.

    `parked` jobs have a response and wait for a licence that the response links to.
    """

    def __init__(self, name: str, politeness: Politeness) -> None:
        super().__init__(name, politeness)
        self.files: deque[FetchJob[T]] = deque()
        self.queue: deque[FetchJob[T]] = deque()
        self.parked: list[FetchJob[T]] = []
        self.scheduled = False

    @property
    def has_next(self) -> bool:
        """Whether a job can start; only policy files can while one is being fetched."""
        return bool(self.files) or (bool(self.queue) and not self.is_fetching)

    def take_next(self) -> FetchJob[T]:
        """Remove and return the next job. Call it only if `has_next`."""
        return (self.files or self.queue).popleft()

    def take_all(self) -> list[FetchJob[T]]:
        """Remove and return all queued jobs."""
        jobs = [*self.files, *self.queue]
        self.files.clear()
        self.queue.clear()
        return jobs

    def is_idle(self, now: float) -> bool:
        """Return True if the host can be forgotten without loss."""
        has_work = self.files or self.queue or self.parked or self.scheduled
        return not has_work and super().is_idle(now)
