"""Precision and recall of the filters of select, on constructed images.

Text is drawn on images without text; faces are cut from photographs of people and pasted at several
sizes. There are no unsafe images here, so only the false alarms of that filter are counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.demo.shells import draw
from pipeline.select.features import load_extractor
from pipeline.select.filters import MEASURES

SIDE = 512
LIMITS = {"text": (0.0, 0.002, 0.01), "face": (0.5, 0.6, 0.7, 0.8), "unsafe": (0.2, 0.3, 0.4, 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("filters", nargs="+", choices=sorted(LIMITS))
    parser.add_argument("--photographs", type=Path, help="folder: no text, no people, nothing bare")
    parser.add_argument("--people", type=Path, help="folder: photographs with one face or more")
    parser.add_argument("--shells", type=int, default=24, help="drawn shells (default: 24)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    clean = [draw(3, number, SIDE) for number in range(args.shells)] + read(args.photographs)
    people = read(args.people)
    result = {}
    for name in args.filters:
        if name == "text":
            wanted = texts(clean)
        elif name == "face":
            wanted = faces(people, clean)
        else:
            wanted = {"people (safe)": people}
        result[name] = compare(name, clean, wanted)
    if args.json:
        print(json.dumps(result))


def read(folder: Path | None) -> list[Image.Image]:
    paths = sorted(folder.iterdir()) if folder else []
    return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]


def compare(
    name: str, clean: list[Image.Image], wanted: dict[str, list[Image.Image]]
) -> dict[str, dict[str, list[float]]]:
    """Print, for each limit, the false alarms and for each kind of image (precision, recall)."""
    extractor = load_extractor(name, MEASURES[name])

    def measure(images: Iterable[Image.Image]) -> np.ndarray:
        return np.array([extractor([np.asarray(image)])[0, 0] for image in images])

    start = time.process_time()
    good = measure(clean)
    print(f"{name}: {(time.process_time() - start) / len(clean):.2f} CPU-s per image")
    rows: dict[str, dict[str, list[float]]] = {}
    print(f"{'limit':>24}", *(f"{limit:>12g}" for limit in LIMITS[name]))
    print(f"{f'rejected of {len(clean)} clean':>24}",
          *(f"{int((good > limit).sum()):>12}" for limit in LIMITS[name]), flush=True)  # fmt: skip
    for kind, images in wanted.items():
        values = measure(images)
        rows[kind] = {}
        for limit in LIMITS[name]:
            hits, alarms = int((values > limit).sum()), int((good > limit).sum())
            precision = hits / max(1, hits + alarms)
            rows[kind][f"{limit:g}"] = [precision, hits / max(1, len(values))]
        print(f"{f'{kind} ({len(values)})':>24}",
              *(f"{p:>6.2f},{r:>5.2f}" for p, r in rows[kind].values()), flush=True)  # fmt: skip
    return rows


def texts(clean: list[Image.Image]) -> dict[str, list[Image.Image]]:
    kinds: dict[str, Callable[[Image.Image], Image.Image]] = {
        "caption": lambda image: write(image, "Photo 1234: Halcyon Bay, 2019", 22, 1, 0.92),
        "small address": lambda image: write(image, "www.shells.example", 12, 1, 0.97),
        "watermark 50 %": lambda image: write(image, "SAMPLE", SIDE // 6, 0.5, 0.5),
        "watermark 25 %": lambda image: write(image, "SAMPLE", SIDE // 6, 0.25, 0.5),
        "tiles 20 %": lambda image: tile(image, 0.2),
        "tiles 10 %": lambda image: tile(image, 0.1),
        "logo without letters": logo,
    }
    return {kind: [make(image) for image in clean] for kind, make in kinds.items()}


def write(image: Image.Image, text: str, size: int, opacity: float, height: float) -> Image.Image:
    """Write black text of a size in pixels at a fraction of the image's height."""
    layer = Image.new("RGBA", image.size)
    place = image.width // 2, round(image.height * height)
    size = max(8, size * image.width // SIDE)
    ImageDraw.Draw(layer).text(
        place, text, (0, 0, 0, round(255 * opacity)), ImageFont.load_default(size), anchor="mm"
    )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def tile(image: Image.Image, opacity: float) -> Image.Image:
    """Cover the image with rotated black text."""
    side = max(image.size)
    layer = Image.new("RGBA", (2 * side, 2 * side))
    font = ImageFont.load_default(26 * side // SIDE)
    for y in range(0, 2 * side, side // 6):
        for x in range(-(y % (side // 3)), 2 * side, side * 2 // 5):
            ImageDraw.Draw(layer).text(
                (x, y), "shop.example", (0, 0, 0, round(255 * opacity)), font
            )
    left, top = side - image.width // 2, side - image.height // 2
    layer = layer.rotate(30).crop((left, top, left + image.width, top + image.height))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def logo(image: Image.Image) -> Image.Image:
    made = image.copy()
    side = min(image.size)
    pen = ImageDraw.Draw(made)
    pen.ellipse((side * 0.8, side * 0.8, side * 0.95, side * 0.95), fill=(200, 30, 30))
    pen.regular_polygon((side * 0.875, side * 0.875, side * 0.05), 5, fill="white")
    return made


def faces(people: list[Image.Image], clean: list[Image.Image]) -> dict[str, list[Image.Image]]:
    """Photographs of people pasted on clean images, at several fractions of their side."""
    made: dict[str, list[Image.Image]] = {}
    rng = np.random.default_rng(0)
    for fraction in (1.0, 0.5, 0.25):
        some = made[f"photograph at {fraction:.0%}"] = []
        for number, photograph in enumerate(people):
            below = clean[number % len(clean)].resize((SIDE, SIDE))
            side = round(SIDE * fraction)
            small = photograph.copy()
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            room = SIDE - small.width + 1, SIDE - small.height + 1
            left, top = (int(rng.integers(0, limit)) for limit in room)
            below.paste(small, (left, top))
            some.append(below)
    return made


if __name__ == "__main__":
    main()
