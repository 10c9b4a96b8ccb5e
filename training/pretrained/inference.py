"""A trained generator, of a run or of an exported folder, for everything that only draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import UserError
from training import checkpoint
from training.config import Config
from training.latent.space import Space, space_of
from training.networks import Generator, ImageShape, build_generator
from training.options.architectures import StyleGan2Discriminator
from training.options.resolve import unflat
from training.pretrained.nvlabs import describe, read_published
from training.runs import Run, chosen_checkpoint, find_run, read_config

WEIGHTS = "model.safetensors"
"""The weights in an exported folder; its `config.json` has the form of a run's."""


@dataclass(frozen=True)
class Trained:
    """`generator` is the moving average in evaluation mode; `latent` how its latents are drawn;
    `labels` the names of its classes; `dataset` and `config` what `config.json` says, `config`
    being typed; `seen` images were shown to it."""

    generator: Generator
    latent: str
    labels: tuple[str, ...]
    seen: int
    shape: ImageShape
    config: Config
    dataset: dict[str, Any]
    folder: Path

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def conditional(self) -> bool:
        """Whether labels change the pictures."""
        return self.classes > 0 and self.config.generator.condition != "none"

    @property
    def space(self) -> Space:
        return space_of(self.generator, self.latent, self.classes)

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def load_generator(run_name: str, device: torch.device) -> Trained:
    """The generator of the run's newest whole checkpoint, of an exported folder, or of a pickle of
    StyleGAN2-ADA (`FILE.pkl`).

    `RUN@best` is the run's best checkpoint by its evaluations, `RUN@200` that at 200 kimg.

    Raises:
        UserError: there is no such run or no checkpoint.
    """
    if run_name.endswith(".pkl"):
        return _published(Path(run_name), device)
    run_name, which = chosen_checkpoint(run_name)
    run = find_run(run_name)
    described = read_config(run)
    config, dataset = unflat(described["config"], str(run.config)), described["dataset"]
    labels = tuple(dataset["labels"])
    weights, seen = _weights(run, described, device, which)
    shape = ImageShape(dataset["height"], dataset["width"], dataset["channels"], len(labels))
    generator = build_generator(config.generator, shape).to(device)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{run.folder}: {str(error).splitlines()[-1].strip()}") from None
    generator.eval().requires_grad_(False)
    return Trained(generator, config.latent, labels, seen, shape, config, dataset, run.folder)


def _published(path: Path, device: torch.device) -> Trained:
    published = read_published(path)
    table, shape = describe(published)
    generator = build_generator(table, shape).to(device)
    try:
        generator.load_state_dict(published.start()["average"])
    except RuntimeError as error:
        raise UserError(f"{path}: {str(error).splitlines()[-1].strip()}") from None
    generator.eval().requires_grad_(False)
    labels = tuple(str(number) for number in range(shape.classes))
    judge = StyleGan2Discriminator(condition="projection" if labels else "none")
    dataset = {
        "name": path.stem, "location": "", "digest": "", "samples": 0, "labels": list(labels),
        "height": shape.height, "width": shape.width, "channels": shape.channels,
    }  # fmt: skip
    config = Config(generator=table, discriminator=judge)
    return Trained(generator, config.latent, labels, 0, shape, config, dataset, path)


def _weights(
    run: Run, described: dict[str, Any], device: torch.device, which: str
) -> tuple[dict[str, torch.Tensor], int]:
    exported = run.folder / WEIGHTS
    if exported.exists():
        return _exported(exported, device), int(described.get("seen", 0))
    values = checkpoint.load_chosen(run.checkpoints, which, device)
    return values["state"]["average"], values["state"]["seen"]


def _exported(path: Path, device: torch.device) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: reading it needs pip install 'shellgan[export]'") from None
    try:
        return load_file(path, device=str(device))
    except SafetensorError as error:
        raise UserError(f"{path}: not whole ({error})") from None
