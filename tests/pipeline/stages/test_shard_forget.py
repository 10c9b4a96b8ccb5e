"""Forget: the bytes are gone everywhere, and only the shards that held them change."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import UserError, load_index, read_jsonl
from pipeline.forgotten import forgotten_path
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.select.stage import select
from pipeline.shards.forget import forget
from pipeline.shards.stage import shard
from pipeline.shards.verify import verify


def keys_of(tar: str) -> set[str]:
    with tarfile.open(tar) as archive:
        return {name.partition(".")[0] for name in archive.getnames()}


def keys(manifest: Path) -> set[str]:
    return set().union(*map(keys_of, load_index(manifest)[1]))


def build(shop: Any, log: Any, recipe: Any, variant: str | None = None) -> None:
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1, variant=variant)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("keep_originals", [True, False])
def test_only_the_shard_that_held_it_changes(shop: Any, log: Any, keep_originals: bool) -> None:
    images = shop.served(20, labels=("Conus",)) + shop.served(1, 50, labels=("Bursa",))
    shop.add(images)
    recipe = shop.recipe(
        samples_per_shard=5, class_label=0, format="png", keep_originals=keep_originals
    )
    build(shop, log, recipe)
    gone = images[-1]  # the only one of its class, which keeps its number
    tars = load_index(shop.dataset.manifest_dir)[1]
    with_it = [Path(path).stem for path in tars if gone.key in keys_of(path)]
    before, counts = times(shop.dataset.shards_dir), load_index(shop.dataset.manifest_dir)[0]
    result = forget(recipe, shop.dataset, log, urls=[gone.url], workers=1)
    assert (result.images, result.shards) == (1, {"shells": 1})
    after = times(shop.dataset.shards_dir)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {f"{with_it[0]}.tar", f"{with_it[0]}.json"}
    assert keys(shop.dataset.manifest_dir) == {image.key for image in images[:-1]}
    index = load_index(shop.dataset.manifest_dir)[0]
    assert index.nsamples == counts.nsamples - 1
    assert index.labels == ("Bursa", "Conus")
    assert verify(recipe, shop.dataset, log, workers=1).is_valid
    reasons = {line["key"]: line["reason"] for line in read_jsonl(shop.dataset.rejections)}
    assert reasons == {gone.key: "forgotten"}


def test_copying_gives_the_bytes_that_making_gives(shop: Any, log: Any, tree: Any) -> None:
    images = shop.served(12)
    shop.add(images)
    recipe = shop.recipe(samples_per_shard=4, format="png")
    build(shop, log, recipe)
    forget(recipe, shop.dataset, log, keys=[images[3].key], workers=1)
    copied = tree(shop.dataset.shards_dir)
    for path in shop.dataset.shards_dir.iterdir():
        path.unlink()
    shard(recipe, shop.dataset, log, workers=1)
    assert tree(shop.dataset.shards_dir) == copied


def test_the_bytes_of_the_original_are_erased_and_the_rest_stays(shop: Any, log: Any) -> None:
    images = shop.served(6)
    shop.add(images)
    recipe = shop.recipe()
    build(shop, log, recipe)
    part = PartFiles(shop.dataset, planned_parts(shop.dataset)[0])
    assert forget(recipe, shop.dataset, log, urls=[images[2].url], workers=1).erased == 1
    data = part.tar.read_bytes()
    assert images[2].data not in data
    assert all(image.data in data for image in images if image is not images[2])
    with tarfile.open(part.tar) as tar:
        assert len(tar.getnames()) == 12
    assert json.loads(part.summary.read_bytes())["bytes"] == len(data)
    again = forget(recipe, shop.dataset, log, urls=[images[2].url], workers=1)
    assert (again.images, again.erased, again.shards) == (0, 0, {"shells": 0})


def test_by_host_and_licence_and_in_every_variant(shop: Any, log: Any) -> None:
    images = [
        *shop.served(4, 0, host="a.example"),
        *shop.served(3, 10, host="img.b.example"),
        *shop.served(2, 20, license="CC BY-NC 4.0"),
    ]
    shop.add(images)
    recipe = shop.recipe()
    build(shop, log, recipe)
    build(shop, log, shop.recipe(resolution=32), variant="32")
    result = forget(recipe, shop.dataset, log, hosts=["B.example"], licenses=["by-nc"], workers=1)
    assert result.images == 5
    assert set(result.shards) == {"shells", "shells-32"}
    left = {image.key for image in images[:4]}
    assert keys(shop.dataset.manifest_dir) == left
    assert keys(shop.root / "manifests" / "shells-32") == left
    assert load_index(shop.root / "manifests" / "shells-32")[0].resolution == (32, 32)
    # Found again later, it is left out again.
    shop.add(images[4:5], listed=False)
    build(shop, log, recipe)
    assert keys(shop.dataset.manifest_dir) == left


def test_a_killed_forget_is_finished_by_the_next(shop: Any, log: Any, monkeypatch: Any) -> None:
    images = shop.served(8)
    shop.add(images)
    recipe = shop.recipe(samples_per_shard=4, keep_originals=False)
    build(shop, log, recipe)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.shards.forget.shard", killed)
    with pytest.raises(KeyboardInterrupt):
        forget(recipe, shop.dataset, log, keys=[images[0].key], workers=1)
    monkeypatch.undo()
    forget(recipe, shop.dataset, log, keys=[images[0].key], workers=1)
    assert keys(shop.dataset.manifest_dir) == {image.key for image in images[1:]}


def test_what_is_not_there_is_a_mistake(shop: Any, log: Any) -> None:
    shop.add(shop.served(2))
    with pytest.raises(UserError, match="lists no such image"):
        forget(shop.recipe(), shop.dataset, log, hosts=["other.example"])
    with pytest.raises(UserError, match="give a URL"):
        forget(shop.recipe(), shop.dataset, log)


@pytest.mark.parametrize("option", ["urls", "hosts", "licenses", "keys"])
@pytest.mark.parametrize("value", ["", "  "], ids=["empty", "blank"])
def test_a_blank_value_forgets_nothing(option: str, value: str, shop: Any, log: Any) -> None:
    shop.add(shop.served(2))
    given = {"licenses": ["CC BY"], option: [value]}
    with pytest.raises(UserError, match=f"forget --{option[:-1]}: the value is blank; give one"):
        forget(shop.recipe(), shop.dataset, log, **given)
    assert not forgotten_path(shop.dataset).exists()
