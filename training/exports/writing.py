"""Writes a generator in the formats of other programs, with a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract import UserError, format_bytes, suggestion, write_atomic
from training.explorer.generator_info import generator_info, page_files
from training.exports.folder import write_card, write_config, write_weights
from training.exports.graphs import (
    full_graph,
    prepare_for_export,
    split_graphs,
    translation_graph,
)
from training.exports.onnx_file import write_onnx
from training.exports.runtime import VERSION, runtime_files
from training.exports.stylegan2_layouts import FILES as LAYOUT_FILES
from training.exports.stylegan2_layouts import PROJECTS, write_layout
from training.latent.cli import check_target
from training.monitoring.history import read_history
from training.pretrained.inference import WEIGHTS, WEIGHTS_BACK, TrainedGenerator
from training.translation import DIRECTIONS

FORMATS = ("safetensors", "onnx", "page", "nvlabs", "rosinality")
TRANSLATOR_FORMATS = ("safetensors", "onnx")
"""The formats of a run that translates images."""
Say = Callable[[str], object]


@dataclass(frozen=True)
class ExportOptions:
    """`tolerance` is the largest difference of a pixel, in [-1, 1], between ONNX and PyTorch;
    `title` that of the page; `runtime` the npm package onnxruntime-web as a file (None: it is
    downloaded with npm)."""

    tolerance: float = 1e-3
    title: str = ""
    runtime: Path | None = None


def check_export(folder: Path, formats: Sequence[str]) -> None:
    """Check that the formats exist and that the folder can be written.

    Raises:
        UserError: one of them is not so.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                f"--format {name}: unknown format; choose from {', '.join(FORMATS)}"
                f"{suggestion(name, FORMATS)}"
            )
    check_target(folder / "README.md", "--out")


def export_generator(
    trained: TrainedGenerator,
    folder: Path,
    formats: Sequence[str] = ("safetensors", "onnx"),
    options: ExportOptions = ExportOptions(),
    say: Say = lambda _: None,
) -> dict[str, str]:
    """Write the formats and the card to `folder`; return what each file is, by name.

    Args:
        trained: a generator on the CPU.
        say: called with a line for each file, and with warnings.

    Raises:
        UserError: as `check_export`; the folder contains a run, a package is missing, or the ONNX
            model differs from PyTorch.
    """
    check_export(folder, formats)
    others = [name for name in formats if name not in TRANSLATOR_FORMATS]
    if trained.is_translator and others:
        raise UserError(
            f"--format {others[0]}: {trained.name} translates images; choose from "
            f"{', '.join(TRANSLATOR_FORMATS)}"
        )
    if folder.resolve() == trained.folder.resolve() or (folder / "checkpoints").exists():
        raise UserError(f"--out {folder}: contains a run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    if "safetensors" in formats:
        files |= _weights(trained, folder, say)
    if "onnx" in formats:
        files |= _onnx(trained, folder, options.tolerance, say)
    if "page" in formats:
        files |= _page(trained, folder, options, say)
    loading = {}
    for name in formats:
        if name in LAYOUT_FILES:
            loading[name] = write_layout(trained, name, folder)
            _say_file(say, folder / LAYOUT_FILES[name])
            files[LAYOUT_FILES[name]] = f"the weights for {PROJECTS[name]}"
    write_card(trained, folder, files, _history(trained), loading)
    say(f"{folder / 'README.md'}  {(folder / 'README.md').stat().st_size / 1e3:.1f} kB")
    return files


def _weights(trained: TrainedGenerator, folder: Path, say: Say) -> dict[str, str]:
    write_weights(trained, folder)
    write_config(trained, folder)
    _say_file(say, folder / WEIGHTS)
    back = {}
    if trained.back is not None:
        _say_file(say, folder / WEIGHTS_BACK)
        back = {WEIGHTS_BACK: "the weights of the generator from B to A"}
    what = "the weights of the generator from A to B" if back else "the weights"
    return {WEIGHTS: what, **back, "config.json": "the configuration and dataset properties"}


def _onnx(trained: TrainedGenerator, folder: Path, tolerance: float, say: Say) -> dict[str, str]:
    if trained.is_translator:
        return _translators(trained, folder, tolerance, say)
    _warn(trained, say)
    apart = write_onnx(full_graph(trained), folder / "generator.onnx", tolerance)
    _say_file(say, folder / "generator.onnx", f"differs from PyTorch by at most {apart:.2g}")
    inputs = "z, labels, truncation_psi" if trained.conditional else "z, truncation_psi"
    kind = "RGBA images (colours multiplied by alpha)" if trained.shape.channels == 4 else "images"
    what = f"{inputs} → {kind} in [-1, 1]; differs from PyTorch by at most {apart:.2g}"
    return {"generator.onnx": what}


def _translators(
    trained: TrainedGenerator, folder: Path, tolerance: float, say: Say
) -> dict[str, str]:
    found = {}
    for direction, (start, end) in zip(DIRECTIONS, (("A", "B"), ("B", "A")), strict=True):
        name = f"{direction}.onnx"
        apart = write_onnx(translation_graph(trained, direction), folder / name, tolerance)
        _say_file(say, folder / name, f"differs from PyTorch by at most {apart:.2g}")
        found[name] = (
            f"images of set {start} → images of set {end}, in [-1, 1]; differs from PyTorch by at "
            f"most {apart:.2g}"
        )
    return found


def _page(
    trained: TrainedGenerator, folder: Path, options: ExportOptions, say: Say
) -> dict[str, str]:
    runtime = runtime_files(options.runtime)
    _warn(trained, say)
    graphs = split_graphs(trained)
    for name, graph in graphs.items():
        apart = write_onnx(graph, folder / name, options.tolerance)
        _say_file(say, folder / name, f"differs from PyTorch by at most {apart:.2g}")
    info = generator_info(trained, "onnx", False, options.title)
    written = {"generator.json": json.dumps(info).encode(), **runtime, **page_files("onnx")}
    for name, data in sorted(written.items(), key=lambda item: item[0] == "index.html"):
        write_atomic(folder / name, data)
    _say_file(say, folder / "index.html", "the page: copy the folder to any web host")
    what = {
        **dict.fromkeys(page_files("onnx"), "part of the page"),
        **dict.fromkeys(
            runtime, f"ONNX Runtime {VERSION} for the browser (MIT licence, Microsoft)"
        ),
        "generator.json": "the properties of the generator that the page needs",
        "mapping.onnx": "the mapping network that the page runs",
        "synthesis.onnx": "the synthesis network that the page runs",
        "index.html": "the explorer; it needs a web server (`python -m http.server`), no internet",
    }
    return {name: what[name] for name in sorted({*graphs, *written})}


def _warn(trained: TrainedGenerator, say: Say) -> None:
    if prepare_for_export(trained)[1]:
        say("dropout at test time (generator.dropout_at_test) is switched off in ONNX")


def _say_file(say: Say, path: Path, more: str = "") -> None:
    say(f"{path}  {format_bytes(path.stat().st_size)}{'  ' + more if more else ''}")


def _history(trained: TrainedGenerator) -> list[dict[str, Any]]:
    return read_history(trained.folder / "metrics.jsonl")
