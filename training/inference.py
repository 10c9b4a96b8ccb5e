"""A trained run's generator, for everything that only draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.contract import UserError
from training import checkpoint
from training.networks import Generator, ImageShape, build_generator
from training.resolve import unflat
from training.runs import find_run, read_config


@dataclass(frozen=True)
class Trained:
    """`generator` is the moving average in evaluation mode; `latent` how its latents are drawn."""

    generator: Generator
    latent: str
    classes: int
    seen: int


def load_generator(run_name: str, device: torch.device) -> Trained:
    """The generator of the run's newest whole checkpoint.

    Raises:
        UserError: there is no such run or no checkpoint.
    """
    run = find_run(run_name)
    described = read_config(run)
    config, dataset = unflat(described["config"], str(run.config)), described["dataset"]
    values, _ = checkpoint.load_newest(run.checkpoints, device)
    if values is None:
        raise UserError(f"{run.checkpoints}: no whole checkpoint")
    classes = len(dataset["labels"])
    shape = ImageShape(dataset["height"], dataset["width"], dataset["channels"], classes)
    generator = build_generator(config.generator, shape).to(device)
    generator.load_state_dict(values["state"]["average"])
    generator.eval().requires_grad_(False)
    return Trained(generator, config.latent, classes, values["state"]["seen"])
