"""Every kind of pixels comes out right, and the recorded facts are what they are called."""

from __future__ import annotations

import io
import math
import struct
import zlib

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from scipy import ndimage

from pipeline.imaging.center_crop import OVERSAMPLE, center_square, encode_jpeg
from pipeline.imaging.images import ImageError, decode_image
from pipeline.imaging.properties import detail_hash, measure_image, perceptual_hash
from tests.helpers.faulty_site import animation, encoded, picture, png_header

LIMIT = 10_000_000


def scene(width: int = 180, height: int = 120, seed: int = 0) -> Image.Image:
    """Soft colours with a bright corner, so that every turn of it is another picture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 200, (6, 9, 3), dtype=np.uint8)
    small[0, 0] = (255, 40, 40)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def opened(data: bytes, **options) -> Image.Image:
    return decode_image(data, max_pixels=LIMIT, **options).image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


def png(array: np.ndarray, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG written by hand: Pillow cannot write all kinds. `array` is big-endian rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


# modes


def test_rgb_and_gray_come_through_unchanged():
    image = scene()
    assert np.array_equal(opened(encoded(image, "PNG")), image)
    gray = opened(encoded(image.convert("L"), "PNG"))
    assert gray.mode == "L"
    assert np.array_equal(gray, image.convert("L"))


def test_16_bit_gray_is_scaled_and_not_clipped_to_white():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(">u2")
    image = opened(png(values, 16, 0))
    assert image.mode == "L"
    assert np.abs(pixels(image) - np.rint(values.astype(float) / 257)).max() <= 1
    tiff = Image.fromarray(values.astype("<u2"))
    assert np.array_equal(pixels(opened(encoded(tiff, "TIFF"))), np.rint(values / 257.0))


def test_16_bit_colour_keeps_its_high_bits():
    values = np.random.default_rng(1).integers(0, 65536, (20, 30, 3)).astype(">u2")
    image = opened(png(values, 16, 2))
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - values.astype(int) / 257).max() <= 1


def test_floating_and_32_bit_gray():
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    want = np.rint(ramp.astype(float) * 255)
    assert np.array_equal(pixels(opened(encoded(Image.fromarray(ramp), "TIFF"))), want)
    wide = Image.fromarray((ramp * 1e6).astype(np.int32))
    assert np.abs(pixels(opened(encoded(wide, "TIFF"))) - want).max() <= 1


def test_palettes_with_and_without_colour_and_transparency():
    image = scene()
    colours = image.quantize(32)
    assert np.array_equal(opened(encoded(colours, "PNG")), colours.convert("RGB"))
    grays = image.convert("L").quantize(16)
    assert opened(encoded(grays, "PNG")).mode == "L"
    assert np.array_equal(opened(encoded(grays, "PNG")), grays.convert("L"))
    see_through = Image.new("P", (10, 10), 1)
    see_through.putpalette([255, 0, 0, 0, 0, 255])
    see_through.paste(0, (0, 0, 5, 10))
    out = opened(encoded(see_through, "PNG", transparency=0))
    assert out.getpixel((1, 1)) == (255, 255, 255)
    assert out.getpixel((8, 1)) == (0, 0, 255)


def test_one_bit():
    image = scene().convert("L").point(lambda value: 255 * (value > 100)).convert("1")
    out = opened(encoded(image, "PNG"))
    assert out.mode == "L"
    assert np.array_equal(out, image.convert("L"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(kind):
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 128))
    image.paste((0, 0, 255, 255), (0, 0, 4, 4))
    out = opened(encoded(image, kind, lossless=True))
    assert out.mode == "RGB"
    assert out.getpixel((1, 1)) == (0, 0, 255)
    assert np.abs(np.array(out.getpixel((6, 1))) - (255, 127, 127)).max() <= 1


def test_gray_with_alpha_stays_gray():
    image = Image.new("LA", (8, 4), (0, 64))
    out = opened(encoded(image, "PNG"))
    assert out.mode == "L"
    assert abs(out.getpixel((0, 0)) - 191) <= 1


def test_rgb_with_a_transparent_colour():
    values = np.zeros((4, 4, 3), np.uint8)
    values[:2] = (9, 8, 7)
    values[2:] = (0, 200, 0)
    mask = struct.pack(">HHH", 9, 8, 7)
    chunk = struct.pack(">I", 6) + b"tRNS" + mask + struct.pack(">I", zlib.crc32(b"tRNS" + mask))
    out = opened(png(values, 8, 2, chunk))
    assert out.getpixel((0, 0)) == (255, 255, 255)
    assert out.getpixel((0, 3)) == (0, 200, 0)


def test_cmyk_comes_out_as_the_colours_it_prints():
    image = scene()
    out = opened(encoded(image.convert("CMYK"), "JPEG", quality=98))
    assert out.mode == "RGB"
    assert psnr(pixels(out), pixels(image)) > 35


def test_lab_tiff():
    lab = ImageCms.applyTransform(
        scene(),
        ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        ),
    )
    assert psnr(pixels(opened(encoded(lab, "TIFF"))), pixels(scene())) > 35


# orientation and colour profiles

TURNS = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How an upright image is stored for each Exif orientation."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("draft_to", [None, 40])
def test_exif_orientation(orientation, draft_to):
    upright = scene(360, 240)
    turn = TURNS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    picture_ = decode_image(data, max_pixels=LIMIT, draft_to=draft_to)
    assert (picture_.width, picture_.height) == (360, 240)
    want = upright.resize(picture_.image.size, Image.Resampling.BOX)
    assert psnr(pixels(picture_.image), pixels(want)) > 30
    square = center_square(data, 64, LIMIT)
    assert (square.width, square.height) == (360, 240)
    middle = upright.crop((60, 0, 300, 240)).resize((64, 64), Image.Resampling.LANCZOS)
    assert psnr(square.pixels, pixels(middle)) > 30


ADOBE = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
"""Adobe RGB (1998) to XYZ under D50 (its ICC profile's colorants); gamma 563/256."""
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def adobe_profile() -> bytes:
    """A small ICC profile (version 2, matrix and gamma) with the primaries of Adobe RGB."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    name = b"wide"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(563 / 256 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(79 + 1),
        b"wtpt": xyz(0.9642, 1.0, 0.8249), b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"rXYZ": xyz(*ADOBE[:, 0]), b"gXYZ": xyz(*ADOBE[:, 1]), b"bXYZ": xyz(*ADOBE[:, 2]),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        value += bytes(-len(value) % 4)
        table += tag + struct.pack(">II", start + len(body), len(value))
        body += value
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_colour_profile_is_applied(kind):
    colours = [(90, 140, 110), (150, 120, 90), (60, 70, 120), (128, 128, 128)]
    profile = adobe_profile()
    for colour in colours:
        data = encoded(Image.new("RGB", (64, 64), colour), kind, quality=100, icc_profile=profile)
        linear = (np.array(colour) / 255) ** (563 / 256)
        srgb = np.linalg.inv(SRGB) @ ADOBE @ linear
        want = np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055) * 255
        assert np.abs(pixels(opened(data))[32, 32] - want).max() < 3, (colour, want)
        assert np.abs(center_square(data, 16, LIMIT).pixels[8, 8] - want).max() < 3


def test_a_broken_profile_is_ignored_with_a_note():
    image = scene()
    for broken in (b"no profile at all" * 20, adobe_profile()[:300]):
        result = decode_image(encoded(image, "PNG", icc_profile=broken), max_pixels=LIMIT)
        assert np.array_equal(result.image, image)
        assert any("profile" in note for note in result.notes)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_image():
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff broken")
    assert opened(data).size == (180, 120)


# what is refused


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"nothing of the sort", "undecodable"),
        (picture(1)[:700], "undecodable"),
        (png_header(30000, 30000), "too_many_pixels"),
        (png_header(0, 5), "zero_size"),
        (b"GIF89a\0\0\0\0\0\0\0;", "zero_size"),
        (animation("GIF"), "animated"),
        (animation("PNG"), "animated"),
        (animation("WEBP"), "animated"),
    ],
)
def test_what_gives_no_image(data, kind):
    for fails in (lambda: opened(data), lambda: center_square(data, 16, LIMIT)):
        with pytest.raises(ImageError) as caught:
            fails()
        assert caught.value.kind == kind


def test_a_jpeg_bomb_is_refused_by_its_header_on_both_ways():
    data = bytearray(picture(1))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    for fails in (lambda: opened(bytes(data)), lambda: center_square(bytes(data), 16, LIMIT)):
        with pytest.raises(ImageError, match="too_many_pixels"):
            fails()


def test_a_multi_picture_jpeg_is_a_photograph():
    first, second = scene(), scene(seed=2)
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second], quality=95)
    assert psnr(pixels(opened(file.getvalue())), pixels(first)) > 30


# facts


@pytest.mark.parametrize("seed", range(12))
def test_the_perceptual_hash_is_that_of_imagehash(seed):
    image = scene(233, 171, seed)
    assert perceptual_hash(image) == str(imagehash.phash(image))
    assert detail_hash(image) == str(imagehash.phash(image, hash_size=16))


def test_the_hash_survives_scaling_and_compression_and_tells_pictures_apart():
    def bits(data: bytes) -> int:
        return int(measure_image(decode_image(data, max_pixels=LIMIT, draft_to=256)).phash, 16)

    one = encoded(scene(900, 600), "JPEG", quality=95)
    again = encoded(scene(900, 600).resize((600, 400)), "JPEG", quality=50)
    other = encoded(scene(900, 600, 5), "JPEG", quality=95)
    assert (bits(one) ^ bits(again)).bit_count() <= 4
    assert (bits(one) ^ bits(other)).bit_count() >= 16


def test_blur_is_the_variance_of_the_laplacian_at_256_pixels():
    rng = np.random.default_rng(3)
    gray = rng.integers(0, 256, (256, 300), dtype=np.uint8)
    facts = measure_image(decode_image(encoded(Image.fromarray(gray), "PNG"), max_pixels=LIMIT))
    inner = ndimage.laplace(gray.astype(float))[1:-1, 1:-1]
    assert facts.sharpness == pytest.approx(inner.var(), rel=1e-6)
    assert facts.contrast == pytest.approx(gray.std(), abs=1e-3)


def test_blur_falls_with_blur_and_spread_with_contrast():
    sharp = np.asarray(scene(800, 600).convert("L"))
    texture = np.random.default_rng(0).normal(0, 25, sharp.shape)
    image = np.clip(sharp + texture, 0, 255).astype(np.uint8)
    blurs = [
        measure_image(
            decode_image(
                encoded(Image.fromarray(ndimage.gaussian_filter(image, sigma)), "PNG"),
                max_pixels=LIMIT,
            )
        ).sharpness
        for sigma in (0, 1, 2, 4)
    ]
    assert blurs == sorted(blurs, reverse=True)
    flat = measure_image(
        decode_image(encoded(Image.new("RGB", (99, 99), "gray"), "PNG"), max_pixels=LIMIT)
    )
    assert flat.sharpness == flat.contrast == 0


def ended_early(image: Image.Image, part: float, **options) -> Image.Image:
    """What a decoder shows of the first `part` of the bytes of a JPEG."""
    data = encoded(image, "JPEG", **options)
    return Image.open(io.BytesIO(data[: int(part * len(data))] + b"\xff\xd9")).copy()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_part_that_a_decoder_fills_is_measured(kind: str, mode: str, turn: int) -> None:
    """A copy of a file that ended early, stored again at another size, also rotated."""
    whole = Image.effect_noise((300, 400), 60).convert(mode)
    torn = ended_early(whole, 0.5, quality=90)
    filled = float((np.asarray(torn).reshape(400, -1) == 128).all(axis=1).mean())
    again = torn.resize((450, 600)).rotate(turn, expand=True)
    facts = measure_image(decode_image(encoded(again, kind, quality=50), max_pixels=LIMIT))
    assert 0.4 < filled < 0.6
    assert facts.missing_part == pytest.approx(filled, abs=0.03)


def test_no_part_is_missing_of_whole_images() -> None:
    images = {
        "whole": scene(300, 300),
        "gray background": ImageOps.expand(scene(90, 90), 60, (128, 128, 128)),
        "uniform gray": Image.new("RGB", (99, 99), (128, 128, 128)),
        "coloured bar whose luma is 128": ImageOps.pad(
            scene(200, 100), (200, 200), color=(255, 76, 61), centering=(0, 0)
        ),
        "dark bar": ImageOps.pad(scene(200, 100), (200, 200), color="black", centering=(0, 0)),
    }
    luma = np.asarray(images["coloured bar whose luma is 128"].convert("L"))[-1]
    assert abs(int(luma[0]) - 128) <= 1
    measured = {
        name: measure_image(decode_image(encoded(image, "PNG"), max_pixels=LIMIT)).missing_part
        for name, image in images.items()
    }
    assert measured == dict.fromkeys(images, 0.0)


# reduced decoding


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Noise with the spectrum of natural scenes, and edges."""
    rng = np.random.default_rng(seed)
    side = max(width, height)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = 1
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    field = np.fft.irfft2(spectrum / frequency**1.6, (side, side))[:height, :width]
    field = 120 + 45 * field / field.std()
    field[height // 3 : height // 2, width // 4 : width // 2] = 230
    colour = np.stack([field, field * 0.8 + 20, 250 - field], axis=-1)
    return Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 256])
def test_the_square_is_within_the_pixel_gate(side):
    values = []
    for seed, size in enumerate([(1001, 777), (600, 1511), (1333, 1333), (643, 900), (1601, 1200)]):
        data = encoded(photograph(*size, seed), "JPEG", quality=90)
        with Image.open(io.BytesIO(data)) as file:
            short = min(size)
            left, top = (size[0] - short) / 2, (size[1] - short) / 2
            box = (left, top, left + short, top + short)
            truth = file.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box=box)
        made = center_square(data, side, LIMIT)
        assert (made.width, made.height, made.mode) == (*size, "RGB")
        values.append(psnr(made.pixels, pixels(truth)))
    assert np.median(values) >= 47, values
    assert min(values) >= 40, values


def test_a_draft_is_never_smaller_than_asked_for():
    data = encoded(photograph(1000, 700, 1), "JPEG")
    for short in (60, 87, 88, 175, 176, 350, 351, 700, 900):
        image = opened(data, draft_to=short)
        assert min(image.size) >= min(short, 700)
    assert min(opened(data, draft_to=87).size) < 100
    assert OVERSAMPLE > 1


def test_gray_jpegs_stay_gray_and_small_images_are_enlarged():
    square = center_square(encoded(scene().convert("L"), "JPEG", quality=95), 200, LIMIT)
    assert square.pixels.shape == (200, 200, 1)
    assert square.mode == "L"
    again = opened(encode_jpeg(square.pixels, 95))
    assert again.mode == "L"
    assert psnr(pixels(again), square.pixels[:, :, 0]) > 35
    assert center_square(encoded(scene(), "PNG"), 200, LIMIT).pixels.shape == (200, 200, 3)
