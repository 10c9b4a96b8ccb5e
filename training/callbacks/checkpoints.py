"""Saves a checkpoint per `record.checkpoint_kimg` and `record.checkpoint_minutes`."""

from __future__ import annotations

import time
from typing import Any

from training import checkpoint
from training.callbacks.base import Action, Callback, Diverged, crossed
from training.machine.disk import DiskFull


class CheckpointsCallback(Callback):
    """Saves only states whose weights are finite."""

    seconds = 0.0
    """How long the last checkpoint took."""
    saved_seen = -1
    """The images seen of the last checkpoint."""

    def on_start(self) -> None:
        self._saved_at = time.monotonic()

    def before_step(self) -> Action:
        minutes = (time.monotonic() - self._saved_at) / 60
        return Action.SAVE if minutes >= self.loop.config.record.checkpoint_minutes else Action.NONE

    def after_step(self) -> None:
        loop = self.loop
        if crossed(loop.seen_before, loop.state.seen, loop.config.record.checkpoint_kimg):
            self.save_finite()

    def save_finite(self) -> None:
        """Save a checkpoint.

        Raises:
            Diverged: the weights are not finite; nothing was saved.
        """
        if not self.loop.state.is_finite():
            raise Diverged("the weights")
        self.save()

    def save(self) -> None:
        """Save a checkpoint unless this state is saved; all processes take part.

        Raises:
            WeightsDiffer: the processes do not hold equal weights; nothing was saved.
        """
        loop = self.loop
        if loop.state.seen == self.saved_seen:
            return
        networks = (loop.state.generator, loop.state.discriminator)
        loop.ranks.check_equal(weight for one in networks for weight in one.parameters())
        loop.merge_meter()
        loop.on_main_process(self.write)
        self._saved_at, self.saved_seen = time.monotonic(), loop.state.seen
        for callback in loop.callbacks:
            callback.on_save()

    def write(self) -> None:
        """Write the checkpoint of this state, on the main process.

        Raises:
            DiskFull: there is no room for it, or it was written and there is none for the next.
        """
        loop, start, record = self.loop, time.monotonic(), self.loop.config.record
        values: dict[str, Any] = {
            "state": loop.state.tensors(),
            "history": loop.history.text(),
            "meter": loop.meter.state(),
            "seconds": loop.seconds_before + loop.seconds,
            "threads": loop.threads.number,
        }
        spare, folder = record.spare_mb * 1e6, loop.run_files.checkpoints
        saved = checkpoint.save(folder, loop.state.seen, values, record.keep, spare)
        self.seconds = time.monotonic() - start
        more = loop.state.seen < loop.total
        if more and not checkpoint.has_room_for(folder, saved.bytes, spare):
            raise DiskFull(
                f"{folder}: the state is saved, but the disk has no room for the next checkpoint"
            )
