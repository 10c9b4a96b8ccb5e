"""Shards of other tools on servers: how much is read to index them, and what is cached."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.foreign_shards import numbered, write_tar
from tests.helpers.small_shards import number_of
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import open_shard_dataset
from training.streaming.foreign import FoundTar, index_tars
from training.streaming.tar_scan import SampleOptions


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.streaming.schemes.BACKOFF", 0.001)


def large_tar(path: Path, ballast: int, count: int = 60) -> Path:
    """Small images with labels; each has `ballast` bytes more."""
    noise = np.random.default_rng(0).bytes(ballast)
    samples = numbered(count, cls=lambda n: b"%d" % (n % 3))
    for sample in samples:
        sample["png"] += noise  # after the end of the image, as some programs write
    return write_tar(path, samples)


def test_indexing_reads_little_more_than_headers(tmp_path: Path, serve: Callable[..., Any]) -> None:
    paths = [large_tar(tmp_path / f"web/x-{n}.tar", 150_000) for n in range(2)]
    server = serve(tmp_path / "web")
    source = open_shard_dataset(f"{server.url}/x-{{0..1}}.tar", 0)
    assert source.index.nsamples == 120
    assert source.labels is not None
    assert source.labels.tolist() == [n % 3 for n in range(60)] * 2
    assert server.sent < 0.03 * sum(path.stat().st_size for path in paths)
    assert len(server.asked) < 2 * 75  # one request for the members between two images
    before = server.sent
    assert open_shard_dataset(f"{server.url}/x-{{0..1}}.tar", 0).index == source.index
    assert server.sent - before <= 2 * 512  # only whether they changed
    large_tar(paths[1], 150_000, 61)
    assert open_shard_dataset(f"{server.url}/x-{{0..1}}.tar", 0).index.nsamples == 121


def test_small_members_are_read_in_few_requests(tmp_path: Path, serve: Callable[..., Any]) -> None:
    path = write_tar(tmp_path / "web/x.tar", numbered(900, cls=b"1"))
    server = serve(tmp_path / "web")
    assert open_shard_dataset(f"{server.url}/x.tar", 0).index.nsamples == 900
    assert len(server.asked) < 40
    assert server.sent < 1.2 * path.stat().st_size


def test_a_server_without_ranges_is_read_once(tmp_path: Path, serve: Callable[..., Any]) -> None:
    path = large_tar(tmp_path / "web/x.tar", 9_000)
    server = serve(tmp_path / "web")
    server.ranges = False
    source = open_shard_dataset(f"{server.url}/x.tar", 0)
    assert source.labels is not None
    assert source.labels.tolist() == [n % 3 for n in range(60)]
    assert len(server.asked) == 1
    assert server.sent <= path.stat().st_size
    assert source.index.digest == open_shard_dataset(path, 0).index.digest


def test_lost_connections_are_tried_again(tmp_path: Path, serve: Callable[..., Any]) -> None:
    large_tar(tmp_path / "web/x.tar", 20_000, 12)
    server = serve(tmp_path / "web")
    server.busy["x.tar"] = 2
    server.cut["x.tar"] = 2
    assert open_shard_dataset(f"{server.url}/x.tar", 0).index.nsamples == 12
    server.dead.add("x.tar")
    with pytest.raises(UserError, match=r"x\.tar: .*tried 5 times"):
        open_shard_dataset(f"{server.url}/x.tar", 0)
    with pytest.raises(UserError, match=r"y\.tar: HTTP 404"):
        open_shard_dataset(f"{server.url}/y.tar", 0)


def test_the_first_error_ends_the_other_scans(tmp_path: Path, serve: Callable[..., Any]) -> None:
    large_tar(tmp_path / "web/x.tar", 20_000, 400)
    (tmp_path / "web/y.tar").write_bytes(b"no tar" * 500)
    server = serve(tmp_path / "web")
    with pytest.raises(UserError, match=r"y\.tar: "):
        open_shard_dataset(f"{server.url}/{{x,y}}.tar", 0)
    assert len(server.asked) < 300  # x.tar has 400 images


def test_training_from_a_server_gives_the_batches_of_local_files(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    for shard in range(3):
        samples = numbered(20, 20 * shard, cls=lambda n: [b"cone", b"whelk"][n % 2])
        write_tar(tmp_path / f"web/{shard}.tar", samples)
    server = serve(tmp_path / "web")

    def batches(location: str) -> tuple[list[int], list[int]]:
        config = Config(batch=10, data=DataOptions(window=2, cache_gb=0.01))
        with Loader(open_shard_dataset(location, 0), config) as loader:
            some = list(itertools.islice(loader, 12))
        rows = torch.cat([batch.images for batch in some]).permute(0, 2, 3, 1).numpy()
        return [number_of(row) for row in rows], torch.cat([b.labels for b in some]).tolist()

    remote = batches(f"{server.url}/{{0..2}}.tar")
    assert remote == batches(str(tmp_path / "web"))
    assert remote[1] == [number % 2 for number in remote[0]]
    server.asked.clear()
    assert batches(f"{server.url}/{{0..2}}.tar") == remote  # from the caches
    assert [asked for _, asked in server.asked] == ["bytes=0-511"] * 3


def test_a_missing_package_of_a_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(url: str, **options: Any) -> Any:
        raise ImportError(url)

    monkeypatch.setattr("fsspec.core.url_to_fs", without)
    for url, extra in (("hf://datasets/a/b/x.tar", "hf"), ("gs://b/x.tar", "gs")):
        with pytest.raises(UserError, match=rf"{url}: .*pip install 'shellgan\[{extra}\]'"):
            index_tars([FoundTar(url)], SampleOptions())
        with pytest.raises(UserError, match=rf"pip install 'shellgan\[{extra}\]'"):
            open_shard_dataset(url.removesuffix("/x.tar"), 0)
