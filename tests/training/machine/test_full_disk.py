"""A full disk: old checkpoints go first, then the run stops with a state that loads."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.training_runs import read_run
from training import checkpoint
from training.machine.disk import DiskFull, free_bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def state(number: int, kilobytes: int) -> dict[str, Any]:
    return {"seen": number, "weight": torch.full((kilobytes * 256,), float(number))}


def seen(folder: Path) -> list[int]:
    return [saved.seen for saved in checkpoint.list_checkpoints(folder)]


def test_old_checkpoints_go_before_the_newest_is_refused(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    for number in range(1, 6):  # three of 300 kB fit
        checkpoint.save(folder, number, state(number, 300), keep=10, spare=50_000)
        assert seen(folder)[0] == number
    assert seen(folder) == [5, 4, 3]
    checkpoint.save(folder, 6, state(6, 500), keep=10, spare=50_000)
    assert seen(folder) == [6, 5]
    with pytest.raises(DiskFull, match=r"takes 0\.5 MB and 0 MB are to stay free"):
        checkpoint.save(folder, 7, state(7, 500), keep=10, spare=50_000)
    values, damaged = checkpoint.load_newest(folder)
    assert values is not None
    assert (values["seen"], damaged) == (6, [])
    assert not checkpoint.has_room_for(folder, 500_000, 50_000)
    assert free_bytes(folder / "not" / "there" / "yet") < 1 << 20


def test_a_disk_that_another_fills_meanwhile(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_disk / "checkpoints"
    for number in (1, 2):
        checkpoint.save(folder, number, state(number, 300), keep=10, spare=0)
    monkeypatch.setattr(checkpoint, "make_room", lambda *_: None)  # it looked free a moment ago
    checkpoint.save(folder, 3, state(3, 600), keep=10, spare=0)
    assert seen(folder) == [3, 2]
    (small_disk / "another").write_bytes(b"x" * (free_bytes(small_disk) - 4096))
    with pytest.raises(DiskFull, match="no room for a checkpoint"):
        checkpoint.save(folder, 4, state(4, 900), keep=10, spare=0)
    values, damaged = checkpoint.load_newest(folder)
    assert values is not None
    assert (values["seen"], damaged) == (3, [])
    assert [path.suffix for path in folder.iterdir()].count(".tmp") == 0


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1, 10), keep=10, spare=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DiskFull):
            checkpoint.save(tmp_path, 2, state(2, 300), keep=10, spare=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    values, damaged = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert (values["seen"], damaged) == (1, [])
    assert seen(tmp_path) == [1]


@contextmanager
def filled(folder: Path, leaving: int) -> Iterator[None]:
    ballast = folder / "ballast"
    ballast.write_bytes(b"x" * max(0, free_bytes(folder) - leaving))
    try:
        yield
    finally:
        ballast.unlink()


def test_a_run_on_a_full_disk_stops_with_its_state_and_goes_on_later(
    small_disk: Path, small_shards: Callable[..., Any], in_process: Any,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shards, run = small_shards(), small_disk / "runs" / "tight"
    options = ("--record.spare_mb", "0.1")
    with filled(small_disk, 260_000):
        assert in_process(run, shards, *options) == 1
        said = capsys.readouterr().out
        assert "stopped: runs/tight/checkpoints: the state is saved, but the disk has no" in said
        assert "free some disk and run the same command again" in said
        values, damaged = checkpoint.load_newest(run / "checkpoints")
        assert values is not None
        assert damaged == []
        assert 0 < values["state"]["seen"] < 400
    assert in_process(run, shards, *options) == 0
    assert in_process(tmp_path / "runs" / "roomy", shards, *options) == 0
    rows, weights = read_run(run)
    other_rows, other_weights = read_run(tmp_path / "runs" / "roomy")
    assert rows == other_rows
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_the_last_line_of_a_run_on_a_full_disk_names_what_is_saved(
    small_shards: Callable[..., Any], in_process: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save = checkpoint.save

    def save_some(folder: Path, seen: int, *rest: Any) -> checkpoint.CheckpointInfo:
        if seen > 160:
            raise DiskFull(f"{folder}: no room for a checkpoint")
        return save(folder, seen, *rest)

    monkeypatch.setattr(checkpoint, "save", save_some)
    run = tmp_path / "runs" / "some"
    assert in_process(run, small_shards()) == 1
    assert seen(run / "checkpoints")[0] == 160
    assert "the same command again to resume (0.16 kimg)" in capsys.readouterr().out


def test_no_room_at_all_is_one_clear_line(
    small_disk: Path, small_shards: Callable[..., Any], in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shards = small_shards()
    with filled(small_disk, 0):
        assert in_process(small_disk / "runs" / "none", shards) == 2
    said = capsys.readouterr()
    assert "need 32.1 MB of disk, 0 B are free; free some" in said.err
    assert "Traceback" not in said.err
