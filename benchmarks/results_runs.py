"""The trainings of docs/results.md: which exist, and how each is started and continued."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from cpu_time import train

from pipeline.contract import write_atomic
from training.machine.device import is_bf16_fast
from training.planning.auto import NAME, choose_measured, resolve_first
from training.pretrained.inference import TrainedGenerator, load_generator
from training.streaming.dataset import open_shard_dataset

_SMALL = {
    "generator.width": "16", "discriminator.width": "16", "batch": "16",
    "ema.half_life_kimg": "0.5",
}  # fmt: skip
_COLLAPSE = _SMALL | {
    "g_optimizer.lr": "2e-3",
    "d_optimizer.lr": "5e-5",
    "generator.norm": "none",
    "discriminator.norm": "none",
}


@dataclass(frozen=True)
class Training:
    """A training: its folder's name, dataset, preset and changed keys, what it is in words, and its
    share of the time of each run."""

    name: str
    dataset: str
    preset: str
    title: str
    changes: tuple[tuple[str, str], ...] = ()
    share: float = 1.0


def _training(name: str, preset: str, title: str, share: float = 1.0, **keys: str) -> Training:
    dataset = name.partition("-")[0]
    changes = {key.replace("__", "."): value for key, value in keys.items()}
    return Training(name, dataset, preset, title, tuple(changes.items()), share)


def _failure(name: str, title: str, changes: dict[str, str]) -> Training:
    return Training(name, "shells", "dcgan-tutorial", title, tuple(changes.items()), 0.18)


COMPARED = (
    _training("shells-dcgan64", "dcgan64", "`dcgan64`, at the diary's own settings"),
    _training("shells-shells64", "shells64", "`shells64`"),
    _training("shells-auto", "auto", "`auto`"),
    _training(
        "shells-stylegan2-ada", "stylegan2-64-economical", "small StyleGAN2 with ADA",
        augment__ada="bgc", augment__p="adaptive", ema__half_life_kimg="1",
    ),
    _training("shells-r3gan", "r3gan-64-small", "small R3GAN", ema__half_life_kimg="1"),
    _training("garments-auto", "auto", "`auto`"),
    _training("prints-auto", "auto", "`auto`"),
    _training("garments-shells64", "shells64", "`shells64`"),
    _training("prints-shells64", "shells64", "`shells64`"),
)  # fmt: skip
VANISHING = (
    _failure(
        "vanishing-provoked", "minimax loss, D learns ten times as fast as G",
        _SMALL | {"loss.name": "minimax", "d_optimizer.lr": "1e-3", "g_optimizer.lr": "1e-4"},
    ),
    _failure(
        "vanishing-loss", "the same with the non-saturating loss",
        _SMALL | {"d_optimizer.lr": "1e-3", "g_optimizer.lr": "1e-4"},
    ),
    _failure(
        "vanishing-cured",
        "non-saturating loss, gradient penalty (R1), one-sided smoothing, equal rates",
        _SMALL | {"loss.r1": "1", "loss.interval": "4", "label_real": "0.9"},
    ),
)  # fmt: skip
COLLAPSE = (
    _failure(
        "collapse-provoked", "G learns forty times as fast as D, no batch norm", _COLLAPSE,
    ),
    _failure(
        "collapse-packing", "the same with packing of two images",
        _COLLAPSE | {"discriminator.packing": "2"},
    ),
    _failure(
        "collapse-cured", "equal rates, batch norm in G, packing of two images",
        _SMALL | {"discriminator.packing": "2"},
    ),
)  # fmt: skip
ALL = (*COMPARED, *VANISHING, *COLLAPSE)
CPU = torch.device("cpu")


def command(one: Training, shards: Path, run: Path, minutes: float) -> list[str]:
    """Return the arguments of `training.fit` that start a training of `minutes`."""
    precision = "bf16" if is_bf16_fast(CPU) else "fp32"
    own = {"total_kimg": "1e9", "precision": precision, **dict(one.changes)}
    preset = one.preset
    if preset == "auto":
        asked = resolve_first(NAME, {"max_hours": f"{minutes / 60:g}", "threads": "1"})
        source = open_shard_dataset(str(shards), 0)
        choice = choose_measured(source, asked, {})
        preset, own = choice.preset, {**choice.options, **own}
    words = [
        "--shards", str(shards), "--preset", preset,
        "--run", str(run), "--threads", "1", "--eval-kimg", "0", "--record.log_kimg", "0.1",
        "--record.sample_kimg", "0.2", "--record.grid", "16", "--record.time_share", "0.1",
    ]  # fmt: skip
    for key, value in own.items():
        words += [f"--{key}", value]
    return words


def run_training(one: Training, shards: Path, out: Path, minutes: float) -> None:
    """Train for the CPU time; a run that exists is continued with the arguments that it was
    started with (what `auto` chooses depends on the time and the machine)."""
    folder = out / "runs" / one.name
    run = folder / "run"
    kept = folder / "arguments.json"
    if not kept.exists():
        write_atomic(kept, json.dumps(command(one, shards, run, minutes)))
    train(json.loads(kept.read_text()), folder, minutes * one.share * 60)


def trained(name: str, out: Path) -> TrainedGenerator:
    """Return the averaged generator of a training."""
    return load_generator(str(out / "runs" / name / "run"), CPU)


def seconds(name: str, out: Path) -> float:
    """Return the CPU seconds of a training so far; 0 if it has not been started."""
    path = out / "runs" / name / "cpu-seconds.txt"
    return float(path.read_text()) if path.exists() else 0.0
