"""`python -m training.sample RUN --n 64 --seed 0 --out FILE`: pictures from a trained run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.sample", description="Draw a grid of samples from a run."
    )
    parser.add_argument("run", metavar="RUN", help="name under runs/, or a folder")
    parser.add_argument("--n", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the latents (default 0)")
    parser.add_argument("--out", type=Path, required=True, help="a .png, .jpg or .webp file")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    known = parser.parse_args(arguments)
    try:
        if known.n < 1:
            raise UserError("--n: at least 1")
        write_samples(known.run, known.n, known.seed, known.out, known.device)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(known.out)
    return 0


def write_samples(run_name: str, count: int, seed: int, out: Path, device_name: str) -> None:
    """Write a grid of `count` samples of the run's moving average to `out`.

    Raises:
        UserError: no such run, or it has no whole checkpoint.
    """
    import torch

    from training.device import choose_device
    from training.grid import draw, tile, write_picture
    from training.inference import load_generator
    from training.latents import fixed_latents

    device = choose_device(device_name)
    trained = load_generator(run_name, device)
    latents = fixed_latents(trained.latent, count, trained.generator.z_dim, seed, device)
    torch.manual_seed(seed)  # dropout that works when sampling
    labels = torch.arange(count, device=device) % max(1, trained.classes)
    write_picture(out, tile(draw(trained.generator, latents, labels)))


if __name__ == "__main__":
    sys.exit(main())
