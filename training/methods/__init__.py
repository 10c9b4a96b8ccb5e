"""Registry of the training methods: what the networks learn, by the name in the configuration.

To add one: a subclass of `GanLoss` here, its networks in `training.networks.further`, and its
options in `training.options.methods`.
"""

from __future__ import annotations

import torch

from pipeline.contract import UserError
from training.config import Config
from training.gan_loss import GanLoss
from training.machine.distributed import Distributed
from training.methods.bigan import BiganLoss
from training.methods.cyclegan import CycleganLoss
from training.methods.triple_gan import TripleGanLoss
from training.methods.vae_gan import VaeGanLoss
from training.networks.attention import require_attention
from training.options.loss_rules import small_pass_conflicts
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
    """Return the losses of the networks of `state` by the method of `config`.

    Raises:
        UserError: too few samples of a process pass the networks together to be compared, or the
            generator has no attention where it is wanted.
    """
    require_attention(
        "generator.attention", getattr(config.generator, "attention", 0), state.generator
    )
    for complaint in small_pass_conflicts(config, ranks.world_size):
        raise UserError(complaint)
    return METHODS[config.method.name](config, state, device, ranks, random)
