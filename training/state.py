"""Everything a run is at one moment: what a checkpoint holds."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from training.config import Config
from training.networks import (
    Discriminator,
    Generator,
    ImageShape,
    build_discriminator,
    build_generator,
)  # fmt: skip
from training.optimizer import optimizers
from training.options.algorithm import OptimizerOptions
from training.options.architectures import code_count
from training.seeds import derive
from training.techniques import FILLED

CPU_SCALARS = frozenset(("augment_p", "augment_steps"))
"""The scalars that stay on the CPU: reading them must not wait for the device."""


@dataclass
class State:
    """The networks, optimisers and loss scalers (fp16) of a run, and its position.

    `seen` is the position in images. `scalars` holds float tensors that techniques update, by name
    (augmentation probability, path-length mean …), `replay` the memory of the experience replay, as
    `techniques.replay` describes it. `restarts` counts the roll-backs after
    divergence; it changes the random draws, so that a run does not repeat it. `loads` counts calls
    of `load`, which replaces tensors.
    """

    generator: Generator
    discriminator: Discriminator
    g_ema: Generator
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    g_scaler: GradScaler
    d_scaler: GradScaler
    seen: int = 0
    steps: int = 0
    restarts: int = 0
    scalars: dict[str, Tensor] = field(default_factory=dict)
    replay: dict[str, Tensor] = field(default_factory=dict)
    loads: int = 0

    def tensors(self) -> dict[str, Any]:
        """Return the state as nested dicts of tensors and numbers."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.g_ema.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "g_scaler": self.g_scaler.state_dict(),
            "d_scaler": self.d_scaler.state_dict(),
            "seen": self.seen,
            "steps": self.steps,
            "restarts": self.restarts,
            "scalars": self.scalars,
            "replay": self.replay,
        }

    def is_finite(self) -> bool:
        """Return True if all weights and running statistics of the networks are finite."""
        values = [
            tensor.detach()
            for network in (self.generator, self.discriminator, self.g_ema)
            for tensor in (*network.parameters(), *network.buffers())
            if tensor.is_floating_point() and tensor.numel()
        ]
        return bool(torch.nn.utils.get_total_norm(values).isfinite())

    def load(self, tensors: dict[str, Any]) -> None:
        """Load a state from `tensors` (of an equal configuration, on any device)."""
        self.loads += 1
        for name in ("generator", "discriminator", "g_optimizer", "d_optimizer"):
            getattr(self, name).load_state_dict(tensors[name])
        self.g_ema.load_state_dict(tensors["average"])
        for name in ("g_scaler", "d_scaler"):
            if tensors.get(name):  # empty where losses are not scaled
                getattr(self, name).load_state_dict(tensors[name])
        self.seen, self.steps = tensors["seen"], tensors["steps"]
        self.restarts = tensors["restarts"]
        device = next(self.generator.parameters()).device
        self.scalars = {
            name: value.to("cpu" if name in CPU_SCALARS else device)
            for name, value in tensors["scalars"].items()
        }
        self.replay = {
            name: value.to("cpu" if name == FILLED else device)
            for name, value in tensors["replay"].items()
        }


def make_optimizer(options: OptimizerOptions, network: nn.Module, device: torch.device) -> Any:
    """Return the optimiser that `options` describe for the weights of `network`."""
    parameters = list(network.parameters())
    if options.name == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.beta1)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=options.lr, alpha=options.beta2, momentum=options.beta1
        )  # fmt: skip
    fused = device.type in ("cpu", "cuda")
    return torch.optim.Adam(
        parameters, lr=options.lr, betas=(options.beta1, options.beta2), fused=fused
    )


def make_scaler(config: Config, device: torch.device) -> GradScaler:
    """Scales losses so that their fp16 gradients do not vanish; disabled in other precisions."""
    return GradScaler(device.type, enabled=config.precision == "fp16")


def new_state(config: Config, shape: ImageShape, device: torch.device) -> State:
    """Fresh networks and optimisers; the weights follow from the configuration's seed."""
    torch.manual_seed(derive(config.seed, "weights"))
    generator = build_generator(config.generator, shape)
    discriminator = build_discriminator(config.discriminator, shape, code_count(config.generator))
    form = torch.channels_last if config.channels_last else torch.contiguous_format
    networks: list[nn.Module] = [generator, discriminator]
    for network in networks:
        network.to(device=device, memory_format=form)  # type: ignore[call-overload]
    g_options, d_options = optimizers(config)
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    return State(
        generator,
        discriminator,
        average,
        make_optimizer(g_options, generator, device),
        make_optimizer(d_options, discriminator, device),
        make_scaler(config, device),
        make_scaler(config, device),
    )
