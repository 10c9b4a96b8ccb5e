"""`python -m training.walk RUN --out FILE`: from picture to picture through the latent space."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.contract import UserError, exit_status
from training.latent.cli import (
    PICTURES,
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

FILMS = (".gif", ".webp", ".mp4")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "walk",
        "Walk from picture to picture: a film (.gif, .webp, .mp4) or, as .png or .jpg, a strip "
        "with a row for each way.",
        "a .gif, .webp or .mp4 file for a film, .png or .jpg for a strip",
    )
    add_numbers(made, "--numbers", "1-4", "the pictures to walk through")
    made.add_argument(
        "--steps", type=int_in_range("--steps", 2, 10_000),
        help="a way (default: 24 in a film, 8 in a strip)",
    )  # fmt: skip
    made.add_argument(
        "--through", choices=["z", "w"], help="which space (default: w where there is a mapping)"
    )
    made.add_argument(
        "--curve", choices=["lerp", "slerp"],
        help="straight, or on the sphere (default: straight in w, on the sphere in z)",
    )  # fmt: skip
    made.add_argument(
        "--fps", type=int_in_range("--fps", 1, 100), default=24, help="of a film (default 24)"
    )
    made.add_argument(
        "--scale",
        type=int_in_range("--scale", 1, 16),
        default=1,
        help="enlarge by this whole number",
    )
    made.add_argument("--open", action="store_true", help="end with the last picture: no loop")
    add_label(made)
    add_psi(made)
    return exit_status(lambda: write_walk(made.parse_args(arguments)), "interrupted")


def write_walk(args: argparse.Namespace) -> None:
    """Write the walk and print its name.

    Raises:
        UserError: no such run, or an option that makes no sense.
    """
    ending = args.out.suffix.lower()
    film = ending in FILMS
    if not film and ending not in PICTURES:
        raise UserError(f"--out {args.out}: its ending is none of {', '.join((*FILMS, *PICTURES))}")
    check_target(args.out, "--out")
    numbers = parse_numbers(args.numbers, "--numbers", 256)
    if len(numbers) < 2:
        raise UserError("--numbers: at least two pictures")
    steps = args.steps if args.steps is not None else 24 if film else 8

    from training.grid import make_grid, save_image
    from training.latent.grids import walk_pictures
    from training.latent.interpolation import walk, walk_rows
    from training.latent.video import require_codec, write_video

    require_codec(args.out)
    trained = load(args.run, args.device)
    across, down = (1, 1) if film else (steps, len(numbers) - 1)
    check_sides(args.out, trained, across, down, args.scale)
    space = trained.space
    latents, labels = latents_and_labels(trained, numbers, label_number(trained, args.label))
    where = args.through or ("w" if space.has_mapping else "z")
    if where == "w" and not space.has_mapping:
        raise UserError(f"--through w: the generator of {trained.name} has no mapping, only z")
    curve = args.curve or ("lerp" if where == "w" else "slerp")

    def path(points: Tensor) -> Tensor:
        return (
            walk(points, steps, curve, not args.open) if film else walk_rows(points, steps, curve)
        )

    frames = walk_pictures(space, latents, labels, path, where, args.truncation)
    frames = frames.repeat(args.scale, axis=1).repeat(args.scale, axis=2)
    if film:
        write_video(args.out, frames, args.fps)
    else:
        save_image(args.out, make_grid(frames, steps))
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
