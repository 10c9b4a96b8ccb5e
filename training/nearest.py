"""`python -m training.nearest RUN --out FILE`: the training images nearest to generated ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.contract import exit_status
from training.latent.cli import (
    add_alias,
    add_label,
    add_numbers,
    add_psi,
    check_image_path,
    check_sides,
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
        "nearest",
        "Write a grid with one row per sample: the sample, then the nearest training images.",
    )
    add_numbers(made, "--numbers", "1-6", "the samples")
    made.add_argument(
        "--k", type=int_in_range("--k", 1, 4096), default=6, metavar="N",
        help="neighbours per sample (default: 6)",
    )  # fmt: skip
    made.add_argument("--shards", help="training images to search (default: the run's shards)")
    distances = ["features", "pixels"]
    made.add_argument(
        "--distance", choices=distances, default="features",
        help="compare features of a network, or pixels at 32 px (default: features)",
    )  # fmt: skip
    add_alias(made, "--by", "--distance", choices=distances)
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_nearest(made.parse_args(arguments)), "interrupted")


def write_nearest(args: argparse.Namespace) -> None:
    """Write the grid; print the distances and the file name.

    Raises:
        UserError: the run or the shards do not exist, or an option is invalid.
    """
    check_image_path(args.out)
    numbers = parse_numbers(args.numbers, "--numbers", 64)

    import numpy as np

    from training.grid import make_grid, save_image
    from training.latent.neighbours import as_images, choose_embedding, embed_training_images

    trained = load(args.run, args.device)
    check_sides(args.out, trained, args.k + 1, len(numbers))
    space = trained.space
    describe = choose_embedding(args.distance, space.device)
    latents, labels = latents_and_labels(trained, numbers, label_number(trained, args.label))
    images = space.generate(space.truncate(space.map(latents, labels), args.truncation), labels)
    every = embed_training_images(trained, args.shards, describe)
    distances, places = every.nearest(describe(as_images(images)).cpu(), args.k)
    rows = [
        np.concatenate([image[None], every.images(row)])
        for image, row in zip(images, places.tolist(), strict=True)
    ]
    for number, row in zip(numbers, distances.tolist(), strict=True):
        print(f"{number}: " + ", ".join(f"{distance:.4f}" for distance in row))
    save_image(args.out, make_grid(np.concatenate(rows), len(rows[0])))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
