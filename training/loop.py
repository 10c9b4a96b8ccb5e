"""The training loop: steps, and at fixed numbers of images logs, samples, checkpoints, report.

When a step is due, and what it draws, depends on images seen alone. Clocks only decide how often a
person is told something and when to save out of turn; neither changes the result. With several
processes all do the same steps; the first one writes and speaks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.contract import format_bytes, is_disk_full
from training import checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.data import Batch, Loader, ShardDataset
from training.evaluation.evaluator import Evaluator, prepare_or_warn
from training.grid import generate_images, make_grid, save_image
from training.latent.space import build_latent_space
from training.machine.disk import DiskFull, free_bytes
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.machine.signals import StopSignal
from training.monitoring.console import Display, TrainingProgress
from training.monitoring.history import History, Row
from training.monitoring.meter import Meter
from training.monitoring.monitors import alarms
from training.monitoring.rate import RecentRate
from training.networks import ImageShape
from training.planning.forecast import Forecast, cost, is_timed, plan_course
from training.planning.tuning import Change, LiveThreads
from training.pretrained.finetune import load_initial_weights
from training.report import ReportExtras, write_report
from training.reporting.figures import FigureMaker
from training.runs import Run
from training.state import State, new_state
from training.step import Step
from training.streaming.order import rank_slice
from training.techniques.latents import fixed_latents

_REPORT_SECONDS = 30.0
_DISK_SECONDS = 5.0
_QUIET_ROWS = 20
"""Rows until the same alarm is told again."""
_NOTHING, _SAVE, _HOURS, _INTERRUPTED, _DISK = range(5)
DIVERGENCE_HINT = (
    "lower the learning rates (--g_optimizer.lr, --d_optimizer.lr), clip gradients "
    "(--g_optimizer.clip 1 --d_optimizer.clip 1), add a penalty (--loss.r1 1), or use "
    "--precision fp32"
)


@dataclass(frozen=True)
class Outcome:
    """Why the loop ended: `done`, `hours`, `interrupted`, `disk` or `diverged`; `detail` in
    words."""

    reason: str
    detail: str = ""


def crossed(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` thousand lies in (before, after]."""
    every = every_kimg * 1000
    return int(after / every) > int(before / every)


def image_shape(source: ShardDataset) -> ImageShape:
    """The shape of the source's images, for the networks."""
    return ImageShape(source.height, source.width, source.channels, source.classes)


class Loop:
    """Trains `state` on `source` until it is done; see `run`.

    `started` is when the command began (`time.monotonic`): the hours count from there.
    """

    def __init__(
        self,
        config: Config,
        run: Run,
        source: ShardDataset,
        state: State,
        history: History,
        device: torch.device,
        display: Display,
        ranks: Distributed = SINGLE_PROCESS,
        started: float | None = None,
        forecast: Forecast | None = None,
        most_threads: int = 0,
    ) -> None:
        self.config, self.run_files, self.source, self.ranks = config, run, source, ranks
        self.state, self.history, self.device, self.display = state, history, device, display
        self.total = int(config.total_kimg * 1000)
        self.step = Step(config, state, device, ranks)
        self.threads = LiveThreads(config, most_threads) if most_threads else None
        self.meter = Meter()
        self.seconds_before, self._forecast = 0.0, forecast
        self._command_start = time.monotonic() if started is None else started
        self._saved_at, self._saved_seen = time.monotonic(), -1
        self._reset_timers()
        self._reported = self._slowest = self._save_seconds = self._draw_seconds = 0.0
        self._full = ""
        self._set_backs = 0
        self._alarmed: dict[str, int] = {}
        self.judge = Evaluator(config, source, device, ranks)
        self._pictures = FigureMaker(source)
        self._free_known, self._free_at = 0, -math.inf
        part = rank_slice(config.batch, ranks.rank, ranks.world_size)
        self._weight = (part.stop - part.start) / config.batch
        grid, z_dim = config.record.grid, state.generator.z_dim
        self._latents = fixed_latents(config.latent, grid, z_dim, config.seed, device)
        self._labels = torch.arange(grid, device=device) % max(1, source.classes)

    def _reset_timers(self) -> None:
        """Speed is measured from this position and moment on."""
        self._start, self._started_at = time.monotonic(), self.state.seen
        self._log_from = self._warm = (self._start, self.state.seen)
        self._forecast_due = False
        self._rate = RecentRate(self._start, self.state.seen)

    @property
    def seconds(self) -> float:
        """How long this command has worked."""
        return time.monotonic() - self._command_start

    def run(self) -> Outcome:
        """Train until `total_kimg`, the hours, a signal, a full disk or divergence ends it."""
        with StopSignal(patient=self.ranks.world_size > 1) as interruption:
            if self.state.seen == 0:
                self._on_main_process(self._draw_samples)
            if self.ranks.is_main:
                prepare_or_warn(lambda: self._prepare_judge(interruption), self.display.message)
            outcome = self._train(interruption)
            if outcome.reason != "diverged":
                self._save()
            if outcome.reason == "hours":
                self._on_main_process(self._draw_samples)
            self._on_main_process(lambda: self._report(final=True))
        if self._full and outcome.reason != "diverged":
            outcome = Outcome("disk", self._full)
        return outcome

    def _prepare_judge(self, interruption: StopSignal) -> None:
        self.judge.prepare(
            self.state.seen, self.total, self.display.message, lambda: interruption.requested
        )
        row = self.history.rows[-1] if self.history.rows else {}
        if row.get("seen") == self.state.seen and self._is_best(row):
            self._on_main_process(
                lambda: self._keep_best(row)
            )  # a kill came between saving and keeping
        self._reset_timers()

    def _train(self, interruption: StopSignal) -> Outcome:
        while True:
            try:
                with Loader(self.source, self.config, self.state.seen, self.ranks) as loader:
                    outcome = self._steps(loader, interruption)
            except Exception:
                # What was learned until the data failed is worth keeping. Alone, for nobody knows
                # where the other processes are.
                if self.ranks.is_main and self.state.seen > self._saved_seen:
                    self._on_main_process(self._save_here)
                raise
            if outcome.reason != "diverged" and self._weights_are_finite():
                return outcome
            if not self._roll_back(outcome.detail or "the weights"):
                return Outcome("diverged", f"it became NaN again and again; {DIVERGENCE_HINT}")

    def _steps(self, loader: Loader, interruption: StopSignal) -> Outcome:
        while self.state.seen < self.total:
            code = self.ranks.all_reduce_max(self._next_action(interruption), self.device)
            if code == _SAVE:
                if not self._weights_are_finite():
                    return Outcome("diverged")
                self._save()
            elif code != _NOTHING:
                return self._outcome(code)
            before, start = self.state.seen, time.monotonic()
            batches = [next(loader) for _ in range(self.config.n_critic)]
            change = self._step(batches)
            while not loader.warnings.empty():
                self.display.message(f"warning: {loader.warnings.get()}")
            wrong = self._after_step(before, change is not None)
            if change:
                self._change_threads(change)
            self._slowest = max(self._slowest, time.monotonic() - start)
            if wrong:
                return Outcome("diverged", wrong)
        return Outcome("done")

    def _next_action(self, interruption: StopSignal) -> int:
        """What this process would do now instead of a step; the largest of all is done."""
        if self._full:
            return _DISK
        if interruption.requested:
            return _INTERRUPTED
        limit = self.config.max_hours * 3600
        if (
            limit
            and self.seconds + 2 * (self._slowest + self._save_seconds + self._draw_seconds)
            >= limit
        ):
            return _HOURS
        minutes = (time.monotonic() - self._saved_at) / 60
        return _SAVE if minutes >= self.config.record.checkpoint_minutes else _NOTHING

    def _outcome(self, code: int) -> Outcome:
        if code == _HOURS:
            return Outcome("hours", f"the {self.config.max_hours:g} hours are over")
        return Outcome("interrupted" if code == _INTERRUPTED else "disk")

    def _step(self, batches: list[Batch]) -> Change | None:
        """One step, and the change of the number of threads that its time leads to."""
        steps, start = self.state.steps, time.monotonic()
        self.meter.add(self.step(batches))
        took = time.monotonic() - start
        return self.threads.after_step(steps, took) if self.threads else None

    def _change_threads(self, change: Change) -> None:
        """Compute with another number of threads from here on: rows say with how many their steps
        were computed, and one ends here."""
        torch.set_num_threads(change.threads)
        self.display.message(
            f"at {self.state.seen / 1000:g} kimg: {change.threads} instead of {change.before} CPU "
            f"threads: {change.why}"
        )

    def _after_step(self, before: int, changing: bool = False) -> str:
        """What is due at this position; the name of a fact that is not finite, else nothing. A row
        is due too if the number of threads is `changing` after it."""
        seen, record = self.state.seen, self.config.record
        row, judging = None, self.judge.is_due(before, seen)
        if crossed(before, seen, record.log_kimg) or judging or changing:
            self.meter.merge(self.ranks, self._weight)
            row = self._row()
            wrong = [name for name, value in row.items() if not math.isfinite(value)]
            if wrong:
                return wrong[0]
            if judging:
                row |= self._evaluate()
            self._on_main_process(lambda: self.history.add(row))
            if judging and not self._keep_if_best(row):
                return "the weights"
            self._check_alarms()
        self._update_display(row)
        if crossed(before, seen, record.sample_kimg) or seen >= self.total:
            self._on_main_process(self._draw_samples)
            self._on_main_process(self._report)
        if crossed(before, seen, record.checkpoint_kimg):
            if not self._weights_are_finite():
                return "the weights"
            self._save()
        return ""

    def _evaluate(self) -> Row:
        """What an evaluation of the moving average says, in the first process."""
        if not self.ranks.is_main or not self._weights_are_finite():
            return {}
        start = time.monotonic()
        facts = self.judge.evaluate(self.state.g_ema.eval())
        if facts:
            took = time.monotonic() - start
            at = f"{self.state.seen / 1000:g} kimg"
            self.display.message(
                f"evaluation at {at}: {self.judge.format_summary(facts)} ({took:.0f} s)"
            )
        self._log_from = (time.monotonic(), self.state.seen)
        return facts

    def _keep_if_best(self, row: Row) -> bool:
        """Keep the state as the best checkpoint where the row says so; False: it is not finite."""
        if not self.ranks.broadcast(self._is_best(row)):
            return True
        if not self._weights_are_finite():
            return False
        self._save()

        self._on_main_process(lambda: self._keep_best(row))
        return True

    def _is_best(self, row: Row) -> bool:
        value, folder = row.get(self.judge.metric), self.run_files.checkpoints
        return value is not None and checkpoint.is_best(folder, self.judge.criterion, value)

    def _keep_best(self, row: Row) -> None:
        folder, seen = self.run_files.checkpoints, self.state.seen
        if all(saved.seen != seen for saved in checkpoint.list_checkpoints(folder)):
            return  # the disk was full; that ends the run
        value = row[self.judge.metric]
        if not checkpoint.keep_best(folder, seen, self.judge.criterion, value):
            self.display.message("warning: the disk has no room to keep the best checkpoint")

    def _on_main_process(self, action: Callable[[], object]) -> None:
        """Write something, in the first process; a full disk ends the run before the next step."""
        if not self.ranks.is_main:
            return
        try:
            action()
        except DiskFull as error:
            self._full = str(error)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._full = f"{self.run_files.folder}: the disk is full"

    def _row(self) -> Row:
        """A row of means since the last one; the only place where losses leave the device."""
        now, seen = time.monotonic(), self.state.seen
        seconds, images = now - self._log_from[0], seen - self._log_from[1]
        self._log_from = (now, seen)
        return {
            "seen": seen,
            **self.meter.means(),
            "images_per_second": round(images / max(seconds, 1e-9), 3),
            **({"threads": torch.get_num_threads()} if self.threads else {}),
        }

    def _check_alarms(self) -> None:
        rows = self.history.rows
        for alarm in alarms(rows[-200:]):
            if len(rows) - self._alarmed.get(alarm.kind, -_QUIET_ROWS) >= _QUIET_ROWS:
                self._alarmed[alarm.kind] = len(rows)
                self.display.message(f"warning at {self.state.seen / 1000:g} kimg: {alarm.text}")

    def _update_display(self, row: Row | None) -> None:
        done = self.state.seen - self._started_at
        rate = self._rate.at(time.monotonic(), self.state.seen)
        left = (self.total - self.state.seen) / rate
        if self.config.max_hours:
            left = min(left, max(0.0, self.config.max_hours * 3600 - self.seconds))
        last = row or (self.history.rows[-1] if self.history.rows else None)
        self._tell_forecast(done // (self.config.batch * self.config.n_critic))
        measured = self.judge.format_latest(self.history.rows)
        spent, price = f"disk {format_bytes(self._free)} free", self.config.price_per_hour
        if price:
            spent += f"  cost {cost(self.seconds_before + self.seconds, price)}"
        shown = TrainingProgress(self.state.seen, self.total, rate, left, last, measured, spent)
        self.display.update(shown)

    def _tell_forecast(self, steps: int) -> None:
        """Say once, after a few steps, how far the run gets under its limits."""
        if steps == 1:
            self._warm = time.monotonic(), self.state.seen
            self._forecast_due = True
        seconds, images = time.monotonic() - self._warm[0], self.state.seen - self._warm[1]
        if not self._forecast_due or not is_timed(self.config, steps - 1, seconds):
            return
        self._forecast_due = False
        config, start = self.config, self._started_at / 1000
        used = self.seconds - (time.monotonic() - self._start)
        left = self.total / 1000 - start
        course = plan_course(
            seconds / images * 1000, left, config.max_hours, used, config.price_per_hour
        )
        self.display.message(course.text())
        if self._forecast and config.max_hours:
            self.display.message(self._forecast.disk_line(config, self.source, start + course.kimg))

    @property
    def _free(self) -> int:
        """Bytes free on the run's disk, looked at every few seconds."""
        now = time.monotonic()
        if now - self._free_at >= _DISK_SECONDS:
            self._free_known, self._free_at = free_bytes(self.run_files.folder), now
        return self._free_known

    def _draw_samples(self) -> None:
        start = time.monotonic()
        self.state.g_ema.eval()
        pixels = generate_images(self.state.g_ema, self._latents, self._labels)
        name = f"{self.state.seen:010d}.png"
        save_image(self.run_files.samples / name, make_grid(pixels))
        self._draw_seconds = time.monotonic() - start

    def _save(self) -> None:
        """A checkpoint, in step with the other processes."""
        if self.state.seen == self._saved_seen:
            return
        self.meter.merge(self.ranks, self._weight)
        self._on_main_process(self._save_here)
        self._saved_at, self._saved_seen = time.monotonic(), self.state.seen
        self._set_backs = 0

    def _save_here(self) -> None:
        start, record = time.monotonic(), self.config.record
        values: dict[str, Any] = {
            "state": self.state.tensors(),
            "history": self.history.text(),
            "meter": self.meter.state(),
            "seconds": self.seconds_before + self.seconds,
            "threads": torch.get_num_threads() if self.threads else 0,
        }
        spare, folder = record.spare_mb * 1e6, self.run_files.checkpoints
        saved = checkpoint.save(folder, self.state.seen, values, record.keep, spare)
        self._save_seconds = time.monotonic() - start
        if self.state.seen < self.total and not checkpoint.has_room_for(folder, saved.bytes, spare):
            raise DiskFull(
                f"{folder}: the state is saved, but the disk has no room for the next checkpoint"
            )

    def _weights_are_finite(self) -> bool:
        networks = (self.state.generator, self.state.discriminator, self.state.g_ema)
        tensors = [
            tensor.detach()
            for network in networks
            for tensor in (*network.parameters(), *network.buffers())
            if tensor.is_floating_point() and tensor.numel()
        ]
        return bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all())

    def _roll_back(self, what: str) -> bool:
        """Return to the last good state, with other random draws; False: too often already."""
        self._set_backs += 1
        if self._set_backs > self.config.max_restarts:
            return False
        at = self.state.seen
        values = None
        if self.ranks.is_main:
            values, _ = checkpoint.load_newest(
                self.run_files.checkpoints, check=lambda found: check_resumable(found, self.state)
            )
        self.restore(self.ranks.broadcast(values))
        self.state.restarts += self._set_backs
        self._on_main_process(lambda: self.history.reset(self.history.text()))
        self.display.message(
            f"warning: {what} became NaN or infinite before {at / 1000:g} kimg; set back to the "
            f"last good state at {self.state.seen / 1000:g} kimg, with other random draws "
            f"(try {self._set_backs} of {self.config.max_restarts}). If it happens again: "
            f"{DIVERGENCE_HINT}"
        )
        return True

    def restore(self, values: dict[str, Any] | None) -> None:
        """Become what a checkpoint holds; without one, what the run is at its start."""
        if values is None:
            fresh = new_state(self.config, image_shape(self.source), self.device)
            if self.config.init_from:
                load_initial_weights(fresh, self.config.init_from, self.device)
            self.state.load(fresh.tensors())
            self.history.rows, self.meter = [], Meter()
        else:
            self.state.load(values["state"])
            self.history.rows = History(None, values["history"]).rows
            self.meter.load(values["meter"], self.device)
            self.seconds_before = values["seconds"]
            self._saved_seen = self.state.seen
        self._reset_timers()

    def _report(self, final: bool = False) -> None:
        if final or time.monotonic() - self._reported >= _REPORT_SECONDS:
            average = self.state.g_ema.eval()
            space = build_latent_space(average, self.config.latent, self.source.classes)
            pictures = self._pictures.pictures(space, self._latents, self._labels, final)
            extras = ReportExtras(self.seconds_before + self.seconds, pictures)
            write_report(self.run_files, self.history.rows, extras)
            self._reported = time.monotonic()
