"""Uploads an exported generator to the Hugging Face Hub: the model with its card and samples, or
the static explorer as a Space."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import (
    HubRepo,
    front_matter,
    hub_license,
    license_warnings,
    upload,
    write_atomic,
)
from training.explorer.generator_info import title_of
from training.exports.folder import dataset_card, latest_metrics
from training.grid import make_grid, save_image
from training.latent.image_numbers import latents_of
from training.monitoring.history import read_history
from training.pretrained.inference import TrainedGenerator

SAMPLES = "samples.png"
_NUMBERS = range(1, 17)
_TASK = "unconditional-image-generation"
_METRICS = ("fd", "kid", "precision", "recall", "density", "coverage")
_ROW = re.compile(r"\| ((?:\\.|[^|\\])*) \| ([\d,]+) \|(?: ([a-z, ]+) \|)?")
_REST = re.compile(r"and [\d,]+ more \(([\d,]+) images\)")


def publish_generator(
    trained: TrainedGenerator,
    folder: Path,
    files: Mapping[str, str],
    repo: HubRepo,
    say: Callable[[str], None],
    title: str = "",
) -> str:
    """Add samples and the Hub's metadata to the exported `folder`, and upload it; return the URL.

    `files` are those that the export has written, by name; other files in the folder are not sent.

    Raises:
        UserError: as `pipeline.hub.upload`.
    """
    card = dataset_card(trained.dataset)
    licenses, overridden = card_licenses(card), card_overrides(card)
    name = str(trained.dataset["name"])
    if not card:
        say(f"warning: {name}: its card is not available, so its licences are unknown")
    for line in license_warnings(name, licenses, overridden):
        say(f"warning: {line}")
    write_samples(trained, folder / SAMPLES)
    metadata = (
        space_metadata(title or title_of(name))
        if repo.kind == "space"
        else model_metadata(trained, read_history(trained.folder / "metrics.jsonl"))
    )
    readme = folder / "README.md"
    head, _, body = readme.read_text(encoding="utf-8").partition("\n")
    text = front_matter({**metadata, **hub_license(licenses)})
    write_atomic(readme, f"{text}{head}\n\n![samples]({SAMPLES})\n{body}")
    return upload(folder, sorted({"README.md", SAMPLES, *files}), repo, say)


def write_samples(trained: TrainedGenerator, path: Path) -> None:
    """Write a grid of the images 1 to 16; image i has class i modulo the number of classes."""
    space, numbers = trained.space, list(_NUMBERS)
    latents = latents_of(numbers, trained.latent, trained.generator.z_dim)
    labels = torch.arange(len(numbers)) % max(1, trained.classes)
    save_image(path, make_grid(space.generate(space.map(latents, labels), labels), 4))


def model_metadata(trained: TrainedGenerator, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata of a model's card: library, task, tags, dataset and metrics."""
    location = str(trained.dataset.get("location", ""))
    found = re.match(r"hf://datasets/([^/@]+/[^/@]+)", location)
    known = latest_metrics(rows)
    metrics = [
        {"type": name, "value": known[name], "name": f"{name} ({trained.config.evaluate.features})"}
        for name in _METRICS
        if isinstance(known.get(name), int | float) and math.isfinite(known[name])
    ]
    values: dict[str, Any] = {
        "library_name": "shellgan",
        "pipeline_tag": _TASK,
        "tags": ["gan", "image-generation", "shellgan", trained.config.generator.name],
    }
    if found:
        values["datasets"] = [found[1]]
    if metrics:
        name = str(trained.dataset["name"])
        dataset = {"type": found[1] if found else name, "name": name}
        result = {"task": {"type": _TASK}, "dataset": dataset, "metrics": metrics}
        values["model-index"] = [{"name": trained.name, "results": [result]}]
    return values


def space_metadata(title: str) -> dict[str, Any]:
    """Return the metadata of a Space: a static page."""
    return {
        "title": title, "sdk": "static", "app_file": "index.html", "emoji": "🐚",
        "colorFrom": "gray", "colorTo": "blue", "tags": ["gan", "image-generation", "shellgan"],
    }  # fmt: skip


def card_licenses(card: str) -> Counter[str]:
    """Return the number of images by licence ("" if none is stated) of a dataset card."""
    counts: Counter[str] = Counter()
    for line in _section(card, "Licences"):
        if row := _ROW.fullmatch(line):
            name = re.sub(r"\\(.)", r"\1", row[1])
            counts["" if name == "not stated" else name] += _number(row[2])
        elif rest := _REST.fullmatch(line):
            counts["other licences"] += _number(rest[1])
    return counts


def card_overrides(card: str) -> int:
    """Return the number of images that a dataset card lists as kept despite an opt-out signal."""
    rows = (_ROW.match(line) for line in _section(card, "Opt-out signals"))
    return sum(_number(row[2]) for row in rows if row and row[3] == "kept, overridden")


def _section(card: str, title: str) -> list[str]:
    found = re.search(rf"^#+ {title}$(.*?)(?=^#|\Z)", card, re.M | re.S)
    return [line.strip() for line in found[1].splitlines()] if found else []


def _number(text: str) -> int:
    return int(text.replace(",", ""))
