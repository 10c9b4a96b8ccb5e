"""`python -m training.mix RUN --out FILE`: a table of mixtures of pictures."""

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
)
from training.latent.image_numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "mix",
        "A table of mixtures: coarse layers of the row's picture, fine ones of the column's "
        "(without a mapping: the point between the two).",
    )
    add_numbers(made, "--rows", "1-4", "pictures at the left, of which the form is taken")
    add_numbers(made, "--columns", "5-9", "pictures on top, of which the finish is taken")
    made.add_argument(
        "--layer", type=int_in_range("--layer", 0, 1000),
        help="the first that is the column's (default: half of them)",
    )  # fmt: skip
    made.add_argument(
        "--share", type=float_in_range("--share", 0, 1), default=0.5,
        help="without a mapping: how much of the column's (default 0.5)",
    )  # fmt: skip
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_mixtures(made.parse_args(arguments)), "interrupted")


def write_mixtures(args: argparse.Namespace) -> None:
    """Write the table and print its name.

    Raises:
        UserError: no such run, or an option that makes no sense.
    """
    check_image_path(args.out)
    rows = parse_numbers(args.rows, "--rows", 64)
    columns = parse_numbers(args.columns, "--columns", 64)

    from training.grid import save_image
    from training.latent.grids import style_mixing_grid

    trained = load(args.run, args.device)
    check_sides(args.out, trained, len(columns) + 1, len(rows) + 1)
    space = trained.space
    if args.layer is not None and not space.has_mapping:
        raise UserError(f"--layer: the generator of {trained.name} has no mapping; use --share")
    layer = space.num_ws // 2 if args.layer is None else args.layer
    if not 0 <= layer <= space.num_ws:
        raise UserError(f"--layer: 0 to {space.num_ws}")
    label = label_number(trained, args.label)
    row, column = (
        space.truncate(space.map(*latents_and_labels(trained, numbers, label)), args.truncation)
        for numbers in (rows, columns)
    )
    _, labels = latents_and_labels(trained, rows[:1], label)
    save_image(args.out, style_mixing_grid(space, row, column, labels, layer, args.share))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
