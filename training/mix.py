"""`python -m training.mix RUN --out FILE`: a grid of style mixtures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.contract import UserError, exit_status
from training.latent.cli import (
    add_label,
    add_numbers,
    add_psi,
    check_image_path,
    check_sides,
    float_in_range,
    int_in_range,
    label_number,
    latents_and_labels,
    load,
    parser,
    refuse_options,
)
from training.latent.image_numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "mix",
        "Write a style mixing grid: the coarse layers of each row's image with the fine layers of "
        "each column's (for generators without a mapping: interpolated latents).",
    )
    add_numbers(made, "--rows", "1-4", "the images on the left, which give the coarse layers")
    add_numbers(made, "--columns", "5-9", "the images on top, which give the fine layers")
    made.add_argument(
        "--layer", type=int_in_range("--layer", 0, 1000), metavar="N",
        help="first layer that takes the column's w (default: half of the layers)",
    )  # fmt: skip
    made.add_argument(
        "--share", type=float_in_range("--share", 0, 1), metavar="X",
        help="without a mapping: weight of the column's latent, 0 to 1 (default: 0.5)",
    )  # fmt: skip
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_mixtures(made.parse_args(arguments)), "interrupted")


def write_mixtures(args: argparse.Namespace) -> None:
    """Write the grid and print the file name.

    Raises:
        UserError: the run does not exist, or an option is invalid.
    """
    check_image_path(args.out)
    rows = parse_numbers(args.rows, "--rows", 64)
    columns = parse_numbers(args.columns, "--columns", 64)

    from training.grid import save_image
    from training.latent.grids import style_mixing_grid

    trained = load(args.run, args.device)
    check_sides(args.out, trained, len(columns) + 1, len(rows) + 1)
    space = trained.space
    generator = f"the generator of {trained.name}"
    if space.has_mapping:
        refuse_options(args, f"{generator} has a mapping; use --layer", "share")
    else:
        refuse_options(args, f"{generator} has no mapping; use --share", "layer")
    layer = space.num_ws // 2 if args.layer is None else args.layer
    if not 0 <= layer <= space.num_ws:
        raise UserError(f"--layer {layer}: must be from 0 to {space.num_ws}")
    label = label_number(trained, args.label)
    row, column = (
        space.truncate(space.map(*latents_and_labels(trained, numbers, label)), args.truncation)
        for numbers in (rows, columns)
    )
    _, labels = latents_and_labels(trained, rows[:1], label)
    share = 0.5 if args.share is None else args.share
    save_image(args.out, style_mixing_grid(space, row, column, labels, layer, share))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
