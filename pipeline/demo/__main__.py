"""`make demo`: the main job, from a gallery's address to generated shells, on the embedded gallery.

Everything goes the way a real site would go: the gallery is served on loopback, a local Prefect
server and our deployments run beside it, `prefect deployment run scrape-shells` makes the shards,
`training.fit` trains on them, `training.sample` draws new shells. What is done is not redone; a
second run trains on. No process is left behind (see leash.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

from pipeline.console import Console, format_duration
from pipeline.contract import DatasetPaths
from pipeline.demo.child_processes import ChildProcesses
from pipeline.errors import UserError
from pipeline.events import EventTail
from pipeline.exit import CommandParser, exit_status
from pipeline.status import read_status

RECIPE = "shells"
GALLERY_PORT = 8971
"""The port in pipeline/sites/shells.toml."""
MANY_KIMG = 10_000
"""More than the time allows, so that each further run trains on."""
LOGS = Path("logs/demo")
RUN = Path("runs/demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = CommandParser(prog="python -m pipeline.demo", description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="shells in the gallery")
    parser.add_argument("--minutes", type=float, default=5.0, help="time to train")
    parser.add_argument("--preset", default="shells64", help="training preset")
    parser.add_argument("--port", type=int, default=GALLERY_PORT, help="port of the gallery")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="serve the gallery, Prefect's server and the deployments until Ctrl-C, no more",
    )
    args = parser.parse_args(argv)
    return exit_status(lambda: _serve(args) if args.serve else _demo(args))


def _demo(args: argparse.Namespace) -> int:
    began = time.monotonic()
    total = args.minutes + 4
    _say(f"The whole demo takes about {total:.0f} minutes on two cores the first time.")
    with ChildProcesses() as leash:
        env = _prefect_env(Path(".prefect/demo").resolve(), _free_port())
        server = _start_server(leash, env)
        _title(1, "Draw the gallery's shells, while Prefect's server starts")
        _run([*_gallery(args), "--draw-only"])
        _start_gallery(leash, args)
        _wait_for_server(server, env)
        _title(2, f"Scrape the gallery; watch it at {_ui(env)}")
        _start_deployments(leash, env)
        _scrape(env, args.port)
    _title(3, f"Train a GAN on the shards for {args.minutes:g} minutes")
    fit = ["-m", "training.fit", "--shards", f"manifests/{RECIPE}", "--preset", args.preset]
    # an evaluation takes a minute of the few there are
    limits = ["--max-hours", str(args.minutes / 60), "--total-kimg", str(MANY_KIMG)]
    limits += ["--eval-kimg", "0"]
    _run([sys.executable, *fit, "--run", str(RUN), *limits])
    _title(4, "Draw new shells")
    grid = RUN / "shells.png"
    _run([sys.executable, "-m", "training.sample", str(RUN), "--n", "64", "--out", str(grid)])
    _say(f"\nDone in {format_duration(time.monotonic() - began)}.")
    _say(f"  shells that no sea has seen   {grid}")
    _say(f"  the training report           {RUN / 'report.html'}")
    _say(f"  the dataset's card            manifests/{RECIPE}/README.md")
    _say("Run `make demo` again to train on; nothing that is done is redone.")
    return 0


def _serve(args: argparse.Namespace) -> int:
    """The gallery, the server of prefect.toml and the deployments, until interrupted."""
    with ChildProcesses() as leash:
        env = _prefect_env(Path(".prefect").resolve(), 4200)
        server = _start_server(leash, env)
        _run([*_gallery(args), "--draw-only"])
        _start_gallery(leash, args)
        _wait_for_server(server, env)
        deployments = _start_deployments(leash, env)
        _say(f"Gallery at http://127.0.0.1:{args.port}/, Prefect at {_ui(env)}.")
        _say("Now, in another terminal: .venv/bin/prefect deployment run scrape-shells")
        deployments.wait()
        raise UserError(f"the deployments ended by themselves; see {LOGS / 'serve.log'}")


def _gallery(args: argparse.Namespace) -> list[str]:
    module = [sys.executable, "-m", "pipeline.demo.gallery", "--port", str(args.port)]
    return [*module, "--count", str(args.images)]


def _prefect_env(home: Path, port: int) -> dict[str, str]:
    """The environment of a local Prefect server of our own."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "DO_NOT_TRACK": "1",
        # The tools of this environment, when it is not activated.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _ui(env: dict[str, str]) -> str:
    return env["PREFECT_API_URL"].removesuffix("/api")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_server(children: ChildProcesses, env: dict[str, str]) -> subprocess.Popen[bytes]:
    prefect = shutil.which("prefect", path=env["PATH"])
    if prefect is None:
        raise UserError("prefect: no such command; run: make install")
    return children.start([prefect, "server", "start"], LOGS / "prefect-server.log", env)


def _wait_for_server(server: subprocess.Popen[bytes], env: dict[str, str]) -> None:
    _wait(
        "Prefect's server",
        LOGS / "prefect-server.log",
        server,
        lambda: requests.get(f"{env['PREFECT_API_URL']}/health", timeout=5).ok,
    )


def _start_gallery(children: ChildProcesses, args: argparse.Namespace) -> None:
    gallery = children.start(_gallery(args), LOGS / "gallery.log")
    address = f"http://127.0.0.1:{args.port}/robots.txt"
    _wait("the gallery", LOGS / "gallery.log", gallery, lambda: requests.get(address, timeout=5).ok)


def _start_deployments(children: ChildProcesses, env: dict[str, str]) -> subprocess.Popen[bytes]:
    serve = children.start([sys.executable, "-m", "pipeline.serve"], LOGS / "serve.log", env)
    name = f"{env['PREFECT_API_URL']}/deployments/name/scrape-{RECIPE}/scrape-{RECIPE}"
    _wait("the deployments", LOGS / "serve.log", serve, lambda: requests.get(name, timeout=5).ok)
    return serve


def _wait(
    what: str,
    log: Path,
    process: subprocess.Popen[bytes],
    ready: Callable[[], bool],
    seconds: float = 180,
) -> None:
    """Wait until `ready`, and say so when it takes long.

    Raises:
        UserError: the process ended, or is not ready in time; names its log.
    """
    began = said = time.monotonic()
    while time.monotonic() - began < seconds:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["no word"])[-1]
            raise UserError(f"{what} ended with status {process.returncode}: {last} (see {log})")
        with contextlib.suppress(requests.RequestException):
            if ready():
                return
        if time.monotonic() - said > 5:
            said = time.monotonic()
            waited = format_duration(said - began)
            _say(f"waiting for {what}, {waited} so far, up to {seconds:.0f} s …")
        time.sleep(0.25)
    raise UserError(f"{what} did not answer within {seconds:.0f} s; see {log}")


def _scrape(env: dict[str, str], port: int) -> None:
    """Run the deployment as a user would, and show how far the files on disk are.

    Raises:
        UserError: the flow did not succeed.
    """
    command = ["prefect", "deployment", "run", f"scrape-{RECIPE}", "--watch"]
    if port != GALLERY_PORT:
        overrides = {"source.start": [f"http://127.0.0.1:{port}/"]}
        command += ["--param", f"overrides={json.dumps(overrides)}"]
    dataset = DatasetPaths(RECIPE)
    events = EventTail(dataset)
    _say("starting the run of the deployment …")
    with ChildProcesses() as leash, Console() as console:
        process = leash.start(command, LOGS / "prefect-run.log", env)
        ended = False
        while not ended:
            ended = process.poll() is not None
            for event in events.read_new():
                console.on_event(event)
            for report in read_status(dataset).progress():
                console.on_progress(report)
            time.sleep(0.5)
    if process.returncode != 0:
        raise UserError(f"scrape-{RECIPE} did not succeed; see {LOGS / 'serve.log'}")


def _run(command: Sequence[str]) -> None:
    """Run one step, its output in this terminal, and wait for it.

    Raises:
        UserError: it did not end well. KeyboardInterrupt where it was interrupted.
    """
    with ChildProcesses(grace=60) as leash:  # time for the trainer to save its state
        status = leash.start(command).wait()
    if status == 130:
        raise KeyboardInterrupt
    if status != 0:
        raise UserError(f"{' '.join(command[1:])} ended with status {status}")


def _title(number: int, what: str) -> None:
    _say(f"\n[{number}/4] {what}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
