"""Options and checks shared by the commands that generate images."""

from __future__ import annotations

import argparse
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract import CommandParser, UserError, suggestion

if TYPE_CHECKING:
    from torch import Tensor

    from training.pretrained.inference import TrainedGenerator

IMAGE_FORMATS = (".png", ".jpg", ".jpeg", ".webp")
VIDEO_FORMATS = (".gif", ".webp", ".mp4")
MAX_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383, ".gif": 65_535, ".mp4": 16_384}
"""The longest side in pixels that a format allows (mp4: the limit of x264)."""


class _RunParser(CommandParser):
    """A parser that names the output after the run if there is no `--out`; nothing is
    overwritten then."""

    default_out = ""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        found, rest = super().parse_known_args(*args, **kwargs)
        if self.default_out and found.out is None:
            found.out = default_out(found.run, self.default_out)
        return found, rest


def parser(name: str, description: str, out: str = "a .png, .jpg or .webp file") -> CommandParser:
    """Return a parser with RUN, `--out` (unless `out` is empty) and `--device`."""
    parser = _RunParser(prog=f"python -m training.{name}", description=description)
    parser.add_argument(
        "run", metavar="RUN",
        help="name under runs/, a run folder or an exported folder; RUN@best or RUN@200 (kimg) "
        "selects a checkpoint",
    )  # fmt: skip
    if out:
        suffix = out.partition(".")[2].partition(",")[0].split()[0]
        parser.default_out = f"{name}.{suffix}"
        parser.add_argument(
            "--out", type=Path, metavar="FILE",
            help=f"{out} (default: RUN-{parser.default_out}, with a number if it exists)",
        )  # fmt: skip
    add_device(parser)
    return parser


def default_out(run: str, end: str) -> Path:
    """Return the output that is named after a run, `RUN-END`, in the current folder, or the first
    of `RUN-END-2` … that does not exist; the extension of `end` comes last."""
    name = Path(run).resolve().name if os.sep in run else run
    # `.` and `..`, perhaps with a checkpoint, would make a hidden file
    name = re.sub(r"^\.\.?(?=@|$)", lambda found: Path(found[0]).resolve().name, name)
    path, last, number = Path(f"{name}-{end}"), Path(end), 2
    while path.exists() or path.is_symlink():
        path, number = Path(f"{name}-{last.stem}-{number}{last.suffix}"), number + 1
    return path


def add_device(made: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    made.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda", "mps"],
        help="device to run on (default: auto)",
    )  # fmt: skip


def add_alias(made: argparse.ArgumentParser, alias: str, option: str, **settings: Any) -> None:
    """Accept `alias`, the former name of `option`; it does not appear in the help."""
    target = option.removeprefix("--").replace("-", "_")
    made.add_argument(
        alias, dest=target, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **settings
    )


def add_numbers(made: argparse.ArgumentParser, option: str, default: str, what: str) -> None:
    """Add an option that takes image numbers."""
    made.add_argument(
        option, default=default, metavar="NUMBERS",
        help=f"image numbers of {what}, for example 3,8,20-24 (default: {default})",
    )  # fmt: skip


def int_in_range(option: str, least: int, most: int) -> Callable[[str], int]:
    """Return an argparse type: an integer in [least, most]; UserError for anything else."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise UserError(f"{option} {text}: must be an integer from {least} to {most}")
        return value

    return parse


def float_in_range(option: str, least: float, most: float) -> Callable[[str], float]:
    """Return an argparse type: a number in [least, most]; UserError for anything else."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # also rejects nan
            raise UserError(f"{option} {text}: must be a number from {least:g} to {most:g}")
        return value

    return parse


parse_psi = float_in_range("--truncation", -100, 100)


def refuse_options(args: argparse.Namespace, reason: str, *options: str) -> None:
    """Raise UserError, with the reason, if one of the options, whose default is None, False or
    empty, is given."""
    for option in options:
        value = getattr(args, option)
        if value not in (None, "") and value is not False:
            raise UserError(f"--{option.replace('_', '-')}: {reason}")


def add_seed(made: argparse.ArgumentParser, what: str, default: int | None = 0) -> None:
    """Add `--seed`, the random seed of `what`."""
    made.add_argument(
        "--seed", type=int_in_range("--seed", 0, 2**63 - 1), default=default, metavar="N",
        help=f"random seed of {what} (default: 0)",
    )  # fmt: skip


def add_label(made: argparse.ArgumentParser) -> None:
    """Add `--label`."""
    made.add_argument("--label", help="class to generate, by name or number (default: the first)")


def add_background(
    made: argparse.ArgumentParser, what: str, default: str | None = "#ffffff"
) -> None:
    """Add `--background`, a colour; `what` says what it does."""
    made.add_argument(
        "--background", type=parse_background, default=default, metavar="COLOUR",
        help=f"{what}: #rrggbb (default: #ffffff)",
    )  # fmt: skip


def parse_background(text: str) -> str:
    """Return a colour, "#rrggbb"; UserError for anything else."""
    if not re.fullmatch("#[0-9a-f]{6}", text.lower()):
        raise UserError(f"--background {text}: not a colour; write it as #rrggbb")
    return text.lower()


def add_psi(made: argparse.ArgumentParser) -> None:
    """Add `--truncation`."""
    made.add_argument(
        "--truncation", type=parse_psi, default=1.0, metavar="PSI",
        help="truncation psi: 1 = full variety, 0 = the mean image (default: 1)",
    )  # fmt: skip


def check_image_path(path: Path) -> None:
    """Raise UserError if the extension is not an image's, or the file cannot be written."""
    if path.suffix.lower() not in IMAGE_FORMATS:
        raise UserError(f"--out {path}: the extension must be one of {', '.join(IMAGE_FORMATS)}")
    check_target(path, "--out")


def check_target(path: Path, option: str) -> None:
    """Raise UserError if the file cannot be written. Call it before long work.

    Leaves no file behind; missing folders are created later, when the file is written.
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
        raise UserError(f"{option} {path}: is a folder, not a file")


def check_sides(
    path: Path, trained: TrainedGenerator, columns: int, rows: int, scale: int = 1
) -> None:
    """Raise UserError if a grid of `columns` × `rows` images, enlarged `scale` times, exceeds the
    size limit of the file's format."""
    width, height = columns * trained.shape.width * scale, rows * trained.shape.height * scale
    most = MAX_SIDE.get(path.suffix.lower(), math.inf)
    if max(width, height) > most:
        raise UserError(
            f"--out {path}: {width}×{height} pixels; {path.suffix} allows at most {most} per side"
        )


def load(run: str, device: str) -> TrainedGenerator:
    """Load the generator of a run onto the named device.

    Raises:
        UserError: there is no such run, or it translates images and has no latents.
    """
    trained = load_any(run, device)
    trained.require_latents()
    return trained


def load_any(run: str, device: str) -> TrainedGenerator:
    """Load the generator of a run, which may translate images, onto the named device.

    Raises:
        UserError: there is no such run.
    """
    from training.machine.device import choose_device
    from training.pretrained.inference import load_generator

    return load_generator(run, choose_device(device))


def label_number(trained: TrainedGenerator, label: str | None) -> int:
    """Return the class number for `--label`; 0 without one.

    Raises:
        UserError: the generator has no such class.
    """
    if label is None:
        return 0
    if not trained.conditional:
        raise UserError(f"--label {label}: the generator of {trained.name} has no labels")
    if label in trained.labels:
        return trained.labels.index(label)
    if label.isdecimal() and len(label) < 10 and int(label) < trained.classes:
        return int(label)
    raise UserError(
        f"--label {label}: unknown class; choose from {', '.join(trained.labels)}, or a number"
        f"{suggestion(label, trained.labels)}"
    )


def latents_and_labels(
    trained: TrainedGenerator, numbers: Sequence[int], label: int
) -> tuple[Tensor, Tensor]:
    """Return the latents (n, z_dim) of the image numbers, and labels (n,), all `label`."""
    import torch

    from training.latent.image_numbers import latents_of

    device = trained.space.device
    latents = latents_of(list(numbers), trained.latent, trained.generator.z_dim).to(device)
    return latents, torch.full((len(numbers),), label, dtype=torch.int64, device=device)
