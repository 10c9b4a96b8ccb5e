"""What the page shows and sorts by: outcomes of the limits, pairs, clusters, similar images."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.contract import JsonlAppender, UserError
from pipeline.curate.image_table import KEPT, ImageTable, load_image_table
from pipeline.curate.similarity import find_clusters
from pipeline.forgotten import forgotten_path
from pipeline.select import features
from pipeline.select.rules import REASONS
from pipeline.select.stage import select


def index_of(table: ImageTable, one: Any) -> int:
    return [table.key(i) for i in range(len(table))].index(one.key)


def test_it_has_all_images_but_forgotten_ones_and_changes_no_selection(shop: Any, log: Any) -> None:
    small = shop.Served(shop.encoded(shop.picture(9, (60, 40))), "small.jpg")
    images = [*shop.served(3, labels=("Conus", "x")), small]
    shop.add(images)
    shop.add(shop.served(1, start=50), listed=False)
    recipe = shop.recipe({"min_side": 64})
    select(recipe, shop.dataset, log)
    before = (shop.dataset.selection.read_bytes(), shop.dataset.rejections.read_bytes())
    with JsonlAppender(forgotten_path(shop.dataset)) as file:
        file.append({"key": images[0].key})
    table = load_image_table(recipe, shop.dataset, log, use_network=False)
    assert {table.key(i) for i in range(len(table))} == {one.key for one in images[1:]}
    assert [table.columns["reason"][index_of(table, one)] for one in images[1:]] == [
        KEPT, KEPT, REASONS.index("small"),
    ]  # fmt: skip
    assert table.details[int(small.key, 16)] == "40 < 64"
    labels = [table.words["label"][i] for i in table.columns["label"]]
    assert labels == ["Conus", "Conus", ""]
    assert (shop.dataset.selection.read_bytes(), shop.dataset.rejections.read_bytes()) == before
    assert not list(shop.dataset.data_dir.glob(".preview-*"))


def test_copies_are_pairs_with_the_larger_one_first(shop: Any, log: Any) -> None:
    image = shop.picture(1, (240, 180))
    large, copy, other = (
        shop.Served(shop.encoded(one), name)
        for one, name in (
            (image, "large.jpg"), (image.resize((120, 90)), "copy.jpg"), (shop.picture(2), "other"),
        )
    )  # fmt: skip
    shop.add([copy, large, other])
    table = load_image_table(shop.recipe(), shop.dataset, log, use_network=False)
    of = table.columns["copy_of"].tolist()
    assert of[index_of(table, copy)] == index_of(table, large)
    assert of[index_of(table, large)] == of[index_of(table, other)] == -1


def disc(seed: int, color: tuple[int, int, int]) -> Image.Image:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 25, (90, 120, 3)) + color
    image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(1))


def test_without_a_network_the_odd_ones_are_a_cluster_of_their_own(shop: Any, log: Any) -> None:
    good = [shop.Served(shop.encoded(disc(n, (190, 180, 160))), f"g{n}.jpg") for n in range(40)]
    odd = [shop.Served(shop.encoded(disc(n, (30, 60, 200))), f"o{n}.jpg") for n in range(100, 106)]
    shop.add([*good, *odd])
    recipe = shop.recipe({"near_duplicate_bits": "off", "features": "no-such"})
    table = load_image_table(recipe, shop.dataset, log)
    assert "no-such" in table.notes[0]
    assert "colours" in table.notes[0]
    clusters, scores = table.columns["cluster"], table.columns["score"]
    places = [index_of(table, one) for one in odd]
    first = {int(i) for i in np.flatnonzero(np.isin(clusters, clusters[places]))}
    assert first == set(places)
    assert scores[places].min() > np.delete(scores, places).max()
    assert 0 in clusters[places]  # the least typical cluster comes first


def test_a_network_whose_package_is_missing_is_one_note_and_no_failure(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extractor(images: Any) -> Any:
        import_module("no_such_package")

    monkeypatch.setattr(features, "load_extractor", lambda *_: extractor)
    shop.add(shop.served(3))
    table = load_image_table(shop.recipe(), shop.dataset, log)
    assert len(table.notes) == 1
    assert "no_such_package" in table.notes[0]
    assert not log.failed
    assert not list(shop.dataset.originals_dir.glob("*.npz"))  # nothing that looks complete


def test_recorded_features_give_score_and_similarity(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extractor(images: Any) -> Any:
        """Bright images point one way, dark ones another."""
        rows = [[image.mean() > 128, image.mean() <= 128, 0.01 * image.std()] for image in images]
        return np.array(rows, np.float32)

    monkeypatch.setattr(features, "load_extractor", lambda *_: extractor)
    bright = [shop.Served(shop.encoded(disc(n, (210, 200, 190))), f"b{n}") for n in range(12)]
    dark = [shop.Served(shop.encoded(disc(n, (40, 40, 50))), f"d{n}") for n in range(20, 22)]
    shop.add([*bright, *dark])
    table = load_image_table(shop.recipe({"near_duplicate_bits": "off"}), shop.dataset, log)
    assert table.notes == []
    places = [index_of(table, one) for one in dark]
    rest = np.delete(np.arange(len(table)), places)
    assert table.columns["score"][places].min() > table.columns["score"][rest].max()
    similar = table.features @ table.features[places[0]]
    assert similar[places[1]] > similar[rest].max()


def test_clusters_are_those_of_separate_blobs() -> None:
    rng = np.random.default_rng(3)
    centers = 10 * np.eye(6, dtype=np.float32)
    truth = rng.integers(0, 6, 500)
    points = centers[truth] + rng.normal(0, 0.3, (500, 6)).astype(np.float32)
    found = find_clusters(points, 6)
    pairs = {(a, b) for a, b in zip(truth.tolist(), found.tolist(), strict=True)}
    assert len(pairs) == 6
    assert (find_clusters(points, 6) == found).all()
    assert find_clusters(points[:1], 9).tolist() == [0]
    assert len(find_clusters(points[:0], 3)) == 0


def test_a_dataset_without_images_is_one_line(shop: Any, log: Any) -> None:
    with pytest.raises(UserError, match="no images yet; run download, or import"):
        load_image_table(shop.recipe(), shop.dataset, log, use_network=False)
