"""The download stage: interrupts, power cuts, what is kept, several hosts and parts at once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, image_key, read_jsonl
from pipeline.events import EventLog, Progress
from pipeline.fetcher import Politeness
from pipeline.options import OriginalsOptions
from pipeline.originals import download as stage
from pipeline.originals import inspect_image as examine
from pipeline.originals.download import DownloadResult, download, download_parts
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.part_tars import read_original
from pipeline.originals.part_writer import tar_member
from pipeline.originals.parts import PartFiles, is_complete, planned_parts, read_records, write_plan
from pipeline.recipe import Recipe
from pipeline.retry import retry_failures
from pipeline.sources.html_options import HtmlSource
from tests.helpers.faulty_site import FaultySite, Row, picture, serve

POLITENESS = Politeness(rate=1000, concurrency=4, allow_private=True, attempts=2, backoff=0.02)
SOURCE = HtmlSource(start=("http://127.0.0.1/",))
RECIPE = Recipe(source=SOURCE, politeness=POLITENESS)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetPaths:
    return DatasetPaths("shells", tmp_path)


def put(dataset: DatasetPaths, site: FaultySite, count: int, start: int = 0) -> list[str]:
    """`count` good pictures on the site and in the manifest; their URLs."""
    paths = [f"/{number}.jpg" for number in range(start, start + count)]
    site.rows |= {
        path: Row(path, serve(picture(5000 + n)), data=picture(5000 + n))
        for n, path in enumerate(paths, start)
    }
    urls = [site.url(path) for path in paths]
    with JsonlAppender(dataset.url_manifest) as manifest:
        manifest.append(*({"key": image_key(url), "url": url} for url in urls))
    return urls


def run(dataset: DatasetPaths, recipe: Recipe = RECIPE, **listeners) -> DownloadResult:
    with EventLog(dataset, "test", **listeners) as log:
        return download(recipe, dataset, log)


def test_a_second_run_fetches_what_is_new_and_nothing_else(dataset, faulty_site):
    put(dataset, faulty_site, 5)
    assert run(dataset) == DownloadResult(1, 5, 0, sum(len(picture(5000 + n)) for n in range(5)))
    asked = len(faulty_site.log)
    assert run(dataset) == DownloadResult(0, 0, 0, 0)
    assert len(faulty_site.log) == asked
    put(dataset, faulty_site, 3, start=5)
    assert run(dataset).images == 3
    assert Counter(faulty_site.asked()) == Counter(f"/{n}.jpg" for n in range(8))


def test_a_part_can_be_worked_on_from_its_plan_alone(dataset, faulty_site):
    urls = put(dataset, faulty_site, 4)
    (part,) = assign_parts(dataset)
    dataset.url_manifest.unlink()
    with EventLog(dataset, "test") as log:
        (result,) = download_parts(RECIPE, dataset, [part], log)
    assert (result.nsamples, result.fetched, result.failed) == (4, 4, {})
    assert {record.key for record in read_records(dataset)} == {image_key(url) for url in urls}


def test_the_record_vouches_for_the_tar(dataset, faulty_site):
    put(dataset, faulty_site, 4)
    run(dataset)
    files = PartFiles(dataset, "shells-000000")
    record = json.loads(files.summary.read_text())
    data = files.tar.read_bytes()
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["bytes"] == len(data)
    assert data.endswith(bytes(1024))
    for original in read_records(dataset):
        stored = read_original(dataset, original)
        assert hashlib.sha256(stored).hexdigest() == original.sha256
        with Image.open(io.BytesIO(stored)) as image:
            assert image.size == (original.width, original.height)
            assert (image.format, image.mode) == (original.format, original.mode)


def test_members_are_the_same_bytes_whatever_the_order(tmp_path, faulty_site):
    tars = []
    for name, concurrency in (("one", 1), ("many", 8)):
        dataset = DatasetPaths("shells", tmp_path / name)
        put(dataset, faulty_site, 12)
        polite = Politeness(rate=1000, concurrency=concurrency, allow_private=True)
        run(dataset, Recipe(source=SOURCE, politeness=polite))
        with tarfile.open(PartFiles(dataset, "shells-000000").tar) as tar:
            tars.append({
                member.name: (member.tobuf(), tar.extractfile(member).read()) for member in tar
            })  # fmt: skip
    assert tars[0] == tars[1]


def test_progress_and_events_are_told(dataset, faulty_site):
    put(dataset, faulty_site, 6)
    reports: list[Progress] = []
    run(dataset, on_progress=[reports.append])
    assert (reports[-1].done, reports[-1].total, reports[-1].unit) == (6, 6, "images")
    assert reports[-1].bytes == sum(len(picture(5000 + n)) for n in range(6))
    (event,) = [row for row in read_jsonl(dataset.event_log) if row["event"] == "part"]
    assert event["facts"] == {"part": "shells-000000", "images": 6, "failed": {}}


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000])
def test_a_member_is_one_for_tarfile(size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    block = tar_member("0123456789abcdef.jpg", data)
    assert len(block) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(2 * block + bytes(1024))) as tar:
        first, second = tar.getmembers()
        assert (first.name, first.size, first.mode) == ("0123456789abcdef.jpg", size, 0o644)
        assert (first.mtime, first.uid, first.gid, first.uname) == (0, 0, 0, "")
        assert second.offset == len(block)
        assert tar.extractfile(second).read() == data


# harm


def test_a_power_cut_that_lost_the_end_of_the_tar_is_mended(dataset, faulty_site):
    """The journal may then know more than the tar: each image is held against its hash."""
    urls = put(dataset, faulty_site, 6)
    run(dataset)
    files = PartFiles(dataset, "shells-000000")
    files.summary.unlink()
    lines = [row for row in read_jsonl(files.journal) if row["ok"]]
    with files.tar.open("r+b") as tar:
        tar.seek(lines[3]["offset"] + 10)
        tar.write(bytes(20))
        tar.truncate(lines[5]["offset"] + 5)
    faulty_site.log.clear()
    run(dataset)
    assert len(faulty_site.asked()) == 3
    assert Counter(record.key for record in read_records(dataset)) == Counter(map(image_key, urls))
    for record in read_records(dataset):
        assert hashlib.sha256(read_original(dataset, record)).hexdigest() == record.sha256


def test_a_torn_journal_line_is_dropped(dataset, faulty_site):
    urls = put(dataset, faulty_site, 3)
    run(dataset)
    files = PartFiles(dataset, "shells-000000")
    files.summary.unlink()
    files.journal.write_bytes(files.journal.read_bytes()[:-40])
    with files.tar.open("ab") as tar:
        tar.write(bytes(range(256)) * 99)  # what was being written when it was killed
    run(dataset)
    record = json.loads(files.summary.read_text())
    assert record["sha256"] == hashlib.sha256(files.tar.read_bytes()).hexdigest()
    assert Counter(record.key for record in read_records(dataset)) == Counter(map(image_key, urls))
    with tarfile.open(files.tar) as tar:
        assert len(tar.getnames()) == 6


def test_parts_that_are_not_complete_hand_out_nothing(dataset, faulty_site):
    put(dataset, faulty_site, 2)
    run(dataset)
    PartFiles(dataset, "shells-000000").summary.unlink()
    assert list(read_records(dataset)) == []


def test_an_original_that_is_gone_is_named(dataset, faulty_site):
    put(dataset, faulty_site, 1)
    run(dataset)
    (record,) = read_records(dataset)
    PartFiles(dataset, record.part).tar.unlink()
    with pytest.raises(UserError, match=r"shells-000000\.tar: "):
        read_original(dataset, record)


INTERRUPTED = """
import signal, sys
from pathlib import Path
from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource
from pipeline.originals.download import download
def stop(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
recipe = Recipe(source=HtmlSource(start=("http://127.0.0.1/",)), politeness=Politeness(
    rate=60, concurrency=4, allow_private=True))
dataset = DatasetPaths("shells", Path(sys.argv[1]))
try:
    with EventLog(dataset, "run") as log:
        download(recipe, dataset, log, )
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_soon_and_the_next_run_goes_on(dataset, faulty_site, sign):
    urls = put(dataset, faulty_site, 90)
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(dataset.root)]) as process:
        while len(faulty_site.log) < 20:
            time.sleep(0.01)
        process.send_signal(sign)
        assert process.wait(60) == 130
    before = len(faulty_site.log)
    assert before < 80
    run(dataset)
    assert Counter(record.key for record in read_records(dataset)) == Counter(map(image_key, urls))
    assert len(faulty_site.asked()) <= 90 + 2 * 4  # at most what was in flight


def test_a_mistake_in_our_own_code_is_logged_and_costs_nothing(dataset, faulty_site, monkeypatch):
    urls = put(dataset, faulty_site, 5)
    facts_of = examine.measure_image

    def broken(picture_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(examine, "measure_image", broken)
    run(dataset)
    lines = list(read_jsonl(dataset.failure_log))
    assert [line["kind"] for line in lines] == ["internal"] * 5
    assert all("ZeroDivisionError: a bug" in line["detail"] for line in lines)
    monkeypatch.setattr(examine, "measure_image", facts_of)
    with EventLog(dataset, "test") as log:
        retry_failures(RECIPE, dataset, log)
    assert {record.key for record in read_records(dataset)} == set(map(image_key, urls))


# several hosts and parts


def test_parts_go_on_beside_a_slow_one(dataset, faulty_site):
    """Two parts; in the first one image hangs. The second is complete before."""
    urls = put(dataset, faulty_site, 8)
    finished = threading.Event()

    def hang(request) -> None:
        finished.wait(8)
        request.answer(picture(1))

    faulty_site.rows["/slow.jpg"] = Row("/slow.jpg", hang)
    slow = faulty_site.url("/slow.jpg", host="slow.localhost")
    for part, chunk in (("shells-000000", [slow, *urls[:4]]), ("shells-000001", urls[4:])):
        write_plan(dataset, part, [{"key": image_key(url), "url": url} for url in chunk])
    dataset.url_manifest.unlink()

    def watch(event) -> None:
        if event.event == "part":
            if not order:
                finished.set()
            order.append(event.facts["part"])

    order: list[str] = []
    assert run(dataset, on_event=[watch]).images == 9
    assert order == ["shells-000001", "shells-000000"]


def test_a_host_that_rests_for_a_day_gives_up_later_rows_too(dataset, monkeypatch):
    """Rows that come to a resting host do not wait for it: the run ends."""
    monkeypatch.setattr(stage, "_QUEUED", 5)
    monkeypatch.setattr(stage, "_MIN_IN_FLIGHT", 0)
    with FaultySite() as site:
        rows = {f"/{n}.jpg": Row(f"/{n}.jpg", site.rows["/much-later"].behave) for n in range(30)}
        site.rows |= rows
        urls = [site.url(path) for path in rows]
        with JsonlAppender(dataset.url_manifest) as manifest:
            manifest.append(*({"key": image_key(url), "url": url} for url in urls))
        run(dataset)
        asked = len(site.asked())
    kinds = Counter(line["kind"] for line in read_jsonl(dataset.failure_log))
    assert kinds.keys() == {"rate_limited", "host_cooldown"}
    assert kinds.total() == 30
    assert asked <= POLITENESS.concurrency
    assert is_complete(dataset, *planned_parts(dataset))


def test_idle_hosts_are_forgotten(monkeypatch, faulty_site):
    from pipeline.web import bulk_fetcher as bulk

    monkeypatch.setattr(bulk, "_HOSTS", 10)
    with bulk.BulkFetcher[str](POLITENESS, "x") as fetcher:
        most = 0
        for number in range(60):
            url = faulty_site.url("/good.jpg", host=f"h{number}.localhost")
            fetcher.add(url, url)
            while fetcher.pending:
                assert all(not hasattr(one, "kind") for _, one in fetcher.poll(0.2))
            most = max(most, len(fetcher._hosts))
    assert most <= 25


# what is kept


def test_the_centre_square_is_kept_instead_where_the_recipe_says_so(dataset, faulty_site):
    (url,) = put(dataset, faulty_site, 1)
    recipe = Recipe(source=SOURCE, politeness=POLITENESS, originals=OriginalsOptions(side=32))
    run(dataset, recipe)
    (record,) = read_records(dataset)
    assert (record.width, record.height, record.format) == (32, 32, "JPEG")
    with Image.open(io.BytesIO(read_original(dataset, record))) as image:
        assert image.size == (32, 32)
        want = Image.open(io.BytesIO(picture(5000))).resize(
            (32, 32), Image.Resampling.LANCZOS, box=(12, 0, 84, 72)
        )
        difference = abs(_array(image) - _array(want))
        assert difference.mean() < 3
    with tarfile.open(PartFiles(dataset, record.part).tar) as tar:
        sidecar = json.load(tar.extractfile(f"{record.key}.json"))
    assert sidecar["served"]["width"] == 96
    assert sidecar["served"]["sha256"] == hashlib.sha256(picture(5000)).hexdigest()
    assert sidecar["sha256"] == record.sha256
    assert image_key(url) == record.key


def _array(image: Image.Image):
    import numpy as np

    return np.asarray(image.convert("RGB")).astype(int)


def test_memory_stays_flat_over_a_bomb(tmp_path, faulty_site):
    """900 megapixels in a few bytes: refused by the header, in a process of its own."""
    dataset = DatasetPaths("shells", tmp_path)
    url = faulty_site.url("/bomb")
    with JsonlAppender(dataset.url_manifest) as manifest:
        manifest.append({"key": image_key(url), "url": url})
    code = INTERRUPTED + (
        "\nstatus = Path('/proc/self/status').read_text()"
        "\nprint(status.partition('VmHWM:')[2].split()[0])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(dataset.root)],
        check=True, capture_output=True, text=True, env=os.environ,
    ).stdout  # fmt: skip
    assert int(output) / 1024 < 200
    assert [line["kind"] for line in read_jsonl(dataset.failure_log)] == ["too_many_pixels"]
