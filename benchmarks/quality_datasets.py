"""Builds the datasets that `benchmarks/quality.py` compares generators on, each as a manifest.

- `garments`: the photographs in `--photographs`, a folder with one folder of images per label;
- `cut-out`: the same garments, cut out (GrabCut) and laid on a light background with a soft shadow;
- `shells`: 2,000 drawn shells of ten families, on a plain background;
- `garments-200`: 200 of the garments, with the shares of the labels kept;
- `mixed`: the garments, and unrelated and damaged images (40 % of all); nothing is rejected;
- `mixed-selected`: the same images, with the selection that the documentation recommends.

All are built by the commands of the pipeline from folders of images, at each of `--sizes`:
`manifests/SET-SIZE` below `--out`. What exists is not built again. Everything follows from fixed
seeds. GrabCut needs `pip install opencv-python-headless`.
    python benchmarks/quality_datasets.py --photographs tops256 --out /tmp/quality --sizes 64 128
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from photographs import scene
from PIL import Image, ImageDraw, ImageFilter

from pipeline.demo import shells
from pipeline.demo.catalogue import FAMILIES, SPECIMENS_PER_SPECIES

SHELLS = 2000
FEW = 200
FOREIGN_SHARE = 0.4
_SIDE = 256
_KEEP_ALL = (
    "select.min_side=1", "select.max_aspect=100", "select.min_contrast=0",
    "select.max_missing=1", "select.near_duplicate_bits=off",
)  # fmt: skip
_RECOMMENDED = ("select.off_topic=2.5", "select.min_sharpness=10")
"""As docs/recipes.md advises for galleries with foreign images."""
Named = Iterator[tuple[str, Image.Image | bytes]]


def photographs(folder: Path) -> list[Path]:
    """Return the images below `folder`, in an order by seed that mixes the labels."""
    found = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".png"))
    if not found:
        raise SystemExit(f"{folder}: no images; expected LABEL/IMAGE.jpg")
    return [found[number] for number in np.random.default_rng(0).permutation(len(found))]


def garments(folder: Path) -> Named:
    """The files as they are."""
    for path in photographs(folder):
        yield f"{path.parent.name}/{path.name}", path.read_bytes()


def few_garments(folder: Path) -> Named:
    """The first 200 files, whose order does not depend on their labels."""
    return islice(garments(folder), FEW)


def cut_out(folder: Path) -> Named:
    """Garments on a light background; images in which GrabCut finds less than 5 % or more than 90 %
    object are left out."""
    for path in photographs(folder):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.thumbnail((_SIDE * 2, _SIDE * 2))
        mask = object_mask(image)
        if 0.05 <= np.asarray(mask).mean() / 255 <= 0.9:
            yield f"{path.parent.name}/{path.stem}.png", lay_on_background(image, mask)


def object_mask(image: Image.Image) -> Image.Image:
    """Return the object of `image` as an L image, found by GrabCut (Rother 2004) from a frame of
    4 % that is taken as background."""
    import cv2

    pixels = np.asarray(image)[:, :, ::-1].copy()
    height, width = pixels.shape[:2]
    frame = max(2, round(0.04 * min(height, width)))
    mask = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)
    cv2.grabCut(
        pixels, mask, (frame, frame, width - 2 * frame, height - 2 * frame),
        np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_RECT,
    )  # fmt: skip
    inside = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(inside)
    if count > 1:
        inside = (parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
    return Image.fromarray(inside * 255).filter(ImageFilter.GaussianBlur(1))


def lay_on_background(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return a square with the object of `mask` in its centre, filling four fifths of the side."""
    left, top, right, bottom = mask.point(lambda value: 255 * (value > 127)).getbbox() or (
        0, 0, *image.size
    )  # fmt: skip
    size = right - left, bottom - top
    scale = 0.8 * _SIDE / max(size)
    size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    parts = [one.crop((left, top, right, bottom)).resize(size) for one in (image, mask)]
    corner = (_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2
    shadow = Image.new("L", (_SIDE, _SIDE))
    shadow.paste(parts[1].point(lambda value: value // 4), (corner[0] + 3, corner[1] + 5))
    result = Image.new("RGB", (_SIDE, _SIDE), (242, 241, 238))
    result.paste((90, 88, 86), mask=shadow.filter(ImageFilter.GaussianBlur(6)))
    result.paste(parts[0], corner, parts[1])
    return result


def drawn_shells(_: Path) -> Named:
    """One specimen of each of 2,000 species of the demo; the label is the family."""
    for number in range(SHELLS):
        species, family = divmod(number, len(FAMILIES))
        index = species * SPECIMENS_PER_SPECIES * len(FAMILIES) + family
        yield f"{FAMILIES[family].name}/{number:06d}.png", shells.draw(0, index, _SIDE)


def mixed(folder: Path) -> Named:
    """The garments with unrelated and damaged images among them, under the labels of garments (as
    a search engine returns them)."""
    rng = np.random.default_rng(1)
    files = photographs(folder)
    labels = sorted({path.parent.name for path in files})
    yield from garments(folder)
    kinds: tuple[Callable[[np.random.Generator, Path], Image.Image | bytes], ...] = (
        lambda rng, _: crop_of_scene(rng),
        lambda rng, _: shells.draw(1, int(rng.integers(10_000)), _SIDE),
        lambda rng, _: page_of_text(rng),
        lambda rng, path: torn_jpeg(rng, path),
        lambda rng, path: blurred(rng, path),
        lambda rng, _: banner(rng),
    )
    count = round(len(files) * FOREIGN_SHARE / (1 - FOREIGN_SHARE))
    for number in range(count):
        path = files[int(rng.integers(len(files)))]
        image = kinds[number % len(kinds)](rng, path)
        ending = "jpg" if isinstance(image, bytes) else "png"
        yield f"{labels[int(rng.integers(len(labels)))]}/foreign-{number:05d}.{ending}", image


_SCENES: list[Image.Image] = []


def crop_of_scene(rng: np.random.Generator) -> Image.Image:
    """A photograph of something else."""
    if not _SCENES:
        _SCENES.extend(scene(number) for number in range(8))
    side = int(rng.integers(300, 900))
    left, top = (int(rng.integers(0, _SCENES[0].width - side)) for _ in range(2))
    whole = _SCENES[int(rng.integers(len(_SCENES)))]
    return whole.crop((left, top, left + side, top + side)).resize((_SIDE, _SIDE))


def page_of_text(rng: np.random.Generator) -> Image.Image:
    """A page that says that the quota is used up, in random lines."""
    page = Image.new("RGB", (_SIDE, _SIDE), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for line in range(int(rng.integers(3, 18))):
        words = " ".join(["quota", "exceeded", "try", "again", "later"][: int(rng.integers(1, 6))])
        draw.text((int(rng.integers(4, 40)), 8 + 13 * line), words, fill=(20, 20, 20))
    return page


def banner(rng: np.random.Generator) -> Image.Image:
    """A flat picture with a few rectangles, as advertisements and place-holders are."""
    colours = rng.integers(0, 256, (5, 3))
    image = Image.new("RGB", (_SIDE, _SIDE), tuple(int(value) for value in colours[0]))
    draw = ImageDraw.Draw(image)
    for colour in colours[1 : int(rng.integers(2, 6))]:
        x, y, width, height = (int(value) for value in rng.integers(0, _SIDE, 4))
        draw.rectangle((x, y, x + width, y + height), fill=tuple(int(value) for value in colour))
    return image


def torn_jpeg(rng: np.random.Generator, path: Path) -> Image.Image:
    """A garment whose lower part is gray, as decoders show a file that ends too early."""
    with Image.open(path) as opened:
        image = opened.convert("RGB").resize((_SIDE, _SIDE))
    top = int(rng.integers(_SIDE // 8, _SIDE // 2))
    image.paste((128, 128, 128), (0, top, _SIDE, _SIDE))
    return image


def blurred(rng: np.random.Generator, path: Path) -> bytes:
    """A garment enlarged from a thumbnail of 8 to 20 px."""
    with Image.open(path) as opened:
        small = int(rng.integers(8, 21))
        image = opened.convert("RGB").resize((small, small)).resize((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=30)
    return data.getvalue()


DATASETS: dict[str, tuple[Callable[[Path], Named], str, tuple[str, ...]]] = {
    "garments": (garments, "garments", _KEEP_ALL),
    "cut-out": (cut_out, "cut-out", _KEEP_ALL),
    "shells": (drawn_shells, "shells", _KEEP_ALL),
    "garments-200": (few_garments, "garments-200", _KEEP_ALL),
    "mixed": (mixed, "mixed", _KEEP_ALL),
    "mixed-selected": (mixed, "mixed", _RECOMMENDED),
}
"""For each dataset its images, the folder that holds them, and the keys of its recipe."""


def write_folder(folder: Path, images: Named) -> None:
    """Write the images; the folder exists only once it is complete."""
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name, image in images:
        path = part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path)
    part.rename(folder)


def build(name: str, size: int, args: argparse.Namespace) -> Path:
    """Return the manifest folder of a dataset at `size` px, built if it does not exist."""
    make, folder, options = DATASETS[name]
    manifest = args.out / "manifests" / f"{name}-{size}"
    if (manifest / "shards.json").exists():
        return Path(manifest)
    write_folder(args.out / "images" / folder, make(args.photographs))
    recipe = args.out / f"{name}-{size}.toml"
    recipe.write_text(f"[shards]\nresolution = {size}\nclass_label = 0\n")
    settings = [part for option in options for part in ("--set", option)]
    root = ["--root", str(args.out)]
    for stage in (["import", str(recipe), str(args.out / "images" / folder)],
                  ["select", str(recipe)], ["shard", str(recipe)]):  # fmt: skip
        command = [sys.executable, "-m", "pipeline", *stage[:1], *settings, *root]
        subprocess.run([*command, *stage[1:]], check=True, stdout=subprocess.DEVNULL)
    return Path(manifest)


def main() -> int:
    """Build the datasets and print their manifests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(DATASETS), metavar="SET")
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    args = parser.parse_args()
    for name in args.names:
        if name not in DATASETS:
            parser.error(f"no dataset {name}; there are {', '.join(DATASETS)}")
        for size in args.sizes:
            print(build(name, size, args), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
