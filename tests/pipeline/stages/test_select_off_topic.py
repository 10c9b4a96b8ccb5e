"""Off-topic images, found by the network that comes with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image, ImageDraw, ImageOps

from pipeline.contract import UserError, read_jsonl
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.select import features
from pipeline.select.features import features_path, read_features, record_features
from pipeline.select.outliers import outlier_scores
from pipeline.select.preview import preview
from pipeline.select.stage import select
from pipeline.shards.forget import forget

NAME = "efficientnet_lite0"
GARMENTS = Path(__file__).parents[2] / "data" / "galleries" / "lazygal"


def page_of_text() -> Image.Image:
    page = Image.new("RGB", (300, 400), "white")
    draw = ImageDraw.Draw(page)
    for line in range(30):
        draw.text((20, 12 * line + 20), "the quick brown fox jumps over " * 2, fill="black")
    return page


def diagram() -> Image.Image:
    page = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(page)
    for n in range(4):
        draw.rectangle((20 + 95 * n, 40, 90 + 95 * n, 90), outline="navy", width=3)
        draw.line((55 + 95 * n, 90, 200, 240), fill="red", width=2)
    draw.ellipse((160, 220, 240, 280), fill="orange")
    return page


@pytest.fixture
def mixed(shop: Any) -> dict[str, str]:
    """Photographs of garments, and two drawn pages; the keys of the pages."""
    images = []
    for path in sorted(GARMENTS.glob("*/*.jpg")):
        if "_" not in path.stem:
            photograph = Image.open(path)
            width, height = photograph.size
            for name, seen in (
                ("whole", photograph),
                ("mirrored", ImageOps.mirror(photograph)),
                ("closer", photograph.crop((20, 20, width - 20, height - 30))),
            ):
                images.append(shop.Served(shop.encoded(seen), f"{name}-{path.name}"))
    assert len(images) == 18
    pages = {
        "text": shop.Served(shop.encoded(page_of_text()), "text.jpg"),
        "diagram": shop.Served(shop.encoded(diagram()), "diagram.jpg"),
    }
    shop.add(images)
    shop.add(list(pages.values()))
    return {name: page.key for name, page in pages.items()}


@pytest.mark.slow
def test_what_is_strange_to_the_network_is_rejected_and_shown(
    shop: Any, log: Any, mixed: dict[str, str]
) -> None:
    result = select(shop.recipe({"off_topic": 2.5}), shop.dataset, log)
    lines = {line["key"]: line for line in read_jsonl(shop.dataset.rejections)}
    strange = {key for key, line in lines.items() if line["reason"] == "off_topic"}
    assert strange == set(mixed.values())
    assert result.rejected["off_topic"] == 2
    assert all(float(lines[key]["detail"].split()[0]) > 2.5 for key in strange)
    path = preview(shop.recipe({"off_topic": 2.5}), shop.dataset, log, most=3)
    section = BeautifulSoup(path.read_text(), "lxml").find(id="off_topic")
    assert section is not None
    gone, kept = ([code.get_text() for code in side.select("figcaption code")]
                  for side in section.select(".sides > div"))  # fmt: skip
    assert set(gone) == strange
    assert len(kept) == 3
    off = select(shop.recipe(), shop.dataset, log)
    assert "off_topic" not in off.rejected


@pytest.mark.slow
def test_features_are_recorded_once_and_forgotten_with_the_image(
    shop: Any, log: Any, mixed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    calls = features.load_extractor

    def counted(name: str, kind: Any) -> Any:
        extractor = calls(name, kind)
        return lambda pictures: (seen.append(len(pictures)), extractor(pictures))[1]

    monkeypatch.setattr(features, "load_extractor", counted)
    first, second = planned_parts(shop.dataset)
    record_features(shop.dataset, NAME, log)
    total = sum(seen)
    keys = np.concatenate([part for part, _ in read_features(shop.dataset, NAME)])
    assert len(keys) == total == len(set(keys.tolist()))
    assert all(
        np.allclose(np.linalg.norm(rows, axis=1), 1) and rows.shape[1] == 1280
        for _, rows in read_features(shop.dataset, NAME)
    )
    before = features_path(shop.dataset, first, NAME).read_bytes()
    features_path(shop.dataset, second, NAME).unlink()
    record_features(shop.dataset, NAME, log)
    assert sum(seen) == total + 2
    assert features_path(shop.dataset, first, NAME).read_bytes() == before
    forget(shop.recipe(), shop.dataset, log, keys=[mixed["text"]])
    left = np.concatenate([part for part, _ in read_features(shop.dataset, NAME)])
    assert set(keys.tolist()) - set(left.tolist()) == {int(mixed["text"], 16)}
    # Without the originals what is recorded still does.
    PartFiles(shop.dataset, first).tar.unlink()
    select(shop.recipe({"off_topic": 2.5}), shop.dataset, log)
    assert sum(seen) == total + 2


def test_strangeness_is_the_distance_to_the_centre_in_robust_deviations(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 8)) * 0.1 + 1
    rows[7] = (1, -1, 1, -1, 1, -1, 1, -1)
    taken = iter(rows)
    monkeypatch.setattr(
        features, "load_extractor",
        lambda name, kind: lambda pictures: np.array([next(taken) for _ in pictures], np.float32),
    )  # fmt: skip
    images = shop.served(40)
    shop.add(images)
    record_features(shop.dataset, "toy", log)
    keys = np.array([int(one.key, 16) for one in images] + [5], np.uint64)
    found = outlier_scores(shop.dataset, "toy", keys)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centre = np.median(unit, axis=0)
    distance = 1 - unit @ centre / np.linalg.norm(centre)
    middle = np.median(distance)
    truth = (distance - middle) / (1.4826 * np.median(np.abs(distance - middle)))
    assert np.allclose(found[:40], truth, rtol=0.05, atol=0.1)
    assert np.isnan(found[40])
    assert found[:40].argmax() == 7


@pytest.mark.parametrize("foreign", [(8, 8), (16, 12, 12)], ids=["few", "frequent"])
def test_frequent_images_of_other_kinds_do_not_hide_each_other(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch, foreign: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    counts = (60, *foreign)
    rows = np.concatenate([
        np.eye(len(counts), 12)[kind] + rng.uniform(0, 0.2, (count, 12))
        for kind, count in enumerate(counts)
    ])  # fmt: skip
    taken = iter(rng.permutation(len(rows)))
    monkeypatch.setattr(
        features, "load_extractor",
        lambda name, kind: lambda pictures: rows[[next(taken) for _ in pictures]],
    )  # fmt: skip
    images = shop.served(len(rows))
    shop.add(images)
    record_features(shop.dataset, "toy", log)
    keys, seen = (
        np.concatenate(one) for one in zip(*read_features(shop.dataset, "toy"), strict=True)
    )
    is_foreign = seen.argmax(axis=1) > 0
    scores = outlier_scores(shop.dataset, "toy", keys)
    assert scores[is_foreign].min() > 6
    assert scores[~is_foreign].max() < 4
    assert abs(np.median(scores[~is_foreign])) < 1e-6


def test_an_unknown_extractor_is_the_users_mistake(shop: Any, log: Any) -> None:
    shop.add(shop.served(1))
    with pytest.raises(UserError, match=r"select\.features: 'nothing' is not an entry point"):
        select(shop.recipe({"off_topic": 2.5, "features": "nothing"}), shop.dataset, log)
