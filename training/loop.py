"""The training loop: steps, and at fixed numbers of images logs, samples, checkpoints, report.

When a step is due, and what it draws, depends on images seen alone. Clocks only decide how often a
person is told something and when to save out of turn; neither changes the result.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from training import checkpoint
from training.config import Config
from training.console import Advance, Display
from training.data import Loader, Source
from training.disk import DiskFull
from training.forecast import Forecast, parameters, state_bytes
from training.grid import draw, tile, write_picture
from training.history import History, Row
from training.latents import fixed_latents
from training.report import write_report
from training.runs import Run
from training.state import State
from training.step import Facts, Step

TIMED_STEPS = 4
"""Steps that the first forecast is made from; one before them warms up."""
_REPORT_SECONDS = 30.0


class Interruption:
    """Remembers SIGINT and SIGTERM while in the `with` block, instead of dying of them."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:  # a second one: the user means it
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


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


class Loop:
    """Trains `state` on `source` until it is done; see `run`."""

    def __init__(
        self,
        config: Config,
        run: Run,
        source: Source,
        state: State,
        history: History,
        device: torch.device,
        display: Display,
    ) -> None:
        self.config, self.run_files, self.source = config, run, source
        self.state, self.history, self.device, self.display = state, history, device, display
        self.total = int(config.total_kimg * 1000)
        self.step = Step(config, state, device)
        self._sums: dict[str, torch.Tensor] = {}
        self._summed = 0
        self._start = time.monotonic()
        self._started_at = state.seen
        self._saved_at = self._start
        self._saved_seen = -1
        self._log_from = (self._start, state.seen)
        self._reported = 0.0
        grid = config.record.grid
        z_dim = state.generator.z_dim
        self._latents = fixed_latents(config.latent, grid, z_dim, config.seed, device)
        self._labels = torch.arange(grid, device=device) % max(1, source.classes)

    def run(self) -> Outcome:
        """Train until `total_kimg`, the hours, a signal, a full disk or divergence ends it."""
        with Interruption() as interruption, self._loader() as loader:
            if self.state.seen == 0:
                self._draw_samples()
            try:
                outcome = self._steps(loader, interruption)
                if outcome.reason != "diverged":
                    self._save()
            except DiskFull as error:
                outcome = Outcome("disk", str(error))
            self._report(final=True)
        return outcome

    def _loader(self) -> Loader:
        return Loader(self.source, self.config, self.state.seen)

    def _steps(self, loader: Loader, interruption: Interruption) -> Outcome:
        limit = self.config.max_hours * 3600
        while self.state.seen < self.total:
            if interruption.asked:
                return Outcome("interrupted")
            if limit and time.monotonic() - self._start >= limit:
                return Outcome("hours", f"{self.config.max_hours:g} hours are over")
            before = self.state.seen
            facts = self.step([next(loader) for _ in range(self.config.n_critic)])
            self._sum(facts)
            self._after_step(before)
        return Outcome("done")

    def _after_step(self, before: int) -> None:
        seen, record = self.state.seen, self.config.record
        row = None
        if crossed(before, seen, record.log_kimg):
            row = self._log()
        self._tell(row)
        if crossed(before, seen, record.sample_kimg) or seen >= self.total:
            self._draw_samples()
            self._report()
        minutes = (time.monotonic() - self._saved_at) / 60
        if crossed(before, seen, record.checkpoint_kimg) or minutes >= record.checkpoint_minutes:
            self._save()

    def _sum(self, facts: Facts) -> None:
        for name, value in facts.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._summed += 1

    def _log(self) -> Row:
        """A row of means since the last one; the only place where losses leave the device."""
        now, seen = time.monotonic(), self.state.seen
        seconds, images = now - self._log_from[0], seen - self._log_from[1]
        names = list(self._sums)
        values = torch.stack([self._sums[name].double() for name in names]) / self._summed
        row: Row = {"seen": seen, **dict(zip(names, values.tolist(), strict=True))}
        row["images_per_second"] = round(images / seconds, 3)
        self.history.add(row)
        self._sums, self._summed, self._log_from = {}, 0, (now, seen)
        return row

    def _tell(self, row: Row | None) -> None:
        elapsed, done = time.monotonic() - self._start, self.state.seen - self._started_at
        rate = done / elapsed
        left = (self.total - self.state.seen) / rate
        if self.config.max_hours:
            left = min(left, max(0.0, self.config.max_hours * 3600 - elapsed))
        last = row or (self.history.rows[-1] if self.history.rows else None)
        self.display.advance(Advance(self.state.seen, self.total, rate, left, last))

    def _draw_samples(self) -> None:
        self.state.average.eval()
        pixels = draw(self.state.average, self._latents, self._labels)
        name = f"{self.state.seen:010d}.png"
        write_picture(self.run_files.samples / name, tile(pixels))

    def _save(self) -> None:
        if self.state.seen == self._saved_seen:
            return
        values: dict[str, Any] = {
            "state": self.state.tensors(),
            "history": self.history.text(),
            "sums": self._sums,
            "summed": self._summed,
        }
        saved = checkpoint.save(
            self.run_files.checkpoints, self.state.seen, values, self.config.record.keep
        )
        self._saved_at, self._saved_seen = time.monotonic(), self.state.seen
        if self.state.seen < self.total and not checkpoint.room_for_another(
            self.run_files.checkpoints, saved.bytes
        ):
            raise DiskFull(
                f"{self.run_files.checkpoints}: the state is saved, but the disk has no room for "
                "the next checkpoint; free some and run the same command again"
            )

    def restore_sums(self, values: dict[str, Any]) -> None:
        """Take over the sums of a row that was begun before the checkpoint."""
        self._sums, self._summed = values["sums"], values["summed"]

    def _report(self, final: bool = False) -> None:
        if final or time.monotonic() - self._reported >= _REPORT_SECONDS:
            write_report(self.run_files, self.history.rows)
            self._reported = time.monotonic()

    def forecast(self) -> Forecast:
        """What is left to do, without a time."""
        return Forecast(
            parameters(self.state.generator),
            parameters(self.state.discriminator),
            state_bytes(self.state),
            self.config.record.keep,
            max(0, self.total - self.state.seen) / 1000,
        )
