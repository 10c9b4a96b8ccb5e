"""The URLs that wait for one host, and what is known of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.web.exchange import Answer
from pipeline.web.politeness import HostGate, Politeness
from pipeline.web.robots import Robots

T = TypeVar("T")


@dataclass(eq=False)
class Job(Generic[T]):
    """One URL on its way. A job without a token fetches a host's robots.txt."""

    token: T | None
    url: str
    headers: Mapping[str, str]
    robots_of: HostQueue[T] | None = None
    seen: list[str] = field(default_factory=list)
    attempts: int = 1
    partial: Answer | None = None
    is_over: bool = False

    @property
    def at(self) -> str:
        """Where redirects have led to."""
        return self.seen[-1] if self.seen else self.url


class HostQueue(Generic[T]):
    """A host: its gate, its robots.txt and the jobs that wait for it."""

    def __init__(self, name: str, politeness: Politeness) -> None:
        self.name = name
        self.gate = HostGate(politeness)
        self.queue: deque[Job[T]] = deque()
        self.robots: Robots | None = None
        self.asking = False
        self.scheduled = False

    def idle(self, now: float) -> bool:
        """Whether nothing is lost by forgetting the host: no work, no rest, no slower rate."""
        gate = self.gate
        return not (
            self.queue or self.scheduled or self.asking or gate.busy
            or gate.delay(now) > 0 or gate.slowdown > 1 or gate.resting_failures
        )  # fmt: skip
