"""Parts and manifests in a store, behind whatever URL: crashes, other machines, mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import (
    DatasetPaths,
    ManifestRow,
    UserError,
    image_key,
    load_index,
    read_jsonl,
    write_json,
)
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.part_tars import delete_tar, editable_tar, parts_without_tar, read_original
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PartFiles, is_complete, read_records, write_plan
from pipeline.remote.mirror import pull, push
from pipeline.remote.originals_sync import SyncResult, sync_originals
from pipeline.remote.store import Store
from pipeline.select.curation import read_curation

FACTS = {"format": "JPEG", "mode": "RGB", "width": 9, "height": 9, "phash": "0" * 16,
         "sharpness": 1.0, "contrast": 1.0}  # fmt: skip


@pytest.fixture(params=["file", "memory"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetPaths:
    url = {
        "file": (tmp_path / "store").as_uri(),
        "memory": f"memory://{tmp_path.name}",
    }[request.param]
    return DatasetPaths("some", tmp_path / "here", url)


def rows(start: int, stop: int) -> list[ManifestRow]:
    urls = [f"https://example.org/{number}.jpg" for number in range(start, stop)]
    return [ManifestRow(image_key(url), url) for url in urls]


def put_part(dataset: DatasetPaths, number: int, finish: bool = True, count: int = 3) -> str:
    part = f"some-{number:06d}"
    planned = rows(10 * number, 10 * number + count)
    write_plan(dataset, part, [row.to_json() for row in planned])
    writer = PartWriter(dataset, part)
    for row in planned:
        writer.add(row, "jpg", row.url.encode(), FACTS, {})
    if finish:
        writer.finish()
    writer.close()
    return part


def bytes_of(dataset: DatasetPaths) -> dict[str, bytes]:
    return {record.key: read_original(dataset, record) for record in read_records(dataset)}


def elsewhere(dataset: DatasetPaths, name: str) -> DatasetPaths:
    return DatasetPaths(dataset.name, dataset.root.parent / name, dataset.store)


def test_a_finished_part_is_in_the_store_and_found_from_elsewhere(dataset: DatasetPaths) -> None:
    part = put_part(dataset, 0)
    assert not PartFiles(dataset, part).tar.exists()
    assert bytes_of(dataset) == {row.key: row.url.encode() for row in rows(0, 3)}
    there = elsewhere(dataset, "there")
    assert sync_originals(there) == SyncResult(received=1)
    assert bytes_of(there) == bytes_of(dataset)
    assert sync_originals(there) == SyncResult()


def test_what_was_downloaded_before_there_was_a_store_goes_into_it(dataset: DatasetPaths) -> None:
    local = DatasetPaths(dataset.name, dataset.root)
    parts = [put_part(local, number) for number in (0, 1)]
    before = bytes_of(local)
    assert sync_originals(dataset) == SyncResult(sent=2)
    assert not any(PartFiles(dataset, part).tar.exists() for part in parts)
    assert bytes_of(dataset) == before
    assert parts_without_tar(dataset) == set()
    assert parts_without_tar(local) == set(parts)


def test_features_go_with_the_part_they_are_of(dataset: DatasetPaths) -> None:
    part = put_part(dataset, 0)
    features = dataset.originals_dir / f"{part}.net.npz"
    features.write_bytes(b"of three")
    push(dataset)
    there = elsewhere(dataset, "there")
    pull(there)
    taken = there.originals_dir / features.name
    assert taken.read_bytes() == b"of three"
    taken.write_bytes(b"of two")  # one was forgotten
    push(there)
    pull(dataset)
    assert features.read_bytes() == b"of two"
    assert push(dataset) == 0


def test_a_part_that_another_machine_ended_is_taken_and_the_rest_planned_again(
    dataset: DatasetPaths,
) -> None:
    here, there = dataset, elsewhere(dataset, "there")
    here.url_manifest.parent.mkdir(parents=True)
    here.url_manifest.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows(0, 5)))
    assert assign_parts(here) == ["some-000000"]
    put_part(there, 0)  # of these five it has three
    assert sync_originals(here) == SyncResult(received=1)
    assert assign_parts(here) == ["some-000001"]
    assert [row.key for row in PartFiles(here, "some-000001").rows()] == [
        row.key for row in rows(3, 5)
    ]


def test_a_part_in_the_store_without_a_record_is_not_there(dataset: DatasetPaths) -> None:
    part = put_part(dataset, 0)
    Store(dataset.store).remove(f"data/some/originals/{part}.json")
    there = elsewhere(dataset, "there")
    assert sync_originals(there) == SyncResult()
    assert not is_complete(there, part)


def test_erased_bytes_go_back_to_the_store(dataset: DatasetPaths) -> None:
    part = put_part(dataset, 0)
    record = next(read_records(dataset))
    with editable_tar(dataset, part) as files:
        assert files is not None
        with files.tar.open("r+b") as tar:
            tar.seek(record.offset)
            tar.write(bytes(record.bytes))
    assert not PartFiles(dataset, part).tar.exists()
    assert read_original(dataset, record) == bytes(record.bytes)


def test_a_tar_that_is_gone_is_named(dataset: DatasetPaths) -> None:
    part = put_part(dataset, 0)
    record = next(read_records(dataset))
    delete_tar(dataset, part)
    assert parts_without_tar(dataset) == {part}
    with editable_tar(dataset, part) as files:
        assert files is None
    with pytest.raises(UserError, match=rf"{part}\.tar: .*not in the store|No such file"):
        read_original(dataset, record)


# manifests


def lines(path: Path) -> list[Any]:
    return [row["key"] for row in read_jsonl(path)]


def write_rows(path: Path, start: int, stop: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows(start, stop)))


def test_the_newer_manifest_wins_and_lists_that_have_gone_apart_are_joined(
    dataset: DatasetPaths,
) -> None:
    here, there = dataset, elsewhere(dataset, "there")
    write_rows(here.url_manifest, 0, 2)
    push(here)
    assert push(here) == 0
    pull(there)
    write_rows(there.url_manifest, 0, 4)
    push(there)
    pull(here)
    assert lines(here.url_manifest) == [row.key for row in rows(0, 4)]
    write_rows(here.url_manifest, 0, 5)  # and is stopped before it has published that
    write_rows(there.url_manifest, 0, 4)
    with there.url_manifest.open("a") as file:
        file.write(json.dumps(rows(7, 8)[0].to_json()) + "\n")
    push(there)
    pull(here)
    expected = [row.key for row in (*rows(0, 4), *rows(7, 8), *rows(4, 5))]
    assert lines(here.url_manifest) == expected
    push(here)
    pull(there)
    assert lines(there.url_manifest) == expected


def test_an_upload_that_was_not_noted_is_no_difference(dataset: DatasetPaths) -> None:
    write_rows(dataset.url_manifest, 0, 2)
    push(dataset)
    (dataset.data_dir / "store.json").unlink()
    pull(dataset)
    assert lines(dataset.url_manifest) == [row.key for row in rows(0, 2)]
    assert push(dataset) == 0


def test_while_there_is_no_index_here_the_store_keeps_its_shards(dataset: DatasetPaths) -> None:
    shards = [dataset.shards_dir / f"some-{number:06d}.tar" for number in range(2)]

    def index_of(paths: list[Path]) -> dict[str, Any]:
        entries = [{"url": f"../../data/some/shards/{path.name}", "nsamples": 1, "bytes": 1,
                    "sha256": "0" * 64} for path in paths]  # fmt: skip
        return {"name": "some", "shardlist": entries, "resolution": [8, 8], "channels": 3,
                "format": "png", "digest": "", "wids_version": 1,
                "__kind__": "wids-shard-index-v1"}  # fmt: skip

    dataset.shards_dir.mkdir(parents=True)
    for path in shards:
        path.write_bytes(b"1")
    write_json(dataset.shard_index, index_of(shards))
    push(dataset)
    dataset.shard_index.unlink()
    shards[0].write_bytes(b"2")
    push(dataset)
    there = Store(dataset.store)
    assert there.read("data/some/shards/some-000000.tar") == b"1"
    assert load_index(f"{dataset.store}/manifests/some")[0].name == "some"
    write_json(dataset.shard_index, index_of(shards[:1]))
    push(dataset)
    assert set(there.list("data/some/shards")) == {"some-000000.tar"}
    assert there.read("data/some/shards/some-000000.tar") == b"2"
    assert len(load_index(f"{dataset.store}/manifests/some")[0].shardlist) == 1


# mistakes


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/a", "a URL that can be written"),
        ("nosuch://bucket/a", "nosuch"),
        ("simplecache::s3://bucket", "a URL that can be written"),
    ],
)
def test_a_url_that_is_no_store_is_one_line(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Store(url)


def test_the_projects_own_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="own folder"):
        pull(DatasetPaths("some", tmp_path, tmp_path.as_uri()))


def test_lines_that_two_people_wrote_without_a_final_newline_are_merged(
    dataset: DatasetPaths,
) -> None:
    def decide(where: DatasetPaths, number: int) -> str:
        key = image_key(f"https://example.org/{number}.jpg")
        line = json.dumps({"version": 1, "key": key, "decision": "reject"})
        where.curation.parent.mkdir(parents=True, exist_ok=True)
        where.curation.write_text(line)
        return key

    there = elsewhere(dataset, "there")
    keys = {decide(dataset, 0)}
    push(dataset)
    keys.add(decide(there, 1))
    pull(there)
    assert {row["key"] for row in read_jsonl(there.curation)} == keys
    push(there)
    pull(dataset)
    assert read_curation(dataset).by_key.keys() == keys
