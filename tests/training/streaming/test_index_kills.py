"""Processes that scan the same tars at once, and are killed: the next scan finds all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.foreign_shards import numbered, write_tar
from tests.helpers.processes import child_env
from tests.helpers.shard_server import ShardServer
from training.streaming.foreign import find_shards, index_tars
from training.streaming.tar_scan import SampleOptions

SCAN = """
import os, pathlib, signal, sys
from training.streaming import foreign, scans
from training.streaming.tar_scan import SampleOptions

left = int(sys.argv[2])

def counted(call):
    def run(*args, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return run

os.fsync = counted(os.fsync)
pathlib.Path.replace = counted(pathlib.Path.replace)
scans.scan_tar = counted(scans.scan_tar)
foreign.index_tars(foreign.find_shards(sys.argv[1]), SampleOptions())
"""
TARS, STEPS = 3, 4
"""A scan reads a tar, and flushes, renames and flushes what it found."""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(TARS):
        samples = numbered(10, 10 * shard, cls=lambda n: b"%d" % (n % 3))
        write_tar(tmp_path / f"web/{shard}.tar", samples)
    monkeypatch.chdir(tmp_path)


def start(location: str, kill_at: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCAN, location, f"{kill_at}"], env=child_env(),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> int:
    _, said = process.communicate()
    assert not said
    return process.returncode


def digest(location: str) -> str:
    found = find_shards(location)
    assert isinstance(found, list)
    return index_tars(found, SampleOptions()).index.digest


@pytest.mark.slow
def test_a_scan_that_is_killed_at_any_moment_is_done_by_the_next_one(tmp_path: Path) -> None:
    expected = digest("web")
    for kill_at in (1, 2, 3, 4, STEPS * (TARS - 1) + 3):
        for file in (tmp_path / "data/web/index").iterdir():
            file.unlink()
        assert end(start("web", kill_at)) == -signal.SIGKILL
        assert digest("web") == expected
    assert end(start("web", 1)) == 0  # nothing is scanned or written any more


@pytest.mark.slow
@pytest.mark.parametrize("is_remote", [False, True])
def test_processes_may_scan_the_same_tars_at_once(tmp_path: Path, is_remote: bool) -> None:
    with ShardServer(tmp_path / "web") as server:
        location = f"{server.url}/{{0..{TARS - 1}}}.tar" if is_remote else "web"
        scans = [start(location) for _ in range(3)] + [start(location, 4)]
        assert [end(scan) for scan in scans[:3]] == [0, 0, 0]
        assert end(scans[3]) in (0, -signal.SIGKILL)
        before = len(server.asked)
        found = digest(location)
        assert len(server.asked) - before == (TARS if is_remote else 0)  # for size and ETag
        for file in tmp_path.glob("data/*/index/*"):
            file.unlink()
        assert digest(location) == found


def test_files_of_killed_scans_are_removed_when_no_process_can_still_write_them(
    tmp_path: Path,
) -> None:
    digest("web")
    folder = tmp_path / "data/web/index"
    new, old = folder / ".a.json.x.tmp", folder / ".b.json.y.tmp"
    for file in (new, old):
        file.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)
    digest("web")
    assert new.exists()
    assert not old.exists()
