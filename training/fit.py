"""`python -m training.fit --shards manifests/NAME`: train, or go on training, from shards."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from pipeline.contract import CommandParser, UserError, exit_status
from training.options.resolve import DEFAULT_PRESET, preset_names, resolve

TOP_LEVEL_KEYS = ("total-kimg", "batch", "seed", "device", "resolution", "max-hours", "precision",
         "price-per-hour", "micro-batch")  # fmt: skip
"""Options without a table that have a name of their own in the help."""

AUTO = "auto"
"""The preset that is chosen; see `training.planning.auto`."""

ALIASES = {"eval-kimg": "evaluate.kimg", "eval-samples": "evaluate.samples"}
"""Keys within tables that have a short name too."""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The command's own options, and the configuration's by dotted name.

    Raises:
        UserError: an option without its value, or a word that is no option.
    """
    parser = CommandParser(
        prog="python -m training.fit",
        description="Train a GAN from shards. The same command run again continues the run.",
        epilog="Every key of the configuration can be set by its dotted name, as in "
        "--data.memory_gb 4 or --generator.width 32; runs/RUN/config.json shows them all. "
        "Several processes: torchrun --nproc-per-node N -m training.fit -- --shards … --run RUN "
        "(the lone -- ends torchrun's own options: Python 3.11 takes --run for a short form of "
        "its --run-path; --name means the same).",
        allow_abbrev=False,
    )
    parser.add_argument("--shards", required=True, help="manifest folder, shard index, or URL")
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET,
        help=f"auto (chosen for the images, the device and --hours), {', '.join(preset_names())}, "
        "or a .toml file",
    )  # fmt: skip
    parser.add_argument(
        "--run", "--name", metavar="RUN",
        help="name under runs/, or a folder (default: DATASET-PRESET)",
    )  # fmt: skip
    for name in (*TOP_LEVEL_KEYS, *ALIASES):
        parser.add_argument(f"--{name}", metavar="X")
    parser.add_argument("--hours", metavar="X", dest="max_hours", help="the same as --max-hours")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what the run would take, and do nothing"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line: messages, progress, the end"
    )
    own = arguments[1:] if arguments[:1] == ["--"] else arguments
    known, rest = parser.parse_known_args(own)
    options = {
        ALIASES.get(name, name.replace("-", "_")): value
        for name in (*TOP_LEVEL_KEYS, *ALIASES)
        if (value := getattr(known, name.replace("-", "_"))) is not None
    }
    return known, options | _dotted(rest)


def _dotted(words: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word}: not an option")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise UserError(f"--{name}: a value is missing")
            value = rest.pop(0)
        options[name.replace("-", "_")] = value
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    started = time.monotonic()
    return exit_status(lambda: fit(sys.argv[1:] if arguments is None else arguments, started))


def fit(arguments: Sequence[str], started: float) -> int:
    """Train as the arguments say; the exit status. `started` is when the command began.

    Raises:
        UserError: an option, the shards, the run or the device does not fit.
    """
    known, options = parse(arguments)
    auto = known.preset == AUTO
    config = None if auto else resolve(known.preset, options)
    why: Sequence[str] = ()
    from training import session  # torch takes seconds: mistakes are told before it

    if config is None:
        from training.planning.auto import resolve_auto

        config, why = resolve_auto(known.shards, known.run, options)
    if known.dry_run:
        return session.dry_run(config, known.shards, known.run, started, known.json, why)
    return session.train(config, known.shards, known.run, started, known.json, why)


if __name__ == "__main__":
    sys.exit(main())
