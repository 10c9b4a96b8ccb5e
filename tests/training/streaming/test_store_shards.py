"""Shards of other tools in stores: an S3 server (moto, on loopback), and a Hugging Face dataset."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.dirfs import DirFileSystem

from pipeline.errors import UserError
from tests.helpers.foreign_shards import numbered, write_tar
from tests.helpers.small_shards import number_of
from tests.pipeline.test_storage import S3Server
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import open_shard_dataset


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        fsspec.config.conf.clear()
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("foreign")
        for shard in range(2):
            path = write_tar(tmp_path / f"{shard}.tar", numbered(15, 15 * shard, cls=b"whelk"))
            store.put(str(path), f"foreign/sea/data/x-{shard}.tar")
        yield "s3://foreign/sea"
        store.clear_instance_cache()


def test_folders_globs_and_braces_in_a_store_are_trained_on(bucket: str) -> None:
    found = []
    for location in (bucket, f"{bucket}/data/*.tar", f"{bucket}/data/x-{{0..1}}.tar"):
        source = open_shard_dataset(location, 0)
        assert source.index.labels == ("whelk",)
        assert [one.partition("sea/")[2] for one in source.locations] == [
            "data/x-0.tar", "data/x-1.tar",
        ]  # fmt: skip
        config = Config(batch=10, data=DataOptions(cache_gb=0.01))
        with Loader(source, config) as loader:
            rows = torch.cat([batch.images for batch in itertools.islice(loader, 3)])
        found.append([number_of(row) for row in rows.permute(0, 2, 3, 1).numpy()])
    assert sorted(found[0]) == list(range(30))
    assert found[0] == found[1] == found[2]
    user = f"s3://testing:testing@{bucket.removeprefix('s3://')}"
    assert open_shard_dataset(f"{user}/data/x-{{0..1}}.tar", 0).index.nsamples == 30
    assert open_shard_dataset(user, 0).index.nsamples == 30
    for name, said in (("none-*.tar", "no file has such a name"), ("none.tar", "not there")):
        with pytest.raises(UserError, match=rf"{re.escape(name)}: {said}"):
            open_shard_dataset(f"{bucket}/{name}", 0)


class Hub(DirFileSystem):  # type: ignore[misc]
    """The names of the Hugging Face Hub over a local folder."""

    protocol = "hf"
    folder = ""

    def __init__(self, **_: object) -> None:
        super().__init__(path=self.folder, fs=fsspec.filesystem("file"), skip_instance_cache=True)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("hf://")


def test_a_dataset_of_hugging_face_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Hub, "folder", str(tmp_path / "hub"))
    fsspec.register_implementation("hf", Hub, clobber=True)
    for shard in range(2):
        name = f"hub/datasets/ann/shells/data/train-{shard:05d}.tar"
        write_tar(tmp_path / name, numbered(4, 4 * shard))
    (tmp_path / "hub/datasets/ann/shells/README.md").write_text("# Shells")
    source = open_shard_dataset("hf://datasets/ann/shells", 0)
    assert source.index.nsamples == 8
    assert source.index.name == "shells"
    assert source.locations[1] == "hf://datasets/ann/shells/data/train-00001.tar"
    write_tar(tmp_path / "hub/datasets/ann/shells/test/test-0.tar", numbered(2))
    with pytest.raises(UserError, match=r"tars in several folders \(data, test\)"):
        open_shard_dataset("hf://datasets/ann/shells", 0)
    only = open_shard_dataset("hf://datasets/ann/shells/data/train-{00000..00001}.tar", 0)
    assert only.index.nsamples == 8
