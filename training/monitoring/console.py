"""Console output of a run: a progress bar on a terminal, lines otherwise, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from pipeline.contract import format_duration, line_interval, printable

_LINE_SECONDS = 15.0
_SURE = 0.99
"""Below this fraction of the total, `expected` is shown in its place."""


def printable_lines(text: str) -> str:
    """Return the lines of `text` without control characters."""
    return "\n".join(map(printable, text.split("\n")))


def losses(row: dict[str, Any]) -> str:
    """Format the losses of a row."""
    words = {"D": "loss_d", "G": "loss_g"}
    parts = [f"{word} {row[name]:.3f}" for word, name in words.items() if name in row]
    if "d_real" in row and "d_fake_before" in row:
        parts.append(f"D(x) {row['d_real']:.2f} D(G(z)) {row['d_fake_before']:.2f}")
    return "  ".join(parts)


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a run. `rate` is in images/s, `left` in seconds or None while unknown;
    `measured` is the newest evaluation, `spent` disk and cost, as text."""

    seen: int
    total: int
    rate: float
    left: float | None
    row: dict[str, Any] | None
    measured: str = ""
    spent: str = ""

    @property
    def expected(self) -> int:
        """The images at the end of the run: fewer than `total` if its time ends it."""
        if self.left is None:
            return self.total
        return min(self.total, self.seen + round(self.left * self.rate))

    def text(self) -> str:
        """Return the progress as one line."""
        left = "" if self.left is None else f"  {format_duration(self.left)} left"
        rest = f"  {losses(self.row)}" if self.row else ""
        rest += "".join(f"  {text}" for text in (self.measured, self.spent) if text)
        end = f"{self.total / 1000:g}"
        if self.expected < _SURE * self.total:
            end = f"~{float(f'{self.expected / 1000:.3g}'):g}"
        return (
            f"{self.seen / 1000:.1f}/{end} kimg  "
            f"{self.rate:.0f} images/s ({1000 / self.rate:.3g} s/kimg){left}{rest}"
        )


EndSummary = dict[str, Any]


class Display(Protocol):
    """`message` prints a message, `update` the progress, `finish` the final summary in numbers
    and paths, which people have already seen as text."""

    def message(self, text: str) -> None: ...
    def update(self, advance: TrainingProgress) -> None: ...
    def finish(self, summary: EndSummary) -> None: ...
    def close(self) -> None: ...


@dataclass
class TextDisplay:
    """Plain lines, one every few seconds, later one a minute."""

    _start: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def message(self, text: str) -> None:
        print(printable_lines(text), flush=True)

    def update(self, advance: TrainingProgress) -> None:
        now = time.monotonic()
        pause = line_interval(now - self._start, _LINE_SECONDS)
        if now - self._last >= pause or advance.seen >= advance.total:
            self._last = now
            print(advance.text(), flush=True)

    def finish(self, summary: EndSummary) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class JsonDisplay:
    """JSON Lines. `event` is `message` (`text`), `progress` or `end`.

    `progress` is printed at most every second, and with each new row of the history: `seen`,
    `total` and those `expected` until the end in images, `images_per_second`, `seconds_left`
    (null while unknown), `row`.
    """

    _last: float = 0.0
    _row: EndSummary | None = None

    def message(self, text: str) -> None:
        self._print({"event": "message", "text": text})

    def update(self, advance: TrainingProgress) -> None:
        now, new = time.monotonic(), advance.row is not self._row
        if new or now - self._last >= 1 or advance.seen >= advance.total:
            self._last, self._row = now, advance.row
            self._print(
                {
                    "event": "progress", "seen": advance.seen, "total": advance.total,
                    "expected": advance.expected,
                    "images_per_second": round(advance.rate, 3), "seconds_left": advance.left,
                    "row": advance.row,
                }
            )  # fmt: skip

    def finish(self, summary: EndSummary) -> None:
        self._print({"event": "end", **summary})

    def close(self) -> None:
        pass

    def _print(self, summary: EndSummary) -> None:
        print(json.dumps(summary), flush=True)


class BarDisplay:
    """A progress bar with metrics beside it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False),
            console=console,
        )  # fmt: skip
        self._task: TaskID | None = None

    def message(self, text: str) -> None:
        self._progress.console.print(printable_lines(text), markup=False, highlight=False)

    def update(self, advance: TrainingProgress) -> None:
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=advance.total)
        self._progress.update(
            self._task, completed=advance.seen, total=advance.expected, description=advance.text()
        )

    def finish(self, summary: EndSummary) -> None:
        pass

    def close(self) -> None:
        self._progress.stop()


class NullDisplay:
    """Prints nothing: for all processes but the main process."""

    def message(self, text: str) -> None:
        pass

    def update(self, advance: TrainingProgress) -> None:
        pass

    def finish(self, summary: EndSummary) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def show_progress(what: str, unit: str = "images") -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, total) that draws a progress bar on a terminal, and otherwise
    prints a line every few seconds; on standard error, because standard output is the result."""
    if not sys.stderr.isatty():
        start = last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= line_interval(now - start, _LINE_SECONDS):
                last = now
                print(f"{what}: {done} of {total} {unit}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def make_display(as_json: bool = False) -> Display:
    """Return the requested display, or the one that suits standard output."""
    if as_json:
        return JsonDisplay()
    return BarDisplay(Console()) if sys.stdout.isatty() else TextDisplay()
