"""Cropped, mirrored and recoloured copies, found by the recorded features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageEnhance, ImageOps

from pipeline.contract import UserError, read_jsonl
from pipeline.select import feature_duplicates as module
from pipeline.select import features
from pipeline.select.feature_duplicates import feature_duplicates
from pipeline.select.features import record_features
from pipeline.select.preview import preview
from pipeline.select.stage import select

GARMENTS = Path(__file__).parents[2] / "data" / "galleries" / "lazygal"


def copies_of(image: Image.Image) -> dict[str, Image.Image]:
    width, height = image.size
    return {
        "crop": image.crop((width // 20, height // 20, width, height)),
        "mirrored": ImageOps.mirror(image).resize((width - 2, height - 2)),
        "pale": ImageEnhance.Color(image).enhance(0.4).resize((width - 4, height - 4)),
    }


@pytest.mark.slow
def test_copies_are_rejected_by_their_features_and_shown(shop: Any, log: Any) -> None:
    originals, copies = {}, {}
    for path in sorted(GARMENTS.glob("*/*.jpg")):
        if "_" not in path.stem:
            image = Image.open(path)
            served = shop.Served(shop.encoded(image), path.name)
            originals[served.key] = served
            for name, copy in copies_of(image).items():
                made = shop.Served(shop.encoded(copy), f"{name}-{path.name}")
                copies[made.key] = made, served.key
    assert len(originals) == 6
    shop.add([*originals.values(), *(made for made, _ in copies.values())])
    recipe = shop.recipe({"duplicate_distance": 0.6, "near_duplicate_bits": "off"})
    result = select(recipe, shop.dataset, log)
    lines = {line["key"]: line for line in read_jsonl(shop.dataset.rejections)}
    gone = {key for key, line in lines.items() if line["reason"] == "feature_duplicate"}
    assert gone == copies.keys()
    assert result.kept == 6
    assert {key: lines[key]["detail"].split()[0] for key in gone} == {
        key: original for key, (_, original) in copies.items()
    }
    page = BeautifulSoup(preview(recipe, shop.dataset, log, most=2).read_text(), "lxml")
    section = page.find(id="feature_duplicate")
    assert section is not None
    assert len(section.select(".sides > div")[0].select("figure")) == 4
    without = select(shop.recipe({"near_duplicate_bits": "off"}), shop.dataset, log)
    assert without.rejected == {}


def record(shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch, rows: np.ndarray) -> np.ndarray:
    """Record these features, and return the keys in their order."""
    taken = iter(rows.astype(np.float32))
    monkeypatch.setattr(
        features,
        "load_extractor",
        lambda name, kind: lambda images: np.stack([next(taken) for _ in images]),
    )
    images = shop.served(len(rows))
    shop.add(images)
    record_features(shop.dataset, "toy", log)
    return np.array([int(one.key, 16) for one in images], np.uint64)


def test_the_walk_equals_a_comparison_of_all_pairs(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 6)) + 2
    rows[30:] = rows[:30] + rng.normal(size=(30, 6)) * rng.uniform(0, 0.8, (30, 1))
    keys = record(shop, log, monkeypatch, rows)
    order = rng.permutation(60)
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_KEPT_BLOCK", 5)
    limit = 0.1
    found = feature_duplicates(shop.dataset, "toy", keys[order], limit)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centered = unit - unit.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(centered.T))
    white = centered @ directions / np.sqrt(variances + variances.mean())
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    distance = 1 - white[order] @ white[order].T
    kept: list[int] = []
    expected = []
    for i in range(60):
        nearest = min(kept, key=lambda k: distance[i, k], default=-1)
        if nearest >= 0 and distance[i, nearest] <= limit:
            expected.append(nearest)
            assert found.distance[i] == pytest.approx(distance[i, nearest], abs=0.01)
        else:
            expected.append(-1)
            kept.append(i)
    assert 10 < sum(one >= 0 for one in expected) < 50
    assert found.duplicate_of.tolist() == expected


@pytest.mark.parametrize(("count", "said"), [(4, [4]), (5, [])])
def test_too_few_images_to_compare_are_said(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch, count: int, said: list[int]
) -> None:
    record(shop, log, monkeypatch, np.random.default_rng(0).normal(size=(count, 4)))
    recipe = shop.recipe({"duplicate_distance": 0.1, "features": "toy"})
    select(recipe, shop.dataset, log)
    events = [row["facts"] for row in read_jsonl(shop.dataset.event_log)
              if row["event"] == "duplicate_distance has few images to compare"]  # fmt: skip
    assert [one["images"] for one in events] == said
    assert all(one["needed"] == 5 and "--preview" in one["advice"] for one in events)


def test_images_without_features_are_no_copies(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4))
    keys = record(shop, log, monkeypatch, rows[[0, 1, 1]])
    assert feature_duplicates(shop.dataset, "toy", keys, 0.1).duplicate_of.tolist() == [-1, -1, 1]
    others = np.array([5, 6], np.uint64)
    assert feature_duplicates(shop.dataset, "toy", others, 0.1).duplicate_of.tolist() == [-1, -1]
    assert not len(feature_duplicates(shop.dataset, "toy", keys[:0], 0.1).duplicate_of)


def test_a_limit_outside_the_range_is_refused(shop: Any) -> None:
    with pytest.raises(UserError, match=r"duplicate_distance"):
        shop.recipe({"duplicate_distance": 2})
