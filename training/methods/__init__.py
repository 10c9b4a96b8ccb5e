"""Registry of the training methods: what the networks learn, by the name in the configuration.

To add one: a subclass of `GanLoss` here, its networks in `training.networks.further`, and its
options in `training.options.methods`.
"""

from __future__ import annotations

import torch

from training.config import Config
from training.gan_loss import GanLoss
from training.machine.distributed import Distributed
from training.methods.bigan import BiganLoss
from training.methods.cyclegan import CycleganLoss
from training.methods.triple_gan import TripleGanLoss
from training.methods.vae_gan import VaeGanLoss
from training.state import State

METHODS: dict[str, type[GanLoss]] = {
    "gan": GanLoss,
    "bigan": BiganLoss,
    "cyclegan": CycleganLoss,
    "triple-gan": TripleGanLoss,
    "vae-gan": VaeGanLoss,
}


def build_loss(
    config: Config, state: State, device: torch.device, ranks: Distributed,
    random: torch.Generator,
) -> GanLoss:  # fmt: skip
    """Return the losses of the networks of `state` by the method of `config`."""
    return METHODS[config.method.name](config, state, device, ranks, random)
