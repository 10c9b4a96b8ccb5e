"""The dataset card, `manifests/NAME/README.md`, with a contact sheet and the mean image."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.contract import DatasetPaths, ShardIndex, now_utc, write_atomic
from pipeline.contract.tar import read_samples
from pipeline.imaging.alpha import has_alpha, over_checkerboard, premultiply
from pipeline.imaging.limits import ImageError
from pipeline.imaging.pixels import as_image
from pipeline.markup import code_span, escape_markdown, policy_element, render_card
from pipeline.recipe import Recipe
from pipeline.shards.builder import BuiltShard
from pipeline.shards.samples import OPAQUE_FLAG, decode
from pipeline.shards.stats import DatasetStats
from pipeline.units import count_of

_GAP = 2
_BACKGROUND = "white"

CONTACT_IMAGES = 64
CARD_IMAGES = ("contact.jpg", "mean.png")
_COLOURS = {1: "gray", 3: "colour", 4: "colour with transparency"}
_COLUMNS = 8
_SIDE = 128
_MAX_ROWS = 30

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #22201d; --soft: #6d675f;
  --line: #dfdad2; }
@media (prefers-color-scheme: dark) { :root { --paper: #171614; --ink: #ece8e1; --soft: #a29b90;
  --line: #36332e; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; border-radius: 4px; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border-top: 1px solid var(--line); padding: .25rem 1rem .25rem 0; text-align: left;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: normal; }
code { word-break: break-all; }
"""


def contact_sheet(images: Sequence[Image.Image], columns: int, most_side: int) -> bytes:
    """Arrange images in rows, each reduced to at most `most_side` pixels, and encode them as a
    JPEG."""
    scale = min(1.0, most_side / max(max(image.size) for image in images))
    width = max(1, round(max(image.width for image in images) * scale))
    height = max(1, round(max(image.height for image in images) * scale))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, _BACKGROUND)
    for number, image in enumerate(images):
        corner = (number % columns * (width + _GAP), number // columns * (height + _GAP))
        small = image.convert("RGB")
        if small.size != (width, height):
            small = small.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, corner)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=90)
    return file.getvalue()


def has_card(target: DatasetPaths) -> bool:
    """Return True if all files of the card exist and are not empty."""
    images = (target.manifest_dir / name for name in CARD_IMAGES)
    files = (target.card, target.card_page, *images)
    return all(path.is_file() and path.stat().st_size for path in files)


def write_card(
    recipe: Recipe,
    target: DatasetPaths,
    index: ShardIndex,
    shards: Sequence[BuiltShard],
    stats: DatasetStats,
) -> None:
    """Write README.md, card.html, contact.jpg and mean.png into the dataset's manifest folder."""
    images: list[Image.Image] = []
    for shard in shards:
        if len(images) < CONTACT_IMAGES:
            tar = target.shards_dir / f"{shard.name}.tar"
            images += islice(_samples_of(tar, index), CONTACT_IMAGES - len(images))
    if images:
        made = contact_sheet(images, _COLUMNS, _SIDE), mean_image(shards)
        for name, data in zip(CARD_IMAGES, made, strict=True):
            write_atomic(target.manifest_dir / name, data)
    text = card_text(recipe, index, shards, stats, now_utc())
    write_atomic(target.card, text)
    write_atomic(target.card_page, card_page(text, target.manifest_dir))


def _samples_of(tar: Path, index: ShardIndex) -> Iterator[Image.Image]:
    """Yield the images of a shard in order; shards are shuffled, so the first ones are a random
    sample. Stops at damage, which `verify` reports."""
    with contextlib.suppress(tarfile.TarError, KeyError, ImageError):
        for _, files in read_samples(tar):
            pixels = decode(files[index.format], index.channels, index.resolution)
            if has_alpha(pixels):
                pixels = over_checkerboard(premultiply(pixels))
            yield as_image(pixels)


def card_text(
    recipe: Recipe, index: ShardIndex, shards: Sequence[BuiltShard], stats: DatasetStats, made: str
) -> str:
    """Return the card as Markdown."""
    return "\n".join(_card_lines(recipe, index, shards, stats, made)) + "\n"


def _card_lines(
    recipe: Recipe, index: ShardIndex, shards: Sequence[BuiltShard], stats: DatasetStats, made: str
) -> Iterator[str]:
    height, width = index.resolution
    yield from (
        f"# {escape_markdown(recipe.title or index.name)}",
        "",
        "![samples](contact.jpg)",
        "",
    )
    yield from _table(
        ("", ""),
        [
            ("Dataset", _Code(index.name)),
            ("Samples", f"{index.nsamples:,} in {count_of(len(shards), 'shard')}"),
            ("Size", f"{width} × {height} pixels, {_COLOURS[index.channels]}"),
            ("Format", f"{index.format}, {sum(s.bytes for s in shards) / 1e6:,.1f} MB"),
            ("Crop", recipe.shards.crop),
            ("Source", _source(recipe)),
            ("Hosts", ", ".join(f"{host} ({n:,})" for host, n in stats.hosts.most_common(5))),
            ("Found", f"{stats.first} to {stats.last}" if stats.first else "not recorded"),
            ("Made", made),
            ("Digest", _Code(index.digest)),
        ],
    )
    yield from ("", "## Kept and rejected", "")
    rows = [("kept", stats.kept), *stats.rejections.most_common()]
    yield from _table(("reason", "images"), [(name, f"{n:,}") for name, n in rows])
    yield from _opt_outs(stats)
    yield from _top_values("Licences", "licence", stats.licenses, "not stated")
    if index.labels or stats.labels:
        yield from _top_values("Labels", "label", stats.labels, "none")
    yield from ("", "## Originals", "")
    sides = [
        (f"{side} to {2 * side - 1}", f"{stats.short_sides[side]:,}")
        for side in sorted(stats.short_sides)
    ]
    yield from _table(("short side, pixels", "images"), sides)
    yield from ("", "## Colour", "", "![mean image](mean.png)", "")
    yield from _color_table(shards)
    yield from _note_lines(recipe, shards)
    yield from _top_values("Attributions", "attribution", stats.attributions, "not stated")


def _opt_outs(stats: DatasetStats) -> Iterator[str]:
    """Yield a section on opt-out signals if there were any."""
    rows = [(name, f"{n:,}", "refused", "") for name, n in sorted(stats.opt_outs.items())]
    kept = sorted(stats.overrides.items())
    rows += [(name, f"{n:,}", "kept, overridden", reason) for (name, reason), n in kept]
    if rows:
        yield from ("", "## Opt-out signals", "")
        yield from _table(("signal", "images and pages", "outcome", "reason"), rows)


def _source(recipe: Recipe) -> str:
    start = getattr(recipe.source, "start", ())
    if not start:
        return "imported images"
    more = f" and {len(start) - 3} more" if len(start) > 3 else ""
    return f"{recipe.source.kind}: " + ", ".join(map(str, start[:3])) + more


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_cell(text) for text in row)} |"


class _Code(str):
    """A cell of a table that is shown as code."""


def _cell(text: str) -> str:
    return code_span(text) if isinstance(text, _Code) else escape_markdown(text)


def _top_values(title: str, head: str, counts: Counter[str], empty: str) -> Iterator[str]:
    """Yield a section with the most frequent values, and the number of others."""
    yield from ("", f"## {title}", "")
    rows = [(name or empty, f"{n:,}") for name, n in counts.most_common(_MAX_ROWS)]
    yield from _table((head, "images"), rows)
    if len(counts) > _MAX_ROWS:
        rest = sum(counts.values()) - sum(n for _, n in counts.most_common(_MAX_ROWS))
        yield from ("", f"and {len(counts) - _MAX_ROWS:,} more ({count_of(rest, 'image')})")


def _color_table(shards: Sequence[BuiltShard]) -> Iterator[str]:
    mean, std = colour_statistics(shards)
    names = ("gray",) if len(mean) == 1 else ("red", "green", "blue", "alpha")[: len(mean)]
    rows = [(n, f"{m:.1f}", f"{s:.1f}") for n, m, s in zip(names, mean, std, strict=True)]
    measured = sum(shard.stats["measured"] for shard in shards)
    weighted = "; colours are multiplied by alpha" if len(mean) == 4 else ""
    yield from (f"Measured on {count_of(measured, 'sample')}, values 0 to 255{weighted}.", "")
    yield from _table(("channel", "mean", "standard deviation"), rows)


def _note_lines(recipe: Recipe, shards: Sequence[BuiltShard]) -> Iterator[str]:
    total = {name: sum(shard.stats[name] for shard in shards)
             for name in ("enlarged", "fell_back", "plain")}  # fmt: skip
    samples = sum(shard.nsamples for shard in shards)
    skipped = sum(len(shard.skipped) for shard in shards)
    options = recipe.shards
    notes = []
    if options.crop in ("object", "box", "hook"):
        notes.append(
            f"In {total['fell_back']:,} of {count_of(samples, 'sample')}, crop {options.crop!r} "
            "found nothing, so the center was used."
        )
    if options.background:
        notes.append(
            f"In {total['plain']:,} of {count_of(samples, 'sample')}, a plain background was "
            f"replaced by {options.background}."
        )
    if options.channels == 4:
        opaque = sum(shard.stats[OPAQUE_FLAG] for shard in shards)
        notes.append(f"{opaque:,} of {samples:,} samples have no transparent pixel.")
    if total["enlarged"]:
        notes.append(f"Enlarged from smaller crops: {count_of(total['enlarged'], 'sample')}.")
    if skipped:
        notes.append(f"Without a sample: {count_of(skipped, 'image')}; the failure log lists them.")
    for note in notes:
        yield from ("", note)


def colour_statistics(shards: Sequence[BuiltShard]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel over the pixels of the measured
    samples."""
    weights = np.array([shard.stats["measured"] for shard in shards], float)
    means = np.array([shard.stats["mean"] for shard in shards])
    squares = np.array([shard.stats["mean_square"] for shard in shards])
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average(squares, axis=0, weights=weights) - mean**2
    return list(mean), [math.sqrt(max(0.0, one)) for one in variance]


def mean_image(shards: Sequence[BuiltShard]) -> bytes:
    """Return the mean of the measured samples as a PNG."""
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(shard.stats["mean_image"]))), float)
        for shard in shards
        if shard.nsamples
    ]
    weights = [shard.stats["measured"] for shard in shards if shard.nsamples]
    mean = np.rint(np.average(images, axis=0, weights=weights)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(mean).save(file, "PNG")
    return file.getvalue()


def card_page(markdown: str, folder: Path) -> str:
    """Return the card's Markdown as an HTML page with the images in `folder` embedded."""
    title = html.escape(markdown.partition("\n")[0].lstrip("# ").replace("\\", "").strip())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"{policy_element()}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n"
        f"<main>\n{render_card(markdown, folder)}</main>\n</html>\n"
    )
