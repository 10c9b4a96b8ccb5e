"""The whole way on the embedded gallery: by command, under kill -9, and through Prefect."""

import hashlib
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import DatasetPaths, image_key, load_index, read_jsonl
from pipeline.demo.gallery import ServedGallery, serve
from pipeline.originals.parts import read_records
from pipeline.status import read_status
from pipeline.web.urls import canonical_url
from tests.helpers.commands import run_pipeline
from tests.helpers.faulty_site import POLICY_FILES
from tests.helpers.plain_gallery import plain_gallery

COUNT = 48


@pytest.fixture(scope="module")
def gallery(gallery_cache: Path) -> Iterator[ServedGallery]:
    made = plain_gallery(COUNT, 7, gallery_cache)
    with serve(made) as served:
        yield served


def command(gallery: ServedGallery, root: Path, *words: str) -> list[str]:
    start = json.dumps([gallery.url])
    return [
        *(sys.executable, "-m", "pipeline", *words, "shells", "--root", str(root)),
        *("--set", f"source.start={start}"),
    ]


def run(gallery: ServedGallery, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in this process."""
    root.mkdir(exist_ok=True)
    return run_pipeline(root, *command(gallery, root, *words)[3:])


def samples(shard: Path) -> list[tuple[str, bytes]]:
    """The pictures and class numbers of a shard, in order."""
    with tarfile.open(shard) as tar:
        return [
            (member.name, hashlib.sha256(tar.extractfile(member).read()).digest())
            for member in tar
            if not member.name.endswith(".json")
        ]


def outcome(root: Path) -> dict[str, Any]:
    """All that must be equal, however often the work was interrupted.

    Not the times when an image was found, nor the order in which downloads ended.
    """
    dataset = DatasetPaths("shells", root)
    _, shards = load_index(dataset.shard_index)
    status = read_status(dataset)
    return {
        "urls": [row["key"] for row in read_jsonl(dataset.url_manifest)],
        "originals": sorted((r.key, r.sha256) for r in read_records(dataset)),
        "kept": sorted(row["key"] for row in read_jsonl(dataset.selection)),
        "rejected": [(row["key"], row["reason"]) for row in read_jsonl(dataset.rejections)],
        "samples": [samples(Path(shard)) for shard in shards],
        "failed": status.failed,
        "pages": status.pages,
    }


@pytest.fixture(scope="module")
def undisturbed(
    gallery: ServedGallery, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Counter[str]]:
    """The outcome of a run that nobody disturbs, and how often each path was asked for."""
    root = tmp_path_factory.mktemp("undisturbed")
    before = len(gallery.requests)
    result = run(gallery, root, "run")
    assert result.returncode == 1, result.stderr  # the gallery has broken links
    return outcome(root), Counter(gallery.requests[before:])


def test_the_counts_are_the_sites(
    gallery: ServedGallery, undisturbed: tuple[dict[str, Any], Counter[str]]
) -> None:
    truth = gallery.gallery.truth()
    found, _ = undisturbed
    urls = [canonical_url(one.path, gallery.url) for one in truth.images]
    assert found["kept"] == sorted(image_key(url) for url in urls if url)
    assert len(found["originals"]) == len(urls) == COUNT
    assert sum(map(len, found["samples"])) == 2 * COUNT  # a picture and a class each
    faults = Counter(one.fault for one in truth.faults)
    assert found["failed"]["html_page"] == faults["page served as image"]
    assert found["failed"]["not_found"] == faults["missing image"] + faults["missing page"]
    assert set(found["failed"]) == {"html_page", "not_found", "robots"}


def test_running_again_asks_for_nothing(gallery: ServedGallery, tmp_path: Path) -> None:
    run(gallery, tmp_path, "run")
    first, asked = outcome(tmp_path), len(gallery.requests)
    again = run(gallery, tmp_path, "run")
    assert again.returncode in (0, 1), again.stderr
    assert outcome(tmp_path) == first
    assert gallery.requests[asked:] == []


def started(dataset: DatasetPaths, stage: str) -> bool:
    return any(row["stage"] == stage for row in read_jsonl(dataset.event_log))


@pytest.mark.parametrize("stage", ["crawl", "download", "select", "shard"])
def test_kill_in_each_stage_and_run_again(
    gallery: ServedGallery,
    undisturbed: tuple[dict[str, Any], Counter[str]],
    tmp_path: Path,
    stage: str,
) -> None:
    expected, asked_once = undisturbed
    dataset = DatasetPaths("shells", tmp_path)
    before = len(gallery.requests)
    slow = ["--set", "politeness.rate=40"]  # so that there is something to interrupt
    kills = 0
    for delay in (0.0, 0.05, 0.3):
        child = subprocess.Popen(
            [*command(gallery, tmp_path, "run"), *slow], stderr=subprocess.DEVNULL
        )
        while child.poll() is None and not started(dataset, stage):
            time.sleep(0.002)
        time.sleep(delay)
        if child.poll() is None:
            kills += 1
            child.send_signal(signal.SIGKILL)
        child.wait()
    assert kills
    assert run(gallery, tmp_path, "run").returncode in (0, 1)
    assert outcome(tmp_path) == expected
    asked = Counter(gallery.requests[before:])
    again = {
        path: asked[path] - asked_once[path]
        for path in asked
        if asked[path] > asked_once[path] and path not in POLICY_FILES
    }
    # At most what was in flight when the kill came (8 at a time) is asked for again.
    assert sum(again.values()) <= 8 * kills


def test_a_second_process_is_refused_the_dataset(gallery: ServedGallery, tmp_path: Path) -> None:
    slow = ["--set", "politeness.rate=2"]
    child = subprocess.Popen(
        [*command(gallery, tmp_path, "crawl"), *slow], stderr=subprocess.DEVNULL
    )
    try:
        while not started(DatasetPaths("shells", tmp_path), "crawl"):
            time.sleep(0.01)
        second = run(gallery, tmp_path, "crawl")
    finally:
        child.kill()
        child.wait()
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"error: {tmp_path / 'data' / 'shells'}: process {child.pid} is working on this dataset"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_so(
    gallery: ServedGallery, tmp_path: Path, number: signal.Signals
) -> None:
    assert run(gallery, tmp_path, "crawl").returncode in (0, 1)
    child = subprocess.Popen(
        [*command(gallery, tmp_path, "download"), "--set", "politeness.rate=2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not started(DatasetPaths("shells", tmp_path), "download"):
        time.sleep(0.01)
    child.send_signal(number)
    _, said = child.communicate()
    assert child.returncode == 130
    assert said.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in said


def test_mistakes_are_one_line_and_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[source]\nkind = "html"\nstart = ["http://127.0.0.1:9/"]\nfolow = "a"\n')
    for arguments, words in {
        ("crawl", "nosuch"): "nosuch.toml: recipe not found; choose a file or one of ",
        ("crawl", str(recipe)): "mine.toml: source.folow: unknown key",
        ("crawl", "shells", "--set", "shards.resolutoin=1"): "shards.resolutoin: unknown key",
        ("shard", "shells"): "kept",
    }.items():
        result = run_pipeline(tmp_path, *arguments, "--root", str(tmp_path))
        assert result.returncode == 2, result.stderr
        (line,) = result.stderr.splitlines()[-1:]
        assert line.startswith("error: ")
        assert words in line


def test_status_in_one_screen_and_as_json(gallery: ServedGallery, tmp_path: Path) -> None:
    empty = run(gallery, tmp_path, "status")
    assert empty.returncode == 0
    assert "pages     none yet" in empty.stdout
    run(gallery, tmp_path, "run")
    shown = run(gallery, tmp_path, "status").stdout
    assert f"kept      {COUNT}" in shown
    assert len(shown.splitlines()) < 24
    facts = json.loads(run(gallery, tmp_path, "status", "--json").stdout)
    assert facts["kept"] == facts["samples"] == facts["images"] == COUNT


def test_retry_mends_what_came_back(gallery: ServedGallery, tmp_path: Path) -> None:
    run(gallery, tmp_path, "crawl")
    refused = run(gallery, tmp_path, "download", "--set", "politeness.max_bytes=3880")
    assert refused.returncode == 1
    dataset = DatasetPaths("shells", tmp_path)
    too_large = read_status(dataset).failed["too_large"]
    assert too_large
    result = run(gallery, tmp_path, "retry", "--kind", "too_large")
    assert result.returncode == 0, result.stderr
    assert "too_large" not in read_status(dataset).failed
    assert sum(row["kind"] == "resolved" for row in read_jsonl(dataset.failure_log)) == too_large
    assert read_status(dataset).images == COUNT
    assert run(gallery, tmp_path, "select").returncode == 0
    assert read_status(dataset).kept == COUNT
