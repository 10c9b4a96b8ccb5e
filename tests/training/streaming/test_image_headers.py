"""How much of a large image is read to find its size, when a tar is scanned."""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from pipeline.imaging.images import decoded, image_header
from pipeline.imaging.limits import ImageLimits
from tests.helpers.foreign_shards import drawn, file_of
from training.streaming.ranges import RangeReader, open_ranges
from training.streaming.tar_scan import SampleOptions, TarScan, scan_tar

MIB = 1 << 20
LARGE = 200 * MIB
MOST = 22 * MIB


class Counted:
    """A reader that counts the bytes it returns."""

    def __init__(self, reader: RangeReader) -> None:
        self._reader, self.size, self.validator = reader, reader.size, reader.validator
        self.read = 0

    def pread(self, count: int, offset: int) -> bytes:
        data = self._reader.pread(count, offset)
        self.read += len(data)
        return data

    def close(self) -> None:
        self._reader.close()


def scanned(path: Path, name: str, start: bytes, size: int) -> tuple[TarScan, int]:
    """Scan a tar with an image that begins with `start` and has zeros up to `size`, and a small
    one; return what was found, and how many bytes were read."""
    good = file_of(drawn(1, 24, 16), "PNG")
    with path.open("wb") as file:  # the zeros take no space on the disk
        file.write(header(name, size) + start)
        file.seek(512 + -(-size // 512) * 512)
        file.write(header("good.png", len(good)) + good + bytes(-len(good) % 512 + 1024))
    reader = Counted(open_ranges(str(path), 1.0))
    try:
        return scan_tar(reader, SampleOptions(), 4096), reader.read
    finally:
        reader.close()


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def jpeg_with_metadata(count: int) -> bytes:
    """A JPEG with `count` segments of 64 KiB of metadata, turned by its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(drawn(1, 90, 60), "JPEG", exif=exif)
    length = struct.unpack(">H", data[4:6])[0]
    segment = b"\xff\xe1" + struct.pack(">H", 65_535) + b"padding" + bytes(65_526)
    return data[: 4 + length] + segment * count + data[4 + length :]


def png_with_metadata(size: int) -> bytes:
    """The beginning of a PNG with a private chunk of `size` bytes, up to its pixels."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", 90, 60, 8, 2, 0, 0, 0),
        b"prVt" + bytes(size),
        b"IDAT",
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4 if part != b"IDAT" else LARGE) + part
        + struct.pack(">I", zlib.crc32(part)) for part in chunks
    )  # fmt: skip


FOUND = {
    "a few kB of EXIF": (jpeg_with_metadata(0), (60, 90), MIB),
    "3 MiB of EXIF": (jpeg_with_metadata(48), (60, 90), MOST),
    "a few kB of metadata": (png_with_metadata(1000), (90, 60), MOST),
    "3 MiB of metadata": (png_with_metadata(3 * MIB), (90, 60), MOST),
}


@pytest.mark.parametrize("kind", FOUND)
def test_the_size_of_a_large_image_is_read_from_its_beginning(tmp_path: Path, kind: str) -> None:
    start, size, most = FOUND[kind]
    scan, read = scanned(tmp_path / "a.tar", "large.jpg", start, LARGE)
    assert read < most
    assert scan.images == [("large", *size, False), ("good", 24, 16, False)]


GARBAGE = {
    "zeros": (b"", MIB),
    "text": (b"hello " * 2000, MIB),
    "a JPEG without an image": (b"\xff\xd8\xff\xe0\0\x10JFIF", MOST),
    "a JPEG of metadata alone": (jpeg_with_metadata(400)[: 20 * MIB], MOST),
    "a PNG without an image": (b"\x89PNG\r\n\x1a\n", MOST),
    "30 MiB of metadata": (png_with_metadata(30 * MIB), MOST),
    "a WebP": (b"RIFF\0\0\0\x0cWEBPVP8 ", MOST),
    "an AVIF": (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", MOST),
    "a TIFF": (b"II*\0\0\0\0\x08", MOST),
    "a JPEG XL": (b"\xff\x0a", MOST),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_not_read_in_search_of_a_size(tmp_path: Path, kind: str) -> None:
    start, most = GARBAGE[kind]
    scan, read = scanned(tmp_path / "a.tar", "large.jpg", start, LARGE)
    assert read < most
    assert scan.images == [("good", 24, 16, False)]
    assert scan.samples == 2


def turned_pngs() -> Iterator[bytes]:
    """PNGs that state their orientation after the pixels, in each way."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = file_of(drawn(1, 90, 60), "PNG")
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    end = plain.rindex(b"IEND") - 4
    checked = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    yield plain[:end] + checked + plain[end:]
    text = PngImagePlugin.PngInfo()
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text.add_itxt("XML:com.adobe.xmp", xmp, zip=False)
    text.chunks = [(*one[:2], True) for one in text.chunks]  # after the pixels
    yield file_of(drawn(1, 90, 60), "PNG", pnginfo=text)


@pytest.mark.parametrize("data", list(turned_pngs()))
def test_an_orientation_after_the_pixels_is_found(tmp_path: Path, data: bytes) -> None:
    assert image_header(data)[:2] == (60, 90)
    scan, _ = scanned(tmp_path / "a.tar", "turned.png", data, len(data))
    assert scan.images[0][:3] == ("turned", 60, 90)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_upright_image(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(drawn(1, 90, 60), form, exif=exif)
    with decoded(data, ImageLimits(1 << 20)) as image:
        assert image.image.size == ((60, 90) if orientation > 4 else (90, 60))
        assert image_header(data)[:2] == image.image.size


def test_a_complete_png_is_not_decoded_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(drawn(1, 90, 60), "PNG")
    monkeypatch.setattr(Image.core, "new", None)  # what takes the memory of the pixels
    assert image_header(data)[:2] == (90, 60)
