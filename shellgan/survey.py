"""What the command finds at a place before it starts, and the size of images that fits."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.contract import UserError, format_bytes, format_duration, write_atomic
from pipeline.units import count_of
from shellgan.where import NO_SIZE, Where

_SIZES = (256, 128, 64, 32)
_EXAMINED = 20
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Survey:
    """Lines for the first screen, and the median short side of a few images (0: unknown)."""

    lines: list[tuple[str, str]]
    side: int = 0


def survey_files(where: Where) -> Survey:
    """Detect the format of files, and measure the first images.

    Raises:
        UserError: the files have an unknown format.
    """
    from pipeline.imaging.images import decoded
    from pipeline.imaging.limits import ImageLimits
    from pipeline.importers.items import ImportedImage, ImportOptions
    from pipeline.importers.registry import open_import

    found, sides = open_import(Path(where.location)), []
    lines = [("images", found.found)]
    try:
        for item in islice(found.items(ImportOptions()), _EXAMINED):
            if not isinstance(item, ImportedImage):
                continue
            if item.labels and len(lines) == 1:
                lines.append(("labels", "not used; class_label = 0 in the recipe uses the first of "
                              "each image, and leaves out images without"))  # fmt: skip
            try:
                with decoded(item.read(_MAX_BYTES), ImageLimits(100_000_000)) as image:
                    sides.append(min(image.image.size))
            except Exception:  # noqa: BLE001 the import reports all errors of an image
                continue
    finally:
        found.tree.close()
    return Survey(lines, round(statistics.median(sides)) if sides else 0)


def survey_gallery(where: Where, recipe: str, rate: float) -> Survey:
    """Estimate the pages, images and time of a gallery, and name its licences.

    Raises:
        UserError: the first page cannot be used.
    """
    from pipeline.crawl.estimate import estimate_site

    found = estimate_site(recipe, where.location)
    if found.error:
        raise UserError(f"{where.location}: {found.error}")
    about = "about" if found.is_complete else "at least"
    stated = [f"{name} ({count})" for name, count in found.licenses.most_common(3) if name]
    size = f", {format_bytes(found.images * found.image_bytes)}" if found.image_bytes else ""
    return Survey(
        [
            ("pages", f"{about} {count_of(found.pages, 'page')} with {about} "
             f"{count_of(found.images, 'image')}{size}, by the "
             f"{count_of(found.visited, 'page')} visited"),
            ("licences", f"of {count_of(found.licenses.total(), 'image')} on these pages: "
             f"{', '.join(stated) or 'none stated; what you may use is your decision'}"),
            ("download", f"{about} {format_duration((found.pages + found.images) / rate)} for "
             f"crawl and download, at {count_of(rate, 'request')} per second "
             "and host; robots.txt and opt-outs are obeyed"),
        ],
        found.side,
    )  # fmt: skip


def choose_size(side: int, hours: float, device: str) -> tuple[int, str]:
    """Return the size of training images in pixels, and why: the largest that `hours` of training
    on the device allow (those of `auto`), and that is not larger than the images."""
    from training.planning.auto_table import AUTO_TABLE

    rows = [row for row in AUTO_TABLE if row.device == device and not row.for_drawings]
    allowed = max(row.height for row in rows if row.hours <= hours)
    fitting = next((size for size in _SIZES if size <= (side or allowed)), _SIZES[-1])
    more = [row for row in rows if row.height > allowed]
    if fitting < allowed:
        return fitting, f"the images have a short side of {side} px"
    if more and fitting > allowed:
        return allowed, f"{more[0].height} needs --hours {more[0].hours:g} on this device"
    return allowed, f"the most for {count_of(hours, 'hour')} on this device"


def write_size(recipe: Path, size: int, why: str) -> None:
    """Set the size in a recipe that was proposed without one, with a comment."""
    text = recipe.read_text(encoding="utf-8")
    chosen = text.replace(NO_SIZE, f"resolution = {size}  # pixels; {why}")
    if chosen != text:
        write_atomic(recipe, chosen)
