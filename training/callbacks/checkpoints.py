"""Saves a checkpoint per `record.checkpoint_kimg` and `record.checkpoint_minutes`, within
`record.time_share`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from training import checkpoint
from training.callbacks.base import Action, Cadence, Callback, Diverged
from training.checkpoint import CheckpointInfo
from training.machine.disk import DiskFull
from training.snapshot import Snapshot, take_snapshot

if TYPE_CHECKING:
    from training.loop import Loop


class CheckpointsCallback(Callback):
    """Saves only states whose weights are finite. A thread writes them: `saved_seen` is the
    position of the last complete one."""

    seconds = 0.0
    """How long it took to take and to write the last checkpoint."""
    saved_seen = -1
    _taken_seen = -1
    """The images seen of the last one that was handed to the thread."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self._cadence = Cadence(loop, "checkpoint", loop.config.record.checkpoint_kimg)

    def on_start(self) -> None:
        self._taken_at, self._is_asked = time.monotonic(), False

    def on_timers_reset(self) -> None:
        self._is_asked = False

    def before_step(self) -> Action:
        minutes = (time.monotonic() - self._taken_at) / 60
        if self._is_asked or minutes < self.loop.config.record.checkpoint_minutes:
            return Action.NONE
        self._is_asked = self.loop.ranks.is_main
        return Action.SAVE if self._is_asked else Action.NONE

    def after_step(self) -> None:
        if self._cadence.is_due:
            self.save_finite()

    def save_finite(self) -> None:
        """Save a checkpoint.

        Raises:
            Diverged: the weights are not finite; nothing was saved.
        """
        with self._cadence.timed():
            if not self.loop.is_finite():
                raise Diverged("the weights")
            self.save()

    def save(self) -> None:
        """Save a checkpoint unless this state is saved; all processes take part.

        Raises:
            WeightsDiffer: the processes do not hold equal weights; nothing was saved.
        """
        loop, self._is_asked = self.loop, False
        if loop.state.seen == self._taken_seen:
            return
        networks = loop.state.g_networks | loop.state.d_networks
        loop.ranks.check_equal(weight for one in networks.values() for weight in one.parameters())
        loop.merge_meter()
        # if the one before it did not fit, that ends the run, but this state is still tried
        loop.on_main_process(lambda: loop.writer.finish("checkpoint"))
        loop.on_main_process(self._take)
        self._taken_at, self._taken_seen = time.monotonic(), loop.state.seen

    def save_at_once(self) -> None:
        """Save what was learned after an error, on the main process, and wait for it. After one in
        the middle of a step, that includes updates which the resumed run repeats."""
        loop = self.loop
        while loop.writer.has_jobs:
            with suppress(Exception):  # perhaps the one that ends the run
                loop.writer.finish()
        if loop.state.seen > self.saved_seen and loop.state.is_finite():
            self._take()
            loop.writer.finish("checkpoint")

    def resume_at(self, seen: int) -> None:
        """Continue from the checkpoint at `seen` images."""
        self.saved_seen = self._taken_seen = seen

    def _take(self) -> None:
        """Hand this state to the thread; the one before it is written, so only one is in memory.

        Raises:
            DiskFull: this one is the last that fits on the disk.
        """
        loop, folder = self.loop, self.loop.run_files.checkpoints
        start = time.monotonic()
        values: dict[str, Any] = {
            "state": loop.state.tensors(),
            "history": loop.history.text(),
            "meter": loop.meter.state(),
            "seconds": loop.seconds_before + loop.seconds,
            "threads": loop.threads.number,
        }
        snapshot, seen = take_snapshot(values), loop.state.seen
        seconds = time.monotonic() - start
        spare = loop.config.record.spare_mb * 1e6
        is_last = not checkpoint.has_room_for(folder, 2 * snapshot.bytes, spare)
        del values
        loop.writer.submit(
            "checkpoint",
            lambda: self._write(snapshot, seen),
            lambda written: self._end(written[0], seconds + written[1]),
        )
        if is_last:  # perhaps: no step after it would be saved
            loop.writer.finish("checkpoint")

    def _write(self, snapshot: Snapshot, seen: int) -> tuple[CheckpointInfo, float]:
        """Write a checkpoint; return it, and the seconds that took."""
        start, record, folder = (
            time.monotonic(), self.loop.config.record, self.loop.run_files.checkpoints,
        )  # fmt: skip
        content, spare = snapshot.content(), record.spare_mb * 1e6
        saved = checkpoint.save(folder, seen, content, record.keep, spare)
        return saved, time.monotonic() - start

    def _end(self, saved: CheckpointInfo, seconds: float) -> None:
        """Count a checkpoint that is complete.

        Raises:
            DiskFull: there is no room for the next.
        """
        loop, spare = self.loop, self.loop.config.record.spare_mb * 1e6
        self.saved_seen, self.seconds = saved.seen, seconds
        for callback in loop.callbacks:
            callback.on_save()
        folder, is_last = loop.run_files.checkpoints, saved.seen >= loop.total
        if not is_last and not checkpoint.has_room_for(folder, saved.bytes, spare):
            raise DiskFull(
                f"{folder}: the state is saved, but the disk has no room for the next checkpoint"
            )
