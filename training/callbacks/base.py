"""The interface between the training loop and its callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from training.config import crossed
from training.monitoring.history import Row

if TYPE_CHECKING:
    from training.loop import Loop


class EndReason(Enum):
    """Why a run ended; the value is what `--json` prints."""

    DONE = "done"
    HOURS = "hours"
    RULE = "rule"
    INTERRUPTED = "interrupted"
    DISK = "disk"
    DIVERGED = "diverged"


class Action(IntEnum):
    """What a process asks for before a step. All processes take the largest request of any."""

    NONE = 0
    SAVE = 1
    RULE = 2
    HOURS = 3
    INTERRUPTED = 4
    DISK = 5


class Diverged(Exception):
    """A loss, a gradient or a weight is no longer finite; the text names it."""


_KINDS = 4
"""Kinds of work that share `record.time_share`: grids, checkpoints, reports, evaluations."""
_LONGEST = 300.0
"""Work is put off for at most this time after the last of its kind, in seconds."""


class Cadence:
    """When work of one kind is due: at multiples of `every_kimg` thousand images (0: never), but
    not while it would take more than its part of `record.time_share`, or within `least` seconds of
    the last. If the last multiple was left out (`is_owed`), it is due after the last step.

    All processes agree on it through the loop: the clock of the main one decides.
    """

    def __init__(self, loop: Loop, kind: str, every_kimg: float, least: float = 0.0) -> None:
        self.is_due = self.is_owed = False
        self._loop, self.kind, self._every, self._least = loop, kind, every_kimg, least
        self._seconds, self._ended = 0.0, -math.inf
        loop.cadences.append(self)

    def is_early(self) -> bool:
        """Return True if the work is not to be done now, even if it is due by images."""
        share = self._loop.config.record.time_share
        wait = min(_LONGEST, self._seconds * _KINDS / share) if share else 0.0
        early = time.monotonic() - self._ended < max(wait, self._least)
        return early or (share > 0 and self._loop.writer.is_busy(self.kind))

    def decide(self, early: bool) -> None:
        """Set `is_due` for the end of the step just taken."""
        loop, is_last = self._loop, self._loop.state.seen >= self._loop.total
        reached = crossed(loop.seen_before, loop.state.seen, self._every)
        self.is_owed = self.is_owed or reached
        self.is_due = self.is_owed if is_last else reached and not early
        self.is_owed = self.is_owed and not self.is_due

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure how long the work keeps the training from its steps. The first time does not
        count: a device tries algorithms then."""
        start, is_first = time.monotonic(), math.isinf(self._ended)
        try:
            yield
        finally:
            self._ended = time.monotonic()
            self._seconds = 0.0 if is_first else self._ended - start


class Callback:
    """Hooks of the training loop, called on every process. Each does nothing by default.

    A callback is due at numbers of images seen, so that all processes agree; see `Cadence` for what
    takes time.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def on_start(self) -> None:
        """Called once, before the first step."""

    def on_timers_reset(self) -> None:
        """Called when speed is measured anew: at the start, after loading or a long pause."""

    def before_step(self) -> Action:
        """Return what this process asks for before the next step."""
        return Action.NONE

    def before_update(self) -> None:
        """Called when the batches of a step are loaded."""

    def after_step(self) -> None:
        """Called after the step from `loop.seen_before` to `loop.state.seen` images.

        Raises:
            Diverged: a value is not finite.
        """

    def on_row(self, row: Row) -> None:
        """Called with each new row of the history before it is written; may add to it."""

    def on_save(self) -> None:
        """Called on the main process when a checkpoint is complete on the disk."""

    def on_grid(self, seen: int, path: Path) -> None:
        """Called on the main process when the grid of samples at `seen` images is written."""

    def on_end(self, reason: EndReason) -> None:
        """Called once, after the last step."""
