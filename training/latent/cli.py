"""What the commands that draw have in common: their options, and what they check."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract import CommandParser, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from training.pretrained.inference import TrainedGenerator

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MAX_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535, ".mp4": 16_384}
"""The longest side in pixels of the forms that have such a limit (mp4: x264's)."""


def parser(name: str, description: str, out: str = "a .png, .jpg or .webp file") -> (
    argparse.ArgumentParser
):  # fmt: skip
    """A parser with the run and where the result goes; `out` empty: the command says itself."""
    parser = CommandParser(prog=f"python -m training.{name}", description=description)
    parser.add_argument(
        "run", metavar="RUN",
        help="name under runs/, or a run's or exported folder; RUN@best, RUN@200 (kimg)",
    )  # fmt: skip
    if out:
        parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    return parser


def add_numbers(made: argparse.ArgumentParser, option: str, default: str, what: str) -> None:
    """An option that names pictures by number."""
    made.add_argument(
        option, default=default, metavar="NUMBERS",
        help=f"{what}, by number as in the explorer: 3,8,20-24 (default {default})",
    )  # fmt: skip


def int_in_range(option: str, least: int, most: int) -> Callable[[str], int]:
    """The argparse type of a whole number in [least, most]; UserError for anything else."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise UserError(f"{option} {text}: a whole number from {least} to {most}")
        return value

    return parse


def float_in_range(option: str, least: float, most: float) -> Callable[[str], float]:
    """The argparse type of a number in [least, most]; UserError for anything else."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # where nan never is
            raise UserError(f"{option} {text}: a number from {least:g} to {most:g}")
        return value

    return parse


parse_psi = float_in_range("--truncation", -100, 100)


def add_seed(made: argparse.ArgumentParser, what: str) -> None:
    made.add_argument(
        "--seed", type=int_in_range("--seed", 0, 2**63 - 1), default=0, help=f"{what} (default 0)"
    )


def add_label(made: argparse.ArgumentParser) -> None:
    made.add_argument("--label", help="name or number of the class (default: the first)")


def add_psi(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--truncation", type=parse_psi, default=1.0, metavar="PSI",
        help="1 all variety … 0 the mean picture (default 1)",
    )  # fmt: skip


def check_image_path(path: Path) -> None:
    """Raises UserError where the name does not end as a picture's, or none can be written there."""
    if path.suffix.lower() not in PICTURES:
        raise UserError(f"--out {path}: the name of a picture ends in {', '.join(PICTURES)}")
    check_target(path, "--out")


def check_target(path: Path, option: str) -> None:
    """Raises UserError where no file can be written: asked before the work, which would be lost.

    Nothing stays of the attempt; missing folders are made when the file is written.
    """
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.", suffix=".tmp"):
            blocked = path.is_dir()
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be written ({error.strerror})") from None
    if blocked:
        raise UserError(f"{option} {path}: a folder, not a file")


def check_sides(
    path: Path, trained: TrainedGenerator, columns: int, rows: int, scale: int = 1
) -> None:
    """Raises UserError where so many pictures in `columns` and `rows`, `scale` times as large, are
    more than a file of that ending can hold."""
    width, height = columns * trained.shape.width * scale, rows * trained.shape.height * scale
    most = MAX_SIDE.get(path.suffix.lower(), math.inf)
    if max(width, height) > most:
        raise UserError(
            f"--out {path}: {width}×{height} pixels; {path.suffix} holds at most {most} a side"
        )


def load(run: str, device: str) -> TrainedGenerator:
    """The run's generator on the device so called."""
    from training.machine.device import choose_device
    from training.pretrained.inference import load_generator

    return load_generator(run, choose_device(device))


def label_number(trained: TrainedGenerator, label: str | None) -> int:
    """The class that `--label` means.

    Raises:
        UserError: the generator has no such class.
    """
    if label is None:
        return 0
    if not trained.conditional:
        raise UserError(f"--label {label}: the generator of {trained.name} knows no labels")
    if label in trained.labels:
        return trained.labels.index(label)
    if label.isdecimal() and int(label) < trained.classes:
        return int(label)
    raise UserError(f"--label {label}: one of {', '.join(trained.labels)}, or its number")


def latents_and_labels(
    trained: TrainedGenerator, numbers: Sequence[int], label: int
) -> tuple[Tensor, Tensor]:
    """Latents (n, z_dim) and labels (n,) of pictures by number."""
    import torch

    from training.latent.image_numbers import latents_of

    device = trained.space.device
    latents = latents_of(list(numbers), trained.latent, trained.generator.z_dim).to(device)
    return latents, torch.full((len(numbers),), label, dtype=torch.int64, device=device)
