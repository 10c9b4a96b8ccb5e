"""`python -m training.export RUN [--format FORMAT[,FORMAT]] [--out DIR]`: export a generator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.contract import CommandParser, HubRepo, UserError, check_hub, exit_status
from training.latent.cli import default_out, float_in_range, load_any, parser, refuse_options


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = parser(
        "export",
        "Export a generator for other programs, with a model card that includes the dataset's "
        "licences.",
        out="",
    )
    made.add_argument(
        "--format", metavar="FORMAT[,FORMAT]",
        help="safetensors: weights and configuration, which training.sample and the other commands "
        "accept instead of a run; onnx: an ONNX model, checked against PyTorch; page: a static "
        "explorer page that generates images in the browser; nvlabs, rosinality: StyleGAN2 weights "
        "for NVlabs' StyleGAN2-ADA (safetensors) and for rosinality/stylegan2-pytorch (.pt) "
        "(default: safetensors,onnx)",
    )  # fmt: skip
    made.add_argument("--static", action="store_true", help="the same as --format page")
    made.add_argument(
        "--out", type=Path, metavar="DIR",
        help="output folder (default: RUN-export, for a page RUN-page; with a number if it exists)",
    )  # fmt: skip
    made.add_argument(
        "--tolerance", type=float_in_range("--tolerance", 1e-9, 2), metavar="X",
        help="fail if an ONNX image differs from PyTorch's by more than this; pixels range from "
        "-1 to 1 (default: 0.001)",
    )  # fmt: skip
    made.add_argument(
        "--title", default="", help="title of the page (default: derived from the dataset's name)"
    )
    made.add_argument(
        "--runtime", type=Path, metavar="FILE",
        help="the npm package onnxruntime-web as a .tgz file (default: downloaded with npm)",
    )  # fmt: skip
    made.add_argument(
        "--hub", metavar="USER/NAME",
        help="upload the exported files, the card and samples to the Hugging Face Hub; the files "
        "are listed first",
    )  # fmt: skip
    made.add_argument(
        "--space", action="store_true",
        help="with --hub: upload the static explorer page as a Space (implies --format page)",
    )  # fmt: skip
    made.add_argument(
        "--public", action="store_true", help="with --hub: what is new there is public, not private"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return exit_status(lambda: export(command_parser().parse_args(arguments)), "interrupted")


def _formats(args: argparse.Namespace) -> list[str]:
    """Return the formats, after a check that all options have an effect on them."""
    formats = [part.strip() for part in (args.format or "safetensors,onnx").split(",")]
    if args.static or args.space:
        option = "--static" if args.static else "--space"
        if args.format and formats != ["page"]:
            raise UserError(
                f"--format {args.format}: {option} exports only the page; leave out one"
            )
        formats = ["page"]
    if "page" not in formats:
        refuse_options(args, "only for --format page", "title", "runtime")
    if not {"page", "onnx"} & {*formats}:
        refuse_options(args, "only for --format onnx or page", "tolerance")
    return formats


def export(args: argparse.Namespace) -> None:
    """Write the requested formats, print the files written, and upload them if requested.

    Raises:
        UserError: the run or the format does not exist, a package is missing, the ONNX model
            differs from PyTorch, or the upload failed.
    """
    from training.exports.writing import ExportOptions, check_export, export_generator

    if not args.hub:
        refuse_options(args, "only with --hub USER/NAME", "space", "public")
    kind: Literal["space", "model"] = "space" if args.space else "model"
    repo = HubRepo(args.hub, kind, args.public) if args.hub else None
    if repo:
        check_hub(repo)
    formats = _formats(args)
    out = args.out or default_out(args.run, "page" if formats == ["page"] else "export")
    check_export(out, formats)
    options = ExportOptions(args.tolerance or ExportOptions.tolerance, args.title, args.runtime)
    say = partial(print, flush=True)
    trained = load_any(args.run, "cpu")
    if trained.is_translator and repo:
        raise UserError(f"--hub: {trained.name} translates images, which is not supported there")
    files = export_generator(trained, out, formats, options, say)
    if repo:
        from training.exports.hub import publish_generator

        publish_generator(trained, out, files, repo, say, args.title)


if __name__ == "__main__":
    sys.exit(main())
