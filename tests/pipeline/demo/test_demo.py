"""The demo, small: it makes what it says, continues, and leaves no process behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.contract import load_index

PROJECT = Path(__file__).parents[3]
COUNT = 16
SMALL = """
extends = "shells64"
[generator]
width = 8
[discriminator]
width = 8
[record]
log_kimg = 0.05
"""
"""The demo's preset with small networks; the demo as it is takes ten times as long to its first row
of metrics."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(PROJECT / "prefect.toml", tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int, minutes: float = 0.05) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline.demo", "--images", str(COUNT)),
            *("--minutes", str(minutes), "--port", str(port), "--preset", "small.toml"),
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


def wait_until(is_true: Callable[[], object], demo: subprocess.Popen[str]) -> None:
    """Wait for something that the demo does."""
    while not is_true():
        assert demo.poll() is None, demo.communicate()[0]
        time.sleep(0.1)


def end(demo: subprocess.Popen[str], folder: Path, number: signal.Signals) -> tuple[int, str]:
    """The exit status and last output after a signal, once no process of the demo is left."""
    assert len(at_work(folder)) > 1
    demo.send_signal(number)
    said, _ = demo.communicate()
    while at_work(folder):  # the test has a time limit
        time.sleep(0.1)
    return demo.returncode, said


def images_seen(folder: Path) -> int:
    """How far the run is, by its newest checkpoint."""
    return max(int(path.stem) for path in (folder / "runs/demo/checkpoints").glob("*.pt"))


@needs_proc
@pytest.mark.timeout(900)
def test_stopped_in_training_and_continued_to_new_shells(folder: Path, port: int) -> None:
    first = start(folder, port, minutes=10)
    history = folder / "runs" / "demo" / "metrics.jsonl"
    wait_until(lambda: history.exists() and history.stat().st_size > 0, first)
    assert end(first, folder, signal.SIGTERM)[0] == 130
    index, _ = load_index(folder / "manifests" / "shells")
    assert index.nsamples == COUNT
    shards = [entry.sha256 for entry in index.shardlist]
    trained = images_seen(folder)

    again = start(folder, port)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert at_work(folder) == []
    assert "drawing" not in said
    assert "Traceback" not in said
    assert [e.sha256 for e in load_index(folder / "manifests" / "shells")[0].shardlist] == shards
    assert f"resuming at {trained / 1000:g} kimg" in said
    assert images_seen(folder) >= trained  # a slow machine may take no step in three seconds
    for made in ("shells.png", "report.html", "config.json"):
        assert (folder / "runs" / "demo" / made).stat().st_size > 0
    assert "runs/demo/shells.png" in said


@needs_proc
@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [("[1/4]", signal.SIGINT, 130), ("[2/4]", signal.SIGKILL, -signal.SIGKILL)],
)
def test_no_process_is_left_behind(
    folder: Path, port: int, moment: str, number: signal.Signals, status: int
) -> None:
    demo = start(folder, port)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(moment):
            break
    wait_until(lambda: len(at_work(folder)) > 2, demo)
    assert end(demo, folder, number)[0] == status
