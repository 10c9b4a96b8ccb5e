"""Checkpoints: whole or not there, the newest good one is used, only so many are kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training import best_checkpoint, checkpoint


def state(number: int) -> dict[str, object]:
    return {"state": {"weight": torch.full((100,), float(number))}, "seen": number}


def seen(folder: Path) -> list[int]:
    return [saved.seen for saved in checkpoint.list_checkpoints(folder)]


def test_keeps_the_last_and_loads_the_newest(tmp_path: Path) -> None:
    for number in range(1, 6):
        checkpoint.save(tmp_path, number, state(number), keep=3)
    assert seen(tmp_path) == [5, 4, 3]
    assert len(list(tmp_path.iterdir())) == 6
    values, damaged = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert values["seen"] == 5
    assert torch.equal(values["state"]["weight"], torch.full((100,), 5.0))
    assert damaged == []


def flip(data: Path) -> None:
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def cut(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-100])


def empty(data: Path) -> None:
    data.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_newest_falls_back_and_is_named(tmp_path: Path, damage: object) -> None:
    for number in (1, 2):
        checkpoint.save(tmp_path, number, state(number), keep=3)
    newest = checkpoint.list_checkpoints(tmp_path)[0]
    assert callable(damage)
    damage(newest.data_path)
    values, damaged = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert values["seen"] == 1
    assert len(damaged) == 1
    assert str(newest.data_path) in damaged[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seen": 2}', "null"])
def test_a_damaged_record_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    for number in (1, 2):
        checkpoint.save(tmp_path, number, state(number), keep=3)
    checkpoint.list_checkpoints(tmp_path)[0].metadata_path.write_text(text)
    values, _ = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert values["seen"] == 1


def test_data_without_a_record_is_not_trusted(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1), keep=3)
    (tmp_path / "0000000002.pt").write_bytes(b"half of it")
    values, _ = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert values["seen"] == 1
    checkpoint.save(tmp_path, 3, state(3), keep=3)
    assert not (tmp_path / "0000000002.pt").exists()


def test_copies_of_the_user_stay(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1), keep=1)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 2.0)
    copies = [
        folder / f"{name}.{extension}"
        for folder in (tmp_path, tmp_path / "best")
        for name in ("good", "5", "0000000001-good", "0000000001.good")
        for extension in ("pt", "json")
    ]
    for copy in copies:
        shutil.copy(tmp_path / f"0000000001{copy.suffix}", copy)
    checkpoint.set_aside(tmp_path, 1)
    checkpoint.save(tmp_path, 6, state(6), keep=1)
    best_checkpoint.keep_best(tmp_path, 6, "fd", 1.0)
    assert [copy for copy in copies if not copy.exists()] == []
    assert len(list((tmp_path / "best").glob("*.pt"))) == 5
    values, damaged = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert (values["seen"], damaged) == (6, [])


def test_a_checkpoint_is_data_and_its_hash_is_in_its_record(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 1, state(1), keep=1)
    record = json.loads(saved.metadata_path.read_text())
    told = subprocess.run(
        ["sha256sum", saved.data_path], capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[0] == record["sha256"]
    assert record["bytes"] == saved.data_path.stat().st_size
    torch.load(saved.data_path, weights_only=True)


def test_killed_at_any_moment_leaves_a_whole_one(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from pathlib import Path; from training import checkpoint\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1\n"
        "    values = {'seen': n, 'weight': torch.full((500_000,), float(n))}\n"
        "    checkpoint.save(Path(sys.argv[1]), n, values, keep=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while not seen(tmp_path):
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(15):  # stopped at many moments, each time there must be a whole newest one
        time.sleep(0.013)
        os.kill(process.pid, signal.SIGSTOP)
        values, damaged = checkpoint.load_newest(tmp_path)
        assert values is not None
        assert damaged == []
        assert torch.equal(values["weight"], torch.full((500_000,), float(values["seen"])))
        os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()
    values, damaged = checkpoint.load_newest(tmp_path)
    assert values is not None
    assert damaged == []
