"""Shards of other tools: without a complete index, of any size, with labels of any kind."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wids

from pipeline.errors import UserError
from tests.helpers.foreign_shards import drawn, file_of, numbered, write_tar
from tests.helpers.small_shards import number_of
from training import nearest
from training.config import Config, DataOptions
from training.data import Batch, Loader
from training.options.architectures import DcganGenerator
from training.streaming.dataset import ShardDataset, open_shard_dataset
from training.streaming.samples import iter_image_batches
from training.streaming.shards import DamagedShard

IMG2DATASET = Path(__file__).parents[2] / "data" / "imports" / "img2dataset" / "several_sizes"
"""Written by img2dataset: 3 tars of 4 JPEGs."""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened(location: str | Path, resolution: int = 0, **data: Any) -> ShardDataset:
    return open_shard_dataset(location, resolution, DataOptions(**data))


def take(source: ShardDataset, count: int, seen: int = 0, **data: Any) -> list[Batch]:
    config = Config(batch=10, seed=5, data=DataOptions(**data))
    with Loader(source, config, seen) as loader:
        return list(itertools.islice(loader, count))


def numbers(batches: list[Batch]) -> list[int]:
    rows = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1)
    return [number_of(row) for row in rows.numpy()]


def three_tars(folder: Path, **members: Any) -> Path:
    for shard in range(3):
        write_tar(folder / f"{shard:03d}.tar", numbered(20, 20 * shard, **members))
    return folder


def test_each_form_of_location_gives_the_same_batches(tmp_path: Path) -> None:
    three_tars(tmp_path / "out", cls=lambda number: b"%d" % (number % 3))
    every = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    forms = ["out", "out/*.tar", "out/{000..002}.tar", ",".join(every), json.dumps(every)]
    forms += [(tmp_path / "out").as_uri()]
    expected = numbers(take(opened("out"), 12))
    assert sorted(expected[:60]) == list(range(60))
    for form in forms:
        source = opened(form)
        assert numbers(take(source, 12)) == expected
        labels = torch.cat([batch.labels for batch in take(source, 6)]).tolist()
        assert labels == [number % 3 for number in expected[:60]]
        assert source.index.labels == ("0", "1", "2")
    assert numbers(take(opened("out/001.tar"), 2)) == numbers(take(opened("out/001.tar"), 2))


def test_a_run_resumes_at_the_image_it_had_seen(tmp_path: Path) -> None:
    source = opened(three_tars(tmp_path / "out"))
    whole = numbers(take(source, 20))
    for seen in (10, 50, 90):
        assert numbers(take(source, 7, seen)) == whole[seen : seen + 70]


def test_an_index_of_wids_without_sizes_and_hashes_is_read(tmp_path: Path) -> None:
    three_tars(tmp_path / "out")
    entries: list[dict[str, Any]] = [{"url": f"{n:03d}.tar", "nsamples": 20} for n in range(3)]
    index = tmp_path / "out" / "shardindex.json"
    index.write_text(json.dumps({"wids_version": 1, "name": "x", "shardlist": entries}))
    cache = str(tmp_path / "cache")
    by_wids = wids.ShardListDataset(str(index), cache_dir=cache, keep=True, transformations=[])
    assert len(by_wids) == 60
    assert numbers(take(opened(index), 6)) == numbers(take(opened("out"), 6))
    entries[2]["filesize"] = 1  # as widsindex calls it
    index.write_text(json.dumps({"wids_version": 1, "shardlist": entries}))
    with pytest.raises(UserError, match=r"002\.tar: \d+ bytes, the index says 1"):
        opened(index)
    entries[1]["nsamples"] = 21
    index.write_text(json.dumps({"wids_version": 1, "shardlist": entries}))
    with pytest.raises(UserError, match=r"001\.tar: 20 samples, the index says 21"):
        opened(index)


def test_sizes_and_hashes_of_an_index_are_checked_and_their_absence_is_stated(
    tmp_path: Path, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards(labels=("cone", "whelk"))
    assert opened(shards.manifest).notes == ()
    relabelled = opened(shards.manifest, label="cls")  # not as the index says: it is scanned
    assert relabelled.index.labels == ("cone", "whelk")
    assert relabelled.notes == ("2 labels: cone, whelk",)
    assert numbers(take(relabelled, 5)) == numbers(take(opened(shards.manifest), 5))
    index = json.loads((shards.manifest / "shards.json").read_text())
    del index["shardlist"][0]["sha256"]
    (shards.manifest / "shards.json").write_text(json.dumps(index))
    partly = opened(shards.manifest)
    assert "1 of 3 shards have no sha256" in partly.notes[0]
    assert partly.index.labels == ("cone", "whelk")
    damaged = bytearray(shards.path(1).read_bytes())
    damaged[700] ^= 1
    shards.path(1).write_bytes(damaged)
    with pytest.raises(DamagedShard, match="its sha256 is not the index's"):
        take(opened(shards.manifest), 10)
    index["shardlist"][2]["bytes"] += 1
    (shards.manifest / "shards.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="bytes, the index says"):
        opened(shards.manifest)


def test_tars_are_scanned_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = three_tars(tmp_path / "out")
    scanned: list[str] = []
    from training.streaming import scans

    def counted(reader: Any, *rest: Any) -> Any:
        scanned.append(reader.validator)
        return real(reader, *rest)

    real = scans.scan_tar
    monkeypatch.setattr(scans, "scan_tar", counted)
    first = opened("out")
    assert len(scanned) == 3
    assert opened("out").index == first.index
    assert opened("out/*.tar").index.digest == first.index.digest
    assert len(scanned) == 3
    write_tar(folder / "001.tar", numbered(21, 20))
    assert opened("out").index.nsamples == 61
    assert len(scanned) == 4
    opened("out", label="none")
    assert len(scanned) == 7
    cached = sorted((tmp_path / "data" / "out" / "index").iterdir())
    facts = json.loads(cached[0].read_text())
    others = (json.dumps({**facts, "labels": labels}) for labels in (5, [1], "x"))
    for damage in ("{", "[]", *others):
        for path in cached:
            path.write_text(damage)  # the cache is no precondition
        assert opened("out").index.nsamples == 61
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("not a folder")
    assert opened("out").index.nsamples == 61


def test_a_tar_that_changed_during_the_run_is_refused(tmp_path: Path) -> None:
    folder = three_tars(tmp_path / "out")
    source = opened("out")
    swapped = (folder / "000.tar").read_bytes()
    (folder / "001.tar").write_bytes(swapped)
    with pytest.raises(DamagedShard, match=r"001\.tar: (changed since|\d+ bytes)"):
        take(source, 6)


LABELS: dict[str, tuple[dict[str, Any], str, Callable[[int], int], list[str]]] = {
    "numbers": ({"cls": lambda n: b"%d" % (n % 3)}, "", lambda n: n % 3, ["0", "1", "2"]),
    "words": (
        {"cls": lambda n: [b"whelk\n", b"cone"][n % 2]}, "", lambda n: 1 - n % 2, ["cone", "whelk"],
    ),
    "text": ({"txt": lambda n: [b"b", b"a"][n % 2]}, "txt", lambda n: 1 - n % 2, ["a", "b"]),
    "json": (
        {"json": lambda n: json.dumps({"a": {"kind": f"k{n % 4}"}}).encode()}, "json:a.kind",
        lambda n: n % 4, ["k0", "k1", "k2", "k3"],
    ),
    "one-hot": (
        {"json": lambda n: json.dumps({"y": [int(n % 2 == i) for i in range(3)]}).encode()},
        "json:y", lambda n: n % 2, ["0", "1", "2"],
    ),
    "lists": (
        {"json": lambda n: json.dumps({"y": [["x", "y"][n % 2]]}).encode()}, "json:y",
        lambda n: n % 2, ["x", "y"],
    ),
    "mixed": ({"cls": lambda n: [b"7", b"a7"][n % 2]}, "", lambda n: n % 2, ["7", "a7"]),
    "truth": (
        {"json": lambda n: json.dumps({"y": n % 2 == 0}).encode()}, "json:y", lambda n: 1 - n % 2,
        ["false", "true"],
    ),
    "none": ({"cls": lambda n: b"3"}, "none", lambda n: 0, []),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_each_kind_get_class_numbers_in_sorted_order(tmp_path: Path, kind: str) -> None:
    members, how, expected, names = LABELS[kind]
    source = opened(three_tars(tmp_path / "out", **members), label=how)
    assert list(source.index.labels) == names
    batches = take(source, 6, label=how)
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    assert labels == [expected(number) for number in numbers(batches)]


REFUSED: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "a negative number": (numbered(3, cls=b"-1"), "", "label of '000000': -1: class numbers begin"),
    "a fraction": (numbered(3, json=b'{"y": 0.5}'), "json:y", "0.5: neither a number nor a name"),
    "several": (numbered(3, json=b'{"y": ["a", "b"]}'), "json:y", "neither one label nor a one"),
    "soft": (numbered(3, json=b'{"y": [0.4, 0.6]}'), "json:y", "neither one label nor a one-hot"),
    "not JSON": (numbered(3, json=b"{"), "json:y", "label of '000000': not JSON"),
    "captions": (numbered(3, txt=b"word " * 90), "txt", "a caption is no label"),
    "not text": (numbered(3, cls=b"\xff\xfe"), "", "not UTF-8 text"),
    "huge numbers": (numbered(3, cls=b"70000"), "", "more than 65536 classes"),
    "another key": (
        numbered(3, json=b'{"a": {"b": 1, "c": {"d": 2}}, "kind": "k"}'), "json:a.x",
        r"json:a\.x: no sample .* has such a label; there are json:a\.b, json:a\.c\.d, json:kind",
    ),
    "a key of an empty object": (
        numbered(3, json=b"{}"), "json:y", "no sample of .* has such a label; there are json$",
    ),
    "a member that is not there": (
        numbered(3, txt=b"a", json=b"[]"), "cls", "has such a label; there are json, txt",
    ),
    "labels of images alone": (numbered(3), "json:y", "such a label; samples have only an image"),
    "lengths": (
        numbered(1, json=b'{"y": [1, 0]}') + numbered(1, 1, json=b'{"y": [1, 0, 0]}'), "json:y",
        "000001: one-hot lists of different lengths: 2 and 3",
    ),
    "a label without its image": (
        [*numbered(2, cls=b"0"), {"__key__": "x", "cls": b"0"}], "", "'x' has a label but no image",
    ),
    "no images": (
        [{"__key__": "x", "image.png": b"p"}], "", r"the first has x\.image\.png\); name the exten",
    ),
    "compressed": ([], "", "compressed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_and_tars_that_cannot_be_used_are_named(tmp_path: Path, kind: str) -> None:
    samples, how, said = REFUSED[kind]
    path = write_tar(tmp_path / "a.tar", samples or numbered(2))
    if not samples:
        import gzip

        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match=said) as caught:
        opened(path, label=how)
    assert "a.tar" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PK\3\4" + bytes(600), b"\x89PNG\r\n" * 200])
def test_other_files_are_called_that(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "images.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"images\.zip: not a tar; .*pipeline import"):
        opened("images.zip")


@pytest.mark.parametrize("name", ["a.tar", "shards.json"])
@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"\n <HTML>", b"<?xml version='1.0'?>"])
def test_a_page_in_the_place_of_a_file_is_called_that(
    tmp_path: Path, name: str, start: bytes
) -> None:
    (tmp_path / name).write_bytes(start + b"<p>Please log in" * 100)
    with pytest.raises(UserError, match=rf"{name}: a web page or an error page, not a .*browser"):
        opened(name)


def test_samples_without_a_label_are_counted_and_named(tmp_path: Path) -> None:
    samples = numbered(10, cls=b"0") + numbered(2, 10)
    source = opened(write_tar(tmp_path / "a.tar", samples))
    assert any("2 of 12 samples have no label (.cls); the first is 000010 in" in note
               for note in source.notes)  # fmt: skip
    batches = take(source, 3)
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    assert labels == [0 if number < 10 else -1 for number in numbers(batches)]


def test_networks_that_are_conditioned_on_labels_refuse_samples_without_one(
    tmp_path: Path,
) -> None:
    source = opened(write_tar(tmp_path / "a.tar", numbered(10, cls=b"0") + numbered(2, 10)))
    config = Config(batch=12, generator=DcganGenerator(condition="norm"))
    said = r"a\.tar: 00001[01] has no label, and the networks are"
    with Loader(source, config) as loader, pytest.raises(UserError, match=said):
        next(loader)


def test_a_fit_resizes_shards_of_this_project_too(small_shards: Callable[..., Any]) -> None:
    shards = small_shards(labels=("cone", "whelk"))
    source = opened(shards.manifest, 24, fit="stretch")
    (batch,) = take(source, 1)
    assert batch.images.shape == (10, 3, 24, 24)
    assert set(batch.labels.tolist()) == {0, 1}
    with pytest.raises(UserError, match=r"resize with --data\.fit crop"):
        opened(shards.manifest, 24)


def test_other_files_in_a_tar_are_left_out_and_counted(tmp_path: Path) -> None:
    others = [{"__key__": "notes", "txt": b"x"}, {"__key__": "meta", "json": b"{}"}]
    source = opened(write_tar(tmp_path / "a.tar", [others[0], *numbered(20), others[1]]))
    assert any("2 samples without an image are left out" in note for note in source.notes)
    assert sorted(numbers(take(source, 2))) == list(range(20))


def test_the_member_with_the_image_can_be_named(tmp_path: Path) -> None:
    samples = [
        {"__key__": one["__key__"], "jpg": b"not this one", "view.left.png": one["png"]}
        for one in numbered(10)
    ]
    source = opened(write_tar(tmp_path / "a.tar", samples), image="view.left.png")
    assert sorted(numbers(take(source, 1))) == list(range(10))


def test_images_of_several_sizes_need_a_fit(tmp_path: Path) -> None:
    shutil.copytree(IMG2DATASET, tmp_path / "run")
    said = (
        r"several sizes \(20×24 px: .*; 2.×24 px: .*--data.fit crop, pad or stretch.*pipeline imp"
    )
    with pytest.raises(UserError, match=said):
        opened("run/{000..002}.tar")
    with pytest.raises(UserError, match=r"--data\.fit pad needs a --resolution"):
        opened("run", fit="pad")
    for fit in ("crop", "pad", "stretch"):
        source = opened("run/{000..002}.tar", 16, fit=fit, label="json:kind")
        assert source.image_shape.height == source.image_shape.width == 16
        assert source.index.labels == ("cone", "whelk")
        (batch,) = take(source, 1)
        assert batch.images.shape == (10, 3, 16, 16)


def test_an_image_of_another_size_is_named_with_advice(tmp_path: Path) -> None:
    odd = {"__key__": "odd", "png": file_of(drawn(1, 24, 16), "PNG")}
    source = opened(write_tar(tmp_path / "a.tar", [*numbered(19), odd]))
    with pytest.raises(DamagedShard, match=r"a\.tar: odd\.png is 24×16 px.*data\.fit"):
        take(source, 2)
    config = Config(batch=10, data=DataOptions(skip_corrupt=True))
    with Loader(source, config) as loader:
        got = numbers(list(itertools.islice(loader, 6)))
        assert "odd.png" in loader.warnings.get_nowait()
        assert loader.warnings.empty()
    assert set(got) == set(range(19))  # only the sample was left out, not its tar
    assert len(got) == 60


@pytest.mark.parametrize("first", [0, 20], ids=["first", "among-others"])
def test_a_run_without_a_damaged_image_ends_with_a_report(
    tmp_path: Path, in_process: Callable[..., int], first: int
) -> None:
    samples = [*numbered(40)]
    samples.insert(first, {"__key__": "damaged", "png": numbered(1)[0]["png"][:60]})
    location = str(write_tar(tmp_path / "a.tar", samples))
    run = tmp_path / "runs" / "damaged"
    assert in_process(run, location, "--data.skip_corrupt", "true") == 0
    assert (run / "report.html").exists()
    out = tmp_path / "nearest.png"
    assert (
        nearest.main([str(run), "--out", str(out), "--numbers", "0", "--distance", "pixels"]) == 0
    )
    assert out.exists()


def test_a_damaged_tar_can_be_left_out(tmp_path: Path) -> None:
    folder = three_tars(tmp_path / "out")
    (folder / "001.tar").write_bytes((folder / "001.tar").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"001\.tar: no end-of-archive block"):
        opened("out")
    source = opened("out", skip_corrupt=True)
    assert any("001.tar" in note and "left out" in note for note in source.notes)
    assert set(numbers(take(source, 4))) == {*range(20), *range(40, 60)}


def test_evaluations_use_samples_of_all_shards(tmp_path: Path) -> None:
    source = opened(three_tars(tmp_path / "out"))
    rows = [row for rows, _ in iter_image_batches(source, 12, DataOptions()) for row in rows]
    found = [number_of(np.asarray(row.permute(1, 2, 0))) for row in rows]
    assert found == list(range(0, 60, 5))


def test_a_tar_that_two_indexes_describe_differently_is_given_twice(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", numbered(3))
    for name, samples in (("one", 3), ("two", 4)):
        entries = [{"url": "a.tar", "nsamples": samples}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"shardlist": entries}))
    with pytest.raises(UserError, match=rf"{tar}: given twice"):
        opened("one.json,two.json")


@pytest.mark.parametrize(
    "label", [b"[NaN, 0, 1]", b"[1, 1]", b"[0, 0.5, 1]", b'[0, "1"]', b"[2, 0]"]
)
def test_a_list_that_is_not_one_hot_is_refused(label: bytes) -> None:
    write_tar(Path("a.tar"), numbered(1, cls=lambda _: label))
    with pytest.raises(UserError, match="neither one label nor a one-hot list"):
        opened("a.tar")


@pytest.mark.parametrize(
    ("claims", "entry", "said"),
    [
        ({"labels": ["a", "a"]}, {}, "i.json: labels: 'a' occurs twice"),
        ({}, {"sha256": "zz"}, "sha256: not 64 hex digits"),
        ({}, {"url": "http://127.0.0.1:9/" + "a" * 5000}, "more than 4096 characters"),
    ],
)
def test_an_odd_claim_of_an_index_is_one_line(claims: Any, entry: Any, said: str) -> None:
    write_tar(Path("a.tar"), numbered(3))
    index = {"shardlist": [{"url": "a.tar", "nsamples": 3, **entry}], **claims}
    Path("i.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=said) as caught:
        opened("i.json")
    assert "\n" not in str(caught.value)


def test_a_sha256_in_capitals_is_one(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", numbered(3))
    digest = hashlib.sha256(tar.read_bytes()).hexdigest().upper()
    index = {"shardlist": [{"url": "a.tar", "nsamples": 3, "sha256": digest}]}
    Path("i.json").write_text(json.dumps(index))
    assert len(take(opened("i.json"), 1)) == 1
