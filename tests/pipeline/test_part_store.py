"""Parts and manifests in a store, behind whatever URL: crashes, other machines, mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import (
    Dataset,
    ManifestRow,
    UserError,
    image_key,
    load_index,
    read_jsonl,
    write_json,
)
from pipeline.dataset.mirror import publish, receive
from pipeline.dataset.originals import (
    PartFiles,
    drop_tar,
    is_complete,
    parts_without_tar,
    read_original,
    read_records,
    tar_here,
    write_plan,
)
from pipeline.dataset.part_writer import PartWriter
from pipeline.dataset.plans import plan
from pipeline.dataset.settle import Settled, settle
from pipeline.dataset.store import Store

FACTS = {"format": "JPEG", "mode": "RGB", "width": 9, "height": 9, "phash": "0" * 16,
         "blur": 1.0, "spread": 1.0}  # fmt: skip


@pytest.fixture(params=["file", "memory"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    url = {
        "file": (tmp_path / "store").as_uri(),
        "memory": f"memory://{tmp_path.name}",
    }[request.param]
    return Dataset("some", tmp_path / "here", url)


def rows(start: int, stop: int) -> list[ManifestRow]:
    urls = [f"https://example.org/{number}.jpg" for number in range(start, stop)]
    return [ManifestRow(image_key(url), url) for url in urls]


def put_part(dataset: Dataset, number: int, finish: bool = True, count: int = 3) -> str:
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


def bytes_of(dataset: Dataset) -> dict[str, bytes]:
    return {record.key: read_original(dataset, record) for record in read_records(dataset)}


def elsewhere(dataset: Dataset, name: str) -> Dataset:
    return Dataset(dataset.name, dataset.root.parent / name, dataset.store)


def test_a_finished_part_is_in_the_store_and_found_from_elsewhere(dataset: Dataset) -> None:
    part = put_part(dataset, 0)
    assert not PartFiles(dataset, part).tar.exists()
    assert bytes_of(dataset) == {row.key: row.url.encode() for row in rows(0, 3)}
    there = elsewhere(dataset, "there")
    assert settle(there) == Settled(received=1)
    assert bytes_of(there) == bytes_of(dataset)
    assert settle(there) == Settled()


def test_what_was_downloaded_before_there_was_a_store_goes_into_it(dataset: Dataset) -> None:
    local = Dataset(dataset.name, dataset.root)
    parts = [put_part(local, number) for number in (0, 1)]
    before = bytes_of(local)
    assert settle(dataset) == Settled(sent=2)
    assert not any(PartFiles(dataset, part).tar.exists() for part in parts)
    assert bytes_of(dataset) == before
    assert parts_without_tar(dataset) == set()
    assert parts_without_tar(local) == set(parts)


def test_features_go_with_the_part_they_are_of(dataset: Dataset) -> None:
    part = put_part(dataset, 0)
    features = dataset.originals / f"{part}.net.npz"
    features.write_bytes(b"of three")
    publish(dataset)
    there = elsewhere(dataset, "there")
    receive(there)
    taken = there.originals / features.name
    assert taken.read_bytes() == b"of three"
    taken.write_bytes(b"of two")  # one was forgotten
    publish(there)
    receive(dataset)
    assert features.read_bytes() == b"of two"
    assert publish(dataset) == 0


def test_a_part_that_another_machine_ended_is_taken_and_the_rest_planned_again(
    dataset: Dataset,
) -> None:
    here, there = dataset, elsewhere(dataset, "there")
    here.urls.parent.mkdir(parents=True)
    here.urls.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows(0, 5)))
    assert plan(here) == ["some-000000"]
    put_part(there, 0)  # of these five it has three
    assert settle(here) == Settled(received=1)
    assert plan(here) == ["some-000001"]
    assert [row.key for row in PartFiles(here, "some-000001").rows()] == [
        row.key for row in rows(3, 5)
    ]


def test_a_part_in_the_store_without_a_record_is_not_there(dataset: Dataset) -> None:
    part = put_part(dataset, 0)
    Store(dataset.store).remove(f"data/some/originals/{part}.json")
    there = elsewhere(dataset, "there")
    assert settle(there) == Settled()
    assert not is_complete(there, part)


def test_erased_bytes_go_back_to_the_store(dataset: Dataset) -> None:
    part = put_part(dataset, 0)
    record = next(read_records(dataset))
    with tar_here(dataset, part) as files:
        assert files is not None
        with files.tar.open("r+b") as tar:
            tar.seek(record.offset)
            tar.write(bytes(record.bytes))
    assert not PartFiles(dataset, part).tar.exists()
    assert read_original(dataset, record) == bytes(record.bytes)


def test_a_tar_that_is_gone_is_named(dataset: Dataset) -> None:
    part = put_part(dataset, 0)
    record = next(read_records(dataset))
    drop_tar(dataset, part)
    assert parts_without_tar(dataset) == {part}
    with tar_here(dataset, part) as files:
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
    dataset: Dataset,
) -> None:
    here, there = dataset, elsewhere(dataset, "there")
    write_rows(here.urls, 0, 2)
    publish(here)
    assert publish(here) == 0
    receive(there)
    write_rows(there.urls, 0, 4)
    publish(there)
    receive(here)
    assert lines(here.urls) == [row.key for row in rows(0, 4)]
    write_rows(here.urls, 0, 5)  # and is stopped before it has published that
    write_rows(there.urls, 0, 4)
    with there.urls.open("a") as file:
        file.write(json.dumps(rows(7, 8)[0].to_json()) + "\n")
    publish(there)
    receive(here)
    expected = [row.key for row in (*rows(0, 4), *rows(7, 8), *rows(4, 5))]
    assert lines(here.urls) == expected
    publish(here)
    receive(there)
    assert lines(there.urls) == expected


def test_an_upload_that_was_not_noted_is_no_difference(dataset: Dataset) -> None:
    write_rows(dataset.urls, 0, 2)
    publish(dataset)
    (dataset.data / "store.json").unlink()
    receive(dataset)
    assert lines(dataset.urls) == [row.key for row in rows(0, 2)]
    assert publish(dataset) == 0


def test_while_there_is_no_index_here_the_store_keeps_its_shards(dataset: Dataset) -> None:
    shards = [dataset.shards / f"some-{number:06d}.tar" for number in range(2)]

    def index_of(paths: list[Path]) -> dict[str, Any]:
        entries = [{"url": f"../../data/some/shards/{path.name}", "nsamples": 1, "bytes": 1,
                    "sha256": "0" * 64} for path in paths]  # fmt: skip
        return {"name": "some", "shardlist": entries, "resolution": [8, 8], "channels": 3,
                "format": "png", "digest": "", "wids_version": 1,
                "__kind__": "wids-shard-index-v1"}  # fmt: skip

    dataset.shards.mkdir(parents=True)
    for path in shards:
        path.write_bytes(b"1")
    write_json(dataset.index, index_of(shards))
    publish(dataset)
    dataset.index.unlink()
    shards[0].write_bytes(b"2")
    publish(dataset)
    there = Store(dataset.store)
    assert there.read("data/some/shards/some-000000.tar") == b"1"
    assert load_index(f"{dataset.store}/manifests/some")[0].name == "some"
    write_json(dataset.index, index_of(shards[:1]))
    publish(dataset)
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
        receive(Dataset("some", tmp_path, tmp_path.as_uri()))
