"""`python -m training.export RUN --format FORMAT[,FORMAT] --out DIR`: export a generator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipeline.contract import exit_status
from training.latent.cli import float_in_range, load, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "export",
        "Export a generator for other programs, with a model card that includes the dataset's "
        "licences.",
        out="",
    )
    made.add_argument(
        "--format", default="safetensors,onnx", metavar="FORMAT[,FORMAT]",
        help="safetensors: weights and configuration, which training.sample and the other commands "
        "accept instead of a run; onnx: an ONNX model, checked against PyTorch; page: a static "
        "explorer page that generates images in the browser; nvlabs, rosinality: StyleGAN2 weights "
        "for NVlabs' StyleGAN2-ADA (safetensors) and for rosinality/stylegan2-pytorch (.pt) "
        "(default: safetensors,onnx)",
    )  # fmt: skip
    made.add_argument("--static", action="store_true", help="the same as --format page")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    made.add_argument(
        "--tolerance", type=float_in_range("--tolerance", 1e-9, 2), default=1e-3, metavar="X",
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
    return exit_status(lambda: export(made.parse_args(arguments)), "interrupted")


def export(args: argparse.Namespace) -> None:
    """Write the requested formats and print the files written.

    Raises:
        UserError: the run or the format does not exist, a package is missing, or the ONNX model
            differs from PyTorch.
    """
    from training.exports.writing import ExportOptions, check_export, export_generator

    formats = ["page"] if args.static else [part.strip() for part in args.format.split(",")]
    check_export(args.out, formats)
    options = ExportOptions(args.tolerance, args.title, args.runtime)
    say = partial(print, flush=True)
    export_generator(load(args.run, "cpu"), args.out, formats, options, say)


if __name__ == "__main__":
    sys.exit(main())
