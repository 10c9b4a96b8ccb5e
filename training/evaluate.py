"""`python -m training.evaluate RUN [RUN …]`: how good runs are, in one table and one picture."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import CommandParser, UserError, exit_status
from training.latent.cli import add_seed, check_target, int_in_range

FEWEST = 50
MOST = 10_000_000


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options.

    Raises:
        UserError: a number out of range, or a file name that is none of a picture.
    """
    made = CommandParser(
        prog="python -m training.evaluate",
        description="Compare runs with real images: Fréchet and kernel distance, precision, "
        "recall, density, coverage, inception score, memorisation. Each number with its standard "
        "deviation, and beside it what real images score at the same number.",
        epilog="docs/metrics.md says what the numbers mean and which do not compare.",
    )
    made.add_argument(
        "runs", nargs="+", metavar="RUN",
        help="name under runs/, or a folder; RUN@best and RUN@200 (kimg) choose a checkpoint",
    )  # fmt: skip
    made.add_argument("--shards", help="the real images (default: what each run was trained on)")
    made.add_argument(
        "--samples", type=int_in_range("--samples", FEWEST, MOST), default=1000,
        help="images of each run (default 1000)",
    )  # fmt: skip
    made.add_argument(
        "--real", type=int_in_range("--real", 0, MOST), default=5000,
        help="at most so many real images (default 5000; 0: all)",
    )  # fmt: skip
    made.add_argument(
        "--inception", type=Path, metavar="FILE",
        help="weights of the FID Inception-v3 (torch-fidelity's file): FID and KID as published",
    )  # fmt: skip
    made.add_argument(
        "--ppl", type=int_in_range("--ppl", 0, MOST), default=0, metavar="N",
        help="also the path length, of N paths",
    )  # fmt: skip
    add_seed(made, "of the latents")
    made.add_argument("--out", type=Path, metavar="FILE.svg", help="also draw the comparison")
    made.add_argument("--json", action="store_true", help="one JSON object as the last line")
    made.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    args = made.parse_args(arguments)
    if args.real and args.real < 2 * FEWEST:
        raise UserError(f"--real: at least {2 * FEWEST}")
    if args.ppl and args.ppl < 2:
        raise UserError("--ppl: at least 2")
    if args.out and args.out.suffix.lower() != ".svg":
        raise UserError(f"--out {args.out}: the picture's name ends in .svg")
    if args.out:
        check_target(args.out, "--out")
    return args


def evaluate(arguments: Sequence[str] | None) -> None:
    """Evaluate the runs, print the table, and draw it where asked.

    Raises:
        UserError: no such run, checkpoint or shards, or an option that makes no sense.
    """
    known = parse(arguments)

    import json

    from training.evaluation.comparison import ComparisonOptions, compare, write_results
    from training.evaluation.table import as_json, print_table
    from training.machine.device import choose_device

    device = choose_device(known.device)
    plan = ComparisonOptions(
        known.shards, known.samples, known.real, known.inception, known.ppl, known.seed, device
    )
    results = compare(known.runs, plan)
    print_table(results)  # before anything is written: a full disk must not cost the numbers
    write_results(results)
    if known.out:
        from training.evaluation.chart import write_chart

        write_chart(known.out, results)
        print(known.out)
    if known.json:
        print(json.dumps(as_json(results), allow_nan=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return exit_status(lambda: evaluate(arguments), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
