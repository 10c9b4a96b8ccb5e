"""`report.html`: one self-contained page about a run, rewritten as it trains."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image

from pipeline.contract import write_atomic
from training.history import Row
from training.runs import Run, read_config

FRAMES = 24
"""At most so many grids in the evolution; the first and the newest are always there."""
POINTS = 600
"""At most so many points a curve."""
_WIDE = 768


def thin(count: int, at_most: int) -> list[int]:
    """`at_most` indices of `count`, evenly spread, first and last among them."""
    if count <= at_most:
        return list(range(count))
    return [round(number * (count - 1) / (at_most - 1)) for number in range(at_most)]


def embed(path: Path, width: int = _WIDE, quality: int = 88) -> str:
    """The picture as a data URL, scaled to at most `width` px."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def curves(rows: list[Row]) -> dict[str, Any]:
    """The rows as columns, thinned; a value that a row lacks is None."""
    picked = [rows[number] for number in thin(len(rows), POINTS)]
    names = dict.fromkeys(name for row in picked for name in row)
    return {name: [row.get(name) for row in picked] for name in names}


def write_report(run: Run, rows: list[Row]) -> None:
    """Write the run's report from its samples, its rows and its configuration."""
    grids = sorted(run.samples.glob("*.png"))
    chosen = [grids[number] for number in thin(len(grids), FRAMES)]
    frames = [{"kimg": int(path.stem) / 1000, "image": embed(path)} for path in chosen]
    described = read_config(run)
    page = _template().render(
        name=run.folder.resolve().name,
        frames=frames,
        latest=rows[-1] if rows else {},
        config=described["config"],
        dataset=described["dataset"],
        data=json.dumps({"frames": frames, "curves": curves(rows)}).replace("</", "<\\/"),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_atomic(run.report, page)


def _template() -> Any:
    text = (files("training") / "report.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text)
