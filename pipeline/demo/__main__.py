"""`make demo`: scrape the embedded gallery, train a GAN on it and generate new shells.

The demo runs the same steps as a real site: it serves the gallery on loopback, starts a local
Prefect server and the deployments, builds the shards with `prefect deployment run scrape-shells`,
trains with `training.fit` and generates images with `training.sample`. A second run skips finished
work and continues training. All processes end with the command (see child_processes.py).
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

from pipeline.console import Console
from pipeline.contract import DatasetPaths
from pipeline.demo.child_processes import ChildProcesses
from pipeline.errors import UserError
from pipeline.events import EventTail
from pipeline.exit import CommandParser, exit_status
from pipeline.status import read_status
from pipeline.units import format_duration

RECIPE = "shells"
GALLERY_PORT = 8971
"""The port in pipeline/sites/shells.toml."""
MANY_KIMG = 10_000
"""More than the time allows, so that every further run continues training."""
LOGS = Path("logs/demo")
RUN = Path("runs/demo")
PREFECT_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    "PREFECT_CLIENT_MAX_RETRIES": "10",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_PLUGINS_ENABLED": "true",
}
"""Those of prefect.toml, which is not installed: the demo runs in any folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = CommandParser(prog="python -m pipeline.demo", description=__doc__)
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        default=2000,
        help="images in the gallery (default: 2000)",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="N", default=5.0, help="training time (default: 5)"
    )
    parser.add_argument("--preset", default="shells64", help="training preset (default: shells64)")
    parser.add_argument(
        "--port",
        type=int,
        default=GALLERY_PORT,
        help=f"port of the gallery (default: {GALLERY_PORT})",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="only serve the gallery, the Prefect server and the deployments until Ctrl-C",
    )
    args = parser.parse_args(argv)
    return exit_status(lambda: _serve(args) if args.serve else _demo(args))


def _demo(args: argparse.Namespace) -> int:
    began = time.monotonic()
    total = args.minutes + 4
    _say(f"The whole demo takes about {total:.0f} minutes on two cores the first time.")
    with ChildProcesses() as children:
        env = _prefect_env(Path(".prefect/demo").resolve(), _free_port())
        server = _start_server(children, env)
        _title(1, "Draw the images of the gallery while the Prefect server starts")
        _run([*_gallery(args), "--draw-only"])
        _start_gallery(children, args)
        _wait_for_server(server, env)
        _title(2, f"Scrape the gallery; Prefect's UI is at {_ui(env)}")
        _start_deployments(children, env)
        _scrape(env, args.port)
    _title(3, f"Train a GAN on the shards for {args.minutes:g} minutes")
    fit = ["-m", "training.fit", "--shards", f"manifests/{RECIPE}", "--preset", args.preset]
    # an evaluation takes about a minute, which is too long here
    limits = ["--max-hours", str(args.minutes / 60), "--total-kimg", str(MANY_KIMG)]
    limits += ["--eval-kimg", "0"]
    _run([sys.executable, *fit, "--run", str(RUN), *limits])
    _title(4, "Generate new shells")
    grid = RUN / "shells.png"
    _run([sys.executable, "-m", "training.sample", str(RUN), "--n", "64", "--out", str(grid)])
    _say(f"\nDone in {format_duration(time.monotonic() - began)}.")
    _say(f"  generated shells    {grid}")
    _say(f"  training report     {RUN / 'report.html'}")
    _say(f"  dataset card        manifests/{RECIPE}/README.md")
    _say("Run the same command again to continue training; finished work is skipped.")
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Run the gallery, the Prefect server of prefect.toml and the deployments until interrupted."""
    with ChildProcesses() as children:
        env = _prefect_env(Path(".prefect").resolve(), 4200)
        server = _start_server(children, env)
        _run([*_gallery(args), "--draw-only"])
        _start_gallery(children, args)
        _wait_for_server(server, env)
        deployments = _start_deployments(children, env)
        _say(f"Gallery at http://127.0.0.1:{args.port}/, Prefect at {_ui(env)}.")
        _say("In another terminal, run: .venv/bin/prefect deployment run scrape-shells")
        deployments.wait()
        raise UserError(f"the deployments stopped unexpectedly; see {LOGS / 'serve.log'}")


def _gallery(args: argparse.Namespace) -> list[str]:
    module = [sys.executable, "-m", "pipeline.demo.gallery", "--port", str(args.port)]
    return [*module, "--count", str(args.images)]


def _prefect_env(home: Path, port: int) -> dict[str, str]:
    """Return the environment for a separate local Prefect server."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        **PREFECT_SETTINGS,
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "DO_NOT_TRACK": "1",
        # find the tools of this environment even if it is not activated
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
        raise UserError("prefect: command not found; run: pip install prefect")
    return children.start([prefect, "server", "start"], LOGS / "prefect-server.log", env)


def _wait_for_server(server: subprocess.Popen[bytes], env: dict[str, str]) -> None:
    _wait(
        "the Prefect server",
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
    """Wait until `ready` returns True, and print a message every 5 seconds.

    Raises:
        UserError: the process ended, or is not ready within `seconds`; names its log.
    """
    began = said = time.monotonic()
    while time.monotonic() - began < seconds:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise UserError(f"{what} exited with status {process.returncode}: {last} (see {log})")
        with contextlib.suppress(requests.RequestException):
            if ready():
                return
        if time.monotonic() - said > 5:
            said = time.monotonic()
            waited = format_duration(said - began)
            _say(f"waiting for {what}, {waited} so far, up to {seconds:.0f} s …")
        time.sleep(0.25)
    raise UserError(f"{what} did not respond within {seconds:.0f} s; see {log}")


def _scrape(env: dict[str, str], port: int) -> None:
    """Run the deployment as a user would, and show the progress recorded in the files.

    Raises:
        UserError: the flow failed.
    """
    command = ["prefect", "deployment", "run", f"scrape-{RECIPE}", "--watch"]
    if port != GALLERY_PORT:
        overrides = {"source.start": [f"http://127.0.0.1:{port}/"]}
        command += ["--param", f"overrides={json.dumps(overrides)}"]
    dataset = DatasetPaths(RECIPE)
    events = EventTail(dataset)
    _say("starting the run of the deployment …")
    with ChildProcesses() as children, Console() as console:
        process = children.start(command, LOGS / "prefect-run.log", env)
        ended = False
        while not ended:
            ended = process.poll() is not None
            for event in events.read_new():
                console.on_event(event)
            for report in read_status(dataset).progress():
                console.on_progress(report)
            time.sleep(0.5)
    if process.returncode != 0:
        raise UserError(f"scrape-{RECIPE} failed; see {LOGS / 'serve.log'}")


def _run(command: Sequence[str]) -> None:
    """Run one step with its output in this terminal, and wait for it.

    Raises:
        UserError: the step failed.
        KeyboardInterrupt: the step was interrupted.
    """
    with ChildProcesses(grace=60) as children:  # time for the trainer to save its state
        status = children.start(command).wait()
    if status == 130:
        raise KeyboardInterrupt
    if status != 0:
        raise UserError(f"{' '.join(command[1:])} exited with status {status}")


def _title(number: int, what: str) -> None:
    _say(f"\n[{number}/4] {what}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
