"""The demo itself, small: it makes what it says, goes on, and leaves no process behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.contract import load_index

PROJECT = Path(__file__).parents[3]
COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(PROJECT / "prefect.toml", tmp_path)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline.demo", "--images", str(COUNT)),
            *("--minutes", "0.4", "--port", str(port)),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def at_work(folder: Path) -> list[str]:
    """The command lines of the processes whose current folder is `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder.resolve() and process.name != str(os.getpid()):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line:  # not a zombie
                    found.append(line)
        except OSError:
            continue
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


@needs_proc
def test_from_the_gallery_to_new_shells_and_on(folder: Path, port: int) -> None:
    first = start(folder, port)
    said, _ = first.communicate(timeout=280)
    assert first.returncode == 0, said
    assert at_work(folder) == []
    index, _ = load_index(folder / "manifests" / "shells")
    assert index.nsamples == COUNT
    for made in ("shells.png", "report.html", "config.json"):
        assert (folder / "runs" / "demo" / made).stat().st_size > 0
    assert f"{'runs/demo/shells.png'}" in said
    assert "Traceback" not in said
    shards = [entry.sha256 for entry in index.shardlist]
    trained = images_seen(folder)

    again = start(folder, port)
    said, _ = again.communicate(timeout=280)
    assert again.returncode == 0, said
    assert "drawing" not in said
    assert [e.sha256 for e in load_index(folder / "manifests" / "shells")[0].shardlist] == shards
    assert images_seen(folder) > trained


def images_seen(folder: Path) -> int:
    """How far the run is, by its newest checkpoint."""
    return max(int(path.stem) for path in (folder / "runs/demo/checkpoints").glob("*.pt"))


@needs_proc
@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        ("[1/4]", signal.SIGINT, 130),
        ("[2/4]", signal.SIGTERM, 130),
        ("[3/4]", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_process_is_left_behind(
    folder: Path, port: int, moment: str, number: signal.Signals, status: int
) -> None:
    demo = start(folder, port)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(moment):
            break
    time.sleep(2)
    assert len(at_work(folder)) > 1
    demo.send_signal(number)
    demo.communicate(timeout=90)
    assert demo.returncode == status
    deadline = time.monotonic() + 30
    while at_work(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert at_work(folder) == []
