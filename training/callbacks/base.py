"""The interface between the training loop and its callbacks."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from training.monitoring.history import Row

if TYPE_CHECKING:
    from training.loop import Loop


class EndReason(Enum):
    """Why a run ended; the value is what `--json` prints."""

    DONE = "done"
    HOURS = "hours"
    INTERRUPTED = "interrupted"
    DISK = "disk"
    DIVERGED = "diverged"


class Action(IntEnum):
    """What a process asks for before a step. All processes take the largest request of any."""

    NONE = 0
    SAVE = 1
    HOURS = 2
    INTERRUPTED = 3
    DISK = 4


class Diverged(Exception):
    """A loss, a gradient or a weight is no longer finite; the text names it."""


def crossed(before: int, after: int, every_kimg: float) -> bool:
    """Return True if a multiple of `every_kimg` thousand lies in (before, after]."""
    every = every_kimg * 1000
    return int(after / every) > int(before / every)


class Callback:
    """Hooks of the training loop, called on every process. Each does nothing by default.

    A callback is due at numbers of images seen, so that all processes agree. Only callbacks that
    serve a person look at the clock.
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
        """Called after a checkpoint was saved."""

    def on_end(self, reason: EndReason) -> None:
        """Called once, after the last step."""
