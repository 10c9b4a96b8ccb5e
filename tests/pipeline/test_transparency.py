"""Transparency on the way from an original to a sample: alpha, edges, hidden colours, formats."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.config_io import parse_config
from pipeline.contract import ManifestRow, OriginalRecord, UserError
from pipeline.imaging.alpha import (
    OPAQUE,
    over,
    over_checkerboard,
    over_white,
    premultiply,
    unpremultiply,
)
from pipeline.imaging.crops import Box
from pipeline.imaging.images import decode_image
from pipeline.imaging.resampling import Pixels, resize, resize_linear
from pipeline.options import ShardOptions
from pipeline.select.selection import SelectedImage
from pipeline.shards.samples import Sample, decode, encode, make_samples

SHELL, LIGHT, DARK = (150, 60, 30), (240, 240, 236), (20, 24, 30)
VIVID = (255, 0, 255)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sample(data: bytes, **options: Any) -> Sample:
    image = decode_image(data, max_pixels=10**8).image
    record = OriginalRecord(
        "0" * 16, "shells-000000", "m", 0, len(data), hashlib.sha256(data).hexdigest(),
        "PNG", image.mode, image.width, image.height, "0" * 16, 1.0, 1.0,
    )  # fmt: skip
    chosen = SelectedImage(record, ManifestRow("0" * 16, "https://shells.example/0"))
    made = make_samples(data, chosen, ShardOptions(channels=4, **options))
    return made[0]


def drawn(ground: tuple[int, ...], mode: str = "RGB", side: int = 256) -> Image.Image:
    """A brown disc, antialiased, on a plain ground."""
    large = Image.new(mode, (4 * side, 4 * side), ground)
    place = (side, side, 3 * side, 3 * side)
    ImageDraw.Draw(large).ellipse(place, fill=SHELL if mode == "RGB" else (*SHELL, 255))
    return large.resize((side, side), Image.Resampling.BOX)


def truth(side: int, box: Box, ground: tuple[int, ...]) -> np.ndarray:
    """The same disc, `box` of the image of 256 px, drawn on another ground without any cut."""
    image = drawn(ground)
    sides = (box.left, box.top, box.right, box.bottom)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, sides), np.int16)


def colour_error(pixels: Pixels, wanted: np.ndarray, ground: tuple[int, ...]) -> int:
    """The largest difference in any channel, after compositing over `ground`."""
    return int(np.abs(over(premultiply(pixels), ground).astype(np.int16) - wanted).max())


@pytest.mark.parametrize("how", [resize, resize_linear])
@pytest.mark.parametrize("hidden", [(255, 255, 255), (0, 0, 0), (0, 255, 0)])
def test_resizing_mixes_no_hidden_colour_into_an_edge(how: Any, hidden: Any) -> None:
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[:, :, :3], pixels[:, :31] = hidden, (*SHELL, OPAQUE)

    small = how(pixels, Box(0, 0, 60, 60), (20, 20))

    edge = (small[:, :, 3] > 20) & (small[:, :, 3] < OPAQUE)
    assert edge.any()
    assert np.abs(small[edge][:, :3].astype(int) - SHELL).max() <= 6


def test_premultiplied_and_straight_alpha_are_inverse_where_a_pixel_can_be_seen() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[0, 0] = (9, 200, 30, 0)

    back = unpremultiply(premultiply(pixels))

    assert (back[..., 3] == pixels[..., 3]).all()
    error = np.abs(back[..., :3].astype(float) - pixels[..., :3]) * pixels[..., 3:] / 255
    assert error[pixels[..., 3] > 0].max() <= 1
    assert (premultiply(back) == premultiply(pixels)).mean() > 0.99


def test_compositing_is_that_of_porter_and_duff() -> None:
    pixels = np.array([[[200, 100, 0, 128], [1, 2, 3, 255], [50, 60, 70, 0]]], np.uint8)

    found = over(premultiply(pixels), (0, 100, 200))

    share = np.array([128, 255, 0])[:, None] / 255
    wanted = pixels[0, :, :3] * share + np.array([0, 100, 200]) * (1 - share)
    assert np.abs(found[0] - wanted).max() <= 1
    assert (over_white(pixels)[0, 2] == 255).all()
    board = over_checkerboard(np.zeros((16, 16, 4), np.uint8))
    assert len({tuple(colour) for colour in board.reshape(-1, 3).tolist()}) == 2


@pytest.mark.parametrize("ground", [LIGHT, DARK])
@pytest.mark.parametrize("side", [48, 64, 160, 512, 1024])
def test_an_object_is_cut_out_of_its_background_without_a_halo(ground: Any, side: int) -> None:
    made = sample(saved(drawn(ground), "PNG"), crop="object", resolution=side)

    assert made.pixels.shape == (side, side, 4)
    assert "fell_back" not in made.notes
    assert made.pixels[0, 0, 3] == 0
    assert made.pixels[side // 2, side // 2].tolist() == [*SHELL, OPAQUE]
    edge = (made.pixels[..., 3] > 0) & (made.pixels[..., 3] < OPAQUE)
    assert edge.sum() > side  # the edge is soft
    for other in (VIVID, DARK, LIGHT):
        assert colour_error(made.pixels, truth(side, made.box, other), other) <= 36


def test_a_hard_cut_would_leave_a_halo() -> None:
    """The bound of the test above means something: alpha 0 or 255 at the same edge exceeds it."""
    made = sample(saved(drawn(LIGHT), "PNG"), crop="object", resolution=64)
    wanted = truth(64, made.box, DARK)
    plain = truth(64, made.box, LIGHT).astype(np.uint8)
    hard = np.dstack([plain, np.where(made.pixels[..., 3] > 30, OPAQUE, 0).astype(np.uint8)])

    assert colour_error(hard, wanted, DARK) > 60


@pytest.mark.parametrize(("gap", "alpha"), [(5, OPAQUE), (60, 0)])
def test_what_an_object_encloses_but_for_a_narrow_gap_belongs_to_it(gap: int, alpha: int) -> None:
    """A white lip before white is no hole; the space inside a wide bay is none of the object."""
    image = Image.new("RGB", (256, 256), LIGHT)
    draw = ImageDraw.Draw(image)
    draw.ellipse((64, 64, 192, 192), outline=SHELL, width=24)
    draw.rectangle((128, 128 - gap // 2, 200, 128 + gap // 2), fill=LIGHT)

    made = sample(saved(image, "PNG"), crop="object", resolution=64)

    assert made.pixels[32, 32, 3] == alpha


@pytest.mark.parametrize("crop", ["center", "object", "pad", "none"])
def test_an_original_keeps_its_own_alpha(crop: str) -> None:
    original = drawn((0, 255, 0, 0), "RGBA")
    made = sample(saved(original, "PNG"), crop=crop, resolution=64)

    assert made.pixels[0, 0, 3] == 0
    assert made.pixels[32, 32].tolist() == [*SHELL, OPAQUE]
    assert colour_error(made.pixels, truth(64, made.box, VIVID), VIVID) <= 24
    if crop == "object":
        assert made.box.width < 200  # the visible part, with its margin


def test_palette_and_gray_alpha_are_kept_too() -> None:
    for mode in ("LA", "P"):
        original = drawn((0, 255, 0, 0), "RGBA").convert("LA" if mode == "LA" else "RGBA")
        image = original if mode == "LA" else original.quantize(64)
        made = sample(saved(image, "PNG"), resolution=64)
        assert made.pixels[0, 0, 3] == 0
        assert made.pixels[32, 32, 3] >= 250


def test_images_without_alpha_are_opaque_and_say_so() -> None:
    for form in ("PNG", "JPEG"):
        made = sample(saved(drawn(LIGHT), form), resolution=64)
        assert (made.pixels[..., 3] == OPAQUE).all()
        assert made.notes == ("opaque",)


def test_what_is_outside_the_image_is_transparent() -> None:
    wide = saved(drawn(LIGHT).crop((0, 64, 256, 192)), "PNG")
    made = sample(wide, crop="pad", resolution=64)
    assert (made.pixels[:15, :, 3] == 0).all()
    assert (made.pixels[18:46, :, 3] == OPAQUE).all()


@pytest.mark.parametrize(("form", "quality"), [("png", None), ("webp", None), ("webp", 90)])
def test_formats_keep_alpha_and_the_hidden_colour(form: Any, quality: int | None) -> None:
    made = sample(saved(drawn(DARK), "PNG"), crop="object", resolution=64)
    hidden = made.pixels[made.pixels[..., 3] == 0][:, :3]
    assert len(hidden)
    assert np.abs(hidden.astype(int) - SHELL).max() <= 3  # the mean colour of the object

    options = ShardOptions(channels=4, format=form, quality=quality)
    back = decode(encode(made.pixels, options), 4, (64, 64))

    assert (back[..., 3] == made.pixels[..., 3]).all()
    if quality is None:
        assert (back == made.pixels).all()


def test_an_opaque_webp_still_has_four_channels() -> None:
    pixels = np.full((16, 16, 4), OPAQUE, np.uint8)
    data = encode(pixels, ShardOptions(channels=4, format="webp"))
    assert (decode(data, 4) == pixels).all()


@pytest.mark.parametrize(
    ("options", "advice"),
    [({"format": "jpg"}, "has no transparency"), ({"background": "#ffffff"}, "remove one")],
)
def test_options_that_exclude_transparency_are_refused(options: Any, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        parse_config(ShardOptions, {"channels": 4, **options}, "shells.toml")
