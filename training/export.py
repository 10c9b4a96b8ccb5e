"""`python -m training.export RUN --format safetensors|onnx|page --out DIR`: a generator to give
away."""

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

FORMATS = ("safetensors", "onnx", "page")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser(
        "export",
        "Write a generator in forms that others can use, with a model card that carries the "
        "data's licences on.",
        out="",
    )
    made.add_argument(
        "--format", default="safetensors,onnx", metavar="FORMAT[,FORMAT]",
        help="safetensors: weights and configuration, which training.sample and the other commands "
        "take in a run's place; onnx: checked against PyTorch; page: a static explorer that draws "
        "in the browser, for any web host (default safetensors,onnx)",
    )  # fmt: skip
    made.add_argument("--static", action="store_true", help="the same as --format page")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder")
    made.add_argument(
        "--tolerance", type=float_in_range("--tolerance", 1e-9, 2), default=1e-3,
        help="an ONNX file whose images differ more from PyTorch's (range 2) is refused "
        "(default 0.001)",
    )  # fmt: skip
    made.add_argument("--title", default="", help="of the page (default: from the data set's name)")
    made.add_argument(
        "--runtime", type=Path, metavar="FILE",
        help="the npm package onnxruntime-web as a .tgz (default: npm downloads it)",
    )  # fmt: skip
    return exit_status(lambda: export(made.parse_args(arguments)), "interrupted")


def export(args: argparse.Namespace) -> None:
    """Write the forms that are asked for, and print what was written.

    Raises:
        UserError: no such run, no such form, a missing package, or ONNX differs from PyTorch.
    """
    forms = ["page"] if args.static else [part.strip() for part in args.format.split(",")]
    for form in forms:
        if form not in FORMATS:
            raise UserError(f"--format {form}: one of {', '.join(FORMATS)}")
    folder: Path = args.out
    check_target(folder / "README.md", "--out")
    trained = load(args.run, "cpu")
    if folder.resolve() == trained.folder.resolve() or (folder / "checkpoints").exists():
        raise UserError(f"--out {folder}: a run lives there; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    if "safetensors" in forms:
        files |= _weights(trained, folder)
    if "onnx" in forms:
        files |= _onnx(trained, folder, args.tolerance)
    if "page" in forms:
        files |= _page(trained, folder, args)

    from training.exports.folder import write_card

    write_card(trained, folder, files, _history(trained))
    print(f"{folder / 'README.md'}  {(folder / 'README.md').stat().st_size / 1e3:.1f} kB")


def _weights(trained: TrainedGenerator, folder: Path) -> dict[str, str]:
    from training.exports.folder import write_config, write_weights
    from training.pretrained.inference import WEIGHTS

    write_weights(trained, folder)
    write_config(trained, folder)
    _said(folder / WEIGHTS)
    return {WEIGHTS: "the weights", "config.json": "the configuration and facts of the data set"}


def _onnx(trained: TrainedGenerator, folder: Path, tolerance: float) -> dict[str, str]:
    from training.exports.graphs import full_graph
    from training.exports.onnx_file import write_onnx

    _warn(trained)
    apart = write_onnx(full_graph(trained), folder / "generator.onnx", tolerance)
    _said(folder / "generator.onnx", f"differs from PyTorch by at most {apart:.2g}")
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
        _said(folder / name, f"differs from PyTorch by at most {apart:.2g}")
    facts = generator_info(trained, "onnx", False, args.title)
    written = {"facts.json": json.dumps(facts).encode(), **runtime, **page_files("onnx")}
    for name, data in sorted(written.items(), key=lambda item: item[0] == "index.html"):
        write_atomic(folder / name, data)
    _said(folder / "index.html", "the page: put the folder on any web host")
    return {
        "index.html": "the explorer; it needs a web server (`python -m http.server`), no internet",
        "synthesis.onnx": "what draws in it",
        "ort.js": f"ONNX Runtime {VERSION} for the browser (MIT licence, Microsoft)",
    }


def _warn(trained: TrainedGenerator) -> None:
    from training.exports.graphs import prepare_for_export

    if prepare_for_export(trained)[1]:
        print(
            "dropout when sampling (generator.dropout_at_test) is switched off in ONNX",
            file=sys.stderr,
        )


def _said(path: Path, more: str = "") -> None:
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB{'  ' + more if more else ''}", flush=True)


def _history(trained: TrainedGenerator) -> list[dict[str, Any]]:
    from training.monitoring.history import read_history

    return read_history(trained.folder / "metrics.jsonl")


if __name__ == "__main__":
    sys.exit(main())
