"""Hours, cost, forecast, memory: what a run takes and when it stops."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pipeline.contract import UserError, parse_config
from training.callbacks import Action, LimitsCallback
from training.config import Config
from training.data import Batch
from training.machine.distributed import SINGLE_PROCESS
from training.machine.memory import available_bytes
from training.networks import ImageShape
from training.options.resolve import resolve
from training.planning.forecast import is_timed, lazy_cycle
from training.planning.live import AllocatorPeak, LiveBytes, extended, live_meter
from training.planning.memory import measure_run, optimizer_tensors
from training.state import new_state
from training.step import Step
from training.streaming.dataset import open_shard_dataset

ROOT = Path(__file__).parents[3]
_AND_ITS_PEAK = """
import sys
from training.fit import main
status = main()
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""
"""The command, and as the last line the largest resident memory of its process in KiB."""


def a_step_takes(
    seconds: float, monkeypatch: pytest.MonkeyPatch, later: float = 0.0, since: float = math.inf
) -> None:
    """Let the clock of the program count the steps of training, which take `later` seconds more
    after `since` images."""
    passed, call, real = [0.0], Step.__call__, time.monotonic

    def counted(step: Step, batches: Any) -> Any:
        passed[0] += seconds + later * (step.state.seen >= since)
        return call(step, batches)

    monkeypatch.setattr(Step, "__call__", counted)
    monkeypatch.setattr(time, "monotonic", lambda: passed[0] + real() / 1e6)


def test_max_hours_stops_in_time_and_reports_the_cost(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    a_step_takes(2.0, monkeypatch)
    shards, run = small_shards(), tmp_path / "runs" / "rented"
    hours = (
        "--max-hours",
        "0.01",
        "--price-per-hour",
        "360",
        "--record.checkpoint_minutes",
        "9999",
    )
    assert in_process(run, shards, *hours) == 0
    said = capsys.readouterr().out
    assert "stopped: the time of 0:36 is over; state saved" in said
    took = re.search(r"took 0:(\d+), cost (\d+\.\d\d)", said)
    assert took is not None
    assert int(took[1]) <= 36  # 0.01 hours: saved and reported before they are over
    assert float(took[2]) == pytest.approx(int(took[1]) / 10, abs=0.06)  # 0.1 a second
    newest = max((run / "checkpoints").glob("*.pt")).stem
    assert max((run / "samples").glob("*.png")).stem == newest  # the end is shown, too
    assert in_process(run, shards, *hours) == 0
    again = re.search(r"in total (\d):(\d\d), cost (\d+\.\d\d)", capsys.readouterr().out)
    assert again is not None
    assert int(again[1]) * 60 + int(again[2]) > int(took[1])
    assert float(again[3]) > float(took[2])


def test_max_hours_keep_no_time_for_another_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step takes 20 s of 36, all others one: two more are kept in reserve."""
    now, taken = 0.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    loop = SimpleNamespace(
        config=SimpleNamespace(max_hours=0.01), disk_full="", seconds=0.0, step_started=0.0,
        stop_signal=SimpleNamespace(requested=False), checkpoints=SimpleNamespace(seconds=0.0),
        samples=SimpleNamespace(seconds=0.0), ranks=SINGLE_PROCESS,
    )  # fmt: skip
    limits = LimitsCallback(cast(Any, loop))
    while limits.before_step() is Action.NONE:
        loop.step_started = now
        now += 20.0 if taken == 0 else 1.0
        taken, loop.seconds = taken + 1, now
        limits.after_step()
    assert (taken, now) == (15, 34.0)


def test_measuring_memory_tries_no_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, call = [], Step.__call__

    def noted(step: Step, batches: Any) -> Any:
        seen.append(torch.backends.cudnn.benchmark)
        return call(step, batches)

    monkeypatch.setattr(Step, "__call__", noted)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    config = resolve("dcgan64", {"generator.width": "4", "discriminator.width": "4"})
    measure_run(config, ImageShape(16, 16, 3), torch.device("cpu"), SINGLE_PROCESS)
    assert seen == [False, False]
    assert torch.backends.cudnn.benchmark


def test_dry_run_forecasts_and_writes_nothing(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.planning.forecast._TIMED_SECONDS", 0.0)
    shards, run = small_shards(), tmp_path / "work" / "runs" / "dry"
    assert in_process(run, shards, "--dry-run", "--price-per-hour", "3600") == 0
    said = capsys.readouterr().out
    pace = re.search(r"forecast: ([\d.]+) s/kimg, \S+ for 0.4 kimg, cost ([\d.]+)", said)
    assert pace is not None
    assert float(pace[2]) == pytest.approx(float(pace[1]) * 0.4, rel=0.05, abs=0.01)
    for words in ("M parameters", "memory: about", "disk: checkpoints and samples", "free"):
        assert words in said
    assert list((tmp_path / "work").iterdir()) == []


def test_a_dry_run_respects_max_hours(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.planning.forecast._TIMED_SECONDS", 0.0)
    monkeypatch.setattr("training.session._timed", lambda _: 22.3)
    shards, run = small_shards(), tmp_path / "runs" / "rented"
    hours = ("--total-kimg", "10000", "--price-per-hour", "0.48", "--record.sample_kimg", "0.001")
    assert in_process(run, shards, *hours, "--dry-run", "--json") == 0
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (whole["limit"], whole["kimg"]) == ("total_kimg", 10000)
    assert whole["seconds"] == pytest.approx(223_000)
    assert whole["cost"] == pytest.approx(29.73, abs=0.01)
    assert in_process(run, shards, *hours, "--max-hours", "1", "--dry-run", "--json") == 0
    *messages, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert end["limit"] == "max_hours"
    assert end["seconds"] == 3600
    assert end["cost"] == pytest.approx(0.48)
    assert 150 < end["kimg"] <= 3600 / 22.3
    # 3 + 1 checkpoints and as many grids as that hour draws
    assert end["disk_bytes"] < whole["disk_bytes"] * 0.1
    said = "\n".join(message["text"] for message in messages)
    assert re.search(r"1:00:00 for 1\d\d of 10000 kimg, cost 0.48; max_hours 1 ends the run", said)
    assert "29.7" not in said


def test_the_first_lines_of_a_run_respect_max_hours(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    a_step_takes(2.0, monkeypatch)
    shards, run = small_shards(), tmp_path / "runs" / "rented"
    options = ("--total-kimg", "1000", "--max-hours", "0.02", "--price-per-hour", "100",
               "--record.checkpoint_minutes", "9999")  # fmt: skip
    assert in_process(run, shards, *options) == 0
    said = capsys.readouterr().out
    found = re.search(r"forecast: \S+ s/kimg, 1:12 for (\S+) of 1000 kimg, cost 2.00; max_h", said)
    assert found is not None
    reached = float(re.search(r"\((\S+) kimg\)", said)[1])  # type: ignore[index]
    assert reached * 0.5 < float(found[1]) < reached * 3  # the clock counts calls, not seconds
    assert said.count("disk: checkpoints and samples up to") == 1


def test_the_forecast_is_repeated_when_frozen_features_have_joined(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    a_step_takes(1.0, monkeypatch, later=3.0, since=40)
    shards, run = small_shards(), tmp_path / "runs" / "joined"
    options = (
        "--preset", "shells64-projected", "--resolution", "16", "--batch", "4",
        "--generator.width", "2", "--loss.interval", "1",
        *("--discriminator.width", "8", "--discriminator.pixel_width", "2"),
        *("--discriminator.size", "32", "--discriminator.features_kimg", "0.04"),
    )  # fmt: skip
    found = []
    for kimg in ("0.06", "0.1"):  # the second command begins after the features have joined
        assert in_process(run, shards, *options, "--total-kimg", kimg) == 0
        said = capsys.readouterr().out
        found.append(re.findall(r"forecast: (\S+) s/kimg, (\S+) for (\S+) kimg", said))
    assert found[0] == [("250", "0:15", "0.06"), ("1e+03", "0:20", "0.02")]
    assert found[1] == [("1e+03", "0:40", "0.04")]


def test_a_speed_is_told_from_whole_cycles_of_lazy_penalties() -> None:
    plain = parse_config(Config, {}, "test")
    lazy = parse_config(Config, {"loss": {"r1": 1, "interval": 8}}, "test")
    style = parse_config(Config, {"loss": {"r1": 1, "interval": 6, "path_length": 2}}, "test")
    assert [lazy_cycle(config) for config in (plain, lazy, style)] == [1, 8, 12]
    assert [is_timed(plain, steps, 1.0) for steps in (3, 4, 5)] == [False, True, True]
    assert [is_timed(lazy, steps, 1.0) for steps in (4, 7, 8, 9)] == [False, False, True, False]
    assert is_timed(lazy, 4, 1000.0)


def test_a_run_that_does_not_fit_in_memory_says_so_first(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "runs" / "large"
    assert in_process(run, small_shards(), "--batch", "30000000") == 2
    said = capsys.readouterr().err
    assert re.search(r"batch: training needs about [\d.]+ GB of memory, [\d.]+ GB are avail", said)
    assert "--micro-batch" in said


@pytest.mark.slow
def test_memory_of_a_step_follows_the_piece_not_the_batch(
    small_shards: Callable[..., Any],
) -> None:
    shape = open_shard_dataset(small_shards().manifest, 0).image_shape
    pixels = 16 * 16 * 3

    def need(**options: str) -> int:
        config: Config = resolve("dcgan64", {"resolution": "16", "precision": "fp32"} | options)
        return measure_run(config, shape, torch.device("cpu"), SINGLE_PROCESS).step

    fixed = need(batch="1")
    thousand, two = need(batch="1000") - fixed, need(batch="2000") - fixed
    assert two == pytest.approx(2 * thousand, rel=0.05)
    # all of the batch is there as floats, and a few batches as bytes
    pieces = need(batch="2000", micro_batch="1000") - need(batch="1000")
    assert pieces == 1000 * 4 * pixels + 4 * 1000 * pixels
    # ngf = 100: the generator's two batch norms alone keep their inputs of 100·8² and 200·4²
    assert thousand > 1000 * 4 * (100 * 64 + 200 * 16)
    available = available_bytes(torch.device("cpu"))
    assert available is not None
    assert 1 << 28 < available < 1 << 45


@pytest.mark.slow
def test_memory_is_that_of_all_discriminators_also_if_some_join_later() -> None:
    discriminator = {"name": "projected", "width": 8, "size": 64, "pixel_width": 4}
    needs = [
        measure_run(
            parse_config(
                Config,
                {
                    "batch": 4, "generator": {"width": 4},
                    "discriminator": discriminator | {"features_kimg": kimg},
                },
                "test",
            ),
            ImageShape(64, 64, 3), torch.device("cpu"), SINGLE_PROCESS,
        ).step
        for kimg in (0.0, 10.0)
    ]  # fmt: skip
    assert needs[1] == pytest.approx(needs[0], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch": 1, "micro_batch": 1}, [1]),
        ({"batch": 64, "micro_batch": 3}, [3]),
        ({"batch": 8}, [8]),
        ({"batch": 9}, [4, 8]),
        ({"batch": 6, "discriminator": {"width": 4, "packing": 2}}, [6]),
        ({"batch": 64, "discriminator": {"width": 4, "packing": 2}}, [8, 16]),
    ],
)
def test_no_more_images_are_tried_than_go_through_at_once(
    options: dict[str, Any], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class Counted(Step):
        def __call__(self, batches: list[Batch]) -> dict[str, torch.Tensor]:
            tried.append(len(batches[0].images))
            return super().__call__(batches)

    monkeypatch.setattr("training.planning.memory.Step", Counted)
    tables = {"generator": {"width": 4}, "discriminator": {"width": 4}}
    config = parse_config(Config, tables | options, "test")
    assert (
        measure_run(config, ImageShape(16, 16, 3), torch.device("cpu"), SINGLE_PROCESS).step
        > 10_000
    )
    assert tried == expected


def test_tensors_are_followed_until_they_are_freed() -> None:
    weight = torch.ones(1000, requires_grad=True)  # there before: not counted
    with LiveBytes() as live:
        first = weight * 2
        second = first.view(10, 100)  # the same storage
        third = torch.zeros(500, dtype=torch.float64)
        del third
        torch.zeros(1)
        second.sum().backward()
        assert weight.grad is not None
    assert live.course[0] == 4000
    assert max(live.course[:3]) == 8000
    assert min(live.course[2:]) >= 4000
    assert 8000 <= max(live.course[4:]) <= 12_100  # the gradient beside what it is of
    assert live.without([first])[0] == 0
    assert extended([10, 30, 20], [20, 30, 60], (4, 8), 16) == 140
    assert extended([10], [20, 40], (4, 8), 12) == 70


class CountedAllocator:
    """The functions of `torch.cuda` on allocated memory, for tensors of the CPU."""

    def __init__(self, live: LiveBytes) -> None:
        self.live, self.start = live, 0

    def reset_peak_memory_stats(self, _: torch.device) -> None:
        self.start = len(self.live.course)

    def memory_allocated(self, _: torch.device) -> int:
        return self.live.now

    def max_memory_allocated(self, _: torch.device) -> int:
        return max(self.live.course[self.start :])


@pytest.mark.parametrize("batch", [6, 24])
def test_the_peak_of_an_allocator_gives_the_forecast_of_counted_operators(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {
        "batch": batch, "generator": {"width": 8}, "discriminator": {"width": 8},
        "loss": {"r1": 1, "interval": 4},
    }  # fmt: skip
    config, shape = parse_config(Config, tables, "test"), ImageShape(32, 32, 3)
    cpu = torch.device("cpu")
    expected = measure_run(config, shape, cpu, SINGLE_PROCESS)
    meters = []
    with LiveBytes() as live:

        def meter(device: torch.device) -> AllocatorPeak:
            meters.append(AllocatorPeak(device, CountedAllocator(live)))
            return meters[-1]

        monkeypatch.setattr("training.planning.memory.live_meter", meter)
        found = measure_run(config, shape, cpu, SINGLE_PROCESS)
    assert len(meters) == (3 if batch == 6 else 4)  # steps of 6, or of 4 and 8; two grids
    assert found.step == pytest.approx(expected.step, rel=0.05)
    assert found.grid == pytest.approx(expected.grid, rel=0.05)


def test_memory_of_a_gpu_is_that_of_its_allocator() -> None:
    assert isinstance(live_meter(torch.device("cuda", 0)), AllocatorPeak)
    assert isinstance(live_meter(torch.device("cpu")), LiveBytes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_the_state_and_a_large_batch_are_told_from_small_ones(name: str) -> None:
    """What is extended from 4 and 8 images is what 24 take, and the state is what it holds."""
    tables = {
        "batch": 24, "generator": {"width": 8}, "discriminator": {"width": 8},
        "loss": {"r1": 1, "interval": 4}, "d_optimizer": {"name": name, "lr": 1e-6},
    }  # fmt: skip
    config, shape = parse_config(Config, tables, "test"), ImageShape(32, 32, 3)
    found = measure_run(config, shape, torch.device("cpu"), SINGLE_PROCESS)
    state = new_state(config, shape, torch.device("cpu"))
    batch = Batch(torch.zeros(24, 3, 32, 32, dtype=torch.uint8), torch.zeros(24, dtype=torch.int64))
    with LiveBytes() as live:
        Step(config, state, torch.device("cpu"))([batch])
    moments = optimizer_tensors(state)
    made = sum(value.numel() * 4 for value in moments)
    weights = sum(
        tensor.numel() * tensor.element_size()
        for network in (state.generator, state.discriminator, state.g_ema)
        for tensor in network.state_dict().values()
    )
    assert found.state == weights + made
    queued = 4 * 24 * 3 * 32 * 32
    assert found.step - queued == pytest.approx(max(live.without(moments)), rel=0.02)
    assert found.evaluation == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_forecast_is_near_the_peak_of_a_real_run(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    """In processes of their own: what a run is said to take is about what it took at most."""
    shards = small_shards(size=64)
    options = (
        "--preset", "shells64", "--batch", "16", "--threads", "1", "--device", "cpu",
        "--labels", "if-any", "--total-kimg", "0.032", "--json",
    )  # fmt: skip

    def command(*more: str) -> tuple[dict[str, Any], int]:
        words = ["--shards", str(shards.manifest), "--run", str(tmp_path / "run"), *options, *more]
        done = subprocess.run(
            [sys.executable, "-c", _AND_ITS_PEAK, *words], capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True,
        )  # fmt: skip
        *_, end, peak = done.stdout.splitlines()
        return json.loads(end), int(peak) << 10

    told, _ = command("--dry-run")
    _, peak = command()
    assert (told["memory_bytes"] + told["image_bytes"]) == pytest.approx(peak, rel=0.2)


def test_what_was_measured_with_on_a_gpu_is_there_for_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 << 30, 24 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 19 << 30)
    assert available_bytes(torch.device("cuda")) == 23 << 30


def test_where_memory_ends_while_it_is_measured_the_run_is_refused() -> None:
    table = {"name": "mlp", "widths": [1 << 40]}  # the allocator refuses it at once
    config = parse_config(Config, {"generator": {"width": 4}, "discriminator": table}, "test")
    with pytest.raises(UserError, match=r"^batch: .* more memory than the [\d.]+ GB .*--micro-b"):
        measure_run(config, ImageShape(16, 16, 3), torch.device("cpu"), SINGLE_PROCESS)


def test_a_full_gpu_is_told_as_what_does_not_fit(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Step, "__call__", full)
    assert in_process(tmp_path / "runs" / "full", small_shards()) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"batch: training needs more memory than the [\d.]+ GB available; use a sm", said
    )
    assert said.count("\n") == 1
