"""`python -m training.directions RUN --out FILE`: the effect of the strongest directions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import exit_status, write_json
from training.latent.cli import (
    add_label,
    add_numbers,
    add_psi,
    check_image_path,
    check_sides,
    check_target,
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
        "directions",
        "Write a grid of the latent directions that change images most, found from the weights "
        "(SeFa): one row per direction and image, from negative to positive.",
    )
    add_numbers(made, "--numbers", "1", "the images to change")
    made.add_argument(
        "--k", type=int_in_range("--k", 1, 4096), default=6, metavar="N",
        help="number of directions (default: 6)",
    )  # fmt: skip
    made.add_argument("--layers", help="layers whose weights are used, as 0-3 (default: all)")
    made.add_argument(
        "--amount", type=float_in_range("--amount", 1e-6, 1e6), metavar="X",
        help="largest shift (default: 3 standard deviations of a latent coordinate)",
    )  # fmt: skip
    made.add_argument(
        "--steps", type=int_in_range("--steps", 2, 4096), default=7, metavar="N",
        help="number of columns (default: 7)",
    )  # fmt: skip
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the directions as JSON")
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_directions(made.parse_args(arguments)), "interrupted")


def write_directions(args: argparse.Namespace) -> None:
    """Write the grid and print the file name.

    Raises:
        UserError: the run does not exist, or an option is invalid.
    """
    check_image_path(args.out)
    numbers = parse_numbers(args.numbers, "--numbers", 64)
    layers = [] if args.layers is None else parse_numbers(args.layers, "--layers")
    if args.json:
        check_target(args.json, "--json")

    import torch

    from training.grid import save_image
    from training.latent.grids import direction_grid
    from training.latent.sefa import coordinate_std, directions, directions_to_json

    trained = load(args.run, args.device)
    space = trained.space
    found = directions(space, args.k, layers)
    check_sides(args.out, trained, args.steps, len(found.vectors) * len(numbers))
    latents, labels = latents_and_labels(trained, numbers, label_number(trained, args.label))
    ws = space.truncate(space.map(latents, labels), args.truncation)
    far = 3 * coordinate_std(space, labels[:1]) if args.amount is None else args.amount
    amounts = torch.linspace(-far, far, args.steps).tolist()
    save_image(args.out, direction_grid(space, ws, labels[:1], found, amounts))
    if args.json:
        write_json(args.json, directions_to_json(found))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
