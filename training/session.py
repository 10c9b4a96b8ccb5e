"""One training command from its configuration to its exit status."""

from __future__ import annotations

from pathlib import Path

import torch

from training import checkpoint
from training.config import Config
from training.console import Display, display
from training.data import Source, open_source
from training.device import choose_device
from training.history import History
from training.loop import Loop, Outcome
from training.networks import ImageShape
from training.runs import Run, enter, find_run, locked
from training.state import State, new_state

_STATUS = {"done": 0, "hours": 0, "interrupted": 130, "disk": 1, "diverged": 1}


def default_run(config: Config, source: Source) -> str:
    """The name of a run that was given none: the same command finds it again."""
    return f"{source.index.name}-{Path(config.preset).stem}"


def train(config: Config, location: str, run_name: str | None) -> int:
    """Train as `config` says on the shards at `location`; the command's exit status.

    Raises:
        UserError: the shards, the run or the device do not fit.
    """
    source = open_source(location, config.resolution)
    run = find_run(run_name or default_run(config, source))
    device = choose_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    with locked(run):
        enter(run, config, source, location)
        return _train(config, source, run, device)


def _train(config: Config, source: Source, run: Run, device: torch.device) -> int:
    shape = ImageShape(source.height, source.width, source.channels, source.classes)
    state = new_state(config, shape, device)
    values, damaged = checkpoint.load_newest(run.checkpoints, device)
    shown = display()
    for sentence in damaged:
        shown.say(f"warning: {sentence}; falling back to the one before")
    if values:
        state.load(values["state"])
    total = int(config.total_kimg * 1000)
    if state.seen >= total:
        shown.say(
            f"{run.folder}: already done, {state.seen / 1000:g} of {total / 1000:g} kimg; "
            "a larger --total-kimg trains on"
        )
        return 0
    history = History(run.folder, values["history"] if values else "")
    try:
        loop = Loop(config, run, source, state, history, device, shown)
        if values:
            loop.restore_sums(values)
        _introduce(config, source, run, device, loop, shown)
        outcome = loop.run()
    finally:
        shown.close()
        history.close()
    _conclude(outcome, run, state, shown)
    return _STATUS[outcome.reason]


def _introduce(
    config: Config, source: Source, run: Run, device: torch.device, loop: Loop, shown: Display
) -> None:
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    shown.say(
        f"run {run.folder}  preset {config.preset}  {source.index.nsamples} images of "
        f"{source.width}×{source.height} px  {device.type}{threads}, {config.precision}"
    )
    shown.say(loop.forecast().sizes())
    if loop.state.seen:
        shown.say(f"continuing at {loop.state.seen / 1000:g} kimg")


def _conclude(outcome: Outcome, run: Run, state: State, shown: Display) -> None:
    words = {
        "done": "done",
        "hours": f"stopped: {outcome.detail}; run the same command again to go on",
        "interrupted": "interrupted, state saved; run the same command again to go on",
        "disk": f"stopped: {outcome.detail}",
        "diverged": f"stopped: {outcome.detail}",
    }
    shown.say(f"{words[outcome.reason]} ({state.seen / 1000:g} kimg)")
    newest = max(run.samples.glob("*.png"), default=None)
    if newest:
        shown.say(f"samples {newest}\nreport  {run.report}")
