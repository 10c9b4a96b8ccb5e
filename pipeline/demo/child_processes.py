"""Background processes that end with the process that started them, however it ends.

Each command runs below a small supervisor (`python -m pipeline.demo.child_processes GRACE COMMAND
…`) that holds the reading end of a pipe. When the starter closes the pipe or dies, the supervisor
ends the whole process group of the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class ChildProcesses:
    """Start commands in the background; on exit of the block, end them in reverse order.

    Args:
        grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, grace: float = 10.0) -> None:
        self._grace = grace
        self._keepers: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        command: Sequence[str],
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `command` in its own process group; its output goes to `log`, if given.

        The returned process is the supervisor; its exit status is that of the command.
        """
        keeper = [sys.executable, "-m", "pipeline.demo.child_processes", str(self._grace), *command]
        with contextlib.ExitStack() as stack:
            out = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                out = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                keeper,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=None if env is None else dict(env),
                start_new_session=True,  # Ctrl-C in the terminal is handled by the starter
            )
        self._keepers.append(process)
        return process

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for keeper in reversed(self._keepers):
            assert keeper.stdin is not None
            keeper.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                keeper.wait(self._grace + 5)


def supervise(command: Sequence[str], grace: float) -> int:
    """Run `command` until it ends or standard input closes; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.2)
        if readable and not os.read(sys.stdin.fileno(), 1):
            _end_group(child, grace)
            break
    # Processes that the command itself left behind are ended, too.
    _signal_group(child.pid, signal.SIGKILL)
    return child.wait()


def _end_group(child: subprocess.Popen[bytes], grace: float) -> None:
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and _signal_group(child.pid, 0):
        child.poll()
        time.sleep(0.05)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False if it has no processes left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    for name in (signal.SIGINT, signal.SIGTERM):
        # Only the pipe decides when to end. Not SIG_IGN: the command would inherit it.
        signal.signal(name, lambda _number, _frame: None)
    sys.exit(supervise(sys.argv[2:], float(sys.argv[1])))
