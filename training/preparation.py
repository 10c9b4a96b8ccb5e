"""Preparation of a run: all settings and checks, the same with and without `--dry-run`.

Every reason to refuse a run is found here, before the first step and before the run's configuration
is written, so both commands accept and refuse the same runs with the same line and exit status.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import (
    UserError,
    count_of,
    cpu_count,
    describe_os_error,
    is_disk_full,
    local_path,
)
from training import checkpoint
from training.checkpoint_check import check_resumable
from training.config import Config
from training.cuda_graphs import check_graphs
from training.data import requires_labels
from training.evaluation.evaluator import Evaluator
from training.machine.allocator import retain_freed_memory
from training.machine.determinism import determinism
from training.machine.device import choose_device
from training.machine.disk import free_bytes
from training.machine.distributed import Distributed, init_distributed
from training.machine.memory import available_bytes
from training.metrics.suite import MIN_IMAGES
from training.monitoring.console import Display, NullDisplay
from training.monitoring.history import History
from training.monitoring.trackers import check_tracking
from training.options.resolve import drop_label_conditions
from training.planning.forecast import Forecast
from training.planning.memory import check_memory, measure_run, program_bytes
from training.planning.placement import place_samples
from training.planning.room import refuse_full_disk
from training.planning.threads import recorded_threads, set_threads
from training.pretrained.finetune import load_initial_weights
from training.runs import (
    Run,
    find_run,
    known_clusters,
    lock_run,
    refuse_locked,
    refuse_other_run,
    refuse_unwritable,
    write_run_config,
)
from training.state import State, new_state
from training.streaming.dataset import ShardDataset, open_training_sets
from training.streaming.device_samples import Placement


@dataclass
class Prepared:
    """A run that may start.

    `values` is the content of its newest checkpoint (None: a new run), `seen` its number of images;
    `forecast` is None if all images have been seen. `most_threads` is the number of CPU threads to
    choose from during the run; 0: the number is fixed. `placement` is where samples are kept.
    """

    config: Config
    source: ShardDataset
    run: Run
    device: torch.device
    ranks: Distributed
    state: State
    values: dict[str, Any] | None
    seen: int
    forecast: Forecast | None
    shown: Display
    most_threads: int
    placement: Placement

    @property
    def left(self) -> float:
        """Thousand images still to train."""
        return max(0.0, self.config.total_kimg - self.seen / 1000)


def default_run_name(config: Config, source: ShardDataset) -> str:
    """Return the default name of a run: the same command finds it again."""
    names = [one.index.name for one in source.sets]
    return "-".join([*names, Path(config.preset).stem])


def prepare(
    config: Config, location: str, run_name: str | None, stack: ExitStack, write: bool,
    display: Display, why: Sequence[str] = (),
) -> Prepared:  # fmt: skip
    """Set up and check everything; with `write`, also lock the run and write its configuration.

    Actions to undo at the end of the command are registered in `stack`. `why` contains
    sentences on how the configuration was chosen, which `display` shows first.

    Raises:
        UserError: the tracker's package is missing, or the device, the shards, the run, the
            memory or the disk cannot be used.
    """
    check_tracking(config.tracking)
    device = choose_device(config.device)
    ranks = stack.enter_context(init_distributed(device))
    stack.enter_context(determinism(config.deterministic, device))
    device = _set_up(config, device, ranks)
    shown = display if ranks.is_main else NullDisplay()
    for line in why:  # before the shards, which may not fit a size that was chosen
        shown.message(line)
    source = open_training_sets(location, config)
    config = drop_label_conditions(config, source.classes)
    _require_labels(config, source, location)
    run = find_run(run_name or default_run_name(config, source))
    if source.clusters is not None and (known := known_clusters(run)):
        source = open_training_sets(location, config, known)
    alone = device.type == "cpu" and ranks.world_size == 1
    if alone:
        config = recorded_threads(config, run)

    _in_first(ranks, run, lambda: _take(run, config, source, location, stack if write else None))
    for line in source.notes:
        shown.message(line)
    shape = source.image_shape
    state = new_state(config, shape, device)
    values = _newest(run, ranks, state, shown, write)
    seen = int(values["state"]["seen"]) if values else 0
    most = 0
    if alone:
        automatic, there = set_threads(config, values.get("threads") if values else None)
        most = there if automatic and not config.compile else 0
    found, placement = None, Placement(device)
    if seen < int(config.total_kimg * 1000):
        del state  # the measurement takes its place for a while
        evaluated = _is_evaluated(config, source, device, ranks, values)
        found, placement, note = forecast(config, source, run, device, ranks, values, evaluated)
        stack.callback(placement.close)
        check_memory(found, device)
        if note:
            shown.message(note)
        state = new_state(config, shape, device)
        if values is None and config.init_from:
            taken = load_initial_weights(state, config.init_from, device)
            shown.message(f"initial weights loaded from {config.init_from}{taken.summary()}")
        _in_first(ranks, run, lambda: refuse_full_disk(run, config, found.checkpoint, evaluated))
    if write:
        _in_first(ranks, run, lambda: write_run_config(run, config, source, location))
    return Prepared(
        config, source, run, device, ranks, state, values, seen, found, shown, most, placement
    )  # fmt: skip


def _require_labels(config: Config, source: ShardDataset, location: str) -> None:
    """Raise UserError if images whose labels are known have none, but each needs one."""
    if not (requires_labels(config) and source.reads_labels) or source.labels is None:
        return
    missing = int((source.labels < 0).sum())
    if missing:
        raise UserError(
            f"{location}: {count_of(missing, 'image')} without a label, and the networks are "
            "conditioned on labels; remove such images, or give --data.label none"
        )


def _take(
    run: Run, config: Config, source: ShardDataset, location: str, stack: ExitStack | None
) -> None:
    """Lock the run until `stack` ends; without it, only refuse a run that is locked."""
    refuse_unwritable(run)
    if stack:
        stack.enter_context(lock_run(run))
    else:
        refuse_locked(run)
    refuse_other_run(run, config, source, location)


def _set_up(config: Config, device: torch.device, ranks: Distributed) -> torch.device:
    if ranks.world_size > config.batch:
        raise UserError(
            f"batch: {count_of(config.batch, 'image')} for {ranks.world_size} processes"
        )
    check_graphs(config, device, ranks)
    if config.threads:
        torch.set_num_threads(config.threads)
    elif ranks.local_world_size > 1:  # torchrun sets one thread, also for decoding images
        torch.set_num_threads(max(1, cpu_count() // ranks.local_world_size))
    if device.type == "cpu":
        retain_freed_memory()
    if device.type == "cuda" and ranks.world_size > 1:
        device = torch.device("cuda", ranks.local_rank)
        torch.cuda.set_device(device)
    return device


def _in_first(ranks: Distributed, run: Run, action: Callable[[], object]) -> None:
    """Run an action in the main process; if it refuses the run, all processes raise.

    Raises:
        UserError: as in the action, or the folder of the run cannot be written to.
    """
    problem = ""
    if ranks.is_main:
        try:
            action()
        except UserError as error:
            problem = str(error)
        except OSError as error:
            problem = describe_write_error(error, run)
    problem = ranks.broadcast(problem)
    if problem:
        raise UserError(problem)


def describe_write_error(error: OSError, run: Run) -> str:
    """Return why the folder of the run cannot be written to, in one line."""
    return f"{run.folder}: the disk is full" if is_disk_full(error) else describe_os_error(error)


def _newest(
    run: Run, ranks: Distributed, state: State, shown: Display, write: bool
) -> dict[str, Any] | None:
    """Return the values to resume from, on the CPU, in all processes; with `write`, set newer
    unusable ones aside.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    found, damaged = None, list[str]()
    if ranks.is_main:
        found, damaged = checkpoint.load_newest(
            run.checkpoints, check=lambda values: check_resumable(values, state)
        )
        if write and found and damaged:
            checkpoint.set_aside(run.checkpoints, found["state"]["seen"])
    values: dict[str, Any] | None = ranks.broadcast(found)
    for sentence in damaged:
        shown.message(f"warning: {sentence}; falling back to the one before")
    if values is None and ranks.broadcast(bool(damaged)):
        raise UserError(
            f"{run.checkpoints}: no checkpoint can be used; to start again, remove the folder or "
            "use a new --run"
        )
    return values


def _is_evaluated(
    config: Config, source: ShardDataset, device: torch.device, ranks: Distributed,
    values: dict[str, Any] | None,
) -> bool:  # fmt: skip
    """Return True if an evaluation is due in the run that starts with `values`."""
    rows = History(None, values["history"] if values else "").rows
    evaluator = Evaluator(config, source, device, ranks)
    due = evaluator.is_due(rows, int(config.total_kimg * 1000))
    return due and evaluator.source.index.nsamples >= 2 * MIN_IMAGES


def forecast(
    config: Config, source: ShardDataset, run: Run, device: torch.device, ranks: Distributed,
    values: dict[str, Any] | None, evaluated: bool,
) -> tuple[Forecast, Placement, str]:  # fmt: skip
    """Return the forecast of the run that starts with `values`, and is `evaluated` from time to
    time, where its samples are kept, and a sentence on this (empty: none)."""
    measured = measure_run(config, source.image_shape, device, ranks, evaluated)
    locations = [location for one in source.sets for location in one.locations]
    remote = any(local_path(location) is None for location in locations)
    held = measured.checkpoint if values else 0
    training = program_bytes(held) + measured.on_cpu if device.type == "cpu" else measured.on_gpu
    available = available_bytes(device)
    placement, kept, note = place_samples(source, config.data, device, ranks, training, available)
    found = Forecast(
        measured.parameters, training, kept, available,
        measured.checkpoint, int(config.data.cache_gb * 1e9) if remote else 0,
        free_bytes(run.folder),
    )  # fmt: skip
    return found, placement, note
