"""What tests of several parts share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import requests
from hypothesis import HealthCheck, settings

from pipeline.demo.child_processes import ChildProcesses

PROJECT = Path(__file__).parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
for _name, _examples in (("short", 25), ("long", 1000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        derandomize=_name == "short",
        suppress_health_check=_SLOW_IS_FINE,
    )
settings.load_profile("short")  # the same examples every time; `make fuzz` tries new ones


def _load(name: str, path: Path) -> ModuleType:
    """A module of the tests, by its path: the tests are no packages."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


# Importable as `faulty_site`, `static_site` and `opt_out_examples` from every test.
_load("static_site", Path(__file__).parent / "pipeline" / "static_site.py")
_load("opt_out_examples", Path(__file__).parent / "pipeline" / "opt_out_examples.py")
faulty = _load("faulty_site", Path(__file__).parent / "pipeline" / "faulty_site.py")
_load("both_transports", Path(__file__).parent / "pipeline" / "both_transports.py")


@pytest.fixture
def faulty_site() -> Iterator[object]:
    """A site on loopback that misbehaves in every way (`faulty_site.ROWS`)."""
    with faulty.FaultySite() as site:
        yield site


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

    def wait_for(self, path: str, seconds: float = 180) -> None:
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
        answer = requests.post(f"{self.api}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        found: list[dict[str, object]] = answer.json()
        return found


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server of the module's own."""
    folder = tmp_path_factory.mktemp("project")
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
