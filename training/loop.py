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

from pipeline.contract import is_disk_full
from training import checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.data import Batch, Loader, Source
from training.evaluation.judge import Judge, ready_or_told
from training.grid import draw, tile, write_picture
from training.latent.space import space_of
from training.machine.disk import DiskFull, free_bytes
from training.machine.ranks import ALONE, Ranks
from training.machine.signals import Interruption
from training.monitoring.console import Advance, Display
from training.monitoring.history import History, Row
from training.monitoring.meter import Meter
from training.monitoring.monitors import alarms
from training.monitoring.rate import RecentRate
from training.networks import ImageShape
from training.planning.forecast import Forecast, byte_text, cost, is_timed, plan_course
from training.planning.tuning import Change, LiveThreads
from training.pretrained.finetune import take_weights
from training.report import Extras, write_report
from training.reporting.pictures import PictureMaker
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
REMEDIES = (
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


def image_shape(source: Source) -> ImageShape:
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
        source: Source,
        state: State,
        history: History,
        device: torch.device,
        display: Display,
        ranks: Ranks = ALONE,
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
        self._count_from_here()
        self._reported = self._slowest = self._save_seconds = self._draw_seconds = 0.0
        self._full = ""
        self._set_backs = 0
        self._alarmed: dict[str, int] = {}
        self.judge = Judge(config, source, device, ranks)
        self._pictures = PictureMaker(source)
        self._free_known, self._free_at = 0, -math.inf
        part = rank_slice(config.batch, ranks.rank, ranks.world)
        self._weight = (part.stop - part.start) / config.batch
        grid, z_dim = config.record.grid, state.generator.z_dim
        self._latents = fixed_latents(config.latent, grid, z_dim, config.seed, device)
        self._labels = torch.arange(grid, device=device) % max(1, source.classes)

    def _count_from_here(self) -> None:
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
        with Interruption(patient=self.ranks.world > 1) as interruption:
            if self.state.seen == 0:
                self._write(self._draw_samples)
            if self.ranks.first:
                ready_or_told(lambda: self._prepare_judge(interruption), self.display.say)
            outcome = self._train(interruption)
            if outcome.reason != "diverged":
                self._save()
            if outcome.reason == "hours":
                self._write(self._draw_samples)
            self._write(lambda: self._report(final=True))
        if self._full and outcome.reason != "diverged":
            outcome = Outcome("disk", self._full)
        return outcome

    def _prepare_judge(self, interruption: Interruption) -> None:
        self.judge.prepare(
            self.state.seen, self.total, self.display.say, lambda: interruption.asked
        )
        row = self.history.rows[-1] if self.history.rows else {}
        if row.get("seen") == self.state.seen and self._is_best(row):
            self._write(lambda: self._keep_best(row))  # a kill came between saving and keeping
        self._count_from_here()

    def _train(self, interruption: Interruption) -> Outcome:
        while True:
            try:
                with Loader(self.source, self.config, self.state.seen, self.ranks) as loader:
                    outcome = self._steps(loader, interruption)
            except Exception:
                # What was learned until the data failed is worth keeping. Alone, for nobody knows
                # where the other processes are.
                if self.ranks.first and self.state.seen > self._saved_seen:
                    self._write(self._save_here)
                raise
            if outcome.reason != "diverged" and self._weights_are_finite():
                return outcome
            if not self._set_back(outcome.detail or "the weights"):
                return Outcome("diverged", f"it became NaN again and again; {REMEDIES}")

    def _steps(self, loader: Loader, interruption: Interruption) -> Outcome:
        while self.state.seen < self.total:
            code = self.ranks.most(self._wish(interruption), self.device)
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
                self.display.say(f"warning: {loader.warnings.get()}")
            wrong = self._after_step(before, change is not None)
            if change:
                self._change_threads(change)
            self._slowest = max(self._slowest, time.monotonic() - start)
            if wrong:
                return Outcome("diverged", wrong)
        return Outcome("done")

    def _wish(self, interruption: Interruption) -> int:
        """What this process would do now instead of a step; the largest of all is done."""
        if self._full:
            return _DISK
        if interruption.asked:
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
        self.display.say(
            f"at {self.state.seen / 1000:g} kimg: {change.threads} instead of {change.before} CPU "
            f"threads: {change.why}"
        )

    def _after_step(self, before: int, changing: bool = False) -> str:
        """What is due at this position; the name of a fact that is not finite, else nothing. A row
        is due too if the number of threads is `changing` after it."""
        seen, record = self.state.seen, self.config.record
        row, judging = None, self.judge.due(before, seen)
        if crossed(before, seen, record.log_kimg) or judging or changing:
            self.meter.merge(self.ranks, self._weight)
            row = self._row()
            wrong = [name for name, value in row.items() if not math.isfinite(value)]
            if wrong:
                return wrong[0]
            if judging:
                row |= self._judged()
            self._write(lambda: self.history.add(row))
            if judging and not self._keep_if_best(row):
                return "the weights"
            self._watch()
        self._tell(row)
        if crossed(before, seen, record.sample_kimg) or seen >= self.total:
            self._write(self._draw_samples)
            self._write(self._report)
        if crossed(before, seen, record.checkpoint_kimg):
            if not self._weights_are_finite():
                return "the weights"
            self._save()
        return ""

    def _judged(self) -> Row:
        """What an evaluation of the moving average says, in the first process."""
        if not self.ranks.first or not self._weights_are_finite():
            return {}
        start = time.monotonic()
        facts = self.judge.judge(self.state.average.eval())
        if facts:
            took = time.monotonic() - start
            at = f"{self.state.seen / 1000:g} kimg"
            self.display.say(f"evaluation at {at}: {self.judge.words(facts)} ({took:.0f} s)")
        self._log_from = (time.monotonic(), self.state.seen)
        return facts

    def _keep_if_best(self, row: Row) -> bool:
        """Keep the state as the best checkpoint where the row says so; False: it is not finite."""
        if not self.ranks.from_first(self._is_best(row)):
            return True
        if not self._weights_are_finite():
            return False
        self._save()

        self._write(lambda: self._keep_best(row))
        return True

    def _is_best(self, row: Row) -> bool:
        value, folder = row.get(self.judge.metric), self.run_files.checkpoints
        return value is not None and checkpoint.is_best(folder, self.judge.measure, value)

    def _keep_best(self, row: Row) -> None:
        folder, seen = self.run_files.checkpoints, self.state.seen
        if all(saved.seen != seen for saved in checkpoint.listed(folder)):
            return  # the disk was full; that ends the run
        value = row[self.judge.metric]
        if not checkpoint.keep_best(folder, seen, self.judge.measure, value):
            self.display.say("warning: the disk has no room to keep the best checkpoint")

    def _write(self, action: Callable[[], object]) -> None:
        """Write something, in the first process; a full disk ends the run before the next step."""
        if not self.ranks.first:
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

    def _watch(self) -> None:
        rows = self.history.rows
        for alarm in alarms(rows[-200:]):
            if len(rows) - self._alarmed.get(alarm.kind, -_QUIET_ROWS) >= _QUIET_ROWS:
                self._alarmed[alarm.kind] = len(rows)
                self.display.say(f"warning at {self.state.seen / 1000:g} kimg: {alarm.text}")

    def _tell(self, row: Row | None) -> None:
        done = self.state.seen - self._started_at
        rate = self._rate.at(time.monotonic(), self.state.seen)
        left = (self.total - self.state.seen) / rate
        if self.config.max_hours:
            left = min(left, max(0.0, self.config.max_hours * 3600 - self.seconds))
        last = row or (self.history.rows[-1] if self.history.rows else None)
        self._tell_forecast(done // (self.config.batch * self.config.n_critic))
        measured = self.judge.latest(self.history.rows)
        spent, price = f"disk {byte_text(self._free)} free", self.config.price_per_hour
        if price:
            spent += f"  cost {cost(self.seconds_before + self.seconds, price)}"
        shown = Advance(self.state.seen, self.total, rate, left, last, measured, spent)
        self.display.advance(shown)

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
        self.display.say(course.text())
        if self._forecast and config.max_hours:
            self.display.say(self._forecast.disk_line(config, self.source, start + course.kimg))

    @property
    def _free(self) -> int:
        """Bytes free on the run's disk, looked at every few seconds."""
        now = time.monotonic()
        if now - self._free_at >= _DISK_SECONDS:
            self._free_known, self._free_at = free_bytes(self.run_files.folder), now
        return self._free_known

    def _draw_samples(self) -> None:
        start = time.monotonic()
        self.state.average.eval()
        pixels = draw(self.state.average, self._latents, self._labels)
        name = f"{self.state.seen:010d}.png"
        write_picture(self.run_files.samples / name, tile(pixels))
        self._draw_seconds = time.monotonic() - start

    def _save(self) -> None:
        """A checkpoint, in step with the other processes."""
        if self.state.seen == self._saved_seen:
            return
        self.meter.merge(self.ranks, self._weight)
        self._write(self._save_here)
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
        if self.state.seen < self.total and not checkpoint.room_for_another(
            folder, saved.bytes, spare
        ):
            raise DiskFull(
                f"{folder}: the state is saved, but the disk has no room for the next checkpoint"
            )

    def _weights_are_finite(self) -> bool:
        networks = (self.state.generator, self.state.discriminator, self.state.average)
        tensors = [
            tensor.detach()
            for network in networks
            for tensor in (*network.parameters(), *network.buffers())
            if tensor.is_floating_point() and tensor.numel()
        ]
        return bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all())

    def _set_back(self, what: str) -> bool:
        """Return to the last good state, with other random draws; False: too often already."""
        self._set_backs += 1
        if self._set_backs > self.config.max_restarts:
            return False
        at = self.state.seen
        values = None
        if self.ranks.first:
            values, _ = checkpoint.load_newest(
                self.run_files.checkpoints, check=lambda found: check_resumable(found, self.state)
            )
        self.restore(self.ranks.from_first(values))
        self.state.restarts += self._set_backs
        self._write(lambda: self.history.reset(self.history.text()))
        self.display.say(
            f"warning: {what} became NaN or infinite before {at / 1000:g} kimg; set back to the "
            f"last good state at {self.state.seen / 1000:g} kimg, with other random draws "
            f"(try {self._set_backs} of {self.config.max_restarts}). If it happens again: "
            f"{REMEDIES}"
        )
        return True

    def restore(self, values: dict[str, Any] | None) -> None:
        """Become what a checkpoint holds; without one, what the run is at its start."""
        if values is None:
            fresh = new_state(self.config, image_shape(self.source), self.device)
            if self.config.init_from:
                take_weights(fresh, self.config.init_from, self.device)
            self.state.load(fresh.tensors())
            self.history.rows, self.meter = [], Meter()
        else:
            self.state.load(values["state"])
            self.history.rows = History(None, values["history"]).rows
            self.meter.load(values["meter"], self.device)
            self.seconds_before = values["seconds"]
            self._saved_seen = self.state.seen
        self._count_from_here()

    def _report(self, final: bool = False) -> None:
        if final or time.monotonic() - self._reported >= _REPORT_SECONDS:
            average = self.state.average.eval()
            space = space_of(average, self.config.latent, self.source.classes)
            pictures = self._pictures.pictures(space, self._latents, self._labels, final)
            extras = Extras(self.seconds_before + self.seconds, pictures)
            write_report(self.run_files, self.history.rows, extras)
            self._reported = time.monotonic()
