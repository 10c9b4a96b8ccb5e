"""A real Prefect server on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from pipeline.demo.child_processes import ChildProcesses
from tests.helpers.processes import PROJECT


@dataclass(frozen=True)
class PrefectServer:
    """A real Prefect server on loopback: the project's folder and environment of its clients, and
    `children`: processes that end with it."""

    folder: Path
    env: dict[str, str]
    children: ChildProcesses

    @property
    def api(self) -> str:
        return self.env["PREFECT_API_URL"]

    def wait_for(self, path: str, seconds: float = 240) -> None:
        """Wait until the server answers well to `path`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if requests.get(f"{self.api}/{path}", timeout=5).ok:
                    return
            except requests.RequestException:
                pass
            assert time.monotonic() < deadline, f"{path} does not answer"
            time.sleep(0.2)

    def post(self, path: str, **body: object) -> list[dict[str, object]]:
        answer = requests.post(f"{self.api}/{path}", json=body, timeout=120)
        answer.raise_for_status()
        found: list[dict[str, object]] = answer.json()
        return found


@contextlib.contextmanager
def serve_prefect(folder: Path) -> Iterator[PrefectServer]:
    """A Prefect server with its database in `folder`, which is the current folder meanwhile."""
    shutil.copy(PROJECT / "prefect.toml", folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "DO_NOT_TRACK": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    cwd = Path.cwd()
    os.chdir(folder)  # prefect.toml is read from the current folder
    try:
        with ChildProcesses() as children:
            children.start(["prefect", "server", "start"], folder / "server.log", env)
            server = PrefectServer(folder, env, children)
            server.wait_for("health")
            yield server
    finally:
        os.chdir(cwd)
