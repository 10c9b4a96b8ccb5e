"""The exported folder: safetensors, configuration, model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.contract import (
    UserError,
    code_span,
    count_of,
    disarm_markdown,
    escape_markdown,
    is_url,
    read_bytes,
    without_passwords,
    write_atomic,
    write_json,
)
from training.options.resolve import flatten
from training.pretrained.inference import WEIGHTS, WEIGHTS_BACK, TrainedGenerator
from training.runs import CONFIG_VERSION, Run

_MOST_CARD = 4 << 20
_ALPHA = (
    "The channels are red, green, blue, alpha, and the colours are multiplied by alpha. To put an "
    "image over a background, or to write a PNG, whose colours are not multiplied:",
    "",
    "```python",
    "values = (images + 1) / 2",
    "colour, alpha = values[:, :3], values[:, 3:]",
    "on_white = colour + (1 - alpha) * 1.0",
    "straight = np.where(alpha > 0, np.minimum(colour / np.maximum(alpha, 1e-3), 1), 0)",
    "```",
)
_DRAWS = {
    "gaussian": ('z = np.random.standard_normal({size}).astype("float32")',),
    "uniform": ('z = np.random.uniform(-1, 1, {size}).astype("float32")',),
    "sphere": (
        'z = np.random.standard_normal({size}).astype("float32")',
        "z *= np.sqrt(z.shape[1]) / np.linalg.norm(z, axis=1, keepdims=True)",
    ),
}
"""Code that draws latents, by their distribution."""
SHOWN = re.compile(r"(preset|batch|seed|total_kimg|latent|precision|generator\..*|loss\..*)")


def write_weights(trained: TrainedGenerator, folder: Path) -> None:
    """Write `model.safetensors` (float32, with the names of the PyTorch module's state), and the
    same of the generator from set B to set A, if there is one."""
    from safetensors.torch import save

    for file, network in ((WEIGHTS, trained.generator), (WEIGHTS_BACK, trained.back)):
        if network is None:
            continue
        state = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in network.state_dict().items()
        }
        write_atomic(folder / file, save(state, {"format": "pt"}))


def write_config(trained: TrainedGenerator, folder: Path) -> None:
    """Write `config.json` in the format of a run's, without the local paths of datasets."""
    keys = flatten(trained.config)
    keys["data.shards_b"] = _public_location(keys["data.shards_b"])
    values = {"config": keys, "seen": trained.seen, "version": CONFIG_VERSION}
    for name, dataset in (("dataset", trained.dataset), ("dataset_b", trained.dataset_b)):
        if dataset is not None:
            location = _public_location(str(dataset.get("location", "")))
            values[name] = {**dataset, "location": location}
    write_json(Run(folder).config, values)


def _public_location(location: str) -> str:
    return without_passwords(location) if is_url(location) else ""


def dataset_card(dataset: Mapping[str, Any]) -> str:
    """Return the card of a dataset with these properties, with headings two levels lower, without
    images, and with links and tags as text; empty if it is not available."""
    location = str(dataset.get("location", ""))
    if not location:
        return ""
    place = location.rstrip("/")
    if place.endswith(".json"):
        place = place.rpartition("/")[0]
    try:
        text = read_bytes(f"{place}/README.md", _MOST_CARD).decode()
    except (UserError, OSError, UnicodeDecodeError):
        return ""
    lines = [
        disarm_markdown(re.sub(r"^(#+) ", r"##\1 ", line))
        for line in text.splitlines()
        if not line.startswith("![") and not line.startswith("| Source | folder: ")
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def latest_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the newest value of every metric of the run."""
    return {name: value for row in rows for name, value in row.items() if value is not None}


def write_card(
    trained: TrainedGenerator,
    folder: Path,
    files: dict[str, str],
    rows: list[dict[str, Any]],
    loading: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write `README.md`: what the model is, its training data and licences, how to load it.

    `files` describes the files in the folder, by name; `loading` is Python code that loads the
    weights in another project, by the project's name.
    """
    shape, dataset, config = trained.shape, trained.dataset, flatten(trained.config)
    colour = {1: "gray", 3: "colour", 4: "RGBA"}[shape.channels]
    text = [
        f"# {escape_markdown(trained.name)}", "",
        _what(trained, f"{shape.width} × {shape.height} px {colour} images"), "",
        *_table(("", ""), {
            "Architecture": escape_markdown(str(config["generator.name"])),
            "Preset": escape_markdown(str(config["preset"])),
            "Parameters": f"{sum(p.numel() for p in trained.generator.parameters()):,}",
            "Images seen": f"{trained.seen:,}",
            "Latents": "none" if trained.is_translator
            else f"{trained.generator.z_dim}, {trained.latent}",
            "Labels": escape_markdown(", ".join(trained.labels)) if trained.conditional else "none",
        }), "",
        "## Files", "", *_table(("file", "what"), {f"`{name}`": files[name] for name in files}),
        "", "## How to load it", "", *_loading(trained, folder, files),
        *(line for name, code in loading.items() for line in (
            f"With {name}'s code:", "", "```python", code, "```", "")),
        "## Training data", "",
        *(line for one in (dataset, trained.dataset_b) if one for line in _training_data(one)),
        "## Metrics", "",
    ]  # fmt: skip
    if rows:
        known = {
            escape_markdown(name): f"{value:.6g}"
            if isinstance(value, float)
            else escape_markdown(str(value))
            for name, value in sorted(latest_metrics(rows).items())
        }
        text += ["The newest values of the run.", "", *_table(("name", "value"), known)]
    else:
        text += ["*No metrics were recorded.*"]
    shown = {
        code_span(key): code_span(str(value))
        for key, value in config.items()
        if SHOWN.fullmatch(key)
    }
    text += ["", "## Configuration", "", "`config.json` contains the complete configuration.", ""]
    text += [*_table(("key", "value"), shown), ""]
    write_atomic(folder / "README.md", "\n".join(text))


def _training_data(dataset: Mapping[str, Any]) -> list[str]:
    parts = " (of samples and clusters)" if dataset.get("clusters") else ""
    return [
        f"{code_span(str(dataset['name']))}: {count_of(dataset['samples'], 'image')}, digest "
        f"{code_span(str(dataset['digest']))}{parts}. Its card, with the licences and "
        "attributions that apply to any use:", "",
        dataset_card(dataset) or "*The dataset card was not available when this was written.*", "",
    ]  # fmt: skip


def _what(trained: TrainedGenerator, images: str) -> str:
    first, second = (code_span(name) for name in trained.set_names)
    if trained.is_translator:
        return (
            f"Translates {images} of the dataset {first} (A) to those of {second} (B), and back; "
            "trained with ShellGAN (CycleGAN)."
        )
    return f"A generator of {images}, trained with ShellGAN on the dataset {first}."


def _table(head: tuple[str, str], rows: dict[str, str]) -> list[str]:
    return [
        f"| {head[0]} | {head[1]} |", "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in rows.items()),
    ]  # fmt: skip


def _loading(trained: TrainedGenerator, folder: Path, files: dict[str, str]) -> list[str]:
    text: list[str] = []
    name = folder.resolve().name
    if trained.is_translator:
        return _loading_translator(name, files)
    if WEIGHTS in files:
        text += [
            "With ShellGAN, from the folder above this one:", "",
            "```sh",
            f"python -m training.sample ./{name} --n 16 --out samples.png",
            f"python -m training.explore ./{name}",
            "```", "",
        ]  # fmt: skip
    if "generator.onnx" in files:
        size = f"(4, {trained.generator.z_dim})"
        labels = ', "labels": np.zeros(4, "int64")' if trained.conditional else ""
        text += [
            "With ONNX Runtime:", "",
            "```python",
            "import numpy as np, onnxruntime",
            'session = onnxruntime.InferenceSession("generator.onnx")',
            *(line.format(size=size) for line in _DRAWS[trained.latent]),
            'psi = np.array(1, "float32")',
            f'images = session.run(None, {{"z": z, "truncation_psi": psi{labels}}})[0]  '
            "# (4, channels, height, width) in [-1, 1]",
            "```", "",
        ]  # fmt: skip
        if trained.shape.channels == 4:
            text += [*_ALPHA, ""]
    return text


def _loading_translator(name: str, files: dict[str, str]) -> list[str]:
    text: list[str] = []
    if WEIGHTS in files:
        text += [
            "With ShellGAN, from the folder above this one:", "",
            "```sh",
            f"python -m training.translate ./{name} IMAGE",
            f"python -m training.translate ./{name} IMAGE --direction b-to-a",
            "```", "",
        ]  # fmt: skip
    if "a-to-b.onnx" in files:
        text += [
            "With ONNX Runtime; images are float32 (n, channels, height, width) in [-1, 1]:", "",
            "```python",
            "import onnxruntime",
            'session = onnxruntime.InferenceSession("a-to-b.onnx")',
            'translations = session.run(None, {"images": images})[0]',
            "```", "",
        ]  # fmt: skip
    return text
