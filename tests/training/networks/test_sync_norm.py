"""Batch norm over two processes is batch norm over the whole batch: values, gradients, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.contract import UserError
from tests.helpers.ranks import run_ranks
from training.data import Batch
from training.machine.distributed import init_distributed
from training.networks import ImageShape
from training.networks.sync_norm import convert_batch_norm
from training.options.resolve import resolve
from training.state import new_state
from training.step import Step
from training.streaming.order import rank_slice


def train_on_rank(out: str) -> None:
    """Normalise and train 7 images over all processes; write what came out."""
    with init_distributed(torch.device("cpu")) as ranks:
        torch.manual_seed(0)
        norm = nn.Sequential(nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        images = torch.randn(7, 3, 4, 4) * 3 + 5
        if ranks.world_size > 1:
            convert_batch_norm(norm, ranks.rank, ranks.world_size)
        here = images[rank_slice(7, ranks.rank, ranks.world_size)].requires_grad_(True)
        values = norm(here)
        (slope,) = torch.autograd.grad((values**3).sum(), here, create_graph=True)
        torch.autograd.backward(slope.square().sum() + values.sigmoid().sum())
        gradients = [weight.grad for weight in norm.parameters()]
        ranks.all_reduce_sum(gradients)
        found = {
            "values": values,
            "slope": slope,
            "gradients": gradients,
            "norm": norm.state_dict(),
        }
        norm.eval()
        found["eval"] = norm(here)

        config = resolve(
            "dcgan64",
            {
                "batch": "7",
                "generator.width": "4",
                "discriminator.width": "4",
                "resolution": "16",
                "precision": "fp32",
                "loss.r1": "0.5",
                "sync_batch_norm": "true",
                "discriminator.norm": "batch",
                "generator.condition": "norm",
                "discriminator.condition": "projection",
            },
        )
        state = new_state(config, ImageShape(16, 16, 3, 2), torch.device("cpu"))
        step = Step(config, state, torch.device("cpu"), ranks)
        for number in range(3):
            random = torch.Generator().manual_seed(number)
            images = torch.randint(256, (7, 3, 16, 16), generator=random, dtype=torch.uint8)
            part = rank_slice(7, ranks.rank, ranks.world_size)
            facts = step([Batch(images[part], (torch.arange(7) % 2)[part])])
        found["grad_d"], found["grad_g"] = facts["grad_d"], facts["grad_g"]
        found["generator"] = state.generator.state_dict()
        found["average"] = state.g_ema.state_dict()
        torch.save(found, f"{out}-{ranks.rank}-of-{ranks.world_size}.pt")


def run(out: Path, world: int) -> list[dict[str, Any]]:
    run_ranks(train_on_rank, world, out.parent, str(out))
    return [
        torch.load(out.parent / f"{out.name}-{rank}-of-{world}.pt", weights_only=True)
        for rank in range(world)
    ]


def test_two_processes_normalise_and_train_as_one(tmp_path: Path) -> None:
    (one,) = run(tmp_path / "norm", 1)
    two = run(tmp_path / "norm", 2)
    for name in ("values", "slope", "eval"):  # 3 images here, 4 there
        together = torch.cat([part[name] for part in two])
        torch.testing.assert_close(together, one[name], rtol=1e-4, atol=1e-4)
    for part in two:
        for ours, theirs in zip(part["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        for group in ("norm", "generator", "average"):
            assert part[group].keys() == one[group].keys()
            for name, value in one[group].items():
                torch.testing.assert_close(part[group][name], value, rtol=1e-3, atol=1e-4)
        for name in ("grad_d", "grad_g"):
            torch.testing.assert_close(part[name], one[name], rtol=1e-3, atol=1e-5)


def test_alone_each_process_would_normalise_otherwise() -> None:
    """What the option is for: the same images in two halves are normalised otherwise."""
    images, norm = torch.randn(7, 3, 4, 4) * 3 + 5, nn.BatchNorm2d(3)
    halves = torch.cat([norm(images[:3]), norm(images[3:])])
    assert float((halves - norm(images)).detach().abs().max()) > 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generator.norm": "none", "discriminator.norm": "none"}, "no network has batch"),
        ({"micro_batch": "32"}, "micro_batch: with sync_batch_norm"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve("dcgan64", options | {"sync_batch_norm": "true"})


@pytest.mark.parametrize(
    "options",
    [
        {"generator.name": "fastgan", "discriminator.norm": "none"},
        {"generator.norm": "none", "discriminator.name": "fastgan"},
        {"generator.norm": "none", "discriminator.norm": "none", "method.name": "vae-gan"},
    ],
    ids=["fastgan generator", "fastgan discriminator", "encoder"],
)
def test_every_network_with_batch_norm_counts(options: dict[str, str]) -> None:
    resolve("dcgan64", options | {"sync_batch_norm": "true"})
