"""Console output of stages: progress bars on a terminal, lines otherwise.

The console listens to an `EventLog` and does not affect the stages.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.events import FIRST_FAILURE, Event
from pipeline.events import Progress as Report
from pipeline.outside_text import printable
from pipeline.units import format_bytes, format_duration, line_interval

_MAX_CHARACTERS = 300
"""Longer values of an event are truncated when printed; the logs contain them in full."""


def describe_event(event: Event) -> str:
    """Format an event as one line without control characters, such as `download done: images 340,
    bytes 1.2 MB`."""
    facts = event.facts
    if event.event == FIRST_FAILURE:
        where = f"{facts['kind']}: {_format_value(facts['url'])}"
        detail = _format_value(_last_line(str(facts["detail"])))
        return f"{event.stage} {event.event} {where}" + (f": {detail}" if detail else "")
    words = ", ".join(
        _describe_field(key, value)
        for key, value in facts.items()
        if value not in ({}, (), [], None)
    )
    return f"{event.stage} {event.event}" + (f": {words}" if words else "")


def _last_line(text: str) -> str:
    """Return the last line of a traceback, which names the error; other texts unchanged."""
    return text.rstrip().rpartition("\n")[2] if text.startswith("Traceback") else text


def _describe_field(key: str, value: object) -> str:
    name = printable(key.replace("_", " "))
    if key == "bytes" and isinstance(value, int):
        return f"{name} {format_bytes(value)}"
    return f"{name} {_format_value(value)}"


def describe_count(report: Report) -> str:
    """Format progress, such as `340/2000 images, 12.3 MB, 3 failed (not_found 2, wrong_type 1)`."""
    done = "" if report.total is None else f"{report.done:,}/"
    count = report.done if report.total is None else report.total
    parts = [done + report.count(count)]
    if report.bytes:
        parts.append(format_bytes(report.bytes))
    if report.failed:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(report.failed.items()))
        parts.append(f"{sum(report.failed.values())} failed ({kinds})")
    return ", ".join(parts)


class _RateMeter:
    """Measures units per second since the first report of a stage, without the work of earlier
    runs."""

    def __init__(self, report: Report) -> None:
        self._start, self._done = time.monotonic(), report.done

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def rate(self, report: Report) -> float:
        done = max(0, report.done - self._done)  # pages that are visited again lower the count
        return done / max(self.elapsed(), 1e-6)

    def left(self, report: Report) -> float | None:
        """Return the seconds left; None until the total and the rate are known."""
        rate = self.rate(report)
        if report.total is None or rate <= 0:
            return None
        return max(0.0, (report.total - report.done) / rate)


class _CountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("count", "")), style="dim")


class Console:
    """Shows events and progress on stderr.

    Args:
        quiet: print only errors.
        live: draw bars; None: only if stderr is a terminal.
    """

    def __init__(self, quiet: bool = False, live: bool | None = None) -> None:
        self._out = RichConsole(stderr=True, highlight=False)
        self._quiet = quiet
        self._live = sys.stderr.isatty() if live is None else live
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._pace: dict[str, _RateMeter] = {}
        self._last_line: dict[str, float] = {}
        self._last_report: dict[str, Report] = {}

    def __enter__(self) -> Console:
        if self._live and not self._quiet:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description:<9}", style="bold", markup=False),
                BarColumn(bar_width=28),
                _CountColumn(),
                TextColumn("{task.fields[pace]}", style="dim", markup=False),
                TimeRemainingColumn(compact=True),
                console=self._out,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def on_event(self, event: Event) -> None:
        """Print an event in one line."""
        if event.event == "start" or (self._quiet and event.event != FIRST_FAILURE):
            return
        stage, _, rest = describe_event(event).partition(" ")
        self._out.print(Text.assemble((stage, "bold"), " ", rest), soft_wrap=True)

    def on_progress(self, report: Report) -> None:
        """Update the stage's bar, or print a line if one is due."""
        if self._quiet or self._last_report.get(report.stage) == report:
            return
        self._last_report[report.stage] = report
        pace = self._pace.setdefault(report.stage, _RateMeter(report))
        if self._bars is not None:
            self._draw(report, pace)
            return
        now = time.monotonic()
        if now - self._last_line.get(report.stage, 0.0) >= line_interval(pace.elapsed()):
            self._last_line[report.stage] = now
            left = pace.left(report)
            tail = ""
            if left is not None:
                tail = f", {pace.rate(report):.0f}/s, {format_duration(left)} left"
            line = f"{report.stage}: {describe_count(report)}{tail}"
            self._out.print(printable(line), soft_wrap=True, markup=False)

    def _draw(self, report: Report, pace: _RateMeter) -> None:
        assert self._bars is not None
        if report.stage not in self._tasks:
            self._tasks[report.stage] = self._bars.add_task(
                report.stage, total=report.total, completed=report.done, count="", pace=""
            )
        self._bars.update(
            self._tasks[report.stage],
            total=report.total,
            completed=report.done,
            count=printable(describe_count(report)),
            pace=f"{pace.rate(report):.0f}/s",
        )


def _format_value(value: object) -> str:
    if isinstance(value, dict):
        return (
            "("
            + ", ".join(f"{_format_value(k)} {_format_value(v)}" for k, v in sorted(value.items()))
            + ")"
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(_format_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return printable(text, _MAX_CHARACTERS)
