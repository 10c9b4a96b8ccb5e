"""`python -m training.explore RUN`: a web page that explores a trained generator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.contract import (
    CommandParser,
    UserError,
    accepted_hosts,
    exit_status,
    listen,
    page_url,
    serve_app,
)
from training.latent.cli import int_in_range, load_any, parser, refuse_options

if TYPE_CHECKING:
    from training.explorer.server import NearestFinder
    from training.pretrained.inference import TrainedGenerator

PORT = 8972


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = parser(
        "explore",
        "Serve the explorer page: an endless gallery, truncation, latent walks, style mixing, "
        "latent directions, the nearest training images; of a run that translates images, a page "
        "that translates yours. Stop it with Ctrl-C.",
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
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 after Ctrl-C, too."""
    return exit_status(lambda: serve(command_parser().parse_args(arguments)), "stopped", 0)


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: the run does not exist, or the address is not available.
    """
    import torch

    from training.explorer.server import create_app
    from training.explorer.translator_server import create_translator_app

    if args.nearest == "off":
        refuse_options(args, "--nearest off searches no images; leave out one", "shards")
    trained = load_any(args.run, args.device)
    if trained.is_translator:
        refuse_options(args, f"{trained.name} translates images, and compares none", "shards")
    # up to twice as fast on a CPU; changes only the last bits of the values
    trained.generator.to(memory_format=torch.channels_last)
    finder = None if trained.is_translator else _finder(trained, args)
    listener = listen(args.host, args.port, PORT)
    url = page_url(args.host, listener)
    hosts = accepted_hosts(args.host)
    if trained.is_translator:
        app = create_translator_app(trained, hosts, args.title)
    else:
        app = create_app(trained, finder, hosts, args.title)
    print(f"{trained.name}: {url}   (stop with Ctrl-C)", flush=True)
    serve_app(app, listener, url, not args.no_browser)


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


if __name__ == "__main__":
    sys.exit(main())
