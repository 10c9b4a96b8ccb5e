"""Everything a run is at one moment: what a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Iterable
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
from training.networks.further import Networks, build_further, trained_with
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

    `further` are the networks that the training method has beside generator and discriminator, by
    name, `averages` the moving averages of some of them.

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
    further: Networks = field(default_factory=dict)
    averages: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def g_networks(self) -> dict[str, nn.Module]:
        """The networks of the generator's optimiser by name, the generator first."""
        return {"generator": self.generator, **trained_with("generator", self.further)}

    @property
    def d_networks(self) -> dict[str, nn.Module]:
        """The networks of the discriminator's optimiser by name, the discriminator first."""
        return {"discriminator": self.discriminator, **trained_with("discriminator", self.further)}

    @property
    def averaged(self) -> list[tuple[nn.Module, nn.Module]]:
        """Each moving average with its network."""
        pairs = [(average, self.further[name].network) for name, average in self.averages.items()]
        return [(self.g_ema, self.generator), *pairs]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks and moving averages by their names in checkpoints."""
        return {
            **self.g_networks,
            **self.d_networks,
            "average": self.g_ema,
            **{f"{name}_average": average for name, average in self.averages.items()},
        }

    def network(self, name: str) -> Any:
        """Return the further network of this name."""
        return self.further[name].network

    def buffers(self) -> dict[str, Tensor]:
        """Return what the trained networks keep besides weights, such as running statistics."""
        return {
            f"{name}.{key}": buffer
            for name, network in (self.g_networks | self.d_networks).items()
            for key, buffer in network.named_buffers()
            if buffer.is_floating_point()
        }

    def tensors(self) -> dict[str, Any]:
        """Return the state as nested dicts of tensors and numbers."""
        return {
            **{name: network.state_dict() for name, network in self.networks.items()},
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
        """Return True if all weights and running statistics of the networks, and the numbers of
        techniques, are finite."""
        values = [
            tensor.detach()
            for network in self.networks.values()
            for tensor in (*network.parameters(), *network.buffers())
            if tensor.is_floating_point() and tensor.numel()
        ]
        values += self.scalars.values()
        return bool(torch.nn.utils.get_total_norm(values).isfinite())

    def load(self, tensors: dict[str, Any]) -> None:
        """Load a state from `tensors` (of an equal configuration, on any device)."""
        self.loads += 1
        for name, network in self.networks.items():
            network.load_state_dict(tensors[name])
        for name in ("g_optimizer", "d_optimizer"):
            getattr(self, name).load_state_dict(tensors[name])
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


def make_optimizer(
    options: OptimizerOptions, networks: Iterable[nn.Module], device: torch.device
) -> Any:
    """Return the optimiser that `options` describe for the weights of the `networks`."""
    parameters = [weight for network in networks for weight in network.parameters()]
    lr, decay = options.lr, options.weight_decay
    if options.name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=options.beta1, weight_decay=decay)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=lr, alpha=options.beta2, momentum=options.beta1, weight_decay=decay
        )
    fused = device.type in ("cpu", "cuda")
    betas = options.beta1, options.beta2
    return torch.optim.Adam(parameters, lr=lr, betas=betas, weight_decay=decay, fused=fused)


def make_scaler(config: Config, device: torch.device) -> GradScaler:
    """Scales losses so that their fp16 gradients do not vanish; disabled in other precisions."""
    return GradScaler(device.type, enabled=config.precision == "fp16")


def new_state(config: Config, shape: ImageShape, device: torch.device) -> State:
    """Fresh networks and optimisers; the weights follow from the configuration's seed."""
    torch.manual_seed(derive(config.seed, "weights"))
    generator = build_generator(config.generator, shape)
    discriminator = build_discriminator(config.discriminator, shape, code_count(config.generator))
    further = build_further(config, shape, generator, discriminator)
    form = torch.channels_last if config.channels_last else torch.contiguous_format
    networks: list[nn.Module] = [generator, discriminator]
    networks += [one.network for one in further.values()]
    for network in networks:
        network.to(device=device, memory_format=form)  # type: ignore[call-overload]
    averages = {name: _average(one.network) for name, one in further.items() if one.is_averaged}
    g_options, d_options = optimizers(config)
    g_networks = [generator, *trained_with("generator", further).values()]
    d_networks = [discriminator, *trained_with("discriminator", further).values()]
    return State(
        generator,
        discriminator,
        _average(generator),
        make_optimizer(g_options, g_networks, device),
        make_optimizer(d_options, d_networks, device),
        make_scaler(config, device),
        make_scaler(config, device),
        further=further,
        averages=averages,
    )


def _average(network: Any) -> Any:
    """Return a moving average of the network that starts with its weights."""
    return copy.deepcopy(network).eval().requires_grad_(False)
