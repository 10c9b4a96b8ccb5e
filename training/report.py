"""`report.html`: one self-contained page about a run, rewritten during training."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from pipeline.contract import STILL_PAGE, read_bytes, write_atomic
from training.grid import Pixels
from training.monitoring.history import Row
from training.reporting.card_page import card_html
from training.reporting.figures import ReportFigures
from training.runs import Run, read_config

FRAMES = 24
"""Maximum number of grids; the first and the newest are always included."""
POINTS = 600
"""Maximum number of points per curve."""
QUALITY = ("fd_", "fid", "kid")
"""Prefixes of the names of quality metrics."""
_WIDE = 768
_MOST_PIXELS = 100_000_000
SEEN = re.compile(r"[0-9]{1,15}")
"""File names of grids: images seen."""


def evenly_spaced(count: int, at_most: int) -> list[int]:
    """Return `at_most` evenly spaced indices of `count`, including the first and the last."""
    if count <= at_most:
        return list(range(count))
    return [round(number * (count - 1) / (at_most - 1)) for number in range(at_most)]


def spread_frames(count: int, at_most: int) -> list[int]:
    """Return at most `at_most` indices of `count`: multiples of a power of two, and the last. So
    those of a longer list are mostly among those of a shorter one."""
    step = 1
    while -(-(count - 1) // step) + 1 > at_most:
        step *= 2
    return sorted({*range(0, count, step), *([count - 1] if count else [])})


def embed(path: Path) -> str:
    """Return the image file as a data URL; empty if it cannot be read."""
    try:
        data = io.BytesIO(read_bytes(path))
        with Image.open(data, formats=["PNG"]) as image:
            fits = image.width * image.height <= _MOST_PIXELS
            return data_url(image.convert("RGB")) if fits else ""
    except Exception:  # noqa: BLE001 (a damaged image can fail in any way)
        return ""


class FrameCache:
    """Embeds each file once while it is among those that are asked for (`select`)."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, int], str] = {}

    def select(self, paths: list[Path]) -> list[str]:
        """Return the data URLs of these image files, and forget all others. A file that was
        replaced is read again."""
        keys = [(path, path.stat().st_mtime_ns if path.exists() else 0) for path in paths]
        self._found = {key: self._found.get(key) or embed(key[0]) for key in keys}
        return list(self._found.values())


def data_url(image: Image.Image, width: int = _WIDE, quality: int = 88) -> str:
    """Return the image as a data URL, reduced to at most `width` px."""
    if image.width > width:
        height = round(image.height * width / image.width)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def curves(rows: list[Row]) -> dict[str, Any]:
    """Return the rows as columns, thinned, except rows with a quality metric, which are rare;
    missing values are None."""
    measured = {number for number, row in enumerate(rows) if latest_quality_metrics([row])}
    picked = [rows[number] for number in sorted({*evenly_spaced(len(rows), POINTS), *measured})]
    names = dict.fromkeys(name for row in picked for name in row)
    return {name: [row.get(name) for row in picked] for name in names}


@dataclass(frozen=True)
class ReportExtras:
    """Optional parts of a report: the `seconds` of the run so far, figures, and the embedded grids
    of the report before."""

    seconds: float = 0.0
    figures: ReportFigures | None = None
    frames: FrameCache = field(default_factory=FrameCache)


def write_report(run: Run, rows: list[Row], extras: ReportExtras = ReportExtras()) -> None:
    """Write the run's report from its samples, rows, configuration and the dataset card."""
    grids = sorted(path for path in run.samples.glob("*.png") if SEEN.fullmatch(path.stem))
    chosen = [grids[number] for number in spread_frames(len(grids), FRAMES)]
    frames = [
        {"kimg": int(path.stem) / 1000, "image": image}
        for path, image in zip(chosen, extras.frames.select(chosen), strict=True)
        if image
    ]
    described = read_config(run)
    text = (files("training") / "report.html.j2").read_text(encoding="utf-8")
    page = (
        Environment(autoescape=True)
        .from_string(text)
        .render(
            policy=_policy(text),
            name=run.folder.resolve().name,
            frames=frames,
            latest=latest_values(rows),
            config=described["config"],
            dataset=described["dataset"],
            dataset_b=described["dataset_b"],
            measures=latest_quality_metrics(rows),
            hours=extras.seconds / 3600,
            cost=extras.seconds / 3600 * described["config"]["price_per_hour"],
            interpolations=_shown(extras.figures.interpolations) if extras.figures else "",
            translations=_shown(extras.figures.translations) if extras.figures else "",
            nearest=_shown(extras.figures.nearest) if extras.figures else "",
            rebuilt=_shown(extras.figures.rebuilt) if extras.figures else "",
            nearest_pool=extras.figures.nearest_pool if extras.figures else 0,
            card=card_html(described["dataset"]["location"]),
            data=json.dumps({"frames": frames, "curves": curves(rows)}).replace("<", "\\u003c"),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    write_atomic(run.report, page)


def _shown(pixels: Pixels | None) -> str:
    if pixels is None:
        return ""
    return data_url(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels))


def latest_values(rows: list[Row]) -> Row:
    """Return the last value of each name; with blocks, a row may have those of one network."""
    found: Row = {}
    for row in rows:
        found |= row
    return found


def latest_quality_metrics(rows: list[Row]) -> dict[str, float]:
    """Return the newest value of each quality metric: Fréchet and kernel distances."""
    found: dict[str, float] = {}
    for row in rows:
        found |= {name: row[name] for name in row if name.startswith(QUALITY)}
    return found


def _policy(template: str) -> str:
    """Return the page's Content-Security-Policy: its own script and images, and nothing
    external."""
    script = template.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{STILL_PAGE}; script-src 'sha256-{digest}'"
