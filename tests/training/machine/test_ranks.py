"""Several processes and micro-batches train what one process trains with the whole batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.training_runs import read_run
from training.config import Config
from training.data import Batch
from training.networks import ImageShape
from training.options.resolve import resolve
from training.state import State, new_state
from training.step import Step

PLAIN = {
    "generator.norm": "none", "discriminator.norm": "none", "generator.width": "4",
    "discriminator.width": "4", "precision": "fp32", "resolution": "16",
}  # fmt: skip
"""Without batch norm: it makes the answer to one image depend on which others are beside it."""


def stepped(config: Config, steps: int = 3) -> tuple[State, list[dict[str, Any]]]:
    shape, device = ImageShape(16, 16, 3), torch.device("cpu")
    state = new_state(config, shape, device)
    step, facts = Step(config, state, device), []
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        images = torch.randint(
            256, (config.batch, 3, 16, 16), generator=random, dtype=torch.uint8
        )  # fmt: skip
        facts.append(step([Batch(images, torch.zeros(config.batch, dtype=torch.int64))]))
    return state, facts


@pytest.mark.parametrize(
    "options", [{}, {"loss.name": "hinge", "loss.r1": "0.5"}, {"d_optimizer.clip": "0.01"}]
)
def test_micro_batches_add_up_to_the_batch(options: dict[str, str]) -> None:
    whole, facts = stepped(resolve("dcgan64", PLAIN | options | {"batch": "12"}))
    pieces, told = stepped(
        resolve("dcgan64", PLAIN | options | {"batch": "12", "micro_batch": "5"})
    )
    for name in ("generator", "discriminator", "g_ema"):
        expected = getattr(whole, name).state_dict()
        for key, value in getattr(pieces, name).state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=2e-5)
    for before, after in zip(facts, told, strict=True):
        for name in ("loss_d", "loss_g", "grad_d", "grad_g", "d_real"):
            if name in before:
                torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-4)


def torchrun(fit: Any, shards: Any, run: str, *options: str, **more: Any) -> Any:
    command = fit.command(shards.manifest, "--run", run, *options)
    assert command[1:3] == ["-m", "training.fit"]
    prefix = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    ]  # fmt: skip
    fit.folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*prefix, *command[1:3], "--", *command[3:]], cwd=fit.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1",
        }, **more,
    )  # fmt: skip


def close(rows: Any, others: Any) -> None:
    assert [row["seen"] for row in rows] == [row["seen"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in ("loss_d", "loss_g", "d_real", "grad_d"):
            assert row[name] == pytest.approx(other[name], rel=2e-2, abs=2e-3)


def test_two_processes_train_what_one_does_stop_together_and_go_on_as_one(
    fit: Any, in_process: Any, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards(sizes=(41, 3, 29, 1))  # uneven, and the batch does not divide them
    plain = [f"--{name}={value}" for name, value in PLAIN.items()] + ["--batch", "7"]
    runs = fit.folder / "runs"
    rows = runs / "two" / "metrics.jsonl"
    with torchrun(
        fit, shards, "two", *plain, "--total-kimg", "100", "--record.checkpoint_kimg", "99",
        start_new_session=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 9):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does: torchrun passes it on, too
        out, err = process.communicate()
    assert out.count("interrupted, state saved") == 1, err  # one of them speaks
    (record,) = (runs / "two" / "checkpoints").glob("*.json")
    seen = json.loads(record.read_text())["seen"]
    assert seen > 74  # more than an epoch: the uneven end was passed
    there = ("--total-kimg", str(seen / 1000))
    assert in_process(runs / "one", shards, *plain, *there) == 0
    two_rows, two = read_run(runs / "two")
    one_rows, one = read_run(runs / "one")
    close(two_rows, one_rows)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=5e-2, atol=2e-3)
    # another world size goes on from the same checkpoint: the position is one number
    more = ("--total-kimg", str(seen / 1000 + 0.1))
    assert in_process(runs / "two", shards, *plain, *more) == 0
    assert in_process(runs / "one", shards, *plain, *more) == 0
    close(read_run(runs / "two")[0], read_run(runs / "one")[0])
