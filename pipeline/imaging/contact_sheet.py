"""Contact sheets: samples in a grid."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

_GAP = 2
_BACKGROUND = "white"


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
