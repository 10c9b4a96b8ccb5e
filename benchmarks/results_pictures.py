"""The pictures of docs/results.md: samples over time, interpolations, projections, curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from curves import Curve, Panel, draw, normalized
from PIL import Image, ImageDraw
from results_runs import CPU, trained

from pipeline.contract import write_atomic
from training.config import DataOptions
from training.grid import Pixels, encode, make_grid, shown
from training.latent.neighbours import in_range
from training.latent.projection import Schedule, choose_distance, project
from training.latent.sampling import sample_ws
from training.monitoring.history import read_history
from training.report import evenly_spaced
from training.reporting.figures import RealNeighbours, interpolation
from training.streaming.dataset import open_shard_dataset
from training.streaming.samples import iter_image_batches
from training.techniques import fixed_latents

FRAMES, ACROSS, MARGIN, QUALITIES = 7, 8, 62, (88, 80, 70, 60, 50)
MAX_BYTES = 60_000
Points = list[tuple[float, float]]


def save_jpeg(path: Path, pixels: Pixels) -> None:
    """Write the image with the best quality that is small enough."""
    for quality in QUALITIES:
        data = encode(pixels, "JPEG", quality=quality, optimize=1)
        if len(data) <= MAX_BYTES:
            break
    write_atomic(path, data)


def columns(run: Path, name: str) -> Points:
    """Return the values of a column of metrics.jsonl at thousands of images."""
    rows = read_history(run / "metrics.jsonl")
    picked = [rows[number] for number in evenly_spaced(len(rows), 150)]
    return [(row["seen"] / 1000, float(row[name])) for row in picked if name in row]


def losses(run: Path, path: Path) -> None:
    """Raw and normalised losses, and D(x) with D(G(z)), or logits that are no probabilities."""
    raw = {"D": columns(run, "loss_d"), "G": columns(run, "loss_g")}
    is_logistic = bool(columns(run, "d_real"))
    names = ("d_real", "d_fake_before") if is_logistic else ("logit_real", "logit_fake_before")
    outputs = [
        Curve(label, columns(run, name))
        for label, name in zip(("real images", "generated images"), names, strict=True)
    ]
    panels = [
        Panel("losses", [Curve(f"loss of {key}", one) for key, one in raw.items()]),
        Panel(
            "losses, each scaled to 0 … 1",
            [Curve(f"loss of {key}", normalized(one)) for key, one in raw.items()],
            (0, 1),
        ),
        Panel("D(x) and D(G(z))", outputs, (0, 1))
        if is_logistic
        else Panel("output of D (no probability)", outputs, _limits(outputs)),
    ]
    write_atomic(path, draw(panels))


def _limits(curves: list[Curve]) -> tuple[float, float]:
    values = [value for curve in curves for _, value in curve.points] or [0.0]
    return min(values), max(values)


def failures(runs: dict[str, Path], path: Path, kind: str) -> None:
    """Curves of a failure and its cures: what the generator learns from, and its variety."""

    def panel(title: str, name: str, log: bool = False, one: bool = False) -> Panel:
        curves = [Curve(label, columns(run, name)) for label, run in runs.items()]
        return Panel(title, curves, (0, 1) if one else None, log)

    if kind == "vanishing":
        panels = [
            panel("norm of G's gradient (logarithmic)", "grad_g", log=True),
            panel("D(G(z))", "d_fake_before", one=True),
            panel("D(x)", "d_real", one=True),
        ]
    else:
        real = Curve("real images", columns(next(iter(runs.values())), "spread_real"))
        variety = panel("variety of a batch (std. of pixels)", "spread_fake")
        panels = [
            Panel(variety.title, [*variety.curves, real]),
            panel("D(G(z))", "d_fake_before", one=True),
        ]
    write_atomic(path, draw(panels))


def film(run: Path, path: Path) -> None:
    """The same latents over time: one row of images per time."""
    grids = sorted((run / "samples").glob("*.png"))
    chosen = [grids[number] for number in evenly_spaced(len(grids), FRAMES)]
    rows = []
    for grid in chosen:
        with Image.open(grid) as opened:
            image = opened.convert("RGB")
        side = image.width // 4
        row = Image.new("RGB", (MARGIN + ACROSS * side, side), "white")
        ImageDraw.Draw(row).text((2, side // 2 - 6), f"{int(grid.stem) / 1000:.1f} kimg", "black")
        for half in range(2):
            part = image.crop((0, half * side, 4 * side, (half + 1) * side))
            row.paste(part, (MARGIN + half * 4 * side, 0))
        rows.append(np.asarray(row))
    save_jpeg(path, np.concatenate(rows))


def samples(name: str, out: Path, path: Path) -> None:
    """4 × 4 samples of the averaged generator."""
    found = trained(name, out)
    ws, labels = sample_ws(found, 16, [], None, 0)
    save_jpeg(path, shown(make_grid(found.space.generate(ws, labels), 4)))


def training_images(manifest: Path, path: Path) -> None:
    """The first images of the dataset card's sheet."""
    with Image.open(manifest / "contact.jpg") as opened:
        sheet = opened.convert("RGB")
    sheet = sheet.crop((0, 0, sheet.width, min(sheet.height, sheet.width // 2)))
    sheet.thumbnail((560, 560))
    save_jpeg(path, np.asarray(sheet))


def interpolations(name: str, out: Path, path: Path) -> None:
    """Rows of interpolations between two latents."""
    found = trained(name, out)
    latents = fixed_latents(found.latent, 8, found.generator.z_dim, 0, CPU)
    labels = torch.arange(8) // 2 % max(1, found.classes)
    rows = interpolation(found.space, latents, labels)
    assert rows is not None
    save_jpeg(path, rows)


def nearest(name: str, shards: Path, out: Path, path: Path) -> None:
    """Samples with their nearest training images, by pixels."""
    found = trained(name, out)
    ws, labels = sample_ws(found, 6, [], None, 0)
    neighbours = RealNeighbours(open_shard_dataset(str(shards), 0))
    save_jpeg(path, neighbours.sheet(found.space.generate(ws, labels)))


def projections(name: str, shards: Path, out: Path, path: Path, steps: int) -> None:
    """Training images, and below them the nearest images that the generator makes."""
    found = trained(name, out)
    source = open_shard_dataset(str(shards), 0)
    images, numbers = next(iter(iter_image_batches(source, 6, DataOptions())))
    targets, labels = in_range(images[:6].clone()), torch.from_numpy(numbers[:6].copy())
    distance = choose_distance("pixels", CPU)
    made = [
        project(found.space, target[None], distance, label[None], Schedule(steps)).image
        for target, label in zip(targets, labels, strict=True)
    ]
    both = torch.cat([targets, torch.cat(made).clamp(-1, 1)])
    pixels = ((both + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    save_jpeg(path, make_grid(pixels, len(targets)))
