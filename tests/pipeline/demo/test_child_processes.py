"""A child process ends with its starter, however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.demo.child_processes import ChildProcesses

STARTER = """
import sys, time
from pathlib import Path
from pipeline.demo.child_processes import ChildProcesses
with ChildProcesses() as children:
    children.start([sys.executable, "-c", sys.argv[1]])
    time.sleep(60)
"""
# A command that starts a process of its own and tells both numbers.
FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path({told!r}).with_suffix(".tmp").write_text(f"{{os.getpid()}} {{child.pid}}")
Path({told!r}).with_suffix(".tmp").rename({told!r})
time.sleep(60)
"""


def wait_for(condition, seconds: float = 200.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ends_with_its_starter(tmp_path: Path, number: signal.Signals) -> None:
    told = tmp_path / "pids"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, FAMILY.format(told=str(told))], stderr=subprocess.DEVNULL
    )
    assert wait_for(told.exists)
    pids = [int(word) for word in told.read_text().split()]
    assert all(map(alive, pids))
    starter.send_signal(number)
    starter.wait()
    assert wait_for(lambda: not any(map(alive, pids)))


def test_gives_the_exit_status_and_the_output(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "out.log"
    with ChildProcesses() as children:
        process = children.start([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], log)
        assert process.wait() == 3
    assert log.read_text() == "hello\n"


def test_a_command_that_will_not_end_is_killed(tmp_path: Path, monkeypatch) -> None:
    stubborn = (
        "import signal, time; from pathlib import Path;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    )
    told = tmp_path / "up"
    with ChildProcesses(grace=0.5) as children:
        process = children.start([sys.executable, "-c", stubborn])
        assert wait_for(told.exists)
    assert process.poll() is not None
