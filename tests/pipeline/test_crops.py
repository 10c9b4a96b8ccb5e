"""Crops: the geometry, the object on a plain ground, and each mode on real files."""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageFilter
from scipy import ndimage

from pipeline.config_io import parse_config
from pipeline.contract import ManifestRow, OriginalRecord, UserError
from pipeline.imaging.components import label_regions, largest_region
from pipeline.imaging.crops import Box, center_box, center_boxes, expand_box, pad_box
from pipeline.imaging.images import decode_image
from pipeline.imaging.objects import find_object
from pipeline.imaging.pixels import LazyImage, render
from pipeline.imaging.resampling import resize, resize_linear
from pipeline.options import ShardOptions
from pipeline.select.selection import SelectedImage
from pipeline.shards import samples as framing
from pipeline.shards.samples import make_samples


def kept(data: bytes, **row: Any) -> SelectedImage:
    image = decode_image(data, max_pixels=10**8).image
    record = OriginalRecord(
        "0" * 16, "shells-000000", "m", 0, len(data), hashlib.sha256(data).hexdigest(),
        "JPEG", image.mode, image.width, image.height, "0" * 16, 1.0, 1.0,
    )  # fmt: skip
    return SelectedImage(record, ManifestRow("0" * 16, "https://shells.example/0", **row))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue()


def shell(
    size: tuple[int, int] = (300, 200), place: tuple[int, int, int, int] = (60, 50, 160, 120)
) -> Image.Image:
    """An ellipse with a bright middle on a ground that darkens to one side, with some noise."""
    width, height = size
    x = np.linspace(0, 1, width)[None, :, None]
    y = np.linspace(0, 1, height)[:, None, None]
    ground = np.array([200.0, 190.0, 180.0]) - 50 * x * x - 20 * y
    image = Image.fromarray(np.broadcast_to(ground, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse(place, fill=(90, 40, 20))
    left, top, right, bottom = place
    draw.ellipse(  # as light as the ground: a hole in the mask unless holes are filled
        (left + 30, top + 20, right - 30, bottom - 20), fill=(190, 180, 170)
    )
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def clutter(size: tuple[int, int] = (300, 200)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def psnr(pixels: np.ndarray, truth: np.ndarray) -> float:
    error = np.square(pixels.astype(float) - truth.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def sample(image: Image.Image, row: dict[str, Any] | None = None, **options: Any) -> Any:
    (made,) = make_samples(jpeg(image), kept(jpeg(image), **(row or {})), ShardOptions(**options))
    return made


def test_boxes_have_the_aspect_and_the_place() -> None:
    assert center_box(400, 300, 1.0) == Box(50, 0, 350, 300)
    assert center_box(400, 300, 2.0) == Box(0, 50, 400, 250)
    assert pad_box(400, 300, 1.0) == Box(0, -50, 400, 350)
    assert center_boxes(900, 300, 1.0, 3) == [
        Box(0, 0, 300, 300), Box(300, 0, 600, 300), Box(600, 0, 900, 300)
    ]  # fmt: skip
    assert center_boxes(100, 320, 1.0, 9)[-1] == Box(0, 220, 100, 320)
    assert center_boxes(330, 300, 1.0, 3) == [center_box(330, 300, 1.0)]
    found = Box(10, 20, 60, 40)
    assert expand_box(found, 0.1, 1.0, 200, 200) == Box(5, 0, 65, 60)
    assert expand_box(found, 0.0, 1.0, 200, 30) == Box(10, -10, 60, 40)


@pytest.mark.parametrize("density", [0.3, 0.5, 0.6, 0.8])
def test_regions_equal_those_of_scipy(density: float) -> None:
    mask = np.random.default_rng(int(density * 10)).random((60, 90)) < density
    ours, theirs = label_regions(mask), ndimage.label(mask)[0]
    pairs = {(int(a), int(b)) for a, b in zip(ours.ravel(), theirs.ravel(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    sizes = np.bincount(theirs.ravel())[1:]
    largest = theirs == sizes.argmax() + 1
    if (sizes == sizes.max()).sum() == 1:
        assert (largest_region(mask) == ndimage.binary_fill_holes(largest)).all()


def test_the_object_is_found_on_an_uneven_ground() -> None:
    ground = find_object(np.asarray(shell()))
    assert ground is not None
    box = ground.box(300, 200)
    assert np.abs(np.array(box.to_json()) - (60, 50, 161, 121)).max() <= 3
    assert ground.mask.mean() == pytest.approx(np.pi / 4 * 100 * 70 / (300 * 200), rel=0.1)


def test_an_object_that_leaves_the_image_is_found() -> None:
    ground = find_object(np.asarray(shell(place=(-40, 50, 120, 150))))
    assert ground is not None
    assert np.abs(np.array(ground.box(300, 200).to_json()) - (0, 50, 121, 151)).max() <= 4


@pytest.mark.parametrize(
    "image",
    [clutter(), Image.new("RGB", (300, 200), "tan"), shell(place=(-400, -400, 900, 900))],
    ids=["clutter", "nothing on it", "nothing but it"],
)
def test_where_there_is_no_one_object_the_center_is_taken(image: Image.Image) -> None:
    made = sample(image, crop="object", resolution=32)
    assert "fell_back" in made.notes
    assert made.box == center_box(300, 200, 1.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_object_mode_frames_the_object_with_its_margin(channels: int) -> None:
    made = sample(shell(), crop="object", resolution=48, margin=0.2, channels=channels)
    assert "fell_back" not in made.notes
    assert made.pixels.shape == (48, 48, channels)
    middle = (made.box.left + made.box.right) / 2, (made.box.top + made.box.bottom) / 2
    assert np.abs(np.array(middle) - (110, 85)).max() < 3
    assert made.box.width == made.box.height == pytest.approx(140, abs=6)


def test_the_ground_is_replaced_and_the_object_stays() -> None:
    options = {"crop": "object", "resolution": [100, 100], "margin": 0.2, "format": "png"}
    before = sample(shell(), **options).pixels
    after = sample(shell(), background="#00ff80", **options)
    assert "plain" in after.notes
    corners = after.pixels[[0, 0, -1, -1, 3], [0, -1, 0, -1, 50]]
    assert (corners == (0, 255, 128)).all()
    inside = np.s_[35:65, 25:75]
    assert (after.pixels[inside] == before[inside]).all()
    ring = np.abs(after.pixels.astype(int) - (0, 255, 128)).max(axis=2) > 0
    x, y = np.meshgrid(np.arange(100) - 50, np.arange(100) - 50)
    truth = (x / (50 / 1.4)) ** 2 + (y / (35 / 1.4)) ** 2 <= 1
    assert (ring != truth).mean() < 0.05
    untouched = sample(clutter(), background="#00ff80", resolution=32)
    assert "plain" not in untouched.notes
    # It was decoded larger to look for an object, so not bit for bit (and it is all edges).
    assert psnr(untouched.pixels, sample(clutter(), resolution=32).pixels) > 30


def test_box_mode_takes_the_largest_annotated_boxes() -> None:
    image = clutter()
    data = jpeg(image)
    row = {
        "boxes": ((10.0, 10.0, 50.0, 50.0), (100.0, 40.0, 200.0, 140.0), (400.0, 0.0, 500.0, 9.0))
    }
    options = ShardOptions(crop="box", crops=5, margin=0.0, resolution=20)
    first, second = make_samples(data, kept(data, **row), options)
    assert (first.key, second.key) == ("0" * 16 + "_0", "0" * 16 + "_1")
    assert (first.box, second.box) == (Box(100, 40, 200, 140), Box(10, 10, 50, 50))
    truth = image.resize((20, 20), Image.Resampling.LANCZOS, box=(100, 40, 200, 140))
    assert psnr(first.pixels, np.asarray(truth)) > 30
    (nothing,) = make_samples(data, kept(data), options)
    assert "fell_back" in nothing.notes
    assert nothing.box == center_box(300, 200, 1.0)


def left_third(image: Image.Image) -> list[tuple[float, float, float, float]]:
    assert image.mode == "RGB"
    return [(0.0, 0.0, 1 / 3, 1.0)]


def test_a_hook_says_where_to_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("thirds", f"{__name__}:left_third", framing.HOOK_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: left_third)
    monkeypatch.setattr("pipeline.plugins.entry_points", lambda group: EntryPoints([entry]))
    framing.load_hook.cache_clear()
    made = sample(clutter(), crop="hook", hook="thirds", margin=0.0, resolution=[40, 20])
    assert made.box == Box(0, 0, 100, 200)
    assert made.pixels.shape == (40, 20, 3)
    with pytest.raises(UserError, match="choose from thirds"):
        framing.load_hook("faces")
    framing.load_hook.cache_clear()


def test_pad_keeps_the_whole_image_on_the_colour_of_its_border() -> None:
    image = Image.new("RGB", (200, 100), (10, 200, 90))
    image.paste((250, 250, 250), (50, 25, 150, 75))
    made = sample(image, crop="pad", resolution=64)
    assert np.abs(made.pixels[:14].astype(int) - (10, 200, 90)).max() <= 4
    assert np.abs(made.pixels[-14:].astype(int) - (10, 200, 90)).max() <= 4
    assert made.pixels[32, 32].min() > 245


def test_none_takes_the_whole_image_and_targets_need_not_be_square() -> None:
    image = clutter()
    made = sample(image, crop="none", resolution=[30, 60])
    truth = image.resize((60, 30), Image.Resampling.LANCZOS)
    assert made.pixels.shape == (30, 60, 3)
    assert psnr(made.pixels, np.asarray(truth)) > 30


def test_several_windows_of_a_long_image() -> None:
    data = jpeg(clutter((900, 200)))
    found = make_samples(data, kept(data), ShardOptions(crops=3, resolution=16))
    assert [one.box.left for one in found] == [0, 350, 700]
    assert len({one.key for one in found}) == 3


@pytest.mark.parametrize("side", [28, 64, 256, 1024])
@pytest.mark.parametrize("channels", [1, 3])
def test_scaled_decoding_stays_within_the_gate(side: int, channels: int) -> None:
    image = clutter((1400, 1100)).filter(ImageFilter.GaussianBlur(2))
    data = jpeg(image)
    mode = "L" if channels == 1 else "RGB"
    box = center_box(1400, 1100, 1.0)
    made = render(LazyImage(data, (1400, 1100), mode), box, (side, side))
    whole = Image.open(io.BytesIO(data)).convert(mode)
    sides = (box.left, box.top, box.right, box.bottom)
    truth = np.asarray(whole.resize((side, side), Image.Resampling.LANCZOS, box=sides))
    assert psnr(made, truth.reshape(made.shape)) > 40


def test_a_small_original_is_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 360, 3), dtype=np.uint8)
    data = jpeg(Image.fromarray(noise))
    truth = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.LANCZOS)

    def fidelity() -> float:
        made = render(LazyImage(data, (360, 360), "RGB"), Box(0, 0, 360, 360), (64, 64))
        return psnr(made, np.asarray(truth))

    assert fidelity() > 50
    monkeypatch.setattr("pipeline.imaging.pixels.DECODE_WHOLE_BELOW", 0)
    assert fidelity() < 45


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.imaging.pixels.DECODE_WHOLE_BELOW", 0)
    image = clutter((451, 307)).filter(ImageFilter.GaussianBlur(2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(image, exif=exif)
    upright = decode_image(data, max_pixels=10**8).image
    box = Box(20.5, 31.25, 220.5, 131.25)
    made = render(LazyImage(data, upright.size, "RGB"), box, (25, 50))
    sides = (box.left, box.top, box.right, box.bottom)
    truth = upright.resize((50, 25), Image.Resampling.LANCZOS, box=sides)
    assert psnr(made, np.asarray(truth)) > 40


def test_an_orientation_that_only_xmp_tells_is_heeded() -> None:
    image = clutter((300, 200)).filter(ImageFilter.GaussianBlur(2))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    data = jpeg(image, xmp=xmp)
    upright = decode_image(data, max_pixels=10**8).image
    assert upright.size == (200, 300)
    made = render(LazyImage(data, upright.size, "RGB"), Box(0, 50, 200, 250), (40, 40))
    truth = upright.resize((40, 40), Image.Resampling.LANCZOS, box=(0, 50, 200, 250))
    assert psnr(made, np.asarray(truth)) > 40


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


@pytest.mark.parametrize("kind", ["sRGB profile", "XYZ profile", "CMYK", "PNG with alpha", "gray"])
def test_whatever_the_file_the_sample_is_that_of_the_opened_image(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.imaging.pixels.DECODE_WHOLE_BELOW", 0)
    image = clutter((400, 300)).filter(ImageFilter.GaussianBlur(2))
    if kind == "PNG with alpha":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        file = io.BytesIO()
        image.save(file, "PNG")
        data = file.getvalue()
    elif kind == "CMYK":
        file = io.BytesIO()
        image.convert("CMYK").save(file, "JPEG", quality=95)
        data = file.getvalue()
    elif kind == "gray":
        data = jpeg(image.convert("L"))
    else:
        data = jpeg(image, icc_profile=profile("sRGB" if "sRGB" in kind else "XYZ"))
    opened = decode_image(data, max_pixels=10**8).image
    for mode in ("RGB", "L"):
        made = render(LazyImage(data, (400, 300), mode), Box(50, 0, 350, 300), (48, 48))
        whole = opened.convert(mode)
        truth = np.asarray(whole.resize((48, 48), Image.Resampling.LANCZOS, box=(50, 0, 350, 300)))
        assert psnr(made, truth.reshape(made.shape)) > 40


def test_linear_light_averages_light() -> None:
    lines = np.zeros((64, 64, 1), np.uint8)
    lines[::2] = 255
    whole = Box(0, 0, 64, 64)
    middle = np.s_[4:-4, 4:-4]
    assert np.abs(resize(lines, whole, (16, 16))[middle].astype(int) - 128).max() <= 2
    assert np.abs(resize_linear(lines, whole, (16, 16))[middle].astype(int) - 188).max() <= 2
    same = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (resize_linear(same, Box(0, 0, 16, 16), (16, 16)) == same).all()
    bright = sample(clutter(), resolution=16, linear_light=True).pixels.mean()
    assert bright > sample(clutter(), resolution=16).pixels.mean() + 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "hook"}, "hook: must be set"),
        ({"hook": "x"}, "hook: must be set"),
        ({"crop": "pad", "crops": 2}, "one sample per image"),
        ({"background": "white"}, "background"),
        ({"resolution": [4, 64]}, "resolution"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse_config(ShardOptions, options, "recipe")
