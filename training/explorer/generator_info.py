"""What the page is told of a generator: `facts.json`."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import torch

from training.latent.sefa import coordinate_std, directions
from training.pretrained.inference import TrainedGenerator

DIRECTIONS = 6


def title_of(dataset: str) -> str:
    """`This shell does not exist` for the data set `shells`."""
    noun = dataset.replace("-", " ").replace("_", " ")
    one = noun[:-1] if noun.endswith("s") and not noun.endswith("ss") and len(noun) > 3 else ""
    return f"This {one or 'picture'} does not exist"


def generator_info(
    trained: TrainedGenerator, backend: str, nearest: bool, title: str = ""
) -> dict[str, Any]:
    """Form, labels, mean w, directions. `backend` is `server` or `onnx`; `nearest`: whether it
    can look for training images."""
    space = trained.space
    shape, label = trained.shape, torch.zeros(1, dtype=torch.int64, device=space.device)
    found = directions(space, DIRECTIONS)
    return {
        "name": trained.name,
        "title": title or title_of(trained.dataset["name"]),
        "about": f"{trained.name}: {shape.width}×{shape.height} px, drawn by a network that has "
        f"seen {trained.seen / 1000:.0f} thousand pictures. Every number is one of "
        "4,294,967,296; choose one below.",
        "backend": backend,
        "nearest": nearest,
        "height": shape.height,
        "width": shape.width,
        "channels": shape.channels,
        "latent": trained.latent,
        "z_dim": trained.generator.z_dim,
        "w_dim": space.w_dim,
        "num_ws": space.num_ws,
        "styled": space.has_mapping,
        "labels": list(trained.labels) if trained.conditional else [],
        "psi": 0.8 if space.has_mapping else 1.0,
        "mean": _short(space.w_avg),
        "directions": [_short(vector) for vector in found.vectors],
        "reach": coordinate_std(space, label),
    }


def _short(vector: torch.Tensor) -> list[float]:
    return [float(f"{value:.7g}") for value in vector.tolist()]


def page_files(backend: str) -> dict[str, bytes]:
    """The files of the page for a backend, by name."""
    other = {"server": ("onnx.js", "onnx-worker.js"), "onnx": ("server.js",)}[backend]
    folder = files("training.explorer") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in other}
