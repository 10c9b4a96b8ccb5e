"""The card tells what is in the shards, and its numbers are the shards' own."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contract import load_index
from pipeline.contract.tar import read_samples
from pipeline.select.stage import select
from pipeline.shards.card import card_page
from pipeline.shards.samples import decode
from pipeline.shards.stage import shard


def rows(card: str, title: str) -> dict[str, list[str]]:
    """A section's table: the first cell of each row, and the others."""
    section = card.split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells[2:]}


@pytest.fixture
def card(shop: Any, log: Any) -> str:
    shop.add(
        [
            *shop.served(20, labels=("shell", "Conus")),
            *shop.served(5, 30, labels=("shell", "a|b"), license=""),
            *shop.served(3, 40, license="CC BY 4.0", host="other.example"),
            *shop.served(2, 50, license="All mine"),
            shop.Served(shop.encoded(shop.picture(60, (50, 12))), "small"),
        ]
    )
    recipe = shop.recipe({"licenses": ["cc", ""], "min_side": 20}, resolution=100, crop="object")
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    return str(shop.dataset.card.read_text())


def test_counts_licences_labels_and_reasons(card: str) -> None:
    assert rows(card, "Kept and rejected") == {"kept": ["30"], "small": ["1"]}
    assert rows(card, "Licences") == {
        "CC0": ["20"], "not stated": ["5"], "CC BY 4.0": ["3"], "All mine": ["2"]
    }  # fmt: skip
    assert rows(card, "Labels") == {"shell": ["25"], "Conus": ["20"], r"a\|b": ["5"]}
    assert rows(card, "Originals") == {"64 to 127": ["30"]}
    assert rows(card, "Attributions") == {"A. Person": ["30"]}
    assert "| Samples | 30 in 3 shards |" in card
    assert "html: https://shells.example/" in card
    assert "shells.example (27), other.example (3)" in card


def test_it_says_how_often_no_object_was_found_and_what_was_enlarged(card: str) -> None:
    found = re.search(r"In (\d+) of 30 samples, crop 'object' found nothing", card)
    assert found is not None
    assert int(found[1]) >= 25
    assert re.search(r"Enlarged from smaller crops: \d+ samples?\.", card)


def test_the_colours_are_those_of_the_samples(shop: Any, card: str) -> None:
    pixels = [
        decode(files["webp"], 3)
        for path in load_index(shop.dataset.manifest_dir)[1]
        for number, (_, files) in enumerate(read_samples(Path(path)))
        if number % 4 == 0
    ]
    values = np.concatenate([one.reshape(-1, 3) for one in pixels]).astype(float)
    for place, name in enumerate(("red", "green", "blue")):
        mean, deviation = map(float, rows(card, "Colour")[name])
        assert mean == pytest.approx(values[:, place].mean(), abs=0.06)
        assert deviation == pytest.approx(values[:, place].std(), abs=0.06)
    with Image.open(shop.dataset.manifest_dir / "mean.png") as image:
        assert image.size == (64, 64)
        assert np.asarray(image).mean() == pytest.approx(values.mean(), abs=1)


def test_the_contact_sheet_shows_the_first_samples(shop: Any, card: str) -> None:
    first = next(read_samples(Path(load_index(shop.dataset.manifest_dir)[1][0])))[1]["webp"]
    with Image.open(io.BytesIO((shop.dataset.manifest_dir / "contact.jpg").read_bytes())) as sheet:
        assert sheet.size == (8 * 102 - 2, 4 * 102 - 2)
        corner = np.asarray(sheet.crop((0, 0, 100, 100)), float)
    assert np.abs(corner - decode(first, 3)).mean() < 8


def test_the_page_holds_the_card_and_its_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "mean.png")
    table = "| a | b |\n| - | - |\n| 1 | 2 |\n"
    text = f"# Shells & <i>more</i>\n\n![m](mean.png) ![gone](x.png)\n\n{table}"
    page = card_page(text, tmp_path)
    assert "<i>" not in page
    assert "<title>Shells &amp; &lt;i&gt;more&lt;/i&gt;</title>" in page
    assert "<td>2</td>" in page
    sources = re.findall(r'src="([^"]*)"', page)
    data = base64.b64decode(sources[0].removeprefix("data:image/png;base64,"))
    assert data == (tmp_path / "mean.png").read_bytes()
    assert len(sources) == 1
    assert "gone" in page  # a picture that is not there is its words
    assert "Content-Security-Policy" in page
