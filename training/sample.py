"""`python -m training.sample RUN --n 64 --seed 0 --out FILE`: pictures from a trained run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from pipeline.contract import exit_status
from training.latent.command import (
    add_label,
    add_seed,
    check_picture,
    check_sides,
    label_number,
    load,
    numbered,
    parse_psi,
    parser,
    whole,
)
from training.latent.numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser("sample", "Draw a grid of samples from a run or an exported folder.")
    made.add_argument("--n", type=whole("--n", 1, 65_536), default=64, help="how many (default 64)")
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


def write_samples(known: argparse.Namespace) -> None:
    """Write a grid of samples of the run's moving average and print its name.

    Without `--label` the labels take turns.

    Raises:
        UserError: no such run, or it has no whole checkpoint, or an option is none.
    """
    check_picture(known.out)
    psis = [parse_psi(part) for part in known.truncation.split(",")]
    numbers = [] if known.numbers is None else parse_numbers(known.numbers, "--numbers")

    import torch

    from training.grid import near_square, tile, write_picture
    from training.latent.sheets import truncation_sheet
    from training.techniques.latents import fixed_latents

    trained = load(known.run, known.device)
    count = len(numbers) or known.n
    columns = count if len(psis) > 1 else near_square(count)
    check_sides(known.out, trained, columns, len(psis) * math.ceil(count / columns))
    space, label = trained.space, label_number(trained, known.label)
    if numbers:
        latents, labels = numbered(trained, numbers, label)
    else:
        z_dim = trained.generator.z_dim
        latents = fixed_latents(trained.latent, known.n, z_dim, known.seed, space.device)
        labels = torch.full((known.n,), label, device=space.device)
    if known.label is None:
        labels = torch.arange(len(latents), device=space.device) % max(1, trained.classes)
    torch.manual_seed(known.seed)  # dropout that works when sampling
    ws = space.map(latents, labels)
    if len(psis) > 1:
        picture = truncation_sheet(space, ws, labels, psis)
    else:
        picture = tile(space.draw(space.truncate(ws, psis[0]), labels), columns)
    write_picture(known.out, picture)
    print(known.out)


if __name__ == "__main__":
    sys.exit(main())
