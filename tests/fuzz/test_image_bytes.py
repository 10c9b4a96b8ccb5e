"""Image files, whole, damaged and made up: each gives an image or one failure, in bounded memory,
and all that is recorded of it can be read back."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import struct
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord, image_key
from pipeline.errors import Failure
from pipeline.imaging.headers import _load_plugin
from pipeline.imaging.images import EXTENSIONS
from pipeline.imaging.limits import ImageError, decode_budget
from pipeline.options import OriginalsOptions, ShardOptions
from pipeline.originals.inspect_image import StoredImage, check_body, inspect_image
from pipeline.originals.part_tars import read_original
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import read_records, write_plan
from pipeline.recipe import Recipe
from pipeline.select.selection import SelectedImage
from pipeline.shards.samples import make_samples
from pipeline.sources.html_options import HtmlSource
from pipeline.web.failures import FAILURE_KINDS
from pipeline.web.responses import RawResponse, Response

SOURCE = HtmlSource(start=("http://127.0.0.1/",))
RECIPES = (
    Recipe(source=SOURCE),
    Recipe(source=SOURCE, originals=OriginalsOptions(side=32, decode_megabytes=64)),
)
URL = "http://127.0.0.1/a"


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    # Copies: saving leaves settings behind.
    if "append_images" in options:
        options["append_images"] = [one.copy() for one in options["append_images"]]
    image.copy().save(file, kind, **options)
    return file.getvalue()


@functools.cache
def corpus() -> tuple[bytes, ...]:
    """Small valid files of every format and of most kinds of pixels."""
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8))
    rgba = small.resize((41, 29), Image.Resampling.BICUBIC)
    image, gray = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray((np.asarray(gray).astype(np.uint16)) * 257)
    real = Image.fromarray(np.asarray(gray).astype(np.float32))
    frames = [image, image.rotate(90), image.rotate(180)]
    files = [
        encoded(image, "JPEG", exif=exif), encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"), encoded(gray, "JPEG"),
        encoded(image, "MPO", save_all=True, append_images=frames[1:]),
        encoded(image, "PNG", exif=exif), encoded(rgba, "PNG"), encoded(deep, "PNG"),
        encoded(image.quantize(9), "PNG", transparency=3), encoded(gray.convert("1"), "PNG"),
        encoded(gray.convert("LA"), "PNG"), encoded(image, "GIF"),
        encoded(image, "GIF", save_all=True, append_images=frames[1:]),
        encoded(image, "WEBP"), encoded(rgba, "WEBP", lossless=True),
        encoded(image, "WEBP", save_all=True, append_images=frames[1:]),
        encoded(image, "TIFF"), encoded(rgba, "TIFF", compression="tiff_lzw"),
        encoded(real, "TIFF"), encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        encoded(image, "TIFF", save_all=True, append_images=frames[1:]),
        encoded(image, "BMP"), encoded(image.quantize(9), "BMP"), encoded(image, "AVIF"),
        encoded(image, "JPEG2000"), encoded(rgba, "JPEG2000"), encoded(image, "PPM"),
        encoded(gray, "PPM"), b"P3\n2 2\n255\n" + b"0 1 2 " * 4, encoded(image, "ICO"),
        encoded(rgba.resize((32, 32)), "ICO", bitmap_format="bmp"), encoded(image, "TGA"),
    ]  # fmt: skip
    for package, kind in (("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")):
        if _load_plugin(package):
            files.append(encoded(image, kind))
    return tuple(files)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with bytes changed, cut out, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(corpus())))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, min(len(data), 400) - 1)) | st.integers(0, len(data)))
        what = draw(st.sampled_from(("set", "set", "number", "cut", "put", "end")))
        if what == "set":
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "number":
            number = draw(st.sampled_from((0, 1, 255, 65_535, 1 << 31, 0xFFFFFFFF, 90_000_000)))
            data[place : place + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        elif what == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif what == "put":
            data[place:place] = draw(st.binary(max_size=40))
        else:
            del data[place:]
    return bytes(data)


SIDES = st.sampled_from((0, 1, 2, 33, 1000, 65_535, 65_536, 90_000_000, 2**31 - 1, 2**32 - 1))


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A file whose header says any size, over hardly any data."""
    width, height, rest = draw(SIDES), draw(SIDES), draw(st.binary(max_size=60))

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    kind = draw(st.sampled_from(("png", "gif", "bmp", "webp", "tiff", "jpeg", "jp2", "ico", "ppm",
                                 "jxl", "psd", "heic")))  # fmt: skip
    if kind == "png":
        depth, colour = draw(st.sampled_from(((1, 0), (16, 6), (8, 3), (16, 0), (8, 2), (7, 9))))
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 1)))
        body = chunk(b"IDAT", zlib.compress(bytes(2000)))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")
    if kind == "gif":
        size = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        return b"GIF89a" + size + b"\0\0\0,\0\0\0\0" + size + b"\0\2\2\x4c\1\0;" + rest
    if kind == "bmp":
        bits = draw(st.sampled_from((1, 4, 8, 16, 24, 32)))
        return b"BM" + struct.pack("<IHHIIIIHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, bits,
                                   draw(st.integers(0, 3)), 0, 0, 0, 0, 0) + rest  # fmt: skip
    if kind == "webp":
        canvas = (width & 0xFFFFFF).to_bytes(3, "little") + (height & 0xFFFFFF).to_bytes(
            3, "little"
        )
        body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas + rest
        return b"RIFF" + struct.pack("<I", len(body)) + body
    if kind == "tiff":
        packing = draw(st.integers(0, 8))
        tags = ((256, width), (257, height), (258, 8), (259, packing), (262, 1), (273, 8), (277, 1),
                (278, height), (279, 60))  # fmt: skip
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + struct.pack("<I", 8) + rest
    if kind == "jpeg":
        size = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
        return encoded_jpeg().replace(b"\x00\x1d\x00\x29", size, 1)
    if kind == "jp2":
        data = encoded(Image.new("L", (20, 20)), "JPEG2000")
        place = data.index(b"ihdr") + 4
        return data[:place] + struct.pack(">II", height, width) + data[place + 8 :]
    if kind == "ico":
        bitmap = struct.pack("<IiiHHIIIIII", 40, width & 0x7FFFFFFF, height & 0x7FFFFFFF, 1, 32, 0,
                             0, 0, 0, 0, 0)  # fmt: skip
        return b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + struct.pack("<II", 40, 22) + bitmap + rest
    if kind == "ppm":
        return b"P%d\n%d %d\n%d\n" % (draw(st.integers(1, 6)), width, height, 65_535) + rest
    if kind == "jxl":
        return b"\xff\x0a" + rest
    if kind == "heic":
        return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + rest
    return b"8BPS" + rest


@functools.cache
def encoded_jpeg() -> bytes:
    return encoded(Image.new("RGB", (41, 29), "red"), "JPEG")


BODIES = mutated() | headers() | st.binary(max_size=200)


def budget_is_free() -> bool:
    return int(decode_budget()._used.value) == 0


@given(data=BODIES, recipe=st.sampled_from(RECIPES))
def test_any_bytes_give_an_image_or_one_failure(data: bytes, recipe: Recipe) -> None:
    answer = RawResponse(status=200, headers={}, body=data, url=URL)
    refused = check_body(answer)
    assert refused is None or refused.kind in FAILURE_KINDS
    start = time.process_time()
    row = ManifestRow(image_key(URL), URL)
    found = inspect_image(row, Response(URL, 200, MappingProxyType({}), data), recipe, "download")
    assert time.process_time() - start < 20
    assert budget_is_free()
    if isinstance(found, Failure):
        assert found.kind in FAILURE_KINDS
        assert found.kind not in ("internal", "opt_out")
        json.dumps(vars(found))
        return
    good = Image.new("RGB", (50, 40), "green")
    with TemporaryDirectory() as folder:
        check_written(DatasetPaths("fuzz", Path(folder)), row, found, encoded(good, "PNG"))


def check_written(
    dataset: DatasetPaths, row: ManifestRow, found: StoredImage, neighbour: bytes
) -> None:
    """What is recorded is sane, and is read back as it was written, with its neighbour."""
    other = ManifestRow(image_key(URL + "b"), URL + "b")
    write_plan(dataset, "fuzz-000000", [row.to_json(), other.to_json()])
    writer = PartWriter(dataset, "fuzz-000000")
    facts = found.properties
    writer.add(row, EXTENSIONS[facts.format], found.data, facts.recorded(), found.sidecar)
    good = inspect_image(
        other, Response(other.url, 200, MappingProxyType({}), neighbour), RECIPES[0], "x"
    )
    assert isinstance(good, StoredImage)
    writer.add(other, "png", good.data, good.properties.recorded(), good.sidecar)
    writer.finish()
    records = list(read_records(dataset))
    assert [read_original(dataset, one) for one in records] == [found.data, neighbour]
    for record in records:
        assert record.width > 0
        assert record.height > 0
        assert all(
            math.isfinite(value) and value >= 0 for value in (record.sharpness, record.contrast)
        )
        assert OriginalRecord.from_json(record.to_json()) == record
    for crop in ("center", "object", "pad"):
        image = SelectedImage(records[0], row)
        with contextlib.suppress(ImageError):  # the decoders do not agree on all damage
            made = make_samples(found.data, image, ShardOptions(resolution=16, crop=crop))
            assert [one.pixels.shape for one in made] == [(16, 16, 3)]
    assert budget_is_free()


@pytest.mark.parametrize("data", corpus())
def test_the_files_of_the_corpus_are_what_they_are(data: bytes) -> None:
    row = ManifestRow(image_key(URL), URL)
    found = inspect_image(
        row, Response(URL, 200, MappingProxyType({}), data), RECIPES[0], "download"
    )
    if isinstance(found, Failure):
        assert found.kind in ("animated", "wrong_type")
