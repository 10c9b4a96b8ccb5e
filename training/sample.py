"""`python -m training.sample RUN --n 64 --seed 0 --out FILE`: pictures from a trained run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from pipeline.contract import exit_status
from training.latent.cli import (
    add_label,
    add_seed,
    check_image_path,
    check_sides,
    int_in_range,
    label_number,
    latents_and_labels,
    load,
    parse_psi,
    parser,
)
from training.latent.image_numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser("sample", "Draw a grid of samples from a run or an exported folder.")
    made.add_argument(
        "--n", type=int_in_range("--n", 1, 65_536), default=64, help="how many (default 64)"
    )
    add_seed(made, "of the latents")
    made.add_argument(
        "--numbers", metavar="NUMBERS",
        help="instead of --n and --seed: pictures by number as in the explorer, 3,8,20-24",
    )  # fmt: skip
    made.add_argument(
        "--truncation", default="1", metavar="PSI[,PSI…]",
        help="1 all variety … 0 the mean picture; several: a row of the same pictures for each",
    )  # fmt: skip
    add_label(made)
    return exit_status(lambda: write_samples(made.parse_args(arguments)), "interrupted")


def write_samples(args: argparse.Namespace) -> None:
    """Write a grid of samples of the run's moving average and print its name.

    Without `--label` the labels take turns.

    Raises:
        UserError: no such run, or it has no whole checkpoint, or an option is none.
    """
    check_image_path(args.out)
    psis = [parse_psi(part) for part in args.truncation.split(",")]
    numbers = [] if args.numbers is None else parse_numbers(args.numbers, "--numbers")

    import torch

    from training.grid import make_grid, save_image, square_columns
    from training.latent.grids import truncation_grid
    from training.techniques.latents import fixed_latents

    trained = load(args.run, args.device)
    count = len(numbers) or args.n
    columns = count if len(psis) > 1 else square_columns(count)
    check_sides(args.out, trained, columns, len(psis) * math.ceil(count / columns))
    space, label = trained.space, label_number(trained, args.label)
    if numbers:
        latents, labels = latents_and_labels(trained, numbers, label)
    else:
        z_dim = trained.generator.z_dim
        latents = fixed_latents(trained.latent, args.n, z_dim, args.seed, space.device)
        labels = torch.full((args.n,), label, device=space.device)
    if args.label is None:
        labels = torch.arange(len(latents), device=space.device) % max(1, trained.classes)
    torch.manual_seed(args.seed)  # dropout that works when sampling
    ws = space.map(latents, labels)
    if len(psis) > 1:
        picture = truncation_grid(space, ws, labels, psis)
    else:
        picture = make_grid(space.generate(space.truncate(ws, psis[0]), labels), columns)
    save_image(args.out, picture)
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
