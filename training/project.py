"""`python -m training.project RUN IMAGE --out FILE`: project an image into the latent space."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.contract import UserError, exit_status, write_atomic
from training.latent.cli import (
    add_alias,
    add_label,
    add_seed,
    check_image_path,
    check_target,
    int_in_range,
    label_number,
    load,
    parser,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "project",
        "Find the latent whose image is nearest to IMAGE; write both side by side.",
    )
    made.add_argument(
        "image", metavar="IMAGE", type=Path, help="an image file; its central crop is projected"
    )
    made.add_argument(
        "--steps", type=int_in_range("--steps", 1, 1_000_000), default=1000, metavar="N",
        help="optimisation steps (default: 1000)",
    )  # fmt: skip
    made.add_argument(
        "--w-plus", action="store_true",
        help="optimise one w per layer (W+): closer to the image, less natural",
    )  # fmt: skip
    add_alias(made, "--each-layer", "--w-plus", action="store_true")
    made.add_argument(
        "--distance", choices=["features", "pixels"], default="features",
        help="minimise the distance of a network's features, or of pixels at several sizes "
        "(default: features)",
    )  # fmt: skip
    made.add_argument(
        "--encoder", action="store_true",
        help="start at the latent of the run's encoder, not at the mean (for runs with the method "
        "bigan or vae-gan)",
    )  # fmt: skip
    made.add_argument(
        "--ws", type=Path, metavar="FILE", help="also write the latents found (.safetensors)"
    )
    add_seed(made, "the noise that is added to w")
    add_label(made)
    return exit_status(lambda: write_projection(made.parse_args(arguments)), "interrupted")


def write_projection(args: argparse.Namespace) -> None:
    """Project the image, write both images side by side and print the distances.

    Raises:
        UserError: the run or the image does not exist, or an option is invalid.
    """
    check_image_path(args.out)
    if args.ws:
        check_target(args.ws, "--ws")

    import torch

    from training.grid import make_grid, save_image
    from training.image_files import read_image
    from training.latent.projection import Schedule, choose_distance, project
    from training.translation import as_floats

    trained = load(args.run, args.device)
    space = trained.space
    if args.w_plus and not space.has_mapping:
        raise UserError(f"--w-plus: the generator of {trained.name} has no mapping")
    if args.encoder and trained.encoder is None:
        raise UserError(
            f"--encoder: {trained.name} has no encoder; train with method.name bigan or vae-gan"
        )
    label = torch.tensor([label_number(trained, args.label)], device=space.device)
    pixels = read_image(args.image, trained.shape, "crop")
    target = as_floats(pixels[None], space.device)
    distance = choose_distance(args.distance, space.device)
    found = project(
        space, target, distance, label, Schedule(args.steps), args.w_plus, args.seed,
        on_step=_progress_printer(args.steps), encoded=args.encoder,
    )  # fmt: skip
    both = torch.cat([target, found.image.clamp(-1, 1)])
    images = ((both + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    save_image(args.out, make_grid(images, 2))
    if args.ws:
        from safetensors.torch import save

        write_atomic(args.ws, save({"ws": found.ws.contiguous().cpu()}))
    start = "encoder's" if args.encoder else "mean"
    print(f"distance {found.distance:.4g}; of the {start} image {found.initial_distance:.4g}")
    print(args.out)


def _progress_printer(steps: int) -> Callable[[int, float], None]:
    def print_progress(step: int, distance: float) -> None:
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step {step + 1} of {steps}, distance {distance:.4g}", flush=True)

    return print_progress


if __name__ == "__main__":
    sys.exit(main())
