"""One training command from its configuration to its exit status."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import UserError, describe_os_error, is_disk_full, local_path
from training import checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.data import Loader, Source, open_source
from training.loop import Loop, Outcome, image_shape
from training.machine.allocator import keep_freed
from training.machine.determinism import determinism
from training.machine.device import choose_device
from training.machine.disk import free_bytes
from training.machine.ranks import Ranks, joined
from training.monitoring.console import Display, Silent, clock, display
from training.monitoring.history import History
from training.options.resolve import without_missing_labels
from training.planning.forecast import Forecast, cost, disk_bytes, pace, parameters, state_bytes
from training.planning.memory import REMEDY, available_bytes, image_bytes, step_bytes
from training.planning.threads import settle_threads
from training.pretrained.finetune import take_weights
from training.runs import Run, enter, find_run, locked
from training.state import State, new_state
from training.step import Step

_STATUS = {"done": 0, "hours": 0, "interrupted": 130, "disk": 1, "diverged": 1}
_TIMED = 4
_TIMED_SECONDS = 3.0


def default_run(config: Config, source: Source) -> str:
    """The name of a run that was given none: the same command finds it again."""
    return f"{source.index.name}-{Path(config.preset).stem}"


def train(
    config: Config,
    location: str,
    run_name: str | None,
    started: float,
    as_json: bool = False,
    why: Sequence[str] = (),
) -> int:
    """Train as `config` says on the shards at `location`; the command's exit status.

    `why` are sentences on how the configuration was chosen, to be told first.

    Raises:
        UserError: the shards, the run or the device do not fit.
    """
    device = choose_device(config.device)
    with joined("nccl" if device.type == "cuda" else "gloo") as ranks, ExitStack() as stack:
        stack.enter_context(determinism(config.deterministic, device))
        if ranks.world > config.batch:
            raise UserError(f"batch: {config.batch} images for {ranks.world} processes")
        device = _prepare(config, device, ranks)
        source = open_source(location, config.resolution)
        config = without_missing_labels(config, source.classes)
        run = find_run(run_name or default_run(config, source))
        if device.type == "cpu" and ranks.world == 1:
            config = settle_threads(config, run)
        problem = ""
        if ranks.first:
            try:
                stack.enter_context(locked(run))
                enter(run, config, source, location)
            except UserError as error:
                problem = str(error)
            except OSError as error:
                problem = _words(error, run)
        problem = ranks.from_first(problem)
        if problem:
            raise UserError(problem)
        shown: Display = display(as_json) if ranks.first else Silent()
        for line in why:
            shown.say(line)
        return _train(config, source, run, device, ranks, started, shown)


def _words(error: OSError, run: Run) -> str:
    return f"{run.folder}: the disk is full" if is_disk_full(error) else describe_os_error(error)


def _prepare(config: Config, device: torch.device, ranks: Ranks) -> torch.device:
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        keep_freed()
    if device.type == "cuda" and ranks.world > 1:
        device = torch.device("cuda", ranks.local)
        torch.cuda.set_device(device)
    return device


def forecast(
    config: Config, source: Source, run: Run, device: torch.device, ranks: Ranks, state: State
) -> Forecast:
    """What the run takes; see `Forecast`."""
    shape = image_shape(source)
    remote = any(local_path(location) is None for location in source.locations)
    return Forecast(
        parameters(state.generator),
        parameters(state.discriminator),
        step_bytes(config, shape, device, ranks),
        image_bytes(config, source, ranks),
        available_bytes(device),
        disk_bytes(config, source, state_bytes(state)),
        int(config.data.cache_gb * 1e9) if remote else 0,
        free_bytes(run.folder),
    )


def refuse_too_large(found: Forecast, device: torch.device) -> None:
    """Refuse a run that does not fit in memory.

    Raises:
        UserError: it does not; the line says what helps.
    """
    need = found.memory + (found.images if device.type == "cpu" else 0)
    if found.available is not None and need > found.available:
        raise UserError(
            f"batch: training takes about {need / 1e9:.1f} GB of memory, "
            f"{found.available / 1e9:.1f} GB are available; {REMEDY}"
        )


def _train(
    config: Config,
    source: Source,
    run: Run,
    device: torch.device,
    ranks: Ranks,
    started: float,
    shown: Display,
) -> int:
    state = new_state(config, image_shape(source), device)
    values, damaged = None, list[str]()
    if ranks.first:
        values, damaged = _newest(run, state)
    values = ranks.from_first(values)
    for sentence in damaged:
        shown.say(f"warning: {sentence}; falling back to the one before")
    if values is None and ranks.from_first(bool(damaged)):
        raise UserError(
            f"{run.checkpoints}: no checkpoint can be used; to begin again, remove the folder or "
            "give another --run"
        )
    total = int(config.total_kimg * 1000)
    seen = values["state"]["seen"] if values else 0
    if seen >= total:
        shown.say(
            f"{run.folder}: already done, {seen / 1000:g} of {total / 1000:g} kimg; "
            "a larger --total-kimg trains on"
        )
        return 0
    found = forecast(config, source, run, device, ranks, state)
    refuse_too_large(found, device)
    try:
        text = values["history"] if values else ""
        history = History(run.folder if ranks.first else None, text)
    except OSError as error:
        raise UserError(_words(error, run)) from None
    try:
        loop = Loop(config, run, source, state, history, device, shown, ranks, started)
        if values:
            loop.restore(values)
        elif config.init_from:
            taken = take_weights(state, config.init_from, device)
            shown.say(f"weights taken from {config.init_from}{taken.words()}")
        _introduce(config, source, run, device, found, shown)
        if seen:
            shown.say(f"continuing at {seen / 1000:g} kimg")
        outcome = loop.run()
    finally:
        shown.close()
        history.close()
    _conclude(outcome, run, loop, shown)
    return _STATUS[outcome.reason]


def _newest(run: Run, state: State) -> tuple[dict[str, Any] | None, list[str]]:
    """The values that the run can go on from, on the CPU, and what is wrong with newer ones, which
    are set aside."""
    values, damaged = checkpoint.load_newest(
        run.checkpoints, check=lambda found: check_resumable(found, state)
    )
    if values and damaged:
        checkpoint.set_aside(run.checkpoints, values["state"]["seen"])
    return values, damaged


def _introduce(
    config: Config, source: Source, run: Run, device: torch.device, found: Forecast, shown: Display
) -> None:
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    shown.say(
        f"run {run.folder}  preset {config.preset}  {source.index.nsamples} images of "
        f"{source.width}×{source.height} px  {device.type}{threads}, {config.precision}"
    )
    for line in found.lines():
        shown.say(line)


def _conclude(outcome: Outcome, run: Run, loop: Loop, shown: Display) -> None:
    again = "run the same command again to resume"
    words = {
        "done": "done",
        "hours": f"stopped: {outcome.detail}; state saved, {again}",
        "interrupted": f"interrupted, state saved; {again}",
        "disk": f"stopped: {outcome.detail}; free some disk and {again}",
        "diverged": f"stopped: {outcome.detail}",
    }
    shown.say(f"{words[outcome.reason]} ({loop.state.seen / 1000:g} kimg)")
    skipped = sum(int(loop.state.scalars.get(f"skipped_{name}", 0)) for name in "gd")
    if skipped:
        shown.say(f"{skipped} steps of a network were left out: their fp16 gradients overflowed")
    shown.say(_bill(loop))
    newest = max(run.samples.glob("*.png"), default=None)
    if newest:
        shown.say(f"samples {newest}\nreport  {run.report}")
    seconds = loop.seconds_before + loop.seconds
    shown.end(
        {
            "reason": outcome.reason, "detail": outcome.detail, "seen": loop.state.seen,
            "seconds": round(seconds, 1), "cost": seconds / 3600 * loop.config.price_per_hour,
            "run": str(run.folder), "samples": str(newest) if newest else None,
            "report": str(run.report),
        }
    )  # fmt: skip


def _bill(loop: Loop) -> str:
    """The time and cost of this command and of the run."""
    now, price = loop.seconds, loop.config.price_per_hour
    whole = loop.seconds_before + now
    text = f"took {clock(now)}" + (f", cost {cost(now, price)}" if price else "")
    if loop.seconds_before:
        text += f"; in all {clock(whole)}" + (f", cost {cost(whole, price)}" if price else "")
    return text


def dry_run(
    config: Config,
    location: str,
    run_name: str | None,
    as_json: bool = False,
    why: Sequence[str] = (),
) -> int:
    """Say what the run would take, from a few timed steps, and write nothing; `why` as in `train`.

    Raises:
        UserError: as `train`, also where the run would not fit in memory.
    """
    source = open_source(location, config.resolution)
    run = find_run(run_name or default_run(config, source))
    device = choose_device(config.device)
    with (
        determinism(config.deterministic, device),
        joined("nccl" if device.type == "cuda" else "gloo") as ranks,
    ):
        device = _prepare(config, device, ranks)
        shown: Display = display(as_json) if ranks.first else Silent()
        for line in why:
            shown.say(line)
        state = new_state(config, image_shape(source), device)
        found = forecast(config, source, run, device, ranks, state)
        _introduce(config, source, run, device, found, shown)
        refuse_too_large(found, device)
        seconds = _timed(config, source, state, device, ranks)
    newest = next(iter(checkpoint.listed(run.checkpoints)), None)
    kimg = max(0.0, config.total_kimg - (newest.seen / 1000 if newest else 0))
    shown.say(pace(seconds, kimg, config.price_per_hour))
    shown.end(
        {
            "seconds_per_kimg": round(seconds, 3), "kimg": kimg, "seconds": seconds * kimg,
            "cost": seconds * kimg / 3600 * config.price_per_hour, "memory_bytes": found.memory,
            "run": str(run.folder),
        }
    )  # fmt: skip
    shown.close()
    return 0


def _timed(
    config: Config, source: Source, state: State, device: torch.device, ranks: Ranks
) -> float:
    """Seconds per kimg of real steps on real data; the first warms up."""
    step = Step(config, state, device, ranks)
    with Loader(source, config, 0, ranks) as loader:
        start, steps = 0.0, -1
        while True:
            step([next(loader) for _ in range(config.n_critic)])
            _wait_for(device)
            steps += 1
            if steps == 0:
                start = time.monotonic()
            elapsed = time.monotonic() - start
            enough = steps >= _TIMED and elapsed >= _TIMED_SECONDS
            if ranks.most(int(enough), device):
                return elapsed / (steps * config.batch * config.n_critic) * 1000


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
