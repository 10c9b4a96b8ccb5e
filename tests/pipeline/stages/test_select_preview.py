"""The preview shows, by reason, the images on both sides of the limit."""

from __future__ import annotations

import base64
import io
from typing import Any

from bs4 import BeautifulSoup
from PIL import Image

from pipeline.select.numeric_limits import NUMERIC_LIMITS, histogram
from pipeline.select.preview import preview


def captions(page: BeautifulSoup, reason: str) -> list[list[str]]:
    section = page.find(id=reason)
    assert section is not None
    return [
        [code.get_text() for code in side.select("figcaption code")]
        for side in section.select(".sides > div")
    ]


def test_the_images_next_to_each_limit_are_shown(shop: Any, log: Any) -> None:
    images = {
        side: shop.Served(shop.encoded(shop.picture(side, (side + 40, side))), f"{side}.jpg")
        for side in (30, 40, 50, 60, 70, 80)
    }
    copy = shop.Served(images[80].data, "copy <b>.jpg")
    near = shop.Served(shop.encoded(shop.picture(80, (120, 80)).resize((116, 78))), "near.jpg")
    bare = shop.Served(shop.encoded(shop.picture(7)), "bare.jpg", license="<all mine>")
    shop.add([*images.values(), copy, near, bare])
    recipe = shop.recipe({"min_side": 55, "near_duplicate_bits": 6, "licenses": ["cc0"]})
    path = preview(recipe, shop.dataset, log, most=2)
    assert path == shop.dataset.manifest_dir / "preview.html"
    page = BeautifulSoup(path.read_text(), "lxml")
    rejected, passing = captions(page, "small")
    assert rejected == [images[50].key, images[40].key]
    assert passing == [images[60].key, images[70].key]
    assert set(captions(page, "near_duplicate")[0]) >= {near.key}
    assert captions(page, "license")[0] == [bare.key]
    assert "'<all mine>'" in page.find(id="license").get_text()  # type: ignore[union-attr]
    assert captions(page, "duplicate")[0] in ([copy.key], [images[80].key])
    pictures = page.select("#small img")
    assert len(pictures) == 4
    data = base64.b64decode(str(pictures[0]["src"]).partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (90, 50)
    assert len(page.select("#small rect")) == 60


def test_without_originals_it_still_says_which(shop: Any, log: Any) -> None:
    images = shop.served(3)
    shop.add(images)
    next(shop.dataset.originals_dir.glob("*.tar")).unlink()
    page = BeautifulSoup(preview(shop.recipe(), shop.dataset, log).read_text(), "lxml")
    assert set(captions(page, "blurred")[1]) == {image.key for image in images}
    assert not page.select("img")


def test_the_axis_of_a_histogram_names_its_values() -> None:
    measure = NUMERIC_LIMITS[-1]
    assert histogram([0.0, 0.0], 0.02, measure)[1] == "all 0"
    bars, axis = histogram([0.0, 0.0, 0.5], 0.02, measure)
    assert axis == "0 to 0.5, log scale"
    assert [passes for _, height, passes in bars if height] == [True, False]
