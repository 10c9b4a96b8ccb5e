"""`python -m training.directions RUN --out FILE`: what the strongest directions change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import exit_status, write_json
from training.latent.command import (
    add_label,
    add_numbers,
    add_psi,
    check_picture,
    check_sides,
    check_target,
    label_number,
    load,
    number,
    numbered,
    parser,
    whole,
)
from training.latent.numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "directions",
        "A sheet of the directions that change pictures most, found from the weights (SeFa): a row "
        "for each direction and picture, from minus to plus.",
    )
    add_numbers(made, "--numbers", "1", "the pictures to change")
    made.add_argument(
        "--k", type=whole("--k", 1, 4096), default=6, help="how many directions (default 6)"
    )
    made.add_argument("--layers", help="of which layers, as 0-3 (default: all)")
    made.add_argument(
        "--amount", type=number("--amount", 1e-6, 1e6),
        help="the farthest to go (default: 3 times the spread of a latent's coordinate)",
    )  # fmt: skip
    made.add_argument(
        "--steps", type=whole("--steps", 2, 4096), default=7, help="columns (default 7)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the directions too")
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_directions(made.parse_args(arguments)), "interrupted")


def write_directions(known: argparse.Namespace) -> None:
    """Write the sheet and print its name.

    Raises:
        UserError: no such run, or an option that makes no sense.
    """
    check_picture(known.out)
    numbers = parse_numbers(known.numbers, "--numbers", 64)
    layers = [] if known.layers is None else parse_numbers(known.layers, "--layers")
    if known.json:
        check_target(known.json, "--json")

    import torch

    from training.grid import write_picture
    from training.latent.sefa import directions, reach
    from training.latent.sheets import direction_sheet

    trained = load(known.run, known.device)
    space = trained.space
    found = directions(space, known.k, layers)
    check_sides(known.out, trained, known.steps, len(found.vectors) * len(numbers))
    latents, labels = numbered(trained, numbers, label_number(trained, known.label))
    ws = space.truncate(space.map(latents, labels), known.truncation)
    far = 3 * reach(space, labels[:1]) if known.amount is None else known.amount
    amounts = torch.linspace(-far, far, known.steps).tolist()
    write_picture(known.out, direction_sheet(space, ws, labels[:1], found, amounts))
    if known.json:
        values = {
            "layers": list(found.layers),
            "strengths": found.strengths.tolist(),
            "vectors": found.vectors.tolist(),
        }
        write_json(known.json, values)
    print(known.out)


if __name__ == "__main__":
    sys.exit(main())
