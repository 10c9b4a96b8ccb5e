"""Chooses the number of CPU threads again when the machine became busy or idle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from training.callbacks.base import Action, Callback
from training.planning.tuning import Change, LiveThreads

if TYPE_CHECKING:
    from training.loop import Loop


class ThreadsCallback(Callback):
    """Times each step. A new number of threads applies from the next step on, so that a row of the
    history covers steps with one number; `most` 0
    leaves the number alone."""

    change: Change | None = None
    """The change that this step leads to."""

    def __init__(self, loop: Loop, most: int) -> None:
        super().__init__(loop)
        self.live = LiveThreads(loop.config, most) if most else None

    def before_step(self) -> Action:
        if self.change:
            torch.set_num_threads(self.change.threads)
            self.loop.display.message(
                f"at {self.loop.state.seen / 1000:g} kimg: {self.change.threads} instead of "
                f"{self.change.before} CPU threads: {self.change.why}"
            )
            self.change = None
        return Action.NONE

    def before_update(self) -> None:
        self._steps, self._start = self.loop.state.steps, time.monotonic()

    def after_step(self) -> None:
        if self.live:
            self.change = self.live.after_step(self._steps, time.monotonic() - self._start)

    @property
    def number(self) -> int:
        """The number to resume with; 0 if it is not chosen automatically."""
        return torch.get_num_threads() if self.live else 0
