"""Images of any size and mode, decoded while training: the same pixels as the import and the shard
stage give."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.contract import ManifestRow, OriginalRecord
from pipeline.imaging.alpha import premultiply
from pipeline.imaging.images import decode_image, decoded, image_header
from pipeline.imaging.limits import ImageLimits
from pipeline.imaging.pixels import mode_of
from pipeline.imaging.properties import measure_image
from pipeline.options import ShardOptions
from pipeline.select.selection import SelectedImage
from pipeline.shards.samples import make_samples
from tests.helpers.foreign_shards import drawn, file_of
from training.streaming.decode import decode_any, decode_fitted

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def rotated(number: int, width: int, height: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(drawn(number, width, height), "JPEG", quality=95, exif=exif)


def palette(width: int, height: int) -> Image.Image:
    image = drawn(3, width, height).quantize(16)
    image.info["transparency"] = 3
    return image


def png_file(*parts: bytes) -> bytes:
    chunks = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_png(
    width: int, height: int, bits: int, kind: int, *more: bytes, low: int | None = None
) -> bytes:
    """A PNG of a kind that Pillow does not write; all channels of a pixel have the same value, but
    alpha is the complement. With 16 bits, the lower byte of a value is `low`, or else equal to the
    upper one."""
    rows = np.asarray(drawn(2, width, height, "L"))
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    pixels = np.repeat(rows[..., None], channels, axis=2)
    if kind >= 4:
        pixels[..., -1] = 255 - rows
    stored = np.repeat(pixels, bits // 8, axis=2).reshape(height, -1)
    if low is not None:
        stored[:, 1::2] = low
    data = b"".join(b"\0" + row.tobytes() for row in stored)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return png_file(b"IHDR" + header, *more, b"IDAT" + zlib.compress(data), b"IEND")


HIDDEN = 148
"""A value of `deep_png` that is transparent in some files."""
FILES: dict[str, tuple[str, bytes]] = {
    "JPEG": ("jpg", file_of(drawn(1, 700, 800), "JPEG", quality=95)),
    "gray JPEG": ("jpg", file_of(drawn(1, 90, 70, "L"), "JPEG", quality=95)),
    "CMYK JPEG": ("jpg", file_of(drawn(1, 90, 70, "CMYK"), "JPEG", quality=95)),
    "rotated JPEG": ("jpeg", rotated(1, 90, 60)),
    "PNG called jpg": ("jpg", file_of(drawn(1, 90, 60), "PNG")),
    "WebP called png": ("png", file_of(drawn(1, 90, 60), "WEBP", lossless=True)),
    "PNG called webp": ("webp", file_of(drawn(1, 90, 60), "PNG")),
    "GIF called png": ("png", file_of(drawn(7, 90, 60).quantize(32), "GIF")),
    "PNG": ("png", file_of(drawn(2, 61, 80), "PNG")),
    "RGBA": ("png", file_of(drawn(2, 90, 60, "RGBA"), "PNG")),
    "LA": ("png", file_of(drawn(2, 90, 60, "RGBA").convert("LA"), "PNG")),
    "palette": ("png", file_of(drawn(3, 90, 60).quantize(16), "PNG")),
    "transparent palette": ("png", file_of(palette(90, 60), "PNG", transparency=3)),
    "PA": ("tiff", file_of(drawn(3, 90, 60).quantize(16).convert("PA"), "TIFF")),
    "gray with a transparent value": ("png", deep_png(90, 60, 8, 0, b"tRNS" + bytes([0, HIDDEN]))),
    "colour with a transparent value": (
        "png",
        deep_png(90, 60, 8, 2, b"tRNS" + bytes([0, HIDDEN] * 3)),
    ),
    "16 bits with a transparent value": (
        "png",
        deep_png(90, 60, 16, 0, b"tRNS" + bytes([HIDDEN] * 2)),
    ),
    "colour of 16 bits with a transparent value": (
        "png",
        deep_png(90, 60, 16, 2, b"tRNS" + bytes([HIDDEN, 7] * 3), low=7),
    ),
    "LA, 16 bits": ("png", deep_png(90, 60, 16, 4)),
    "RGBA, 16 bits": ("png", deep_png(90, 60, 16, 6)),
    "RGBA of the same size": ("png", file_of(drawn(2, 32, 32, "RGBA"), "PNG")),
    "16 bits": ("png", file_of(drawn(4, 90, 60, "I;16"), "PNG")),
    "1 bit": ("png", file_of(drawn(5, 90, 60, "1"), "PNG")),
    "WebP with alpha": ("webp", file_of(drawn(6, 90, 60, "RGBA"), "WEBP", lossless=True)),
    "GIF": ("gif", file_of(drawn(7, 90, 60).quantize(32), "GIF")),
    "TIFF": ("tiff", file_of(drawn(8, 90, 60, "CMYK"), "TIFF")),
    "small": ("png", file_of(drawn(9, 11, 9), "PNG")),
    "same size": ("jpg", file_of(drawn(9, 32, 32), "JPEG", quality=95)),
    "profile": ("png", file_of(drawn(9, 40, 32), "PNG", icc_profile=PROFILE)),
}


def selected(data: bytes) -> SelectedImage:
    """The image as it would be selected after an import."""
    facts = measure_image(decode_image(data, max_pixels=10_000_000)).recorded()
    names = {one.name for one in dataclasses.fields(OriginalRecord)}
    record: dict[str, Any] = {
        "key": "k", "part": "p", "member": "k", "offset": 0, "bytes": len(data), "sha256": "",
        **{name: value for name, value in facts.items() if name in names},
    }  # fmt: skip
    return SelectedImage(OriginalRecord(**record), ManifestRow("k", "https://example.org/k"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("kind", FILES)
def test_a_fit_gives_the_pixels_of_the_shard_stage(kind: str, fit: str, channels: int) -> None:
    extension, data = FILES[kind]
    crop: Any = {"crop": "center", "pad": "pad", "stretch": "none"}[fit]
    options = ShardOptions(resolution=(32, 32), crop=crop, channels=channels)
    (expected,) = make_samples(data, selected(data), options)
    out = np.empty((32, 32, channels), np.uint8)
    decode_fitted(out, data, extension, fit)
    assert np.array_equal(out, premultiply(expected.pixels) if channels == 4 else expected.pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", FILES)
def test_without_a_fit_modes_are_converted_as_by_the_import(kind: str, channels: int) -> None:
    extension, data = FILES[kind]
    with decoded(data, ImageLimits(10_000_000), alpha=channels == 4) as found:
        image = found.image.convert(mode_of(channels))
    out = np.empty((image.height, image.width, channels), np.uint8)
    decode_any(out, data, extension, (image.height, image.width))
    expected = np.asarray(image).reshape(out.shape)
    expected = premultiply(expected) if channels == 4 else expected
    if kind in ("JPEG", "same size"):  # libjpeg converts to gray itself
        assert np.abs(out.astype(int) - expected).max() <= 2
    else:
        assert np.array_equal(out, expected)


GRAY = np.asarray(drawn(2, 90, 60, "L"))
RADIAL = np.asarray(drawn(2, 90, 60, "RGBA"))[..., 3]
ALPHA: dict[str, Any] = {
    "RGBA": RADIAL,
    "LA": RADIAL,
    "transparent palette": np.where(np.asarray(palette(90, 60)) == 3, 0, 255),
    "gray with a transparent value": np.where(GRAY == HIDDEN, 0, 255),
    "colour with a transparent value": np.where(GRAY == HIDDEN, 0, 255),
    "16 bits with a transparent value": np.where(GRAY == HIDDEN, 0, 255),
    "colour of 16 bits with a transparent value": np.where(GRAY == HIDDEN, 0, 255),
    "LA, 16 bits": 255 - GRAY,
    "RGBA, 16 bits": 255 - GRAY,
    "WebP with alpha": np.asarray(drawn(6, 90, 60, "RGBA"))[..., 3],
    **dict.fromkeys(("PA", "16 bits", "1 bit", "GIF", "PNG called jpg", "CMYK JPEG"), 255),
}


@pytest.mark.parametrize("kind", ALPHA)
def test_four_channels_keep_the_alpha_of_the_file(kind: str) -> None:
    extension, data = FILES[kind]
    header = image_header(data)
    out = np.empty((header.height, header.width, 4), np.uint8)
    decode_any(out, data, extension, (header.height, header.width))
    assert "value" not in kind or (out[..., 3] == 0).sum() > 100
    assert np.array_equal(out[..., 3], np.broadcast_to(ALPHA[kind], out.shape[:2]))
    assert (out[..., :3] <= out[..., 3:]).all()  # colours are multiplied by alpha
    if "16 bits" in kind and kind != "16 bits":
        assert np.array_equal(out, premultiply(np.stack([GRAY] * 3 + [out[..., 3]], -1)))
    fitted = np.empty((32, 32, 4), np.uint8)
    decode_fitted(fitted, data, extension, "pad")
    tall = fitted[:4] if header.width > header.height else fitted[:, :4]
    assert not tall.any()  # what is outside the image is transparent


def test_alpha_is_blended_with_white_and_16_bits_are_scaled() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    for image, expected in ((clear, [255, 255, 255]), (deep, [128, 128, 128])):
        out = np.empty((8, 8, 3), np.uint8)
        decode_any(out, file_of(image, "PNG"), "png", (8, 8))
        assert out[0, 0].tolist() == expected


@pytest.mark.parametrize("data", [b"", b"x" * 100, FILES["PNG"][1][:60], FILES["JPEG"][1][:900]])
@pytest.mark.parametrize("extension", ["png", "jpg", "gif"])
def test_what_is_no_image_is_an_error_of_this_sample(data: bytes, extension: str) -> None:
    out = np.empty((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="image"):
        decode_fitted(out, data, extension, "crop")
    with pytest.raises(ValueError, match=r"image|JPEG|px"):
        decode_any(out, data, extension, (16, 16))


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header states any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_file(b"IHDR" + header, b"IDAT" + zlib.compress(bytes(100)), b"IEND")


def test_a_huge_png_is_refused_without_decoding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png_of(65_000, 65_000)
    monkeypatch.setattr(Image.core, "new", None)  # what takes the memory of the pixels
    assert image_header(data) == (65_000, 65_000, False, False)
    for fit in ("crop", "pad", "stretch"):
        with pytest.raises(ValueError, match="too_many_pixels"):
            decode_fitted(np.empty((32, 32, 3), np.uint8), data, "png", fit)


@pytest.mark.parametrize(("extension", "form"), [("png", "PNG"), ("webp", "WEBP")])
def test_an_animated_image_is_refused_in_its_own_size_too(extension: str, form: str) -> None:
    frames = [drawn(1, 32, 32), drawn(2, 32, 32)]
    data = file_of(frames[0], form, save_all=True, append_images=frames[1:])
    out = np.empty((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="animated"):
        decode_any(out, data, extension, (32, 32))
    with pytest.raises(ValueError, match="animated"):
        decode_fitted(out, data, extension, "crop")
