"""Everything that goes wrong on the web, through the download stage: the kind, the outcome, the
number of requests, and the bytes of what is good."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, image_key, read_jsonl
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.originals.download import download
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource
from pipeline.web.failures import FAILURE_KINDS
from tests.helpers.faulty_site import ATTEMPTS, ROWS, FaultySite, Row

POLITENESS = Politeness(
    rate=500, concurrency=4, allow_private=True, attempts=ATTEMPTS, backoff=0.05, max_backoff=0.1,
    first_byte_timeout=0.5, total_timeout=1.5, min_speed=2000, min_speed_window=0.5,
    max_bytes=1 << 20, max_pixels=10_000_000, max_redirects=5, max_wait=20, rest_after=9,
)  # fmt: skip
RECIPE = Recipe(source=HtmlSource(start=("http://127.0.0.1/",)), politeness=POLITENESS)


def put(dataset: DatasetPaths, urls: list[str]) -> None:
    with JsonlAppender(dataset.url_manifest) as manifest:
        manifest.append(*({"key": image_key(url), "url": url} for url in urls))


def run(dataset: DatasetPaths, recipe: Recipe = RECIPE) -> None:
    with EventLog(dataset, "test") as log:
        download(recipe, dataset, log)


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[FaultySite, DatasetPaths, dict[str, Row]]:
    """Every row on a host of its own, so that none slows another down; fetched in one run."""
    dataset = DatasetPaths("faults", tmp_path_factory.mktemp("faults"))
    with FaultySite() as site:
        by_url = {
            site.url(row.path, host=f"r{number}.localhost"): row for number, row in enumerate(ROWS)
        }
        put(dataset, list(by_url))
        run(dataset)
    return site, dataset, by_url


def test_exactly_the_good_images_arrive_byte_for_byte(done):
    _, dataset, by_url = done
    got = {record.key: read_original(dataset, record) for record in read_records(dataset)}
    want = {image_key(url): row.data for url, row in by_url.items() if row.kind is None}
    missing = [url for url in by_url if image_key(url) in want.keys() - got.keys()]
    assert not missing
    assert got == want


def test_every_failure_is_in_the_log_once_with_its_kind_and_outcome(done):
    _, dataset, by_url = done
    lines = list(read_jsonl(dataset.failure_log))
    assert {line["url"]: line["kind"] for line in lines} == {
        url: row.kind for url, row in by_url.items() if row.kind is not None
    }
    assert max(Counter(line["url"] for line in lines).values()) == 1
    for line in lines:
        assert line["retryable"] == FAILURE_KINDS[line["kind"]]
        assert line["key"] == image_key(line["url"])
        assert line["stage"] == "download"


def test_what_can_help_is_tried_again_and_nothing_else(done):
    site, _, by_url = done
    made = Counter((host.partition(".")[0], path) for host, path, _ in site.log)
    wrong = {}
    for number, row in enumerate(by_url.values()):
        if row.attempts is not None and row.kind != "redirect_loop":
            count = made[f"r{number}", row.path]
            if count != row.attempts:
                wrong[row.path] = count, row.attempts
    assert not wrong


def test_retry_after_is_waited_for(done):
    site, _, _ = done
    for path in ("/later-seconds", "/later-date"):
        first, second = site.times(path)
        assert second - first >= 0.99


def test_a_broken_body_is_gone_on_with_from_where_it_broke(done):
    site, _, _ = done
    asked = [headers for headers in site.seen if headers["path"] == "/resumable"]
    assert [("range" in headers) for headers in asked] == [False, True, True]
    assert all(headers["if-range"] == '"v1"' for headers in asked[1:])
    starts = [int(headers["range"][6:-1]) for headers in asked[1:]]
    assert 0 < starts[0] < starts[1]


def test_the_tar_is_a_webdataset_with_provenance(done):
    _, dataset, by_url = done
    with tarfile.open(dataset.originals_dir / "faults-000000.tar") as tar:
        names = tar.getnames()
        assert all(member.mtime == 0 for member in tar.getmembers())
        key = image_key(next(url for url, row in by_url.items() if row.path == "/moved"))
        assert names.index(f"{key}.jpg") + 1 == names.index(f"{key}.json")
        facts = json.load(tar.extractfile(f"{key}.json"))
    assert facts["final_url"].endswith("/good.jpg")
    assert facts["headers"]["content-type"] == "image/jpeg"
    assert facts["served"]["sha256"] == facts["sha256"]
    record = json.loads((dataset.originals_dir / "faults-000000.json").read_text())
    assert record["nsamples"] == sum(row.kind is None for row in by_url.values())
    assert sum(record["failed"].values()) == sum(row.kind is not None for row in by_url.values())


def test_what_the_host_is_not_there_for(tmp_path: Path, faulty_site: FaultySite):
    dataset = DatasetPaths("hosts", tmp_path)
    urls = {
        "http://nowhere.invalid/x.jpg": "dns",
        "http://127.0.0.1:1/x.jpg": "refused",
        f"https://127.0.0.1:{faulty_site.port}/x.jpg": "tls",
        "ftp://127.0.0.1/x.jpg": "bad_url",
        "http://[::1/x.jpg": "bad_url",
    }
    put(dataset, list(urls))
    run(dataset)
    assert {line["url"]: line["kind"] for line in read_jsonl(dataset.failure_log)} == urls
