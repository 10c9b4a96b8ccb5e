"""Downloading and sharding on Prefect's task runners, with a worker killed in the middle."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipeline.contract import DatasetPaths, load_index, read_jsonl
from pipeline.demo.gallery import ServedGallery, serve
from pipeline.errors import UserError
from pipeline.job import Job, run_stage
from pipeline.originals.parts import (
    PartFiles,
    PartLocked,
    is_complete,
    lock_part,
    planned_parts,
    read_journal,
    write_plan,
)
from pipeline.runners import ADDRESS_VARIABLE, resolve_runner, split_evenly
from pipeline.web.politeness import HostLimiter, Politeness, share
from tests.helpers.plain_gallery import plain_gallery

COUNT = 24
A_PART = 2
CONCURRENCY = 4
WORKERS = 2

FLOW = """
import json, sys
from pipeline.flows import scrape
scrape("shells", **json.loads(sys.argv[1]))
"""


def overrides(gallery: ServedGallery) -> dict[str, Any]:
    return {
        "source.start": [gallery.url],
        "politeness.rate": 16.0,  # slow enough to be killed in the middle
        "politeness.concurrency": CONCURRENCY,
        "shards.samples_per_shard": COUNT // WORKERS,
        "shards.resolution": 32,
    }


@pytest.fixture(scope="module")
def gallery(gallery_cache: Path) -> Iterator[ServedGallery]:
    made = plain_gallery(COUNT, 7, gallery_cache)
    with serve(made) as served:
        yield served


@pytest.fixture(scope="module")
def crawled(gallery: ServedGallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose manifest is there, in parts of a few images."""
    root = tmp_path_factory.mktemp("crawled")
    job = Job("shells", {**overrides(gallery), "politeness.rate": 1000.0}, root)
    with job.open() as (recipe, dataset, log):
        run_stage("crawl", recipe, dataset, log)
        rows = list(read_jsonl(dataset.url_manifest))
        for number, start in enumerate(range(0, len(rows), A_PART)):
            write_plan(dataset, f"shells-{number:06d}", rows[start : start + A_PART])
    return root


def outcome(root: Path) -> dict[str, Any]:
    """What must be the same whoever did the work."""
    dataset = DatasetPaths("shells", root)
    _, shards = load_index(dataset.shard_index)
    parts = planned_parts(dataset)
    assert all(is_complete(dataset, part) for part in parts)
    rows = {part: list(read_journal(dataset, part)) for part in parts}
    for part in parts:
        assert len({row["key"] for row in rows[part]}) == len(rows[part])
    return {
        "images": {
            part: sorted((row["key"], row["ok"], row.get("sha256"), row.get("kind"))
                         for row in rows[part])
            for part in parts
        },
        "shards": [samples(Path(shard)) for shard in shards],
    }  # fmt: skip


def samples(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [
            (member.name, tar.extractfile(member).read())  # type: ignore[union-attr]
            for member in tar
            if not member.name.endswith(".json")
        ]


@pytest.fixture(scope="module")
def undisturbed(
    gallery: ServedGallery, crawled: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The outcome of the same work in one process."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(crawled, root)
    job = Job("shells", {**overrides(gallery), "politeness.rate": 1000.0}, root)
    with job.open() as (recipe, dataset, log):
        for name in ("download", "select", "shard"):
            run_stage(name, recipe, dataset, log)
    return outcome(root)


def holders(dataset: DatasetPaths) -> set[int]:
    """The processes that work on parts."""
    found = set()
    for path in dataset.originals_dir.glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            found.add(int(path.read_text() or 0))
    return found - {0}


def parts_done(dataset: DatasetPaths) -> list[str]:
    """By the dataset's own log."""
    return [
        row["facts"]["part"]
        for row in read_jsonl(dataset.event_log)
        if (row["stage"], row["event"]) == ("download", "part")
    ]


def kill_a_worker(
    flow: subprocess.Popen[bytes], dataset: DatasetPaths, gallery: ServedGallery, asked: int
) -> tuple[set[str], set[str]]:
    """In the middle of the download; returns the paths of the images in flight just then and
    the parts done."""
    parts = planned_parts(dataset)
    while flow.poll() is None:
        lines = sum(len(list(read_journal(dataset, part))) for part in parts)
        pids = holders(dataset)
        if lines >= 4 and len(pids) == WORKERS:
            break
        time.sleep(0.02)
    assert flow.poll() is None  # it ended before both workers were at work
    path_of = {
        row.key: urlsplit(row.url).path for part in parts for row in PartFiles(dataset, part).rows()
    }
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        known = -1
        while known < len(gallery.requests):  # what they had asked for reaches the gallery
            known = len(gallery.requests)
            time.sleep(0.3)
        done = {path_of[row["key"]] for part in parts for row in read_journal(dataset, part)}
        in_flight = set(gallery.requests[asked:]) - done
        before = set(parts_done(dataset))
        os.kill(min(pids), signal.SIGKILL)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # the killed one may be gone already
                os.kill(pid, signal.SIGCONT)
    return in_flight, before


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_a_killed_worker_changes_nothing(
    runner: str,
    prefect_server: Any,
    gallery: ServedGallery,
    crawled: Path,
    undisturbed: dict[str, Any],
    tmp_path: Path,
) -> None:
    if runner == "dask":
        pytest.importorskip("prefect_dask")
    root = tmp_path / "project"
    shutil.copytree(crawled, root)
    dataset = DatasetPaths("shells", root)
    asked = len(gallery.requests)
    parameters = {
        "overrides": overrides(gallery), "root": str(root), "runner": runner, "workers": WORKERS
    }  # fmt: skip
    log = tmp_path / "flow.log"
    with log.open("wb") as out:
        flow = subprocess.Popen(
            [sys.executable, "-c", FLOW, json.dumps(parameters)],
            env=prefect_server.env, cwd=prefect_server.folder, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            in_flight, before = kill_a_worker(flow, dataset, gallery, asked)
            assert flow.wait() == 0, log.read_text()
        finally:
            flow.kill()
            flow.wait()
    assert outcome(root) == undisturbed
    assert_nothing_twice(runner, gallery.requests[asked:], in_flight)
    assert_told(prefect_server, dataset, before)
    for path in dataset.originals_dir.glob("*.lock"):
        lock_part(path).release(remove=True)  # left by the killed one, held by nobody


def assert_nothing_twice(runner: str, requests: list[str], in_flight: set[str]) -> None:
    times = Counter(path for path in requests if path.startswith("/images/full/"))
    twice = {path for path, number in times.items() if number > 1}
    assert max(times.values()) <= 2
    later = twice - in_flight
    if runner == "processes":
        # A lost process breaks its pool: the others end too, a moment later.
        assert len(later) <= CONCURRENCY // WORKERS
    else:
        assert not later


def assert_told(server: Any, dataset: DatasetPaths, before: set[str]) -> None:
    """What the workers did is in the dataset's log and in Prefect's, with the task's run."""
    events = [row for row in read_jsonl(dataset.event_log) if row["stage"] == "download"]
    done = parts_done(dataset)
    parts = planned_parts(dataset)
    assert len(set(done)) == len(done)
    assert set(done) <= set(parts)
    # A kill can come between a part's record and the line that tells of it.
    assert len(parts) - len(done) <= WORKERS
    assert len({row["run"] for row in events}) == 1
    (facts,) = (row["facts"] for row in events if row["event"] == "done")
    assert (facts["parts"], facts["images"]) == (len(parts), COUNT)
    # Prefect sends lines in batches: a process that ends by a signal takes those along that it
    # had not sent, and with its pool ends the other one, a part later at most.
    wanted = {f"download part: part {part}" for part in done if part not in before}
    assert len(wanted) > WORKERS
    deadline = time.monotonic() + 60
    while len(wanted) > WORKERS:
        assert time.monotonic() < deadline, wanted
        for line in server.post("logs/filter", sort="TIMESTAMP_DESC"):
            if line["task_run_id"]:
                wanted.discard(str(line["message"]).partition(", images")[0])
        time.sleep(0.2)


def test_a_missing_server_or_package_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    url = PREFECT_API_URL
    with temporary_settings({url: None}), pytest.raises(UserError, match="PREFECT_API_URL"):
        resolve_runner("processes", 2, None)
    with temporary_settings({url: "http://127.0.0.1:1/api"}):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'shellgan\[ray\]'"):
            resolve_runner("ray", 2, None)


def test_parameters_that_do_not_go_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert resolve_runner("local", None, None) is None
        with pytest.raises(UserError, match="runner_address"):
            resolve_runner("processes", 2, "tcp://10.0.0.1:8786")
        with pytest.raises(UserError, match="workers"):
            resolve_runner("processes", 0, None)
        pytest.importorskip("prefect_dask")
        monkeypatch.setenv(ADDRESS_VARIABLE, "tcp://10.0.0.1:8786")
        with pytest.raises(UserError, match=r"workers: .*10\.0\.0\.1"):
            resolve_runner("dask", None, None)
        crew = resolve_runner("dask", 3, None)
        assert crew is not None
        assert (crew.workers, crew.address) == (3, "tcp://10.0.0.1:8786")


@pytest.mark.parametrize(
    ("items", "workers", "at_most", "sizes"),
    [(0, 4, 5, []), (3, 4, 5, [1, 1, 1]), (12, 2, 5, [4, 4, 4]), (12, 4, 5, [3] * 4),
     (11, 2, 5, [3, 4, 4]), (100, 2, 5, [5] * 20)],
)  # fmt: skip
def test_parts_are_split_evenly(items: int, workers: int, at_most: int, sizes: list[int]) -> None:
    batches = split_evenly(range(items), workers, at_most)
    assert [len(batch) for batch in batches] == sizes
    assert [one for batch in batches for one in batch] == list(range(items))


def test_shares_of_politeness_add_up_to_the_recipes() -> None:
    """So many gates, each driven as fast as it lets, together let no more through."""
    politeness = Politeness(rate=50.0, concurrency=7)
    for workers, crawl_delay in ((1, None), (3, None), (7, None), (3, 0.5)):
        gates = [HostLimiter(share(politeness, workers)) for _ in range(workers)]
        for gate in gates:
            gate.crawl_delay(crawl_delay)
        starts = sorted(start for gate in gates for start in driven(gate, seconds=60.0))
        allowed = 60.0 * (1 / crawl_delay if crawl_delay else politeness.rate)
        # Each begins at once, as the one would; the late tokens allowed are 0.05 s worth.
        assert 0.9 * allowed <= len(starts) <= 1.05 * allowed + workers
        places = 0
        for gate in gates:
            while gate.delay(1e6) < 1e9:
                gate.start(1e6)
                gate._next = 0.0
                places += 1
        assert places <= politeness.concurrency


def driven(gate: HostLimiter, seconds: float) -> list[float]:
    now, starts = 0.0, []
    while now < seconds:
        delay = gate.delay(now)
        if delay == 0:
            gate.start(now)
            with gate.lock:
                gate.finish(now, None)
            starts.append(now)
        else:
            now += delay + 1e-9
    return starts


def test_a_part_is_held_by_one_process_until_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "shells-000000.lock"
    script = (
        "import sys, time; from pathlib import Path; "
        "from pipeline.originals.parts import lock_part; "
        "held = lock_part(Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other.stdout:
        other.stdout.readline()
        with pytest.raises(PartLocked, match=f"process {other.pid} is working"):
            lock_part(path)
        other.kill()
        other.wait()
    mine = lock_part(path)
    with pytest.raises(PartLocked, match=f"process {os.getpid()} "):
        lock_part(path)
    mine.release(remove=True)
    assert not path.exists()
    lock_part(path).release(remove=True)
