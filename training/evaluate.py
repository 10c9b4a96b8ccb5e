"""`python -m training.evaluate RUN [RUN …]`: compute the metrics of runs and compare them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import CommandParser, UserError, exit_status
from training.latent.cli import (
    add_background,
    add_device,
    add_seed,
    check_target,
    default_out,
    int_in_range,
)

FEWEST = 50
MOST = 10_000_000


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = CommandParser(
        prog="python -m training.evaluate",
        description="Compare runs with real images: Fréchet and kernel distance, precision, "
        "recall, density, coverage, inception score, memorisation. Each metric is printed with its "
        "standard deviation and with the baseline that real images score.",
        epilog="Of a run that translates images (cyclegan), translations of the first images of "
        "set A are compared with set B. docs/metrics.md explains the metrics and which values can "
        "be compared.",
    )
    made.add_argument(
        "runs", nargs="+", metavar="RUN",
        help="name under runs/, or a folder; RUN@best or RUN@200 (kimg) selects a checkpoint",
    )  # fmt: skip
    made.add_argument("--shards", help="the real images (default: the shards of each run)")
    made.add_argument(
        "--samples", type=int_in_range("--samples", FEWEST, MOST), default=1000, metavar="N",
        help="generated images per run (default: 1000)",
    )  # fmt: skip
    made.add_argument(
        "--real", type=int_in_range("--real", 0, MOST), default=5000, metavar="N",
        help="maximum number of real images; 0: all (default: 5000)",
    )  # fmt: skip
    network = made.add_mutually_exclusive_group()
    network.add_argument(
        "--features", metavar="NETWORK", default="efficientnet_lite0",
        help="feature network: efficientnet_lite0 (default) or torchvision:MODEL, such as "
        "torchvision:resnet50, whose weights are downloaded once",
    )  # fmt: skip
    network.add_argument(
        "--inception", type=Path, metavar="FILE",
        help="weights file of torch-fidelity's Inception-v3, for FID and KID as published",
    )  # fmt: skip
    made.add_argument(
        "--ppl", type=int_in_range("--ppl", 0, MOST), default=0, metavar="N",
        help="also compute the perceptual path length from N paths",
    )  # fmt: skip
    made.add_argument(
        "--equivariance", type=int_in_range("--equivariance", 0, MOST), default=0, metavar="N",
        help="also compute EQ-T and EQ-R from N images that are shifted and rotated (stylegan3)",
    )  # fmt: skip
    add_background(made, "the feature network sees images with transparency over this colour")
    add_seed(made, "the latents")
    made.add_argument(
        "--out", type=Path, nargs="?", const=Path(), metavar="FILE.svg",
        help="also write a chart (without FILE.svg: RUN-evaluate.svg, with a number if it exists)",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    add_device(made)
    return made


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: an option is out of range, or the chart's extension is not .svg.
    """
    args = command_parser().parse_args(arguments)
    if args.real and args.real < 2 * FEWEST:
        raise UserError(f"--real {args.real}: must be 0 or at least {2 * FEWEST}")
    if args.ppl and args.ppl < 2:
        raise UserError(f"--ppl {args.ppl}: must be 0 or at least 2")
    if args.out == Path():
        args.out = default_out(args.runs[0], "evaluate.svg")
    if args.out and args.out.suffix.lower() != ".svg":
        raise UserError(f"--out {args.out}: the extension must be .svg")
    if args.out:
        check_target(args.out, "--out")
    return args


def evaluate(arguments: Sequence[str] | None) -> None:
    """Evaluate the runs, print the table, and write the chart if requested.

    Raises:
        UserError: a run, checkpoint or shard does not exist, or an option is invalid.
    """
    args = parse(arguments)

    import json

    from training.evaluation.comparison import ComparisonOptions, compare, write_results
    from training.evaluation.table import as_json, print_table
    from training.machine.device import choose_device

    device = choose_device(args.device)
    options = ComparisonOptions(
        args.shards, args.samples, args.real, args.features, args.inception, args.ppl, args.seed,
        device, background=args.background, moved=args.equivariance,
    )  # fmt: skip
    results = compare(args.runs, options)
    print_table(results)  # before any write, so that a full disk does not lose the results
    write_results(results)
    if args.out:
        from training.evaluation.chart import write_chart

        write_chart(args.out, results)
        print(args.out)
    if args.json:
        print(json.dumps(as_json(results), allow_nan=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return exit_status(lambda: evaluate(arguments), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
