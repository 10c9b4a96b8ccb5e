"""`python -m training.walk RUN --out FILE`: walks through the latent space."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.contract import UserError, exit_status
from training.latent.cli import (
    IMAGE_FORMATS,
    VIDEO_FORMATS,
    add_alias,
    add_label,
    add_numbers,
    add_psi,
    check_sides,
    check_target,
    int_in_range,
    label_number,
    latents_and_labels,
    load,
    parser,
)
from training.latent.image_numbers import parse_numbers

if TYPE_CHECKING:
    from torch import Tensor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "walk",
        "Write a latent walk: a video (.gif, .webp, .mp4), or an image (.png, .jpg) with one row "
        "per pair of images.",
        "a .gif, .webp or .mp4 file for a video, a .png or .jpg file for a grid",
    )
    add_numbers(made, "--numbers", "1-4", "the images to walk through")
    made.add_argument(
        "--steps", type=int_in_range("--steps", 2, 10_000), metavar="N",
        help="frames between two images (default: 24 for a video, 8 for a grid)",
    )  # fmt: skip
    spaces = ["z", "w"]
    made.add_argument(
        "--space", choices=spaces,
        help="latent space of the walk (default: w if the generator has a mapping, else z)",
    )  # fmt: skip
    add_alias(made, "--through", "--space", choices=spaces)
    made.add_argument(
        "--curve", choices=["lerp", "slerp"],
        help="linear or spherical interpolation (default: lerp in w, slerp in z)",
    )  # fmt: skip
    made.add_argument(
        "--fps", type=int_in_range("--fps", 1, 100), default=24, metavar="N",
        help="frames per second of a video (default: 24)",
    )  # fmt: skip
    made.add_argument(
        "--scale", type=int_in_range("--scale", 1, 16), default=1, metavar="N",
        help="enlarge the images by this integer factor (default: 1)",
    )  # fmt: skip
    made.add_argument(
        "--no-loop", action="store_true", help="end at the last image instead of the first"
    )
    add_alias(made, "--open", "--no-loop", action="store_true")
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_walk(made.parse_args(arguments)), "interrupted")


def write_walk(args: argparse.Namespace) -> None:
    """Write the walk and print the file name.

    Raises:
        UserError: the run does not exist, or an option is invalid.
    """
    extension = args.out.suffix.lower()
    is_video = extension in VIDEO_FORMATS
    if not is_video and extension not in IMAGE_FORMATS:
        allowed = ", ".join((*VIDEO_FORMATS, *IMAGE_FORMATS))
        raise UserError(f"--out {args.out}: the extension must be one of {allowed}")
    check_target(args.out, "--out")
    numbers = parse_numbers(args.numbers, "--numbers", 256)
    if len(numbers) < 2:
        raise UserError("--numbers: at least two images are needed")
    steps = args.steps if args.steps is not None else 24 if is_video else 8

    from training.grid import make_grid, save_image
    from training.latent.grids import walk_images
    from training.latent.interpolation import walk, walk_rows
    from training.latent.video import require_codec, write_video

    require_codec(args.out)
    trained = load(args.run, args.device)
    across, down = (1, 1) if is_video else (steps, len(numbers) - 1)
    check_sides(args.out, trained, across, down, args.scale)
    space = trained.space
    latents, labels = latents_and_labels(trained, numbers, label_number(trained, args.label))
    name = args.space or ("w" if space.has_mapping else "z")
    if name == "w" and not space.has_mapping:
        raise UserError(f"--space w: the generator of {trained.name} has no mapping; use z")
    curve = args.curve or ("lerp" if name == "w" else "slerp")

    def path(points: Tensor) -> Tensor:
        if is_video:
            return walk(points, steps, curve, not args.no_loop)
        return walk_rows(points, steps, curve)

    frames = walk_images(space, latents, labels, path, name, args.truncation)
    frames = frames.repeat(args.scale, axis=1).repeat(args.scale, axis=2)
    if is_video:
        write_video(args.out, frames, args.fps)
    else:
        save_image(args.out, make_grid(frames, steps))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
