"""Names, keys and the shard index."""

import hashlib
import json
from pathlib import Path

import fsspec
import pytest

from pipeline.contract import (
    DatasetPaths,
    ManifestRow,
    ShardEntry,
    ShardIndex,
    UserError,
    image_key,
    index_to_json,
    load_index,
    write_json,
)
from pipeline.versions import migrate

INDEX = ShardIndex(
    name="shells",
    shardlist=(ShardEntry("../../data/shells/shards/shells-000000.tar", 3, 10240, "ab" * 32),),
    resolution=(64, 48),
    channels=3,
    format="webp",
    digest="d",
    labels=("cone", "cowrie"),
    counts={"kept": 3},
    recipe={"shards": {"resolution": 64}},
)


def test_the_key_is_the_start_of_the_urls_sha256() -> None:
    url = "https://example.org/a.jpg"
    assert image_key(url) == hashlib.sha256(url.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", ["", "../up", "a/b", "Shells", "-x", "a" * 65])
def test_a_dataset_name_must_be_safe(name: str) -> None:
    with pytest.raises(UserError, match="dataset name"):
        DatasetPaths(name)


def test_a_manifest_row_comes_back_from_json() -> None:
    row = ManifestRow("k", "u", labels=("a", "b"), license="CC0-1.0")
    assert ManifestRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert ManifestRow.from_json({"key": "k", "url": "u", "extra": 1}) == ManifestRow("k", "u")


@pytest.mark.parametrize("form", ["folder", "file", "folder-url", "file-url"])
def test_an_index_is_found_by_folder_file_or_url(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "manifests" / "shells"
    write_json(folder / "shards.json", index_to_json(INDEX))
    location = {
        "folder": str(folder),
        "file": str(folder / "shards.json"),
        "folder-url": folder.as_uri() + "/",
        "file-url": (folder / "shards.json").as_uri(),
    }[form]
    index, shards = load_index(location)
    assert index == INDEX
    tar = tmp_path / "data" / "shells" / "shards" / "shells-000000.tar"
    assert shards == [tar.as_uri() if form.endswith("url") else str(tar)]


def test_the_shards_of_an_index_in_a_store_are_beside_it() -> None:
    text = json.dumps(index_to_json(INDEX)).encode()
    fsspec.filesystem("memory").pipe_file("/galleries/manifests/shells/shards.json", text)
    _, shards = load_index("memory://galleries/manifests/shells")
    assert shards == ["memory://galleries/data/shells/shards/shells-000000.tar"]


def test_no_index_and_a_bad_index_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shards\.json: no shard index there"):
        load_index(tmp_path)
    (tmp_path / "shards.json").write_text("<html>")
    with pytest.raises(UserError, match=r"shards\.json: a web page or .* not a shard index"):
        load_index(tmp_path)
    (tmp_path / "shards.json").write_text("[")
    with pytest.raises(UserError, match=r"shards\.json: not a shard index"):
        load_index(tmp_path)
    values = index_to_json(INDEX)
    write_json(tmp_path / "shards.json", {**values, "channels": "three"})
    with pytest.raises(UserError, match=r"shards\.json: channels: .*integer"):
        load_index(tmp_path)
    write_json(tmp_path / "shards.json", {**values, "colour": 1})
    with pytest.raises(UserError, match=r"shards\.json: colour: unknown key"):
        load_index(tmp_path)
    with pytest.raises(UserError, match=r"nosuch://x/shards\.json: no shard index there"):
        load_index("nosuch://x")


def test_files_of_earlier_versions_are_migrated_one_version_at_a_time():
    steps = [lambda one: {"b": one["a"]}, lambda one: {"c": one["b"]}]
    assert migrate({"a": 5}, steps, "file") == {"c": 5, "version": 3}
    assert migrate({"b": 5, "version": 2}, steps, "file") == {"c": 5, "version": 3}
    assert migrate({"c": 5, "version": 3}, steps, "file") == {"c": 5, "version": 3}
    for version in (0, 4, "1", True, None):
        with pytest.raises(UserError, match="file: version"):
            migrate({"version": version}, steps, "file")
