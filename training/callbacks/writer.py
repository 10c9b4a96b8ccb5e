"""Files that are written beside the training: in a thread, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def _ignore(_result: Any) -> None:
    pass


class BackgroundWriter:
    """Does jobs in a thread, in the order of `submit`, at most one of a kind at a time.

    What follows a job, and its error, reach the thread that calls `submit`, `collect` or `finish`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._jobs: dict[str, tuple[Future[Any], Callable[[Any], object]]] = {}

    def submit(
        self, kind: str, job: Callable[[], Any], then: Callable[[Any], object] = _ignore
    ) -> None:
        """Do `job` in the thread, after an earlier one of this kind; `then` gets its result.

        Raises:
            Exception: that of the earlier job; the new one is dropped.
        """
        self.finish(kind)
        self._jobs[kind] = self._pool.submit(job), then

    def is_busy(self, kind: str) -> bool:
        """Return True if a job of this kind is not done yet."""
        return kind in self._jobs and not self._jobs[kind][0].done()

    @property
    def has_jobs(self) -> bool:
        """True if there are jobs whose end was not collected."""
        return bool(self._jobs)

    def collect(self) -> None:
        """Call what follows the jobs that are done, without waiting.

        Raises:
            Exception: that of a job; the others are kept for the next call.
        """
        for kind in [kind for kind in self._jobs if not self.is_busy(kind)]:
            self.finish(kind)

    def finish(self, kind: str = "") -> None:
        """Wait for the job of this kind, or else for the oldest, and call what follows it.

        Raises:
            Exception: that of the job.
        """
        found = self._jobs.pop(kind or next(iter(self._jobs), ""), None)
        if found is not None:
            job, then = found
            then(job.result())

    def close(self) -> None:
        """Wait for all jobs and end the thread."""
        self._pool.shutdown()
