"""One training, from its configuration to its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from pipeline.contract import UserError, count_of, format_duration
from training.callbacks import DIVERGENCE_HINT, Callback, EndReason
from training.checkpoint import list_checkpoints
from training.config import Config
from training.loop import Loop
from training.machine.device import is_bf16_fast
from training.monitoring.console import Display, NullDisplay
from training.monitoring.history import History
from training.pair_loader import open_loader
from training.planning.advice import speed_remark
from training.planning.forecast import Forecast, cost, disk_bytes, plan_course, time_steps
from training.preparation import Prepared, describe_write_error, prepare
from training.runs import Run
from training.step import Step

EXIT_STATUS = {
    EndReason.DONE: 0, EndReason.HOURS: 0, EndReason.INTERRUPTED: 130, EndReason.DISK: 1,
    EndReason.DIVERGED: 1, EndReason.RULE: 0,
}  # fmt: skip
MakeCallback = Callable[[Loop], Callback]
"""A function of the loop that returns a callback, such as a subclass of `Callback`."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended: why, with a `detail` for people; the images `seen` and the `seconds` of
    the run, over all commands that trained it; whether it `was_done` before."""

    run: Run
    reason: EndReason
    seen: int
    seconds: float
    detail: str = ""
    was_done: bool = False


def train(
    config: Config,
    location: str,
    run_name: str | None,
    started: float | None = None,
    display: Display | None = None,
    why: Sequence[str] = (),
    callbacks: Sequence[MakeCallback] = (),
) -> TrainingResult:
    """Train with `config` on the shards at `location`, or resume the run.

    Args:
        run_name: as in `find_run`; None: `default_run_name`.
        started: `time.monotonic()` from which the hours count; None: now.
        display: shows messages and progress; None: nothing is shown.
        why: sentences that explain how the configuration was chosen; they are shown first.
        callbacks: further callbacks, which are called after the loop's own.

    Raises:
        UserError: as `prepare`.
    """
    started = time.monotonic() if started is None else started
    with ExitStack() as stack:
        run = prepare(config, location, run_name, stack, True, display or NullDisplay(), why)
        if run.forecast is None:
            _show_done(run)
            seconds = float(run.values["seconds"]) if run.values else 0.0
            return TrainingResult(run.run, EndReason.DONE, run.seen, seconds, was_done=True)
        return _train(run, run.forecast, started, callbacks)


def _show_done(run: Prepared) -> None:
    total = int(run.config.total_kimg * 1000)
    run.shown.message(
        f"{run.run.folder}: already finished, {run.seen / 1000:g} of {total / 1000:g} kimg; "
        "set a larger --total-kimg to continue"
    )


def _train(
    run: Prepared, found: Forecast, started: float, callbacks: Sequence[MakeCallback]
) -> TrainingResult:
    shown, folder = run.shown, run.run.folder
    try:
        text = run.values["history"] if run.values else ""
        history = History(folder if run.ranks.is_main else None, text)
    except OSError as error:
        raise UserError(describe_write_error(error, run.run)) from None
    try:
        loop = Loop(
            run.config, run.run, run.source, run.state, history, run.device, shown, run.ranks,
            started, found, run.most_threads, callbacks, run.placement,
        )  # fmt: skip
        if run.values:
            loop.restore(run.values)
            loop.seconds_before = run.values["seconds"]
            run.values = None  # as large as a checkpoint
        _show_header(run, found)
        if not run.config.max_hours:  # else the disk's line comes with the first speed
            shown.message(found.disk_line(run.config, run.source, run.config.total_kimg))
        if run.seen:
            shown.message(f"resuming at {run.seen / 1000:g} kimg")
        reason = loop.run()
    finally:
        shown.close()
        history.close()
    return _show_summary(reason, run.run, loop, run.shown)


def _show_header(run: Prepared, found: Forecast) -> None:
    threads = f", {count_of(torch.get_num_threads(), 'thread')}" if run.device.type == "cpu" else ""
    run.shown.message(
        f"run {run.run.folder}  preset {run.config.preset}  "
        f"{' and '.join(count_of(one.index.nsamples, 'image') for one in run.source.sets)} of "
        f"{run.source.width}×{run.source.height} px  {run.device.type}{threads}, "
        f"{run.config.precision}"
    )
    is_slow = run.device.type == "cpu" and not is_bf16_fast(run.device)
    if run.config.precision == "bf16" and is_slow and not run.seen:
        run.shown.message("this CPU has no units for bf16 (AMX); --precision fp32 is faster")
    for line in found.lines(run.device.type):
        run.shown.message(line)


def _show_summary(reason: EndReason, run: Run, loop: Loop, shown: Display) -> TrainingResult:
    details = {
        EndReason.HOURS: f"the time of {format_duration(loop.config.max_hours * 3600)} is over",
        EndReason.DISK: loop.disk_full,
        EndReason.RULE: loop.stop_rules.reason,
        EndReason.DIVERGED: f"it became NaN again and again; {DIVERGENCE_HINT}",
    }
    detail = details.get(reason, "")
    again = "run the same command again to resume"
    words = {
        EndReason.DONE: "done",
        EndReason.HOURS: f"stopped: {detail}; state saved, {again}",
        EndReason.RULE: f"stopped: {detail}; state saved, without that option it continues",
        EndReason.INTERRUPTED: f"interrupted, state saved; {again}",
        EndReason.DISK: f"stopped: {detail}; free some disk and {again}",
        EndReason.DIVERGED: f"stopped: {detail}",
    }
    seen = loop.state.seen
    if reason is EndReason.DISK:  # the last steps may not be saved
        seen = max((saved.seen for saved in list_checkpoints(run.checkpoints)), default=0)
    shown.message(f"{words[reason]} ({seen / 1000:g} kimg)")
    skipped = sum(int(loop.state.scalars.get(f"skipped_{name}", 0)) for name in "gd")
    if skipped:
        shown.message(f"skipped because fp16 gradients overflowed: {count_of(skipped, 'step')}")
    shown.message(_format_time_and_cost(loop))
    newest = max(run.samples.glob("*.png"), default=None)
    if newest:
        shown.message(f"samples {newest}\nreport  {run.report}")
    seconds = loop.seconds_before + loop.seconds
    shown.finish(
        {
            "reason": reason.value, "detail": detail, "seen": loop.state.seen,
            "seconds": round(seconds, 1), "cost": seconds / 3600 * loop.config.price_per_hour,
            "run": str(run.folder), "samples": str(newest) if newest else None,
            "report": str(run.report),
        }
    )  # fmt: skip
    return TrainingResult(run, reason, seen, seconds, detail)


def _format_time_and_cost(loop: Loop) -> str:
    """Return the time and cost of this command and of the run."""
    now, price = loop.seconds, loop.config.price_per_hour
    whole = loop.seconds_before + now
    text = f"took {format_duration(now)}" + (f", cost {cost(now, price)}" if price else "")
    if loop.seconds_before:
        text += f"; in total {format_duration(whole)}" + (
            f", cost {cost(whole, price)}" if price else ""
        )
    return text


def dry_run(
    config: Config,
    location: str,
    run_name: str | None,
    started: float,
    display: Display,
    why: Sequence[str] = (),
) -> None:
    """Show the forecast of a run from a few timed steps and write nothing; the refusals are those
    of `train`.

    Raises:
        UserError: as `train`.
    """
    with ExitStack() as stack:
        run = prepare(config, location, run_name, stack, False, display, why)
        shown, config, found = run.shown, run.config, run.forecast
        stack.callback(shown.close)
        if found is None:
            _show_done(run)
            return
        _show_header(run, found)
        used = time.monotonic() - started
        seconds = _timed(run)
        course = plan_course(seconds, run.left, config.max_hours, used, config.price_per_hour)
        until = run.seen / 1000 + course.kimg
        shown.message(course.text())
        if line := speed_remark(config, seconds, run.seen, until):
            shown.message(line)
        shown.message(found.disk_line(config, run.source, until))
        shown.finish(
            {
                "seconds_per_kimg": round(seconds, 3), "kimg": course.kimg, "limit": course.limit,
                "seconds": course.seconds, "cost": course.cost, "memory_bytes": found.memory,
                "image_bytes": found.kept.in_memory, "device_image_bytes": found.kept.on_device,
                "checkpoint_bytes": found.checkpoint,
                "disk_bytes": disk_bytes(config, run.source, found.checkpoint, until),
                "run": str(run.run.folder),
            }
        )  # fmt: skip


def _timed(run: Prepared) -> float:
    """Seconds per kimg of real steps on real data; the first warms up."""
    config, device, ranks = run.config, run.device, run.ranks
    if run.values:
        run.state.load(run.values["state"])
    step = Step(config, run.state, device, ranks)
    with open_loader(run.source, config, run.seen, ranks, run.placement) as loader:
        return time_steps(
            lambda: step([next(loader) for _ in range(config.n_critic)]), config, device,
            lambda enough: bool(ranks.all_reduce_max(int(enough))),
        )  # fmt: skip
