"""Networks compiled by PyTorch: the same training, the same names, resumable.

Where inductor really compiles, that takes most of the time: another backend would show neither that
our networks can be compiled, nor which copies inductor leaves out, nor that a continued run has the
same bits. Gradients are compared by `aot_eager`, which has its graphs, in seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.contract import UserError
from tests.helpers.training_runs import read_run
from training.catalogue import image_shape
from training.data import Batch
from training.networks.fastgan_layers import Glu
from training.networks.layers import spectral_norm
from training.options.resolve import resolve
from training.state import State, new_state
from training.step import Step

_SGD = {
    "g_optimizer.name": "sgd", "d_optimizer.name": "sgd", "g_optimizer.beta1": "0",
    "d_optimizer.beta1": "0", "g_optimizer.lr": "0.01", "d_optimizer.lr": "0.01",
}  # fmt: skip
"""Adam's first steps hardly depend on the size of a gradient, only on its sign: rounding would
change weights by whole steps."""
OPTIONS = (
    *(word for key, value in _SGD.items() for word in (f"--{key}", value)),
    "--total-kimg", "0.048", "--discriminator.spectral", "true", "--loss.r1", "0.1",
    "--loss.interval", "2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _compiler_warnings() -> Any:
    """PyTorch's own, about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.compiler.reset()


def test_a_compiled_run_is_the_plain_one_and_goes_on_bit_for_bit(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any
) -> None:
    shards, runs = small_shards(), tmp_path / "runs"
    fast = ("--compile", "true")
    for name, options in (("plain", ()), ("whole", fast)):
        assert in_process(runs / name, shards, *OPTIONS, *options) == 0
    assert in_process(runs / "again", shards, *OPTIONS, *fast, "--total-kimg", "0.024") == 0
    assert in_process(runs / "again", shards, *OPTIONS, *fast) == 0
    rows, weights = read_run(runs / "whole")
    other_rows, others = read_run(runs / "again")
    assert rows == other_rows
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    plain_rows, plain = read_run(runs / "plain")
    assert weights.keys() == plain.keys()  # a checkpoint can be loaded with and without
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    assert [row["r1"] for row in rows] == pytest.approx([row["r1"] for row in plain_rows], rel=1e-2)


def test_waiting_for_other_processes_inside_of_a_network_is_refused() -> None:
    with pytest.raises(UserError, match="compile: not supported"):
        resolve("dcgan64", {"compile": "true", "sync_batch_norm": "true"})


@pytest.mark.parametrize("size", [1, 4])
def test_backward_passes_find_the_singular_vectors_of_their_own_forward_pass(size: int) -> None:
    """Of a layer with one output, its only singular value is the norm of the weight: inductor would
    save the buffer itself."""
    found: list[list[Tensor]] = []
    for compiled in (False, True):
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv2d(4, 1, size))
        spectral_norm(network[0])
        called: Any = torch.compile(network) if compiled else network
        images = torch.randn(2, 4, 8, 8)
        first, second = called(images), called(images + 1)
        torch.autograd.backward(first.square().mean() + second.square().mean())
        found.append([*(weight.grad for weight in network.parameters()), *network.buffers()])  # type: ignore[misc]
    for plain, value in zip(*found, strict=True):
        torch.testing.assert_close(value, plain)


def test_compiled_gates_before_a_doubling_have_their_gradient_in_bf16() -> None:
    network = nn.Sequential(nn.BatchNorm2d(64), Glu(), nn.Upsample(scale_factor=2))
    found = []
    for called in (network, torch.compile(network)):
        images = torch.randn(4, 64, 8, 8, generator=torch.Generator().manual_seed(1))
        maps = images.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
        torch.autograd.backward(called(maps).float().square().sum())
        found.append(maps.grad)
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.02  # type: ignore[operator, union-attr]


_SMALL = {"generator.width": "2", "discriminator.width": "2", "resolution": "16"}
_CHANNELS = {
    "resolution": "16", "generator.channel_max": "4", "discriminator.channel_max": "4",
    "generator.z_dim": "8", "generator.w_dim": "8",
}  # fmt: skip
FAMILIES = {
    "dcgan64": {**_SMALL, "discriminator.spectral": "true", "loss.r1": "1"},
    "sngan": {**_SMALL, "resolution": "32", "generator.spectral": "true", "n_critic": "1"},
    "stylegan2-64": _CHANNELS,
    "stylegan3-t-1024": {
        **_CHANNELS, "generator.layers": "4", "generator.margin": "4", "data.mirror": "false",
    },
    "r3gan64": {"resolution": "16", "micro_batch": "4", "burn_in.beta2": "0",
                "generator.widths": "[16, 16, 16]",
                "discriminator.widths": "[16, 16, 16]"},
    "projected256": {**_SMALL, "resolution": "32", "discriminator.width": "8",
                    "discriminator.size": "32"},
    "fastgan64": _SMALL,
}  # fmt: skip
"""Presets of each kind of network, and what makes them tiny."""


def first_step(name: str, **options: str) -> tuple[list[Tensor], State]:
    """The gradients that each optimiser step saw, as one vector each, and the state afterwards."""
    config = resolve(
        name, FAMILIES[name] | _SGD | {"batch": "8", "precision": "fp32", "threads": "1"} | options
    )
    shape = image_shape(config)
    state, found = new_state(config, shape, torch.device("cpu")), list[Tensor]()

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = [one for group in optimizer.param_groups for one in group["params"]]
        found.append(torch.cat([one.grad.flatten() for one in weights if one.grad is not None]))

    for optimizer in (state.d_optimizer, state.g_optimizer):
        optimizer.register_step_pre_hook(record)
    step, random = Step(config, state, torch.device("cpu")), torch.Generator().manual_seed(2)
    size = (config.batch, shape.channels, shape.height, shape.width)
    images = torch.randint(256, size, generator=random, dtype=torch.uint8)
    labels = torch.randint(max(1, shape.classes), (config.batch,), generator=random)
    step([Batch(images, labels)] * config.n_critic)
    return found, state


@pytest.mark.parametrize("name", FAMILIES)
def test_a_compiled_step_has_the_gradients_and_buffers_of_the_plain_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every penalty is due in the first step."""
    expected, plain = first_step(name)
    compiled, really = list[Any](), torch.compile

    def compile_quickly(network: Any) -> Any:
        compiled.append(really(network, backend="aot_eager"))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", compile_quickly)
    gradients, state = first_step(name, compile="true")
    assert len(compiled) == 2
    assert len(gradients) == len(expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    for network in ("generator", "discriminator", "g_ema"):
        buffers = dict(getattr(plain, network).named_buffers())
        assert buffers
        for key, value in getattr(state, network).named_buffers():
            torch.testing.assert_close(value, buffers[key], msg=f"{network}.{key}")
