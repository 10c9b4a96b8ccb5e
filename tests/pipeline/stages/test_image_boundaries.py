"""In every stage after the download one bad image costs itself, and damaged files are one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.contract import DatasetPaths, UserError, load_index, read_jsonl
from pipeline.contract.tar import read_samples
from pipeline.errors import describe_os_error, is_disk_full
from pipeline.originals.part_tars import read_original
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PartFiles, read_records
from pipeline.select import features, preview_page
from pipeline.select import stage as select_stage
from pipeline.select.preview import preview
from pipeline.select.stage import select
from pipeline.shards import builder as shard_make
from pipeline.shards import samples
from pipeline.shards.exports import export
from pipeline.shards.forget import forget
from pipeline.shards.recipe_snapshot import recipe_snapshot_path
from pipeline.shards.stage import shard
from pipeline.shards.verify import check_shard, verify
from pipeline.workers import process_pool

RECIPE = """
[source]
kind = "html"
start = ["https://shells.example/"]
image = "img"
[select]
min_side = 8
[shards]
resolution = 16
"""


def in_shards(dataset: DatasetPaths) -> set[str]:
    _, paths = load_index(dataset.manifest_dir)
    return {key for path in paths for key, _ in read_samples(Path(path))}


def failed(dataset: DatasetPaths) -> dict[str, str]:
    return {line["key"]: line["kind"] for line in read_jsonl(dataset.failure_log)}


@pytest.fixture
def three(shop: Any) -> Any:
    images = shop.served(3)
    shop.add(images)
    return images


# shard


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_originals_that_are_damaged_or_cut_off_give_no_sample(
    shop: Any, log: Any, three: Any, workers: int
) -> None:
    recipe = shop.recipe(samples_per_shard=2)
    select(recipe, shop.dataset, log)
    *_, flipped, cut = sorted(read_records(shop.dataset), key=lambda one: one.offset)
    with PartFiles(shop.dataset, cut.part).tar.open("r+b") as tar:
        tar.seek(flipped.offset + 40)
        tar.write(b"\xff\xff\xff")
        tar.truncate(cut.offset + 10)
    result = shard(recipe, shop.dataset, log, workers=workers)
    assert (result.samples, result.failed) == (1, 2)
    assert in_shards(shop.dataset) == {one.key for one in three} - {flipped.key, cut.key}
    assert failed(shop.dataset) == {flipped.key: "damaged", cut.key: "damaged"}


def test_a_bug_of_ours_over_one_image_gives_no_sample_of_that_image(
    shop: Any, log: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(shop.recipe(), shop.dataset, log)
    made, encode = shard_make.make_samples, samples.encode
    odd, unwritable, _ = (one.key for one in three)
    calls: list[str] = []

    def make(data: bytes, image: Any, options: Any) -> Any:
        calls.append(image.key)
        if image.key == odd:
            raise LookupError("a bug")
        return made(data, image, options)

    def members(sample: Any, *rest: Any) -> Any:
        if sample.key == unwritable:
            raise MemoryError
        return real(sample, *rest)

    real = shard_make.sample_members
    monkeypatch.setattr(shard_make, "make_samples", make)
    monkeypatch.setattr(shard_make, "sample_members", members)
    result = shard(shop.recipe(), shop.dataset, log, workers=1)
    assert (result.samples, result.failed) == (1, 2)
    assert failed(shop.dataset) == {odd: "internal", unwritable: "too_many_pixels"}
    assert encode is samples.encode
    assert len(calls) == 3


def test_a_full_disk_ends_shard_and_the_next_run_goes_on(
    shop: Any, log: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(shop.recipe(), shop.dataset, log)

    def make(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shard_make, "make_samples", make)
        with pytest.raises(OSError, match="No space"):
            shard(shop.recipe(), shop.dataset, log, workers=1)
    assert not failed(shop.dataset)
    assert shard(shop.recipe(), shop.dataset, log, workers=1).samples == 3


def test_shards_whose_originals_are_all_damaged(shop: Any, log: Any, three: Any) -> None:
    """One shard without samples beside a good one; and none at all, which is one line."""
    shop.add(shop.served(3, 10))
    recipe = shop.recipe(samples_per_shard=1)
    select(recipe, shop.dataset, log)
    tar = PartFiles(shop.dataset, "shells-000000").tar
    tar.write_bytes(bytes(tar.stat().st_size))
    result = shard(recipe, shop.dataset, log, workers=1)
    assert (result.samples, result.failed, result.shards) == (3, 3, 6)
    assert verify(recipe, shop.dataset, log, workers=1).is_valid
    tar = PartFiles(shop.dataset, "shells-000001").tar
    tar.write_bytes(bytes(tar.stat().st_size))
    recipe = shop.recipe(samples_per_shard=1, resolution=32)
    with pytest.raises(UserError, match="none of its images has a sample; the reasons are in"):
        shard(recipe, shop.dataset, log, workers=1)


def test_an_export_of_a_shard_that_is_not_as_its_index_says(
    shop: Any, log: Any, three: Any, tmp_path: Path
) -> None:
    recipe = shop.recipe()
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    path = next(shop.dataset.shards_dir.glob("*.tar"))
    for ending, data in ((".json", b"{"), (".json", b"[]"), (".webp", b"junk")):
        whole = path.read_bytes()
        entry, _ = remake(path, lambda name, old: data if name.endswith(ending) else old)  # noqa: B023
        index = json.loads(shop.dataset.shard_index.read_bytes())
        index["shardlist"][0] |= {"sha256": entry.sha256, "bytes": entry.bytes}
        shop.dataset.shard_index.write_text(json.dumps(index))
        with pytest.raises(UserError, match=r"run verify --repair"):
            export(shop.dataset, "nvlabs", tmp_path / "out.zip", log)
        path.write_bytes(whole)


def test_an_error_of_the_disk_in_a_worker_arrives_as_what_it_is() -> None:
    with pytest.raises(OSError, match="No space left") as caught, process_pool(1) as pool:
        pool.submit(Path("/dev/full").write_bytes, b"x").result()
    assert is_disk_full(caught.value)
    assert describe_os_error(caught.value).startswith("no space left on the disk; free")
    assert is_disk_full(pickle.loads(pickle.dumps(caught.value)))


def test_a_worker_that_is_ended_from_outside_is_one_line() -> None:
    with pytest.raises(UserError, match="a worker process was killed"), process_pool(1) as pool:
        pool.submit(os._exit, 9).result()


# select and its features


def test_select_passes_over_what_it_cannot_measure(
    shop: Any, log: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_rejection = select_stage.first_rejection

    def odd(image: Any, *others: Any) -> Any:
        if image.key == three[1].key:
            raise LookupError("a bug")
        return first_rejection(image, *others)

    monkeypatch.setattr(select_stage, "first_rejection", odd)
    result = select(shop.recipe(), shop.dataset, log)
    assert (result.kept, result.rejected) == (2, {"internal": 1})
    assert failed(shop.dataset) == {three[1].key: "internal"}
    assert log.failed == {"internal": 1}


def test_features_of_an_image_that_stops_the_extractor_are_left_out(
    shop: Any, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = shop.served(5)
    shop.add(images)
    records = {record.key: record for record in read_records(shop.dataset)}
    damaged = records[images[0].key]
    with PartFiles(shop.dataset, damaged.part).tar.open("r+b") as tar:
        tar.seek(damaged.offset)
        tar.write(b"nothing")
    stopping = np.asarray(shop.picture(1)).mean()

    def extract(batch: Any) -> Any:
        means = np.array([[one.mean(), 1.0, 0.0] for one in batch], np.float32)
        if np.abs(means[:, 0] - stopping).min() < 1:
            raise ZeroDivisionError("of the extractor")
        return means

    monkeypatch.setattr(features, "load_extractor", lambda name, kind: extract)
    recipe = shop.recipe({"off_topic": 50.0})
    assert select(recipe, shop.dataset, log).kept == 5
    (keys, _), = features.read_features(shop.dataset, recipe.select.features)  # fmt: skip
    assert {f"{key:016x}" for key in keys} == {one.key for one in images[2:]}
    assert failed(shop.dataset) == {images[1].key: "internal"}
    path = next(shop.dataset.originals_dir.glob("*.npz"))
    for junk in (b"", b"PK\3\4junk", path.read_bytes()[:200]):
        path.write_bytes(junk)
        with pytest.raises(UserError, match=r"\.npz: damaged; remove it"):
            select(recipe, shop.dataset, log)


# preview


def lists(dataset: DatasetPaths) -> list[bytes]:
    return [path.read_bytes() for path in (dataset.selection, dataset.rejections)]


def test_a_preview_leaves_the_selection_as_it_is(shop: Any, log: Any, three: Any) -> None:
    path = preview(shop.recipe({"min_side": 100}), shop.dataset, log)
    assert "0 images would be kept" in path.read_text()
    assert not shop.dataset.selection.exists()
    select(shop.recipe(), shop.dataset, log)
    before = lists(shop.dataset)
    preview(shop.recipe({"min_side": 100, "near_duplicate_bits": "off"}), shop.dataset, log)
    assert lists(shop.dataset) == before
    assert not list(shop.dataset.data_dir.glob(".preview-*"))
    assert [one.name for one in shop.dataset.manifest_dir.iterdir()] != []


def test_the_command_leaves_the_selection_too(shop: Any, three: Any) -> None:
    recipe = shop.root / "shells.toml"
    recipe.write_text(RECIPE)
    words = [str(recipe), "--root", str(shop.root), "--quiet"]
    assert main(["select", *words]) == 0
    before = lists(shop.dataset)
    assert main(["select", *words, "--preview", "--set", "select.min_side=100"]) == 0
    assert lists(shop.dataset) == before
    assert "0 images would be kept" in (shop.dataset.manifest_dir / "preview.html").read_text()


def test_a_picture_that_cannot_be_made_leaves_the_page(
    shop: Any, log: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = preview_page.read_original

    def odd(dataset: Any, record: Any) -> bytes:
        if record.key == three[0].key:
            raise LookupError("a bug")
        return bytes(read(dataset, record))

    monkeypatch.setattr(preview_page, "read_original", odd)
    page = preview(shop.recipe(), shop.dataset, log).read_text()
    assert three[0].key in page
    assert page.count("<img") > 0
    assert set(failed(shop.dataset).values()) == {"internal"}


# what to download, select and shard next


def test_the_commands_say_which_stage_is_next(
    shop: Any, three: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = shop.root / "shells.toml"
    recipe.write_text(RECIPE)
    words = [str(recipe), "--root", str(shop.root), "--quiet"]
    assert main(["select", *words]) == 0
    assert "not in the shards yet; run: python -m pipeline shard" in capsys.readouterr().err
    assert main(["shard", *words]) == 0
    assert main(["select", *words]) == 0
    assert "not in the shards" not in capsys.readouterr().err
    shop.add(shop.served(1, 9))
    assert main(["select", *words]) == 0
    assert "not in the shards yet; run: python -m pipeline shard" in capsys.readouterr().err


# damaged files of our own


JUNK = [
    b"{\n", b"[]\n", b"5\n", b"\xff\xfe\n", b"[" * 50_000 + b"\n", b'{"ok": true}\n',
    b'{"ok": true, "key": "00000000000000aa", "offset": "x", "bytes": -5}\n',
    b'{"ok": 1, "key": 5}\n', b'{"ok": false, "key": "00000000000000aa"}\n',
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_journal_with_junk_in_it(
    shop: Any, log: Any, three: Any, junk: bytes, place: int
) -> None:
    """Of a complete part one line says where; an incomplete one goes on from what is whole."""
    part = PartFiles(shop.dataset, "shells-000000")
    lines = part.journal.read_bytes().splitlines(keepends=True)
    part.journal.write_bytes(b"".join([*lines[:place], junk, *lines[place:]]))
    with pytest.raises(UserError, match=rf"shells-000000\.jsonl:{place + 1}: .*"):
        select(shop.recipe(), shop.dataset, log)
    part.summary.unlink()
    writer = PartWriter(shop.dataset, part.part)
    assert writer.done == {one.key for one in three}
    writer.finish()
    assert select(shop.recipe(), shop.dataset, log).kept == 3
    assert {read_original(shop.dataset, one) for one in read_records(shop.dataset)} == {
        one.data for one in three
    }


def test_a_tar_that_is_junk_is_fetched_again(shop: Any, three: Any) -> None:
    part = PartFiles(shop.dataset, "shells-000000")
    part.summary.unlink()
    part.tar.write_bytes(b"junk" * 1000)
    writer = PartWriter(shop.dataset, part.part)
    assert not writer.done
    writer.close()


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"5", b"{}", b'{"sha256": 5}', b"\xff"])
def test_damaged_metadata_is_one_line_or_made_again(
    shop: Any, log: Any, three: Any, junk: bytes
) -> None:
    recipe = shop.recipe()
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    sidecar = next(shop.dataset.shards_dir.glob("*.json"))
    before = sidecar.read_bytes()
    sidecar.write_bytes(junk)
    recipe_snapshot_path(shop.dataset).write_bytes(junk)
    assert shard(recipe, shop.dataset, log, workers=1).made == 1
    assert sidecar.read_bytes() == before
    recipe_snapshot_path(shop.dataset).write_bytes(junk)
    if junk not in (b"{}",):
        with pytest.raises(UserError, match=r"recipe\.json: "):
            forget(recipe, shop.dataset, log, keys=[three[0].key], workers=1)
    PartFiles(shop.dataset, "shells-000000").summary.write_bytes(junk)
    shard(recipe, shop.dataset, log, workers=1)
    with pytest.raises(UserError, match=r"shells-000000\.json: damaged; run download"):
        forget(recipe, shop.dataset, log, keys=[three[0].key], workers=1)


@pytest.mark.parametrize("name", ["selection", "rejections"])
@pytest.mark.parametrize("junk", [b"{}\n", b"5\n", b"{\n", b'{"key": "x", "labels": 5}\n'])
def test_lists_with_junk_in_them_are_one_line(
    shop: Any, log: Any, three: Any, name: str, junk: bytes
) -> None:
    select(shop.recipe(), shop.dataset, log)
    path = getattr(shop.dataset, name)
    path.write_bytes(path.read_bytes() + junk)
    with pytest.raises(UserError, match=rf"{path.name}:\d+: "):
        shard(shop.recipe(), shop.dataset, log, workers=1)


def test_a_damaged_list_of_forgotten_images_is_one_line(shop: Any, log: Any, three: Any) -> None:
    (shop.dataset.manifest_dir / "forgotten.jsonl").write_text('{"key": 5}\n')
    with pytest.raises(UserError, match=r"forgotten\.jsonl:1: key"):
        select(shop.recipe(), shop.dataset, log)


# verify


@pytest.fixture
def made(shop: Any, log: Any, three: Any) -> Any:
    recipe = shop.recipe(class_label=0)
    shop.add(shop.served(2, 10, labels=("Conus",)))
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    return recipe


def remake(path: Path, change: Callable[[str, bytes], bytes]) -> Any:
    """A shard with other members, and the index entry and index that fit it."""
    import dataclasses
    import hashlib

    from pipeline.contract import ShardEntry
    from pipeline.contract.tar_writer import TarWriter

    index, _ = load_index(path.parents[3] / "manifests" / path.parent.parent.name)
    found = [(f"{key}.{ending}", data) for key, files in read_samples(path)
             for ending, data in files.items()]  # fmt: skip
    with path.open("wb") as file:
        tar = TarWriter(file)
        for name, data in found:
            tar.add(name, change(name, data))
        tar.close()
    data = path.read_bytes()
    entry = ShardEntry("x.tar", index.nsamples, len(data), hashlib.sha256(data).hexdigest())
    return entry, dataclasses.replace(index, shardlist=())


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        (".cls", b"9" * 5000), (".cls", b"-1"), (".cls", b"x"), (".json", b"[" * 100_000),
        (".json", b"{"), (".webp", b"junk"), (".webp", b""),
    ],
)  # fmt: skip
def test_verify_finds_members_of_every_odd_kind(
    shop: Any, made: Any, ending: str, data: bytes
) -> None:
    path = next(shop.dataset.shards_dir.glob("*.tar"))
    entry, index = remake(path, lambda name, old: data if name.endswith(ending) else old)
    wrong, keys = check_shard(path, entry, index)
    assert wrong is not None
    assert "internal" not in wrong
    assert "Traceback" not in wrong
    assert keys == []


@pytest.mark.slow
def test_verify_decodes_no_image_of_another_size(shop: Any, made: Any) -> None:
    vast = shop.encoded(shop.picture(1).resize((3000, 3000)), "WEBP")
    path = next(shop.dataset.shards_dir.glob("*.tar"))
    entry, index = remake(path, lambda name, old: vast if name.endswith("webp") else old)
    wrong, _ = check_shard(path, entry, index)
    assert wrong is not None
    assert "3000 × 3000 pixels, not those of the index" in wrong


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_shard(shop: Any, log: Any, made: Any) -> None:
    path = next(shop.dataset.shards_dir.glob("*.tar"))
    path.unlink()
    os.mkfifo(path)
    result = verify(made, shop.dataset, log, workers=1)
    assert result.damaged == {path.stem: "not a file"}
    path.unlink()
    assert verify(made, shop.dataset, log, repair=True, workers=1).is_valid


def test_the_record_of_a_part_says_what_its_journal_says(shop: Any, three: Any) -> None:
    part = PartFiles(shop.dataset, "shells-000000")
    values = json.loads(part.summary.read_bytes())
    assert values["nsamples"] == len(list(read_records(shop.dataset)))
