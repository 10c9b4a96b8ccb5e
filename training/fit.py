"""`python -m training.fit --shards manifests/NAME`: train a GAN from shards, or resume a run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from pipeline.contract import CommandParser, UserError, exit_status
from training.options.resolve import (
    DEFAULT_PRESET,
    pickle_to_start_from,
    preset_names,
    resolve,
)
from training.streaming.locations import join_locations

TOP_LEVEL_KEYS = {
    "total-kimg": ("KIMG", "length of the run in thousands of real images"),
    "batch": ("N", "images per step, over all processes"),
    "seed": ("N", "random seed of the run"),
    "device": ("DEVICE", "auto, cpu, cuda or mps"),
    "resolution": ("N", "image side in pixels (default: that of the preset or the shards)"),
    "max-hours": ("HOURS", "stop and save after this time"),
    "precision": ("PRECISION", "fp32, bf16 or fp16"),
    "price-per-hour": ("PRICE", "price of the machine, to report the cost"),
    "micro-batch": ("N", "images that pass the networks at once, to save memory"),
    "init-from": ("START", "initial weights: a run, a checkpoint, or a .pkl with its sizes"),
}
"""Keys of the configuration that appear in the help: metavar and help text."""

AUTO = "auto"
"""The preset that is computed; see `training.planning.auto`."""

SHORT_NAMES = {
    "eval-kimg": ("evaluate.kimg", "KIMG", "evaluate every so many thousand images; 0: never"),
    "eval-samples": ("evaluate.samples", "N", "generated images per evaluation"),
}
"""Short names of keys in sections: the key, metavar and help text."""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Parse the command line into the command's options and overrides by dotted key.

    Raises:
        UserError: an option without a value, or an argument that is not an option.
    """
    parser = CommandParser(
        prog="python -m training.fit",
        description="Train a GAN from shards. Run the same command again to resume the run.",
        epilog="Every key of the configuration can be set by its dotted name, as in "
        "--data.memory_gb 4 or --generator.width 32; runs/RUN/config.json lists them all. "
        "Defaults of the options above come from the preset. "
        "Several processes: torchrun --nproc-per-node N -m training.fit -- --shards … --run RUN "
        "(the -- ends torchrun's own options; without it, Python 3.11 reads --run as an "
        "abbreviation of torchrun's --run-path; --name is the same as --run).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--shards", required=True, nargs="+", metavar="SHARDS",
        help="manifest folder, shard index, tar, folder of tars, glob, or braces such as "
        "'FOLDER/{000..099}.tar', as paths or URLs; several separated by spaces or commas",
    )  # fmt: skip
    parser.add_argument(
        "--shards-b", nargs="+", metavar="SHARDS",
        help="the second set of images, as --shards, for presets that translate between two sets",
    )  # fmt: skip
    parser.add_argument(
        "--preset",
        help=f"auto (depends on the images, the device and --hours), {', '.join(preset_names())}, "
        f"or a .toml file (default: {DEFAULT_PRESET}; with --init-from FILE.pkl that of its "
        "networks)",
    )  # fmt: skip
    parser.add_argument(
        "--run", "--name", metavar="RUN",
        help="name under runs/, or a folder (default: DATASET-PRESET)",
    )  # fmt: skip
    keys = {name: name.replace("-", "_") for name in TOP_LEVEL_KEYS}
    for name, (metavar, text) in TOP_LEVEL_KEYS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    for name, (key, metavar, text) in SHORT_NAMES.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
        keys[name] = key
    parser.add_argument(
        "--hours", metavar="HOURS", dest="max_hours", help="the same as --max-hours"
    )
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print the estimated time, memory, disk and cost, then exit",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="print JSON Lines: messages, progress and a final summary",
    )  # fmt: skip
    own = arguments[1:] if arguments[:1] == ["--"] else arguments
    args, rest = parser.parse_known_args(own)
    args.shards = join_locations(args.shards)
    overrides = {
        key: value
        for name, key in keys.items()
        if (value := getattr(args, name.replace("-", "_"))) is not None
    }
    if args.shards_b is not None:
        overrides["data.shards_b"] = json.dumps(join_locations(args.shards_b))
    return args, overrides | parse_dotted(rest)


def parse_dotted(arguments: Sequence[str]) -> dict[str, str]:
    """Parse `--key value` and `--key=value` pairs.

    Raises:
        UserError: an argument is not an option, or a value is missing.
    """
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise UserError(f"{argument}: not an option")
        name, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest:
                raise UserError(f"--{name}: a value is missing")
            value = rest.pop(0)
        overrides[name.replace("-", "_")] = value
    return overrides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    started = time.monotonic()
    return exit_status(lambda: fit(sys.argv[1:] if arguments is None else arguments, started))


def fit(arguments: Sequence[str], started: float) -> int:
    """Train with the given arguments and return the exit status.

    Args:
        arguments: the command line.
        started: `time.monotonic()` when the command began.

    Raises:
        UserError: an option, the shards, the run or the device cannot be used.
    """
    args, overrides = parse(arguments)
    preset = None if args.preset == AUTO else args.preset
    start = pickle_to_start_from(preset, overrides)
    late = bool(start) or args.preset == AUTO
    config = None if late else resolve(preset or DEFAULT_PRESET, overrides)
    explanation: Sequence[str] = ()
    from training import session  # imports torch, which takes seconds: mistakes are reported before

    if start:
        from training.pretrained.adoption import resolve_from_pickle

        config, explanation = resolve_from_pickle(args.shards, args.run, start, preset, overrides)
    elif config is None:
        from training.planning.auto import resolve_auto

        config, explanation = resolve_auto(args.shards, args.run, overrides)
    from training.monitoring.console import make_display

    command = config, args.shards, args.run, started, make_display(args.json), explanation
    if args.dry_run:
        session.dry_run(*command)
        return 0
    return session.EXIT_STATUS[session.train(*command).reason]


if __name__ == "__main__":
    sys.exit(main())
