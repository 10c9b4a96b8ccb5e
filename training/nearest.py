"""`python -m training.nearest RUN --out FILE`: the training images nearest to samples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.contract import exit_status
from training.latent.command import (
    add_label,
    add_numbers,
    add_psi,
    check_picture,
    check_sides,
    label_number,
    load,
    numbered,
    parser,
    whole,
)
from training.latent.numbers import parse_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "nearest",
        "A sheet with a row for each sample: the sample, then the training images nearest to it.",
    )
    add_numbers(made, "--numbers", "1-6", "the samples")
    made.add_argument(
        "--k", type=whole("--k", 1, 4096), default=6, help="neighbours of each (default 6)"
    )
    made.add_argument("--shards", help="where to look (default: the run's shards)")
    made.add_argument(
        "--by", choices=["features", "pixels"], default="features",
        help="distance of a network's features, or of pixels at 32 px",
    )  # fmt: skip
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_nearest(made.parse_args(arguments)), "interrupted")


def write_nearest(known: argparse.Namespace) -> None:
    """Write the sheet, print the distances and its name.

    Raises:
        UserError: no such run or shards, or an option that makes no sense.
    """
    check_picture(known.out)
    numbers = parse_numbers(known.numbers, "--numbers", 64)

    import numpy as np

    from training.grid import tile, write_picture
    from training.latent.neighbours import as_images, choose_description, describe_all, open_set

    trained = load(known.run, known.device)
    check_sides(known.out, trained, known.k + 1, len(numbers))
    space = trained.space
    describe = choose_description(known.by, space.device)
    latents, labels = numbered(trained, numbers, label_number(trained, known.label))
    pictures = space.draw(space.truncate(space.map(latents, labels), known.truncation), labels)
    every = describe_all(open_set(trained, known.shards), describe)
    distances, places = every.nearest(describe(as_images(pictures)).cpu(), known.k)
    rows = [
        np.concatenate([picture[None], every.pictures(row)])
        for picture, row in zip(pictures, places.tolist(), strict=True)
    ]
    for number, row in zip(numbers, distances.tolist(), strict=True):
        print(f"{number}: " + ", ".join(f"{distance:.4f}" for distance in row))
    write_picture(known.out, tile(np.concatenate(rows), len(rows[0])))
    print(known.out)


if __name__ == "__main__":
    sys.exit(main())
