"""The training loop: takes steps and calls the callbacks.

What a step does depends on images seen alone. With several processes all take the same steps; the
main one writes and prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch

from pipeline.contract import is_disk_full
from training import callbacks
from training.callbacks import Action, Callback, Diverged, EndReason
from training.config import Config
from training.cuda_graphs import GraphedStep
from training.data import Loader
from training.machine.disk import DiskFull
from training.machine.distributed import SINGLE_PROCESS, DelayedMax, Distributed, WeightsDiffer
from training.machine.signals import StopSignal
from training.monitoring.console import Display
from training.monitoring.history import History
from training.monitoring.meter import Meter
from training.pair_loader import PairLoader, open_loader
from training.planning.forecast import Forecast
from training.runs import Run
from training.state import State
from training.step import Step
from training.streaming.dataset import ShardDataset
from training.streaming.device_samples import Placement
from training.streaming.order import rank_slice


class Loop:
    """Trains `state` on `source`; see `run`. The hours count from `started` (`time.monotonic`);
    `more` makes further callbacks; `placement` is where samples are kept."""

    def __init__(
        self, config: Config, run: Run, source: ShardDataset, state: State, history: History,
        device: torch.device, display: Display, ranks: Distributed = SINGLE_PROCESS,
        started: float | None = None, forecast: Forecast | None = None, most_threads: int = 0,
        more: Sequence[Callable[[Loop], Callback]] = (), placement: Placement | None = None,
    ) -> None:  # fmt: skip
        self._placement = placement or Placement(device)
        self.config, self.run_files, self.source, self.ranks = config, run, source, ranks
        self.state, self.history, self.device, self.display = state, history, device, display
        self.total = int(config.total_kimg * 1000)
        kind = GraphedStep if config.cuda_graphs else Step
        self.step, self.meter = kind(config, state, device, ranks), Meter()
        self.stop_signal = StopSignal(patient=ranks.world_size > 1)
        self.writer, self.cadences = callbacks.BackgroundWriter(), list[callbacks.Cadence]()
        self._decisions = DelayedMax(ranks)
        self.seconds_before, self.disk_full = 0.0, ""
        self.seen_before, self.step_started = state.seen, 0.0
        self._command_start = time.monotonic() if started is None else started
        part = rank_slice(config.batch, ranks.rank, ranks.world_size)
        self._weight = (part.stop - part.start) / config.batch
        self.threads = callbacks.ThreadsCallback(self, most_threads)
        self.samples = callbacks.SamplesCallback(self)
        self.log = callbacks.HistoryCallback(self)
        self.evaluation = callbacks.EvaluationCallback(self)
        self.checkpoints = callbacks.CheckpointsCallback(self)
        self.rollback = callbacks.RollbackCallback(self)
        self.stop_rules = callbacks.StopRulesCallback(self)
        self.callbacks: tuple[Callback, ...] = (
            self.threads, self.samples, self.log, self.evaluation, callbacks.AlarmsCallback(self),
            callbacks.ConsoleCallback(self, forecast), callbacks.ReportCallback(self),
            self.checkpoints, callbacks.LimitsCallback(self), self.rollback, self.stop_rules,
            callbacks.TrackingCallback(self), callbacks.AdviceCallback(self),
            *(make(self) for make in more),
        )  # fmt: skip
        self.reset_timers()

    def run(self) -> EndReason:
        """Train until `total_kimg`, a limit, a signal, a full disk or divergence."""
        with self.stop_signal, closing(self.writer):
            for callback in self.callbacks:
                callback.on_start()
            reason = self._train()
            self._decisions.receive()
            self.finish_writing()
            if reason is not EndReason.DIVERGED:
                self.checkpoints.save()
                self.finish_writing()
            for callback in self.callbacks:
                callback.on_end(reason)
            self.finish_writing()
        if self.disk_full and reason is not EndReason.DIVERGED:
            return EndReason.DISK
        return reason

    def _train(self) -> EndReason:
        while True:
            try:
                seen, placement = self.state.seen, self._placement
                with open_loader(self.source, self.config, seen, self.ranks, placement) as loader:
                    reason = self._take_steps(loader)
                if self.is_finite():
                    return reason
                what = "the weights"
            except Diverged as error:
                what = str(error)
            except WeightsDiffer:
                raise
            except Exception:
                # Other processes may be at any point: the main one saves what was learned, alone.
                self.on_main_process(self.checkpoints.save_at_once)
                raise
            if not self.rollback.roll_back(what):
                return EndReason.DIVERGED

    def _take_steps(self, loader: Loader | PairLoader) -> EndReason:
        self._decisions.receive()  # those of a step that was rolled back
        while self.state.seen < self.total:
            self.on_main_process(self.writer.collect)
            action, early = self._decide()
            if action is Action.SAVE:
                self.checkpoints.save_finite()
            elif action is not Action.NONE:
                return EndReason[action.name]
            self.seen_before, self.step_started = self.state.seen, time.monotonic()
            batches = [next(loader) for _ in range(self.config.n_critic)]
            for callback in self.callbacks:
                callback.before_update()
            self.meter.add(self.step(batches), self.step.counts)
            for cadence, is_early in zip(self.cadences, early, strict=True):
                cadence.decide(is_early)
            while not loader.warnings.empty():
                self.display.message(f"warning: {loader.warnings.get()}")
            for callback in self.callbacks:
                callback.after_step()
        return EndReason.DONE

    def _decide(self) -> tuple[Action, list[bool]]:
        """Return what all processes do before this step, and what they leave out after it, as the
        main one decides. Several processes do what they wanted before the last step: so they need
        not wait for each other."""
        wanted, count = (
            max(callback.before_step() for callback in self.callbacks),
            len(self.cadences),
        )
        early = 0
        if self.ranks.is_main:
            early = sum(cadence.is_early() << bit for bit, cadence in enumerate(self.cadences))
        decided = self._decisions(wanted << count | early)
        return Action(decided >> count), [bool(decided >> bit & 1) for bit in range(count)]

    def is_finite(self) -> bool:
        """Return True if the states of all processes, which all ask, are finite."""
        return not self.ranks.all_reduce_max(int(not self.state.is_finite()))

    @property
    def seconds(self) -> float:
        """How long this command has worked."""
        return time.monotonic() - self._command_start

    def reset_timers(self) -> None:
        """Measure speed from this position and moment on."""
        for callback in self.callbacks:
            callback.on_timers_reset()

    def merge_meter(self) -> None:
        """Average the stats since the last row over all processes."""
        self.meter.merge(self.ranks, self._weight)

    def on_main_process(self, action: Callable[[], object]) -> None:
        """Write something on the main process. A full disk ends the run before the next step."""
        if not self.ranks.is_main:
            return
        try:
            action()
        except DiskFull as error:
            self.disk_full = str(error)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.disk_full = f"{self.run_files.folder}: the disk is full"

    def finish_writing(self) -> None:
        """Wait until all files are complete."""
        while self.writer.has_jobs:
            self.on_main_process(self.writer.finish)

    def restore(self, values: dict[str, Any]) -> None:
        """Load the values of a checkpoint."""
        self.state.load(values["state"])
        self.history.load(values["history"])
        self.meter.load(values["meter"], self.device)
        self.checkpoints.resume_at(self.state.seen)
        self.reset_timers()
