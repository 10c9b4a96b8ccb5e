"""Verify finds each kind of damage and repairs nothing but that."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import UserError
from pipeline.select.stage import select
from pipeline.shards.forget import forget
from pipeline.shards.stage import shard
from pipeline.shards.verify import verify


@pytest.fixture
def made(shop: Any, log: Any) -> Any:
    """Three shards of four labelled samples, and the recipe."""
    shop.add(shop.served(12, labels=("Conus",)))
    recipe = shop.recipe(samples_per_shard=4, class_label=0, format="png")
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    return recipe


def rewrite(
    shop: Any, number: int, change: Callable[[str, bytes], tuple[str, bytes] | None]
) -> None:
    """Change members of a shard, and make size and sha256 in index and sidecar agree."""
    tar = shop.dataset.shards_dir / f"shells-{number:06d}.tar"
    file = io.BytesIO()
    with tarfile.open(tar) as old, tarfile.open(fileobj=file, mode="w") as new:
        for member in old:
            changed = change(member.name, old.extractfile(member).read())  # type: ignore[union-attr]
            if changed:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                new.addfile(info, io.BytesIO(changed[1]))
    data = file.getvalue()
    tar.write_bytes(data)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    index = json.loads(shop.dataset.shard_index.read_bytes())
    index["shardlist"][number].update(facts)
    shop.dataset.shard_index.write_text(json.dumps(index))
    sidecar = tar.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_bytes()), **facts}))


@pytest.mark.slow
def test_sound_shards_are_sound(shop: Any, log: Any, made: Any) -> None:
    for workers in (1, 2):
        result = verify(made, shop.dataset, log, workers=workers)
        assert result.is_valid
        assert (result.shards, result.samples, result.damaged) == (3, 12, {})


def flip(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)


def cut(tar: Path) -> None:
    tar.write_bytes(tar.read_bytes()[:-1024])


DAMAGE = {
    "flipped bit": (flip, "sha256"),
    "cut": (cut, "bytes, the index says"),
    "gone": (Path.unlink, "No such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_named_and_repaired_alone(
    shop: Any, log: Any, made: Any, tree: Any, name: str
) -> None:
    before = tree(shop.root / "data" / "shells" / "shards")
    times = {path: path.stat().st_mtime_ns for path in shop.dataset.shards_dir.iterdir()}
    damage, message = DAMAGE[name]
    damage(shop.dataset.shards_dir / "shells-000001.tar")
    result = verify(made, shop.dataset, log, workers=1)
    assert not result.is_valid
    assert list(result.damaged) == ["shells-000001"]
    assert message in result.damaged["shells-000001"]
    repaired = verify(made, shop.dataset, log, repair=True, workers=1)
    assert repaired.is_valid
    assert repaired.repaired == ("shells-000001",)
    assert tree(shop.root / "data" / "shells" / "shards") == before
    for path, time in times.items():
        if path.stem != "shells-000001":
            assert path.stat().st_mtime_ns == time


CHANGES: dict[str, tuple[Callable[[str, bytes], tuple[str, bytes] | None], str]] = {
    "no provenance": (lambda n, d: None if n.endswith(".json") else (n, d), "members"),
    "no class": (lambda n, d: None if n.endswith(".cls") else (n, d), "members"),
    "other class": (lambda n, d: (n, b"7" if n.endswith(".cls") else d), "class 7 of 1"),
    "no image": (lambda n, d: (n, b"x" if n.endswith(".png") else d), "not readable"),
    "broken json": (lambda n, d: (n, b"{" if n.endswith(".json") else d), "not readable"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_wrong_members_are_found_behind_a_right_checksum(
    shop: Any, log: Any, made: Any, tree: Any, name: str
) -> None:
    before = tree(shop.dataset.shards_dir)
    change, message = CHANGES[name]
    rewrite(shop, 2, change)
    result = verify(made, shop.dataset, log, workers=1)
    assert message in result.damaged["shells-000002"]
    assert verify(made, shop.dataset, log, repair=True, workers=1).is_valid
    assert tree(shop.dataset.shards_dir) == before


def test_a_missing_sample_and_one_that_is_there_twice_are_found(
    shop: Any, log: Any, made: Any
) -> None:
    with tarfile.open(shop.dataset.shards_dir / "shells-000000.tar") as tar:
        first = tar.getnames()[0].partition(".")[0]
    rewrite(shop, 0, lambda n, d: None if n.startswith(first) else (n, d))
    found = verify(made, shop.dataset, log, workers=1).damaged
    assert found == {"shells-000000": "3 samples, the index says 4"}
    with tarfile.open(shop.dataset.shards_dir / "shells-000001.tar") as tar:
        other = tar.getnames()[0].partition(".")[0]
    rewrite(shop, 2, lambda n, d: (n, d))
    with tarfile.open(shop.dataset.shards_dir / "shells-000002.tar") as tar:
        last = tar.getnames()[-1].partition(".")[0]
    rewrite(shop, 2, lambda n, d: (n.replace(last, other), d))
    found = verify(made, shop.dataset, log, workers=1).damaged
    assert found["shells-000002"] == f"{other} is also in shells-000001"


def test_a_missing_index_is_made_again(shop: Any, log: Any, made: Any) -> None:
    before = shop.dataset.shard_index.read_bytes()
    shop.dataset.shard_index.unlink()
    with pytest.raises(UserError, match="no shard index"):
        verify(made, shop.dataset, log, workers=1)
    assert verify(made, shop.dataset, log, repair=True, workers=1).is_valid
    assert shop.dataset.shard_index.read_bytes() == before


def test_gray_in_webp_is_sound_and_can_be_forgotten(shop: Any, log: Any) -> None:
    """WebP has no gray of its own: it comes back as three equal channels."""
    images = shop.served(5)
    shop.add(images)
    recipe = shop.recipe(channels=1, format="webp")
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    assert verify(recipe, shop.dataset, log, workers=1).is_valid
    forget(recipe, shop.dataset, log, keys=[images[0].key], workers=1)
    result = verify(recipe, shop.dataset, log, workers=1)
    assert (result.is_valid, result.samples) == (True, 4)


def test_an_index_of_other_options_is_not_current(shop: Any, log: Any, made: Any) -> None:
    other = shop.recipe(samples_per_shard=6, class_label=0, format="png")
    result = verify(other, shop.dataset, log, workers=1)
    assert (result.damaged, result.current) == ({}, False)
    assert verify(other, shop.dataset, log, repair=True, workers=1).shards == 2
