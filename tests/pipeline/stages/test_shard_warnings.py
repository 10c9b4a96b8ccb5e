"""The shard stage names a crop mode that found nothing in most images."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from PIL import Image, ImageDraw

from pipeline.console import describe_event
from pipeline.events import Event, EventLog
from pipeline.select.stage import select
from pipeline.shards.samples import HOOK_GROUP, load_hook
from pipeline.shards.stage import shard


def disc(shop: Any, number: int) -> Any:
    """A disc on a plain background."""
    image = Image.new("RGB", (120, 100), (235, 235, 230))
    ImageDraw.Draw(image).ellipse((30, 20, 80 + number, 80), fill=(120, 20 * number, 40))
    return shop.Served(shop.encoded(image), f"disc{number}")


@pytest.fixture
def warnings(shop: Any, log: Any) -> Any:
    """Build shards of images, twice, and return the lines about their crops of the second run."""

    def run(images: list[Any], **options: Any) -> list[str]:
        shop.add(images)
        recipe = shop.recipe({"near_duplicate_bits": "off"}, **options)
        select(recipe, shop.dataset, log)
        seen: list[Event] = []
        shard(recipe, shop.dataset, log, workers=1)
        with EventLog(shop.dataset, "again", [seen.append]) as again:
            assert shard(recipe, shop.dataset, again, workers=1).made == 0
        return [describe_event(one) for one in seen if "crops of the center" in one.event]

    return run


def test_boxes_that_no_image_has(shop: Any, warnings: Any) -> None:
    assert warnings(shop.served(4), crop="box") == [
        'shard most samples are crops of the center: centered 4, samples 4, hint crop = "box" '
        "found nothing in these images; it needs images with boxes, from import or from the column "
        "that source.boxes names"
    ]


@pytest.mark.parametrize(("cluttered", "warned"), [(0, 0), (2, 0), (3, 1)])
def test_objects_that_few_images_have(
    shop: Any, warnings: Any, cluttered: int, warned: int
) -> None:
    images = [disc(shop, number) for number in range(5 - cluttered)] + shop.served(cluttered)
    assert len(warnings(images, crop="object")) == warned


def test_a_hook_that_finds_nothing(
    shop: Any, warnings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("faces", f"{__name__}:find", HOOK_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda image: [])
    monkeypatch.setattr("pipeline.plugins.entry_points", lambda group: EntryPoints([entry]))
    load_hook.cache_clear()
    (line,) = warnings(shop.served(2), crop="hook", hook="faces")
    assert line.endswith("shards.hook names returned no box that is inside the image")
    load_hook.cache_clear()


@pytest.mark.parametrize("crop", ["center", "pad", "none"])
def test_other_crops_have_no_warning(shop: Any, warnings: Any, crop: str) -> None:
    assert warnings(shop.served(2), crop=crop) == []
