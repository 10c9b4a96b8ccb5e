"""`python -m training.explore RUN`: a web page that explores a trained generator."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.contract import UserError, exit_status
from training.latent.cli import int_in_range, load, parser

if TYPE_CHECKING:
    from training.explorer.server import NearestFinder
    from training.pretrained.inference import TrainedGenerator

PORT = 8972
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 after Ctrl-C, too."""
    made = parser(
        "explore",
        "Serve the explorer page: an endless gallery, truncation, latent walks, style mixing, "
        "latent directions, the nearest training images. Stop it with Ctrl-C.",
        out="",
    )
    made.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only; 0.0.0.0: all networks)",
    )  # fmt: skip
    made.add_argument(
        "--port", type=int_in_range("--port", 0, 65535), default=PORT,
        help=f"port to listen on (default: {PORT}, or a free port if it is in use)",
    )  # fmt: skip
    made.add_argument(
        "--nearest", choices=["pixels", "features", "off"], default="pixels",
        help="how to compare training images (default: pixels; features: the first search takes "
        "minutes)",
    )  # fmt: skip
    made.add_argument("--shards", help="training images to search (default: the run's shards)")
    made.add_argument(
        "--title", default="", help="title of the page (default: derived from the dataset's name)"
    )
    made.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    return exit_status(lambda: serve(made.parse_args(arguments)), "stopped", 0)


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: the run does not exist, or the address is not available.
    """
    import torch
    import uvicorn

    from training.explorer.server import create_app

    trained = load(args.run, args.device)
    # up to twice as fast on a CPU; changes only the last bits of the values
    trained.generator.to(memory_format=torch.channels_last)
    finder = _finder(trained, args)
    listener = _listen(args.host, args.port)
    port = listener.getsockname()[1]
    shown = "127.0.0.1" if args.host in ("0.0.0.0", "::") else args.host
    url = f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
    hosts = ["127.0.0.1", "localhost", "[::1]"] if args.host in LOOPBACK else ["*"]
    config = uvicorn.Config(
        create_app(trained, finder, hosts, args.title), log_level="error", access_log=False,
        timeout_graceful_shutdown=1, lifespan="off",
    )  # fmt: skip
    print(f"{trained.name}: {url}   (stop with Ctrl-C)", flush=True)
    if not args.no_browser and _has_windows():
        webbrowser.open(url)
    with listener, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop
        uvicorn.Server(config).run(sockets=[listener])


def _finder(trained: TrainedGenerator, args: argparse.Namespace) -> NearestFinder | None:
    """Return the search for training images; None, with a message, if they are not available."""
    from training.explorer.server import NearestFinder
    from training.latent.neighbours import choose_embedding, open_training_shards

    if args.nearest == "off":
        return None
    try:
        open_training_shards(trained, args.shards)
    except UserError as error:
        if args.shards:
            raise
        print(f"nearest training images are not available: {error}", file=sys.stderr)
        return None
    return NearestFinder(trained, choose_embedding(args.nearest, trained.space.device), args.shards)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; if the default port is in use, on a free port.

    Raises:
        UserError: the address is not available.
    """
    if not host:  # it would mean all networks
        raise UserError(
            "--host: empty; use 127.0.0.1 (this machine only) or 0.0.0.0 (all networks)"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port, 0) if port == PORT else (port,):
        # with an explicit protocol asyncio sets TCP_NODELAY, which saves 44 ms per small response
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except (OSError, UnicodeError, TypeError) as error:  # the last two: invalid host names
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        listener.listen(128)
        return listener
    raise UserError(f"--host {host} --port {port}: {reason}")


def _has_windows() -> bool:
    """Return True if a browser would open in a window, not in this terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


if __name__ == "__main__":
    sys.exit(main())
