"""`python -m training.explore RUN`: a page with endless pictures of a trained generator."""

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
        "Serve a page: an endless gallery, truncation, walks, mixing, the strongest directions, "
        "the nearest training images. Ctrl-C ends it.",
        out="",
    )
    made.add_argument(
        "--host", default="127.0.0.1",
        help="where to listen (default 127.0.0.1: this machine alone; 0.0.0.0: all who reach it)",
    )  # fmt: skip
    made.add_argument(
        "--port", type=int_in_range("--port", 0, 65535), default=PORT,
        help=f"default {PORT}, or a free one where it is taken",
    )  # fmt: skip
    made.add_argument(
        "--nearest", choices=["pixels", "features", "off"], default="pixels",
        help="how training images are compared (features take minutes at the first question)",
    )  # fmt: skip
    made.add_argument("--shards", help="where the training images are (default: the run's shards)")
    made.add_argument("--title", default="", help="of the page (default: from the data set's name)")
    made.add_argument("--no-browser", action="store_true", help="open no window")
    return exit_status(lambda: serve(made.parse_args(arguments)), "stopped", 0)


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: no such run, or the address cannot be had.
    """
    import torch
    import uvicorn

    from training.explorer.server import create_app

    trained = load(args.run, args.device)
    # up to twice as fast on a CPU; it changes the last bits alone
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
    print(f"{trained.name}: {url}   (Ctrl-C ends it)", flush=True)
    if not args.no_browser and _has_windows():
        webbrowser.open(url)
    with listener, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        uvicorn.Server(config).run(sockets=[listener])


def _finder(trained: TrainedGenerator, args: argparse.Namespace) -> NearestFinder | None:
    """What looks for training images; None, with a word why, where they are not to be had."""
    from training.explorer.server import NearestFinder
    from training.latent.neighbours import choose_embedding, open_training_shards

    if args.nearest == "off":
        return None
    try:
        open_training_shards(trained, args.shards)
    except UserError as error:
        if args.shards:
            raise
        print(f"no nearest training images: {error}", file=sys.stderr)
        return None
    return NearestFinder(trained, choose_embedding(args.nearest, trained.space.device), args.shards)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; where the usual port is taken, another.

    Raises:
        UserError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port, 0) if port == PORT else (port,):
        # with the protocol named, asyncio sends small answers at once: 44 ms less each
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except (OSError, UnicodeError, TypeError) as error:  # no host is called so
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        listener.listen(128)
        return listener
    raise UserError(f"--host {host} --port {port}: {reason}")


def _has_windows() -> bool:
    """Whether a browser would open as a window, and not in this terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


if __name__ == "__main__":
    sys.exit(main())
