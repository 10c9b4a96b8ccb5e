"""Shards with four channels: every step after the crop reads, counts and shows them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.contract import load_index
from pipeline.contract.tar import read_samples
from pipeline.select.stage import select
from pipeline.shards.card import colour_statistics
from pipeline.shards.exports import export
from pipeline.shards.forget import forget
from pipeline.shards.plan import plan_shards
from pipeline.shards.stage import find_built_shard, shard
from pipeline.shards.verify import verify


def drawn(shop: Any, count: int) -> list[Any]:
    """Discs of several colours and sizes, on plain light backgrounds; the last one is a square
    with an alpha of its own."""
    images = []
    for number in range(count - 1):
        image = Image.new("RGB", (120, 100), (235, 235, 230 - number))
        colour = (120, 20 * number, 40 + 15 * number)
        ImageDraw.Draw(image).ellipse((30 - number, 20, 80 + number, 80), fill=colour)
        images.append(image)
    square = Image.new("RGBA", (90, 90), (0, 255, 0, 0))
    ImageDraw.Draw(square).rectangle((30, 30, 60, 70), fill=(40, 90, 160, 255))
    images.append(square)
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    return [shop.Served(data, f"{n}.jpg") for n, data in enumerate(files)]


@pytest.mark.parametrize("form", ["webp", "png"])
def test_cut_out_objects_pass_every_step_of_the_stage(
    shop: Any, log: Any, form: Any, tmp_path: Path
) -> None:
    images = drawn(shop, 6)
    shop.add(images)
    recipe = shop.recipe({"near_duplicate_bits": "off"}, channels=4, crop="object", format=form)
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)

    index, locations = load_index(shop.dataset.manifest_dir)
    assert (index.channels, index.nsamples) == (4, 6)
    for _, files in read_samples(Path(locations[0])):
        image = Image.open(io.BytesIO(files[form]))
        pixels = np.asarray(image)
        assert image.mode == "RGBA"
        assert pixels[0, 0, 3] == 0
        assert pixels[8, 8, 3] == 255
        assert json.loads(files["json"])["notes"] == {
            "enlarged": False, "fell_back": False, "plain": False, "opaque": False,
        }  # fmt: skip
    assert verify(recipe, shop.dataset, log, workers=1).is_valid

    card = shop.dataset.card.read_text()
    assert "colour with transparency" in card
    assert "0 of 6 samples have no transparent pixel" in card
    assert "| alpha |" in card
    (plan,) = plan_shards(recipe.shards, shop.dataset, shop.dataset.name).shards
    built = find_built_shard(shop.dataset, plan)
    assert built is not None
    mean, _ = colour_statistics([built])
    assert max(mean[:3]) < mean[3] < 255
    with Image.open(shop.dataset.manifest_dir / "mean.png") as shown:
        assert (shown.mode, shown.getpixel((0, 0))) == ("RGB", (255, 255, 255))

    export(shop.dataset, "nvlabs", tmp_path / "out.zip", log)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert Image.open(archive.open("00000/img00000000.png")).mode == "RGBA"

    forget(recipe, shop.dataset, log, keys=[images[0].key], workers=1)
    result = verify(recipe, shop.dataset, log, workers=1)
    assert (result.is_valid, result.samples) == (True, 5)


@pytest.mark.parametrize(("crop", "warned"), [("center", True), ("object", False)])
def test_a_dataset_in_which_nothing_is_transparent_is_named(
    shop: Any, log: Any, crop: str, warned: bool
) -> None:
    shop.add(drawn(shop, 6)[:5])
    recipe = shop.recipe({"near_duplicate_bits": "off"}, channels=4, crop=crop)
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)

    events = [json.loads(line) for line in shop.dataset.event_log.read_text().splitlines()]
    found = [event for event in events if event["event"] == "no sample is transparent"]
    assert len(found) == warned
    assert verify(recipe, shop.dataset, log, workers=1).is_valid  # also opaque WebP, stored as RGB
