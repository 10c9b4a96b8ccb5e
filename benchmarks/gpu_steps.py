"""Steps of presets for `benchmarks/gpu.py`, and their gradients on the CPU and on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from training.catalogue import image_shape
from training.config import Config
from training.cuda_graphs import GraphedStep
from training.data import Batch
from training.machine.device import choose_device
from training.options.resolve import resolve
from training.state import State, new_state
from training.step import Step

PRESETS = (
    "dcgan64", "stylegan2-64", "stylegan2-paper256", "r3gan64", "projected256", "fastgan256",
)  # fmt: skip
_STYLEGAN2 = {
    "batch": "4", "resolution": "16", "generator.channel_max": "8", "generator.z_dim": "8",
    "generator.w_dim": "8", "discriminator.channel_max": "8",
}  # fmt: skip
_NARROW = {"batch": "4", "generator.width": "4", "generator.z_dim": "8"}
TINY: dict[str, dict[str, str]] = {
    "dcgan64": {**_NARROW, "resolution": "16", "discriminator.width": "4"},
    "stylegan2-64": _STYLEGAN2,
    "stylegan2-paper256": _STYLEGAN2,
    "r3gan64": {
        "batch": "4", "micro_batch": "2", "resolution": "16", "generator.widths": "[16, 16, 16]",
        "discriminator.widths": "[16, 16, 16]",
    },
    "projected256": {**_NARROW, "resolution": "64", "discriminator.width": "8"},
    "fastgan256": {**_NARROW, "discriminator.width": "4"},
}  # fmt: skip
"""Overrides with which a step of a preset takes well under a second of a CPU core."""

MOST_ERROR = 1e-3
"""Largest relative error of the gradients of a phase in fp32, unless rounding alone causes more."""

MOST_ROUNDING = 5.0
"""Largest relative error in units of that between two computations on the CPU. The gradients of
FastGAN's first step are nearly singular: other orders of summation change them by 1 %, while in
float64 they agree to 14 digits."""

PHASES = {"d": ("D", "R1"), "g": ("G", "path length")}
"""The updates of each network in one step, in order. R1 is a part of D unless it has its own."""


@dataclass(frozen=True)
class Training:
    """A step of a preset with its state, and a batch of noise to train on."""

    config: Config
    state: State
    step: Step
    batch: Batch
    device: torch.device


def new_training(preset: str, overrides: Mapping[str, str], device: str) -> Training:
    """Return a fresh step of `preset` at its resolution on `device`, cpu or cuda."""
    place = choose_device(device)
    config = resolve(preset, dict(overrides))
    shape = image_shape(config)
    state = new_state(config, shape, place)
    random = torch.Generator().manual_seed(1)
    size = (config.batch, shape.height, shape.width, shape.channels)
    pixels = torch.randint(256, size, dtype=torch.uint8, generator=random)
    batch = Batch(pixels.permute(0, 3, 1, 2), torch.zeros(config.batch, dtype=torch.int64))
    kind = GraphedStep if config.cuda_graphs else Step
    return Training(config, state, kind(config, state, place), batch, place)


class CpuRandom(TorchFunctionMode):
    """Draw the random numbers of a `with` block on the CPU, in the order of the calls, so that they
    are the same on every device. Generators that the calls name are ignored."""

    _CREATE = (torch.rand, torch.randn, torch.randint, torch.randperm)
    _LIKE: Mapping[Any, Callable[..., Tensor]] = {
        torch.rand_like: torch.rand, torch.randn_like: torch.randn,
    }  # fmt: skip
    _FILL = (Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._random = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in self._CREATE:
            device = named.pop("device", None) or "cpu"
            return func(*args, **named | {"generator": self._random}).to(device)
        if func in self._LIKE:
            return self._LIKE[func](args[0].shape, generator=self._random).to(args[0])
        if func in self._FILL:
            drawn = torch.empty(args[0].shape, dtype=args[0].dtype)
            return args[0].copy_(func(drawn, *args[1:], **named | {"generator": self._random}))
        return func(*args, **named)


def phase_gradients(training: Training) -> dict[str, Tensor]:
    """Return the gradients of each phase of one step, before which every penalty is due, as
    float64 vectors on the CPU.

    No phase changes the weights, so an error of one does not reach the next.
    """
    found: dict[str, Tensor] = {}

    def record(names: list[str]) -> Callable[..., None]:
        def hook(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            weights = [one for group in optimizer.param_groups for one in group["params"]]
            parts = [one.grad.double().cpu().flatten() for one in weights if one.grad is not None]
            found[names.pop(0)] = torch.cat(parts)
            for group in optimizer.param_groups:
                group["lr"] = 0.0

        return hook

    state = training.state
    for network, optimizer in (("d", state.d_optimizer), ("g", state.g_optimizer)):
        optimizer.register_step_pre_hook(record(list(PHASES[network])))
    state.steps = 0
    with CpuRandom():
        training.step([training.batch])
    return found


def relative_errors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the norm of the difference over the norm of the expected gradients, by phase.

    Raises:
        ValueError: the phases differ.
    """
    if found.keys() != expected.keys():
        raise ValueError(f"phases {', '.join(found)} instead of {', '.join(expected)}")
    return {
        phase: float((found[phase] - one).norm() / one.norm().clamp_min(1e-30))
        for phase, one in expected.items()
    }


@contextmanager
def without_onednn() -> Iterator[None]:
    """Use PyTorch's own convolutions on the CPU in a `with` block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@dataclass(frozen=True)
class PhaseError:
    """The relative error of the gradients of a phase in fp32, and that which rounding causes on the
    CPU (between two memory formats)."""

    error: float
    rounding: float

    @property
    def is_small(self) -> bool:
        return self.error < max(MOST_ERROR, MOST_ROUNDING * self.rounding)


def agreement(preset: str, overrides: Mapping[str, str], device: str) -> dict[str, PhaseError]:
    """Return the error of the gradients on `device` by phase, in fp32 without TF32.

    The reference is the CPU. If that is the device too, its convolutions are those of PyTorch
    instead of oneDNN.
    """
    full = dict(overrides) | {"precision": "fp32", "compile": "false"}
    expected = phase_gradients(new_training(preset, full, "cpu"))
    other = phase_gradients(new_training(preset, full | {"channels_last": "false"}, "cpu"))
    with without_onednn() if device == "cpu" else nullcontext():
        found = phase_gradients(new_training(preset, full, device))
    errors, rounding = relative_errors(found, expected), relative_errors(other, expected)
    return {phase: PhaseError(errors[phase], rounding[phase]) for phase in errors}


def job_agreement(preset: str, dry: bool) -> dict[str, Any]:
    """One step of each phase on the CPU and on the GPU."""
    overrides = TINY[preset] if dry else {"batch": "4", "micro_batch": "0"}
    phases = agreement(preset, overrides, "cpu" if dry else "cuda")
    problems = [
        f"{phase}: relative error {one.error:.1e}, from rounding {one.rounding:.1e}; "
        "the gradients of this phase differ"
        for phase, one in phases.items()
        if not one.is_small
    ]
    return {
        "relative_errors": {phase: float(f"{one.error:.1e}") for phase, one in phases.items()},
        "rounding": {phase: float(f"{one.rounding:.1e}") for phase, one in phases.items()},
        "problems": problems,
    }
