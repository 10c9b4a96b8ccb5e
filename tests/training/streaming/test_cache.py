"""Streaming through a bounded cache: the bound, faults of the line, kills."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.cache import ShardCache
from training.streaming.dataset import open_shard_dataset
from training.streaming.shards import DamagedShard


def options(folder: Path, **data: Any) -> Config:
    data = {"cache": str(folder / "cache"), "memory_gb": 0.0, "timeout": 5.0} | data
    return Config(batch=10, data=DataOptions(**data))


def take(location: str, config: Config, count: int) -> list[Any]:
    with Loader(open_shard_dataset(location, 0), config) as loader:
        return [batch.images for batch in itertools.islice(loader, count)]


def files(folder: Path) -> dict[str, str]:
    """The cache's files and what their bytes hash to."""
    found = [path for path in (folder / "cache").iterdir() if path.name != ".lock"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def web(small_shards: Callable[..., Any], serve: Callable[..., Any]) -> Any:
    """Six shards of about 80 kB each on a server: (shards, server, location)."""
    shards = small_shards(sizes=(12,) * 6, ballast=5000)
    server = serve(shards.root)
    return shards, server, f"{server.url}/manifests/small"


def name(number: int) -> str:
    return f"small-{number:06d}.tar"


def tars(server: Any) -> list[tuple[str, str]]:
    return [asked for asked in server.asked if asked[0].endswith(".tar")]


def test_shards_are_fetched_once_and_found_again(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    before = take(location, options(tmp_path), 15)
    assert len(tars(server)) == 6
    held = files(tmp_path)
    assert len(held) == 6
    assert all(f"{digest}.tar" == file for file, digest in held.items())
    after = take(location, options(tmp_path), 15)
    assert len(tars(server)) == 6  # nothing twice, in another loader too
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_lost_connections_go_on_where_they_broke(tmp_path: Path, web: Any) -> None:
    shards, server, location = web
    server.cut[name(2)] = 3
    server.busy[name(3)] = 1
    take(location, options(tmp_path), 8)
    asked = [header for file, header in tars(server) if file == name(2)]
    size = len(shards.tars[2])
    assert asked == ["", f"bytes={size // 2}-", f"bytes={(size // 2 + size) // 2}-", *asked[3:]]
    assert len(asked) == 4
    assert len(files(tmp_path)) == 6


def test_a_server_without_ranges_works_too(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    server.ranges = False
    server.cut[name(2)] = 1
    take(location, options(tmp_path), 8)
    assert len(files(tmp_path)) == 6


def test_a_corrupt_shard_is_fetched_again_once(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    server.spoil[name(4)] = 1
    take(location, options(tmp_path), 8)
    assert [file for file, _ in tars(server)].count(name(4)) == 2
    assert all(f"{digest}.tar" == file for file, digest in files(tmp_path).items())


def test_one_that_stays_corrupt_is_named_and_skipped_only_with_leave(
    tmp_path: Path, web: Any
) -> None:
    shards, server, location = web
    server.spoil[name(4)] = 1000
    with pytest.raises(DamagedShard, match=f"{name(4)}: its sha256") as caught:
        take(location, options(tmp_path), 8)
    assert "skip_corrupt" in str(caught.value)
    assert [file for file, _ in tars(server)].count(name(4)) == 2
    assert len(take(location, options(tmp_path, skip_corrupt=True), 8)) == 8
    digest = hashlib.sha256(shards.tars[4]).hexdigest()
    assert f"{digest}.tar" not in files(tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"), [("gone", "HTTP 404"), ("dead", "tried 5 times"), ("short", "no more than")]
)
def test_a_shard_that_cannot_be_had_is_named(
    tmp_path: Path, web: Any, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, server, location = web
    monkeypatch.setattr("training.streaming.schemes.BACKOFF", 0.001)
    if fault == "gone":
        shards.path(3).unlink()
    elif fault == "dead":
        server.dead.add(name(3))
    else:
        shards.path(3).write_bytes(shards.tars[3][:5000])
    with pytest.raises(UserError, match=said) as caught:
        take(location, options(tmp_path), 8)
    assert name(3) in str(caught.value)


def test_a_changed_file_in_the_cache_is_not_trusted(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    before = take(location, options(tmp_path), 8)
    for path in (tmp_path / "cache").glob("*.tar"):
        content = bytearray(path.read_bytes())
        content[3000] ^= 1
        path.write_bytes(content)
    (tmp_path / "cache" / "half.tmp").write_bytes(b"left by a kill")
    after = take(location, options(tmp_path), 8)
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert len(tars(server)) == 12
    assert len(files(tmp_path)) == 6


def test_too_small_a_bound_and_a_cache_in_use_are_refused(tmp_path: Path, web: Any) -> None:
    _, _, location = web
    with pytest.raises(UserError, match=r"data.cache_gb: 0.0003 GB are too little"):
        take(location, options(tmp_path, cache_gb=0.0003), 1)
    source = open_shard_dataset(location, 0)
    with (
        Loader(source, options(tmp_path)),
        pytest.raises(UserError, match="another process streams"),
    ):
        take(location, options(tmp_path), 1)


STREAM = """
import itertools, os, sys
from pathlib import Path
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import open_shard_dataset
location, cache, gigabytes, count = sys.argv[1:]
table = DataOptions(cache=cache, cache_gb=float(gigabytes), memory_gb=0.0, window=2)
with Loader(open_shard_dataset(location, 0), Config(batch=10, data=table)) as loader:
    for number in range(int(count)):
        next(loader)
        print(number, flush=True)
"""


def stream(location: str, folder: Path, gigabytes: float, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STREAM, location, str(folder), str(gigabytes), str(count)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def taken(process: subprocess.Popen[str], folder: Path) -> int:
    """The disk that the process takes in the folder: named files and those without a name."""
    blocks: dict[int, int] = {}
    fds = Path(f"/proc/{process.pid}/fd")
    for path in (*folder.glob("*"), *folder.glob(".*"), *fds.glob("*")):
        try:
            target = str(path.readlink()) if path.parent == fds else str(path)
            if target.startswith(str(folder)):
                about = path.stat()
                blocks[about.st_ino] = about.st_blocks * 512
        except OSError:
            continue
    return sum(blocks.values())


def test_the_bound_holds_when_measured_from_outside(
    tmp_path: Path, small_shards: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    shards = small_shards(sizes=(20,) * 30, ballast=50_000)  # 30 MB in shards of 1 MB
    server = serve(shards.root)
    server.pause = 0.002  # so that files are seen while they are being written
    total, bound = sum(map(len, shards.tars)), 5_300_000
    cache = tmp_path / "cache"
    process = stream(f"{server.url}/manifests/small", cache, bound / 1e9, 120)
    peak = 0
    while process.poll() is None:
        peak = max(peak, taken(process, cache))
        time.sleep(0.05)
    assert process.stdout is not None
    assert len(process.stdout.read().split()) == 120  # two epochs
    process.stdout.close()
    assert process.returncode == 0
    fetched = len(tars(server)) * total / 30
    assert fetched > 10 * bound  # it streamed more than ten times the bound
    assert bound / 2 < peak <= bound


def test_a_kill_leaves_no_half_file(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    server.pause = 0.01
    cache = tmp_path / "cache"
    for number in range(2):
        process = stream(location, cache, 0.01, 1000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.007 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = [path for path in cache.iterdir() if path.name != ".lock"]
        assert left
        for path in left:
            assert path.name == f"{hashlib.sha256(path.read_bytes()).hexdigest()}.tar"
    server.pause = 0
    asked = len(tars(server))
    assert len(take(location, options(tmp_path), 8)) == 8
    assert len(tars(server)) - asked <= 6 - len(left)  # what was whole is not fetched again


def test_the_next_shard_is_fetched_while_this_one_is_read(tmp_path: Path, web: Any) -> None:
    _, server, location = web
    source = open_shard_dataset(location, 0)
    entries = source.index.shardlist
    cache = ShardCache(tmp_path / "c", entries, source.locations, 2_000_000, 2, 5.0)
    cache.prefetch(1)
    while not list((tmp_path / "c").glob("*.tar")):
        time.sleep(0.005)
    asked = len(tars(server))
    assert asked == 1
    os.close(cache.open(1))
    assert len(tars(server)) == asked
    assert threading.active_count() < 20
    cache.release(1)
    cache.close()


@pytest.mark.parametrize("kind", ["dangling link", "loop", "fifo", "folder of another", "device"])
def test_what_is_no_file_of_the_cache_is_not_in_its_way(
    kind: str, tmp_path: Path, web: Any
) -> None:
    _, _, location = web
    first = open_shard_dataset(location, 0).index.shardlist[0]
    path = tmp_path / "cache" / f"{first.sha256}.tar"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder of another":
        (path.parent / "other.tar").mkdir()
    else:
        target = {"dangling link": "/none/there", "loop": path, "device": "/dev/zero"}[kind]
        path.symlink_to(target)
    assert len(take(location, options(tmp_path), 8)) == 8
    assert path.is_file()
    assert not path.is_symlink()


def test_a_folder_in_place_of_a_shard_or_a_file_in_place_of_the_cache_is_named(
    tmp_path: Path, web: Any
) -> None:
    _, _, location = web
    first = open_shard_dataset(location, 0).index.shardlist[0]
    (tmp_path / "cache" / f"{first.sha256}.tar").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{first.sha256}\.tar: a folder; remove it or"):
        take(location, options(tmp_path), 1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: not a folder; use another --data\.cache"):
        take(location, options(tmp_path, cache=str(tmp_path / "file")), 1)
