"""The gallery's command: how it ends, and that it takes its workers with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE_SECONDS = 200.0


def started(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.demo.gallery", "--port=0", f"--cache={cache}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_pictures(cache: Path) -> None:
    """Return once something has been drawn."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(cache.glob("*px.*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_empty_group(group: int) -> None:
    """Return once no process of the group is left."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("workers outlived the command")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_stops_cleanly_while_drawing(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    command = started(tmp_path, "--count", "3000")
    wait_for_pictures(tmp_path)
    # An interrupt from the keyboard reaches the whole group.
    os.killpg(command.pid, sent) if sent == signal.SIGINT else command.send_signal(sent)
    _, complaint = command.communicate(timeout=PATIENCE_SECONDS)
    assert (command.returncode, complaint) == (status, "")
    wait_for_empty_group(command.pid)
    assert not list(tmp_path.glob("*.part"))


def test_killed_while_drawing_leaves_no_workers(tmp_path: Path) -> None:
    command = started(tmp_path, "--count", "3000")
    wait_for_pictures(tmp_path)
    command.kill()
    command.communicate(timeout=PATIENCE_SECONDS)
    wait_for_empty_group(command.pid)


def test_stops_cleanly_while_serving(tmp_path: Path) -> None:
    command = started(tmp_path, "--count", "1")
    assert command.stdout is not None
    lines = iter(command.stdout.readline, "")
    assert any(line.startswith("serving 1 shells at http://127.0.0.1:") for line in lines)
    command.terminate()
    _, complaint = command.communicate(timeout=PATIENCE_SECONDS)
    assert (command.returncode, complaint) == (0, "")


def test_draw_only_draws_and_leaves(tmp_path: Path) -> None:
    command = started(tmp_path, "--count", "1", "--draw-only")
    said, complaint = command.communicate(timeout=PATIENCE_SECONDS)
    assert (command.returncode, complaint) == (0, "")
    assert "drawing shells: 7 of 7" in said
    assert len(list(tmp_path.iterdir())) == 21
