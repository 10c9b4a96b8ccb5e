"""`python -m training.export RUN --format FORMAT[,FORMAT] --out DIR`: export a generator."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract import UserError, exit_status, write_atomic
from training.latent.cli import check_target, float_in_range, load, parser

if TYPE_CHECKING:
    from training.pretrained.inference import TrainedGenerator

FORMATS = ("safetensors", "onnx", "page", "nvlabs", "rosinality")


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
    formats = ["page"] if args.static else [part.strip() for part in args.format.split(",")]
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"--format {name}: unknown format; choose from {', '.join(FORMATS)}")
    folder: Path = args.out
    check_target(folder / "README.md", "--out")
    trained = load(args.run, "cpu")
    if folder.resolve() == trained.folder.resolve() or (folder / "checkpoints").exists():
        raise UserError(f"--out {folder}: contains a run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    if "safetensors" in formats:
        files |= _weights(trained, folder)
    if "onnx" in formats:
        files |= _onnx(trained, folder, args.tolerance)
    if "page" in formats:
        files |= _page(trained, folder, args)
    loading = {}
    for name in formats:
        if name in ("nvlabs", "rosinality"):
            described, loading[name] = _layout(trained, name, folder)
            files |= described

    from training.exports.folder import write_card

    write_card(trained, folder, files, _history(trained), loading)
    print(f"{folder / 'README.md'}  {(folder / 'README.md').stat().st_size / 1e3:.1f} kB")


def _weights(trained: TrainedGenerator, folder: Path) -> dict[str, str]:
    from training.exports.folder import write_config, write_weights
    from training.pretrained.inference import WEIGHTS

    write_weights(trained, folder)
    write_config(trained, folder)
    _print_file(folder / WEIGHTS)
    return {WEIGHTS: "the weights", "config.json": "the configuration and dataset properties"}


def _layout(trained: TrainedGenerator, name: str, folder: Path) -> tuple[dict[str, str], str]:
    from training.exports.stylegan2_layouts import FILES, PROJECTS, write_layout

    loading = write_layout(trained, name, folder)
    _print_file(folder / FILES[name])
    return {FILES[name]: f"the weights for {PROJECTS[name]}"}, loading


def _onnx(trained: TrainedGenerator, folder: Path, tolerance: float) -> dict[str, str]:
    from training.exports.graphs import full_graph
    from training.exports.onnx_file import write_onnx

    _warn(trained)
    apart = write_onnx(full_graph(trained), folder / "generator.onnx", tolerance)
    _print_file(folder / "generator.onnx", f"differs from PyTorch by at most {apart:.2g}")
    inputs = "z, labels, truncation_psi" if trained.conditional else "z, truncation_psi"
    what = f"{inputs} → images in [-1, 1]; differs from PyTorch by at most {apart:.2g}"
    return {"generator.onnx": what}


def _page(trained: TrainedGenerator, folder: Path, args: argparse.Namespace) -> dict[str, str]:
    from training.explorer.generator_info import generator_info, page_files
    from training.exports.graphs import split_graphs
    from training.exports.onnx_file import write_onnx
    from training.exports.runtime import VERSION, runtime_files

    runtime = runtime_files(args.runtime)
    _warn(trained)
    for name, graph in split_graphs(trained).items():
        apart = write_onnx(graph, folder / name, args.tolerance)
        _print_file(folder / name, f"differs from PyTorch by at most {apart:.2g}")
    info = generator_info(trained, "onnx", False, args.title)
    written = {"generator.json": json.dumps(info).encode(), **runtime, **page_files("onnx")}
    for name, data in sorted(written.items(), key=lambda item: item[0] == "index.html"):
        write_atomic(folder / name, data)
    _print_file(folder / "index.html", "the page: copy the folder to any web host")
    return {
        "index.html": "the explorer; it needs a web server (`python -m http.server`), no internet",
        "synthesis.onnx": "the synthesis network that the page runs",
        "ort.js": f"ONNX Runtime {VERSION} for the browser (MIT licence, Microsoft)",
    }


def _warn(trained: TrainedGenerator) -> None:
    from training.exports.graphs import prepare_for_export

    if prepare_for_export(trained)[1]:
        print(
            "dropout at test time (generator.dropout_at_test) is switched off in ONNX",
            file=sys.stderr,
        )


def _print_file(path: Path, more: str = "") -> None:
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB{'  ' + more if more else ''}", flush=True)


def _history(trained: TrainedGenerator) -> list[dict[str, Any]]:
    from training.monitoring.history import read_history

    return read_history(trained.folder / "metrics.jsonl")


if __name__ == "__main__":
    sys.exit(main())
