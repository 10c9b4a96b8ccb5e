"""Four processes, of which the first is slow, dies, or computes wrongly."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.ranks import run_ranks
from tests.helpers.training_runs import TINY
from training.callbacks import Cadence, ConsoleCallback, EndReason
from training.fit import main
from training.machine import distributed
from training.machine.distributed import DelayedMax, WeightsDiffer, init_distributed

CPU = torch.device("cpu")


def slow_main_process() -> None:
    """The main process evaluates for longer than the others wait for a sum of gradients."""
    distributed._TIMEOUT = timedelta(seconds=1)
    with init_distributed(CPU) as ranks:
        if ranks.is_main:
            time.sleep(2)
        best = ranks.broadcast("the best" if ranks.is_main else None)
        most = ranks.all_reduce_max(ranks.rank)
        gradient = torch.ones(3)
        ranks.all_reduce_sum([gradient])
        print(best, most, gradient.tolist())


def dead_main_process() -> None:
    with init_distributed(CPU) as ranks:
        ranks.all_reduce_max(0)  # all are connected
        if ranks.is_main:
            os._exit(0)
        began = time.monotonic()
        with pytest.raises(RuntimeError):
            ranks.broadcast(None)
        assert time.monotonic() - began < distributed._CONTROL_TIMEOUT.total_seconds() / 100
        print("noticed")


def wrong_main_process() -> None:
    torch.manual_seed(0)
    weights = [
        torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        torch.randn(5),
    ]
    with init_distributed(CPU) as ranks:
        ranks.check_equal(weights)
        if ranks.is_main:
            weights[1][2] = torch.nextafter(weights[1][2], torch.tensor(9.0))
        with pytest.raises(WeightsDiffer) as error:
            ranks.check_equal(weights)
        print(error.value)


def late_decisions() -> None:
    """The main process decides before the others are asked."""
    with init_distributed(CPU) as ranks:
        decide, is_ahead = DelayedMax(ranks), Path("ahead")
        while not (ranks.is_main or is_ahead.exists()):
            time.sleep(0.001)
        told = [decide(ranks.rank)]
        is_ahead.touch()
        told += [decide(10 * number + ranks.rank) for number in (1, 2)]
        print([*told, decide.receive(), decide.receive()])


def stopping_process(*options: str) -> None:
    """The third process gets a signal during the step to 104 images."""
    update, end = ConsoleCallback.after_step, ConsoleCallback.on_end

    def interrupt(console: ConsoleCallback) -> None:
        update(console)
        if console.loop.ranks.rank == 2 and console.loop.state.seen == 104:
            os.kill(os.getpid(), signal.SIGINT)

    def tell(console: ConsoleCallback, reason: EndReason) -> None:
        end(console, reason)
        print("ended at", console.loop.state.seen, file=sys.stderr)

    ConsoleCallback.after_step, ConsoleCallback.on_end = interrupt, tell  # type: ignore[method-assign]
    assert main([*options, "--run", "stopped"]) == 130


def other_clocks(*options: str) -> None:
    """For all processes but the main one there is never time for more than steps."""
    if int(os.environ["RANK"]):
        Cadence.is_early = lambda _: True  # type: ignore[method-assign]
    assert main([*options, "--run", "clocks"]) == 0


def test_the_others_wait_for_a_slow_main_process(tmp_path: Path) -> None:
    texts = run_ranks(slow_main_process, 4, tmp_path)
    assert [text.splitlines()[-1] for text in texts] == ["the best 3 [4.0, 4.0, 4.0]"] * 4


def test_the_others_notice_the_death_of_the_main_process(tmp_path: Path) -> None:
    texts = run_ranks(dead_main_process, 4, tmp_path)
    assert ["noticed" in text for text in texts] == [False, True, True, True]


def test_one_wrong_bit_in_a_weight_is_noticed_by_all(tmp_path: Path) -> None:
    for text in run_ranks(wrong_main_process, 4, tmp_path):
        assert "the weights of process 0 of 4 differ" in text


def test_decisions_arrive_one_step_late_and_no_process_waits_for_the_others(
    tmp_path: Path,
) -> None:
    texts = run_ranks(late_decisions, 3, tmp_path)
    assert [text.splitlines()[-1] for text in texts] == ["[0, 2, 12, 22, 0]"] * 3


def test_a_signal_to_one_process_stops_all_after_the_same_step(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards()
    texts = run_ranks(stopping_process, 3, tmp_path, "--shards", str(shards.manifest), *TINY)
    assert ["ended at 112" in text for text in texts] == [True] * 3
    (record,) = [
        path.stem for path in (tmp_path / "runs" / "stopped" / "checkpoints").glob("*112.json")
    ]
    assert record == "0000000112"


def test_the_clock_of_the_main_process_decides_for_all(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards, runs = small_shards(), tmp_path / "runs"
    options = ("--shards", str(shards.manifest), *TINY, "--total-kimg", "0.2")
    run_ranks(other_clocks, 3, tmp_path, *options)
    saved = sorted(int(path.stem) for path in (runs / "clocks" / "checkpoints").glob("*.json"))
    assert saved == [120, 160, 200]
    assert len(list((runs / "clocks" / "samples").iterdir())) == 2
