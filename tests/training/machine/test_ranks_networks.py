"""Two processes train the newer networks alike; those whose norms see the whole batch as one
process does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
WORK = """
import sys
import torch
from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.networks import ImageShape
from training.streaming.order import rank_slice
from training.machine.distributed import init_distributed
from training.state import new_state
from training.step import Step

R3GAN = {"name": "r3gan", "widths": [8], "blocks": [1]}
FASTGAN = {"name": "fastgan", "width": 4, "z_dim": 8}
KINDS = {
    "fastgan": {"generator": FASTGAN, "loss": {"name": "random-hinge"},
        "discriminator": {"name": "fastgan", "width": 4}},
    "projected": {"generator": FASTGAN, "loss": {"name": "hinge"},
        "discriminator": {"name": "projected", "width": 8, "size": 64}},
    "r3gan": {"generator": R3GAN | {"z_dim": 8}, "discriminator": R3GAN,
        "loss": {"name": "rsgan", "r1": 1.0, "r2": 1.0}},
    "joint": {"generator": R3GAN | {"z_dim": 8}, "loss": {"name": "hinge"},
        "discriminator": {"name": "projected", "width": 8, "size": 64, "norm": "joint"}},
}
torch.set_num_threads(1)
found = {}
with init_distributed("gloo") as ranks:
    for kind, tables in KINDS.items():
        config = parse_config(Config, tables | {"batch": 4}, "test")
        state = new_state(config, ImageShape(32, 32, 3), torch.device("cpu"))
        step = Step(config, state, torch.device("cpu"), ranks)
        for number in range(2):
            random = torch.Generator().manual_seed(number)
            images = torch.randint(0, 256, (4, 3, 32, 32), generator=random, dtype=torch.uint8)
            part = rank_slice(4, ranks.rank, ranks.world_size)
            step([Batch(images[part], torch.zeros(part.stop - part.start, dtype=torch.int64))])
        found[kind] = {
            f"{name}.{key}": weight.detach()
            for name in ("generator", "discriminator")
            for key, weight in getattr(state, name).named_parameters()
        }
    torch.save(found, f"{sys.argv[1]}/{ranks.world_size}-{ranks.rank}.pt")
"""


def test_two_processes_have_the_same_weights(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for world, rank in ((1, 0), (2, 0), (2, 1)):
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port, "WORLD_SIZE": str(world), "RANK": str(rank),
            "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world),
        }  # fmt: skip
        command = [sys.executable, "-c", WORK, str(tmp_path)]
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    for kind, weights in first.items():
        assert all(torch.equal(weights[key], second[kind][key]) for key in weights), kind
    for key, weight in alone["r3gan"].items():
        torch.testing.assert_close(first["r3gan"][key], weight, rtol=1e-3, atol=2e-5)
    # Adam's first steps go by signs, and those of gradients about 0 are the rounding's
    far = [(first["joint"][key] - weight).abs() > 2e-5 for key, weight in alone["joint"].items()]
    assert torch.cat([some.flatten() for some in far]).float().mean() < 0.01
