"""`python -m training.translate RUN IMAGE… --out DIR`: translate images to the other set."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.contract import CommandParser, UserError, describe_os_error, exit_status
from training.latent.cli import default_out, load_any, parser

_BATCH = 16


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = parser(
        "translate",
        "Translate images with a run that has learned to translate between two sets (cyclegan).",
        out="",
    )
    made.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path,
        help="image files, or folders of them; they are resized as those of the run were, or "
        "their central regions are used",
    )  # fmt: skip
    made.add_argument(
        "--direction", choices=["a-to-b", "b-to-a"], default="a-to-b",
        help="from the set of --shards to that of --shards-b, or back (default: a-to-b)",
    )  # fmt: skip
    made.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder for the translations, IMAGE.png each (default: RUN-translated, with a number "
        "if it exists)",
    )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return exit_status(
        lambda: write_translations(command_parser().parse_args(arguments)), "interrupted"
    )


def write_translations(args: argparse.Namespace) -> int:
    """Translate the images, write a file for each and print the folder. Those of a folder that
    cannot be read are reported and left out; return 1 if there are any.

    Raises:
        UserError: the run does not translate images, an image does not exist or cannot be read, or
            the folder cannot be written to.
    """
    import numpy as np

    from training.grid import save_image
    from training.image_files import find_images, read_image
    from training.translation import as_floats, translate

    trained = load_any(args.run, args.device)
    generator = trained.translator(args.direction)
    paths = find_images(args.images)
    names, out = output_names(paths), args.out or default_out(args.run, "translated")
    device, fit = next(generator.parameters()).device, trained.config.data.fit
    written = 0
    for start in range(0, len(paths), _BATCH):
        some = []
        for path, name in zip(paths[start : start + _BATCH], names[start:], strict=False):
            try:
                some.append((name, read_image(path, trained.shape, fit)))
            except UserError as error:
                if path in args.images:
                    raise
                print(f"warning: {error}; left out", file=sys.stderr)
        if not some:
            continue
        pixels = np.stack([one for _, one in some])
        for (name, _), image in zip(
            some, translate(generator, as_floats(pixels, device)), strict=True
        ):
            try:
                save_image(out / name, image)
            except OSError as error:
                raise UserError(f"--out {describe_os_error(error)}") from None
        written += len(some)
    if not written:
        raise UserError(f"{args.images[0]}: none of the images there can be read")
    print(out)
    return int(written < len(paths))


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return a file name for each image: its own with the extension .png, and a number if an
    earlier one has the same."""
    names: dict[str, None] = {}
    counts = Counter[str]()
    for path in paths:
        name = f"{path.stem}.png"
        while name in names:
            counts[path.stem] += 1
            name = f"{path.stem}-{counts[path.stem] + 1}.png"
        names[name] = None
    return list(names)


if __name__ == "__main__":
    sys.exit(main())
