"""All that is settled and checked before a run begins, alike with and without `--dry-run`.

Whatever refuses a run is found here, before the first step and before the run's configuration is
written, so both commands accept and refuse the same runs with the same line and exit status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import UserError, describe_os_error, is_disk_full, local_path
from training import checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.data import Source, open_source
from training.loop import image_shape
from training.machine.allocator import keep_freed
from training.machine.determinism import determinism
from training.machine.device import choose_device
from training.machine.disk import free_bytes
from training.machine.ranks import Ranks, joined
from training.metrics.suite import FEWEST
from training.monitoring.console import Display, Silent, display
from training.options.resolve import without_missing_labels
from training.planning.forecast import Forecast
from training.planning.memory import (
    available_bytes,
    image_bytes,
    measure_run,
    program_bytes,
    refuse_too_large,
)
from training.planning.room import is_evaluated, refuse_full_disk
from training.planning.threads import recorded_threads, set_threads
from training.pretrained.finetune import take_weights
from training.runs import (
    Run,
    enter,
    find_run,
    locked,
    refuse_locked,
    refuse_other_run,
    refuse_unwritable,
)
from training.state import State, new_state


@dataclass
class Prepared:
    """A run that may begin.

    `values` is what its newest checkpoint holds (None: it begins), `seen` the images of it;
    `forecast` is None where all images have been seen already. `most_threads` is how many CPU
    threads there are to choose from while it trains; 0: their number stays.
    """

    config: Config
    source: Source
    run: Run
    device: torch.device
    ranks: Ranks
    state: State
    values: dict[str, Any] | None
    seen: int
    forecast: Forecast | None
    shown: Display
    most_threads: int

    @property
    def left(self) -> float:
        """Thousand images that are still to train."""
        return max(0.0, self.config.total_kimg - self.seen / 1000)


def default_run(config: Config, source: Source) -> str:
    """The name of a run that was given none: the same command finds it again."""
    return f"{source.index.name}-{Path(config.preset).stem}"


def prepare(
    config: Config,
    location: str,
    run_name: str | None,
    stack: ExitStack,
    write: bool,
    as_json: bool = False,
    why: Sequence[str] = (),
) -> Prepared:
    """Settle and check everything; with `write` lock the run and write its configuration too.

    What must be undone when the command ends is left to `stack`. `why` are sentences on how the
    configuration was chosen, told first.

    Raises:
        UserError: the device, the shards, the run, the memory or the disk do not fit.
    """
    device = choose_device(config.device)
    ranks = stack.enter_context(joined("nccl" if device.type == "cuda" else "gloo"))
    stack.enter_context(determinism(config.deterministic, device))
    if ranks.world > config.batch:
        raise UserError(f"batch: {config.batch} images for {ranks.world} processes")
    device = _set_up(config, device, ranks)
    source = open_source(location, config.resolution)
    config = without_missing_labels(config, source.classes)
    run = find_run(run_name or default_run(config, source))
    alone = device.type == "cpu" and ranks.world == 1
    if alone:
        config = recorded_threads(config, run)

    def take() -> None:
        refuse_unwritable(run)
        if write:
            stack.enter_context(locked(run))
        else:
            refuse_locked(run)
        refuse_other_run(run, config, source, location)

    _in_first(ranks, run, take)
    shown: Display = display(as_json) if ranks.first else Silent()
    for line in why:
        shown.say(line)
    shape = image_shape(source)
    state = new_state(config, shape, device)
    values = _newest(run, ranks, state, shown, write)
    seen = int(values["state"]["seen"]) if values else 0
    most = 0
    if alone:
        automatic, there = set_threads(config, values.get("threads") if values else None)
        most = there if automatic and not config.compile else 0
    found = None
    if seen < int(config.total_kimg * 1000):
        del state  # what measures takes its place for a while
        found = forecast(config, source, run, device, ranks, values)
        refuse_too_large(found, device)
        state = new_state(config, shape, device)
        if values is None and config.init_from:
            taken = take_weights(state, config.init_from, device)
            shown.say(f"weights taken from {config.init_from}{taken.words()}")
        _in_first(ranks, run, lambda: refuse_full_disk(run, config, found.checkpoint, seen))
    if write:
        _in_first(ranks, run, lambda: enter(run, config, source, location))
    return Prepared(
        config, source, run, device, ranks, state, values, seen, found, shown, most
    )  # fmt: skip


def _set_up(config: Config, device: torch.device, ranks: Ranks) -> torch.device:
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        keep_freed()
    if device.type == "cuda" and ranks.world > 1:
        device = torch.device("cuda", ranks.local)
        torch.cuda.set_device(device)
    return device


def _in_first(ranks: Ranks, run: Run, action: Callable[[], object]) -> None:
    """Do something in the first process; what refuses the run there refuses it in all.

    Raises:
        UserError: as the action, or the folder of the run cannot be written to.
    """
    problem = ""
    if ranks.first:
        try:
            action()
        except UserError as error:
            problem = str(error)
        except OSError as error:
            problem = describe_write_error(error, run)
    problem = ranks.from_first(problem)
    if problem:
        raise UserError(problem)


def describe_write_error(error: OSError, run: Run) -> str:
    """Why the folder of the run cannot be written to, in one line."""
    return f"{run.folder}: the disk is full" if is_disk_full(error) else describe_os_error(error)


def _newest(
    run: Run, ranks: Ranks, state: State, shown: Display, write: bool
) -> dict[str, Any] | None:
    """The values that the run can go on from, on the CPU, in all processes; with `write` newer
    ones that cannot be used are set aside.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    found, damaged = None, list[str]()
    if ranks.first:
        found, damaged = checkpoint.load_newest(
            run.checkpoints, check=lambda values: check_resumable(values, state)
        )
        if write and found and damaged:
            checkpoint.set_aside(run.checkpoints, found["state"]["seen"])
    values: dict[str, Any] | None = ranks.from_first(found)
    for sentence in damaged:
        shown.say(f"warning: {sentence}; falling back to the one before")
    if values is None and ranks.from_first(bool(damaged)):
        raise UserError(
            f"{run.checkpoints}: no checkpoint can be used; to begin again, remove the folder or "
            "give another --run"
        )
    return values


def forecast(
    config: Config, source: Source, run: Run, device: torch.device, ranks: Ranks,
    values: dict[str, Any] | None,
) -> Forecast:  # fmt: skip
    """What the run takes, which goes on from `values`; see `Forecast`."""
    seen = values["state"]["seen"] if values else 0
    evaluated = is_evaluated(config, seen) and source.index.nsamples >= 2 * FEWEST
    measured = measure_run(config, image_shape(source), device, ranks, evaluated)
    remote = any(local_path(location) is None for location in source.locations)
    held = measured.checkpoint if values else 0
    return Forecast(
        measured.g_parameters,
        measured.d_parameters,
        program_bytes(held) + measured.on_cpu if device.type == "cpu" else measured.on_gpu,
        image_bytes(config, source, ranks),
        available_bytes(device),
        measured.checkpoint,
        int(config.data.cache_gb * 1e9) if remote else 0,
        free_bytes(run.folder),
    )
