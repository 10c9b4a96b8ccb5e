"""Work beside the steps: when it is due, and files that a thread writes."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import training.callbacks.samples as grids
from tests.helpers.processes import child_env
from tests.helpers.training_runs import Fit, read_run
from training import checkpoint
from training.callbacks import BackgroundWriter, Cadence
from training.callbacks.checkpoints import CheckpointsCallback
from training.machine.disk import DiskFull
from training.snapshot import copy_to_host, pack, take_snapshot


class Clock:
    """The clock of the program, which only the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def loop_of(time_share: float, total: int = 1000) -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(record=SimpleNamespace(time_share=time_share)), cadences=[],
        state=SimpleNamespace(seen=0), seen_before=0, total=total, writer=BackgroundWriter(),
    )  # fmt: skip


def due_at(cadence: Cadence, loop: Any, clock: Clock, takes: float, step: float) -> list[int]:
    """The images seen after which work that takes so many seconds is done, with steps of ten."""
    found = []
    while loop.state.seen < loop.total:
        early = cadence.is_early()
        loop.seen_before, loop.state.seen = loop.state.seen, loop.state.seen + 10
        clock.now += step
        cadence.decide(early)
        if cadence.is_due:
            found.append(loop.state.seen)
            with cadence.timed():
                clock.now += takes
    return found


@pytest.mark.parametrize(
    ("share", "takes", "step", "due"),
    [
        (0.0, 50.0, 0.1, list(range(100, 1001, 100))),  # by images alone
        (0.04, 0.008, 0.1, list(range(100, 1001, 100))),  # 1 % of the time allows it
        (0.04, 0.018, 0.1, [100, 200, 400, 600, 800, 1000]),  # every two seconds at most
        (0.04, 50.0, 1.0, [100, 200, 1000]),  # the first time does not count
        (0.04, 50.0, 33.0, [100, 200, 400, 600, 800, 1000]),  # five minutes at most
        (0.04, 50.0, 34.0, list(range(100, 1001, 100))),  # a slow run does all
    ],
)
def test_work_takes_its_part_of_the_time(
    share: float, takes: float, step: float, due: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, clock = loop_of(share), Clock(monkeypatch)
    cadence = Cadence(loop, "grid", 0.1)
    assert due_at(cadence, loop, clock, takes, step) == due


def test_what_was_left_out_is_due_after_the_last_step_only_if_there_is_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    for share, due in ((0.04, [300, 600, 950]), (0.0, [300, 600, 900])):
        loop = loop_of(share, 950)
        assert due_at(Cadence(loop, "evaluation", 0.3), loop, clock, 9.0, 0.1) == due
    loop = loop_of(0.0)
    assert due_at(Cadence(loop, "evaluation", 0), loop, clock, 0.0, 0.1) == []


def test_work_waits_until_its_last_file_is_complete() -> None:
    loop, go = loop_of(0.5), threading.Event()
    cadences = {kind: Cadence(loop, kind, 0.1) for kind in ("grid", "report")}
    loop.writer.submit("grid", go.wait)
    assert [cadence.is_early() for cadence in cadences.values()] == [True, False]
    loop.config.record.time_share = 0.0
    assert not cadences["grid"].is_early()  # then the training waits
    go.set()
    loop.writer.close()


def test_the_writer_keeps_the_order_and_hands_errors_and_results_to_its_caller() -> None:
    writer, done, go = BackgroundWriter(), list[Any](), threading.Event()

    def broken() -> None:
        raise DiskFull("full")

    writer.submit("slow", lambda: go.wait() and threading.get_ident(), done.append)
    writer.submit("broken", broken, done.append)
    writer.submit("last", lambda: len(done), done.append)
    writer.collect()
    assert (done, writer.has_jobs, writer.is_busy("last")) == ([], True, True)
    go.set()
    writer.finish("slow")
    assert done[0] not in (0, threading.get_ident())
    with pytest.raises(DiskFull):
        writer.submit("broken", lambda: done.append("not done"))
    writer.finish()
    assert not writer.has_jobs
    assert len(done) == 2
    writer.finish()
    writer.close()


def nested() -> dict[str, Any]:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = network[0].weight
    return {"network": network.state_dict(), "same": [weight.detach(), (1.5, "text")], "n": 3}


def members(content: memoryview) -> dict[str, bytes]:
    """The storages in a file, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "/data/" in name}


def test_a_snapshot_stays_what_it_was_and_holds_each_storage_once() -> None:
    values = nested()
    before = pack(values)
    copies, snapshot = copy_to_host(values), take_snapshot(values)
    values["network"]["0.weight"].add_(1)
    assert snapshot.content() == before
    assert snapshot.bytes == len(before)
    assert members(pack(copies)) == members(before)
    assert copies["network"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert copies["network"]._metadata == values["network"]._metadata
    assert copies["same"][1] == [1.5, "text"]


class Moments:
    """Holds the writing of checkpoints back, and notes which are complete when steps are taken. The
    folder is not looked at while the thread changes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.saved = threading.Event(), list[tuple[int, int]]()
        save, take = checkpoint.save, CheckpointsCallback.before_step
        has_room_for, writers = checkpoint.has_room_for, list[BackgroundWriter]()

        def held(*arguments: Any) -> Any:
            assert self.go.wait(60)
            return save(*arguments)

        def looked(*arguments: Any) -> Any:
            assert not writers[-1].is_busy("checkpoint")
            return has_room_for(*arguments)

        def before_step(callback: CheckpointsCallback) -> Any:
            seen = callback.loop.state.seen
            writers.append(callback.loop.writer)
            self.saved.append((seen, callback.saved_seen))
            if seen == 48:  # steps went on while the checkpoint at 40 was being written
                self.go.set()
            return take(callback)

        monkeypatch.setattr(checkpoint, "save", held)
        monkeypatch.setattr(checkpoint, "has_room_for", looked)
        monkeypatch.setattr(CheckpointsCallback, "before_step", before_step)


def test_steps_go_on_while_a_checkpoint_is_written_and_it_counts_when_it_is_complete(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    moments, run = Moments(monkeypatch), tmp_path / "runs" / "held"
    assert in_process(run, small_shards(), "--total-kimg", "0.08") == 0
    saved = dict(moments.saved)
    assert [saved[seen] for seen in (32, 40, 48)] == [-1, -1, -1]
    assert json.loads((run / "checkpoints" / "0000000080.json").read_text())["seen"] == 80


def test_a_run_is_the_same_whatever_is_left_out(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any
) -> None:
    shards, runs = small_shards(), tmp_path / "runs"
    short = ("--total-kimg", "0.2", "--record.sample_kimg", "0.016")
    assert in_process(runs / "all", shards, *short) == 0
    assert in_process(runs / "some", shards, *short, "--record.time_share", "1e-6") == 0
    rows, weights = read_run(runs / "all")
    other_rows, other_weights = read_run(runs / "some")
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    for files, least in (("samples/*.png", 13), ("checkpoints/*.pt", 3)):
        every, some = (
            [int(path.stem) for path in (runs / run).glob(files)] for run in ("all", "some")
        )
        assert len(every) >= least
        assert max(some) == 200  # the last is never left out
        # the first is not counted, and the next may come while it is being written
        assert len(some) <= 3


def test_an_error_of_the_thread_ends_the_run_with_what_was_learned(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Any,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def broken(path: Path, _pixels: Any) -> None:
        raise PermissionError(13, "not allowed", str(path))

    monkeypatch.setattr(grids, "save_image", broken)
    run = tmp_path / "runs" / "broken"
    assert in_process(run, small_shards()) == 2
    assert "0000000000.png: not allowed" in capsys.readouterr().err
    values, damaged = checkpoint.load_newest(run / "checkpoints")
    assert values is not None
    assert damaged == []


_HELD = """
import sys, time
from pathlib import Path
replace, told = Path.replace, Path(sys.argv.pop(1))

def held(source, target):
    # the content is written, its name is not: the thread stops here
    if "checkpoints" in str(target) and "0000000080" in str(target):
        told.write_text("now")
        time.sleep(600)
    return replace(source, target)

Path.replace = held
from training.fit import main
sys.exit(main())
"""


def test_a_kill_while_the_thread_writes_leaves_whole_files(
    fit: Fit, small_shards: Callable[..., Any], in_process: Any
) -> None:
    shards, told, runs = small_shards(), fit.folder / "told", fit.folder / "runs"
    python, _, _, *options = fit.command(shards.manifest, "--run", "killed")
    fit.folder.mkdir(parents=True)
    with subprocess.Popen(
        [python, "-c", _HELD, str(told), *options], cwd=fit.folder, env=child_env(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not told.exists():
            time.sleep(0.01)
        process.kill()
        out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, out
    values, damaged = checkpoint.load_newest(runs / "killed" / "checkpoints")
    assert values is not None
    assert (values["state"]["seen"], damaged) == (40, [])
    assert in_process(runs / "killed", shards) == 0
    assert in_process(runs / "whole", shards) == 0
    (rows, weights), (other_rows, others) = read_run(runs / "killed"), read_run(runs / "whole")
    assert rows == other_rows
    assert all(torch.equal(others[name], value) for name, value in weights.items())
    assert not list((runs / "killed" / "checkpoints").glob(".*"))
