"""The preview page and the thumbnails on it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

from PIL import Image

from pipeline.contract import DatasetPaths, OriginalRecord
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.web.failures import caught_failure

THUMB = 140


@dataclass(frozen=True)
class Thumbnail:
    """An image on the page: its caption, and its thumbnail as a data URL (`source`, "" if there is
    none)."""

    key: str
    caption: str
    source: str


@dataclass(frozen=True)
class Section:
    """One reason: its limit, the number of images rejected for it, images on both sides of the
    limit, and a histogram with its axis text (`scale`)."""

    reason: str
    limit: str
    count: int
    rejected: list[Thumbnail]
    kept: list[Thumbnail]
    bars: list[tuple[float, float, bool]] = field(default_factory=list)
    scale: str = ""


class Thumbnails:
    """Renders thumbnails of originals; those of missing or damaged ones are empty."""

    def __init__(self, dataset: DatasetPaths, log: EventLog) -> None:
        self._dataset = dataset
        self._log = log

    def find(self, keys: set[str]) -> dict[str, OriginalRecord]:
        return {one.key: one for one in read_records(self._dataset) if one.key in keys}

    def show(self, record: OriginalRecord, caption: str) -> Thumbnail:
        return Thumbnail(record.key, caption, self._data_url(record))

    def _data_url(self, record: OriginalRecord) -> str:
        try:
            data = read_original(self._dataset, record)
            limits = ImageLimits.of_size(record.width, record.height)
            with decoded(data, limits, THUMB) as opened:
                image = opened.image.convert("RGB")
                image.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=80)
        except (UserError, ImageError):
            return ""
        except Exception as error:  # noqa: BLE001 errors of one image are caught here
            name = f"{record.part}/{record.member}"
            self._log.log_failure(caught_failure("select", name, error, record.key))
            return ""
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ name }}: select</title>
{{ policy }}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; }
.sides.one { grid-template-columns: 1fr; gap: 0; }
@media (max-width: 40rem) { .sides { grid-template-columns: 1fr; gap: 0; } }
.images { display: flex; flex-wrap: wrap; gap: 8px; }
figure { margin: 0; width: {{ thumb }}px; }
figure img { max-width: 100%; display: block; }
figcaption { font-size: 11px; overflow-wrap: anywhere; }
svg { width: 100%; height: 60px; } .in { fill: #2a7d4f; } .out { fill: #b3402a; }
code { font-size: 1em; }
</style></head><body>
<h1>{{ name }}</h1>
<p>{{ "{:,}".format(kept) }} image{{ "" if kept == 1 else "s" }} would be kept.
Each section shows the images next to a limit: first those it rejects, then those it lets pass.
The limits are in the recipe's <code>[select]</code> table.</p>
{% for section in sections %}
<section id="{{ section.reason }}">
<h2>{{ section.reason }}</h2>
<p>{% if section.limit %}<code>{{ section.limit }}</code>: {% endif %}
{{ "{:,}".format(section.count) }} rejected for this reason first.</p>
{% if section.bars %}<svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img"
 aria-label="histogram">
{% for left, height, passes in section.bars %}
<rect class="{{ 'in' if passes else 'out' }}" x="{{ left }}" y="{{ 1 - height }}"
 width="{{ 0.9 / section.bars | length }}" height="{{ height }}"/>{% endfor %}
</svg><p>{{ section.scale }}</p>{% endif %}
<div class="sides{{ '' if section.rejected and section.kept else ' one' }}">
{% for title, side in (("rejected", section.rejected), ("passed", section.kept)) %}
<div><h3>{{ title }}</h3><div class="images">
{% for image in side %}<figure>
{% if image.source %}<img src="{{ image.source }}" alt="">{% endif %}
<figcaption>{{ image.caption }}<br><code>{{ image.key }}</code></figcaption></figure>
{% else %}<p>none</p>{% endfor %}
</div></div>{% endfor %}
</div></section>
{% endfor %}
</body></html>
"""
