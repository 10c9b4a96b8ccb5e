"""Two processes train the newer networks alike; those whose norms see the whole batch as one
process does."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.contract import parse_config
from tests.helpers.ranks import run_ranks
from training.config import Config
from training.data import Batch
from training.machine.distributed import init_distributed
from training.networks import ImageShape
from training.state import new_state
from training.step import Step
from training.streaming.order import rank_slice

R3GAN = {"name": "r3gan", "widths": [8], "blocks": [1]}
FASTGAN = {"name": "fastgan", "width": 4, "z_dim": 8}
PLAIN = {"width": 4, "norm": "none"}
KINDS = {
    "fastgan": {
        "generator": FASTGAN,
        "loss": {"name": "random-hinge"},
        "discriminator": {"name": "fastgan", "width": 4},
    },
    "projected": {
        "generator": FASTGAN,
        "loss": {"name": "hinge"},
        "discriminator": {"name": "projected", "width": 8, "size": 64},
    },
    "r3gan": {
        "generator": R3GAN | {"z_dim": 8},
        "discriminator": R3GAN,
        "loss": {"name": "rsgan", "r1": 1.0, "r2": 1.0},
    },
    "joint": {
        "generator": R3GAN | {"z_dim": 8},
        "loss": {"name": "hinge"},
        "discriminator": {"name": "projected", "width": 8, "size": 64, "norm": "joint"},
    },
    "pixels-first": {
        "generator": R3GAN | {"z_dim": 8},
        "loss": {"name": "hinge", "r1": 1.0, "feature_spread": 5.0},
        "discriminator": {
            "name": "projected",
            "width": 8,
            "size": 64,
            "norm": "joint",
            "pixel_width": 4,
            "features_kimg": 0.004,
        },
    },
    "bigan": {
        "generator": PLAIN | {"z_dim": 8},
        "discriminator": PLAIN,
        "method": {"name": "bigan", "encoder": PLAIN, "pair_widths": [8, 8]},
    },
    "cyclegan": {
        "generator": {"name": "translator", "width": 4, "blocks": 1},
        "discriminator": {"name": "patchgan", "width": 4, "layers": 2},
        "method": {"name": "cyclegan"},
        "loss": {"name": "lsgan"},
        "g_optimizer": {"name": "sgd"},
        "d_optimizer": {"name": "sgd"},
    },
    "triple-gan": {
        "generator": PLAIN | {"z_dim": 8, "condition": "embedding"},
        "discriminator": PLAIN | {"condition": "projection"},
        "method": {"name": "triple-gan", "classifier": PLAIN},
    },
    "mmd": {
        "generator": PLAIN | {"z_dim": 8},
        "discriminator": PLAIN | {"outputs": 4},
        "loss": {"name": "mmd", "r1": 1.0},
    },
    **{
        name: {
            "generator": PLAIN | {"z_dim": 8},
            "discriminator": PLAIN | ({} if name == "fisher" else {"name": "autoencoder"}),
            "loss": {"name": name, **({"margin_kimg": 0.004} if name == "magan" else {})},
        }
        for name in ("fisher", "began", "magan")
    },
    "stylegan3": {
        "generator": {
            "name": "stylegan3",
            "channel_base": 64,
            "channel_max": 8,
            "z_dim": 8,
            "w_dim": 8,
            "layers": 4,
            "critical": 1,
            "margin": 2,
        },
        "discriminator": PLAIN,
    },
    "vae-gan": {
        "generator": PLAIN | {"z_dim": 8},
        "discriminator": PLAIN,
        "method": {"name": "vae-gan", "encoder": PLAIN},
    },
}


def train_on_rank(out: str) -> None:
    """Train each kind for two steps over all processes; write the weights."""
    found = {}
    with init_distributed(torch.device("cpu")) as ranks:
        for kind, tables in KINDS.items():
            config = parse_config(Config, tables | {"batch": 4}, "test")
            state = new_state(config, ImageShape(32, 32, 3, 2), torch.device("cpu"))
            step = Step(config, state, torch.device("cpu"), ranks)
            for number in range(2):
                random = torch.Generator().manual_seed(number)
                size = (4, 3 * config.method.sets, 32, 32)
                images = torch.randint(0, 256, size, generator=random, dtype=torch.uint8)
                part = rank_slice(4, ranks.rank, ranks.world_size)
                step([Batch(images[part], torch.zeros(part.stop - part.start, dtype=torch.int64))])
            found[kind] = {
                f"{name}.{key}": weight.detach()
                for name, network in state.networks.items()
                for key, weight in network.named_parameters()
            } | state.scalars
            found[kind] |= {
                key: one for key, one in state.buffers().items() if key.endswith("magnitude_ema")
            }
        torch.save(found, f"{out}/{ranks.world_size}-{ranks.rank}.pt")


def test_two_processes_have_the_same_weights(tmp_path: Path) -> None:
    for world in (1, 2):
        run_ranks(train_on_rank, world, tmp_path, str(tmp_path))
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    for kind, weights in first.items():
        assert all(torch.equal(weights[key], second[kind][key]) for key in weights), kind
    for kind, number in (("began", "balance_k"), ("magan", "margin")):
        assert alone[kind][number] > 0
        torch.testing.assert_close(first[kind][number], alone[kind][number], rtol=1e-3, atol=0)
    assert first["pixels-first"]["real_distances"].min() > 0
    for kind in ("r3gan", "bigan", "cyclegan"):
        for key, weight in alone[kind].items():
            torch.testing.assert_close(first[kind][key], weight, rtol=1e-3, atol=2e-5)
    # Adam's first steps go by signs, and those of gradients about 0 are the rounding's
    far = [(first["joint"][key] - weight).abs() > 2e-5 for key, weight in alone["joint"].items()]
    assert torch.cat([some.flatten() for some in far]).float().mean() < 0.01
