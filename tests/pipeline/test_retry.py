"""Retrying from the failure log: images and pages, by kind, host and age."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, image_key, read_jsonl
from pipeline.crawl.stage import crawl
from pipeline.events import EventLog, LoggedFailure, unresolved_failures
from pipeline.fetcher import Politeness
from pipeline.originals.download import download, download_parts
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import PartFiles, next_part, planned_parts, read_records, write_plan
from pipeline.recipe import Recipe
from pipeline.retry import RetryResult, filter_failures, retry_failures
from pipeline.sources.html_options import HtmlSource
from pipeline.web.failures import failure
from tests.helpers.faulty_site import FaultySite, Row, first, page, picture, serve, status

POLITENESS = Politeness(
    rate=500, concurrency=4, allow_private=True, attempts=2, backoff=0.02, max_backoff=0.05
)


def recipe(start: str = "http://127.0.0.1/") -> Recipe:
    return Recipe(source=HtmlSource(start=(start,)), politeness=POLITENESS)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetPaths:
    return DatasetPaths("shells", tmp_path)


def fill(dataset: DatasetPaths, site: FaultySite, rows: list[Row]) -> dict[str, str]:
    """Put the rows on the site and into the manifest, download once; the URLs by path."""
    site.rows |= {row.path: row for row in rows}
    urls = {row.path: site.url(row.path) for row in rows}
    with JsonlAppender(dataset.url_manifest) as manifest:
        manifest.append(
            *({"key": image_key(url), "url": url, "title": path} for path, url in urls.items())
        )
    with EventLog(dataset, "first") as log:
        download(recipe(), dataset, log)
    return urls


def retry(dataset: DatasetPaths, **options) -> RetryResult:
    with EventLog(dataset, "retry") as log:
        return retry_failures(recipe(), dataset, log, **options)


def had(dataset: DatasetPaths) -> Counter[str]:
    return Counter(record.key for record in read_records(dataset))


def test_what_can_be_mended_is_added_and_the_log_says_so(dataset, faulty_site):
    data = picture(20)
    urls = fill(
        dataset,
        faulty_site,
        [
            Row("/a.jpg", first(2, status("503 Busy"), serve(data)), data=data),
            Row("/b.jpg", status("500 Broken")),
            Row("/c.jpg", status("404 Not Found")),
            Row("/good.jpg", serve(picture(21))),
        ],
    )
    assert set(had(dataset)) == {image_key(urls["/good.jpg"])}

    assert retry(dataset) == RetryResult(tried=2, resolved=1, still_failed=1)

    assert had(dataset) == Counter([image_key(urls["/good.jpg"]), image_key(urls["/a.jpg"])])
    mended = next(r for r in read_records(dataset) if r.key == image_key(urls["/a.jpg"]))
    assert read_original(dataset, mended) == data
    sidecar = json.loads(_member(dataset, mended.part, f"{mended.key}.json"))
    assert sidecar["title"] == "/a.jpg"  # the manifest row went along
    last = list(read_jsonl(dataset.failure_log))[-1]
    assert (last["kind"], last["url"], last["detail"]) == (
        "resolved",
        urls["/a.jpg"],
        "was unavailable",
    )
    assert {row.url for row in unresolved_failures(dataset).values()} == {
        urls["/b.jpg"],
        urls["/c.jpg"],
    }
    # /c was not asked for again: nothing says that it could be there now.
    assert len(faulty_site.times("/c.jpg")) == 1


def _member(dataset: DatasetPaths, part: str, name: str) -> bytes:
    import tarfile

    with tarfile.open(PartFiles(dataset, part).tar) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_everything_or_a_kind_is_tried_where_asked_for(dataset, faulty_site):
    urls = fill(
        dataset,
        faulty_site,
        [
            Row("/back.jpg", first(1, status("404 Not Found"), serve(picture(22)))),
            Row("/gone.jpg", first(1, status("410 Gone"), serve(picture(23)))),
        ],
    )
    assert retry(dataset) == RetryResult(0, 0, 0)
    assert retry(dataset, kinds=("not_found",)) == RetryResult(1, 1, 0)
    assert retry(dataset, everything=True) == RetryResult(1, 1, 0)
    assert set(had(dataset)) == {image_key(url) for url in urls.values()}
    assert retry(dataset, everything=True) == RetryResult(0, 0, 0)


def test_a_retry_that_was_killed_goes_on(dataset, faulty_site):
    urls = fill(
        dataset, faulty_site, [Row("/a.jpg", first(2, status("503 Busy"), serve(picture(24))))]
    )
    url = urls["/a.jpg"]
    # The part of the retry was planned, and then the machine died.
    write_plan(dataset, next_part(dataset), [{"key": image_key(url), "url": url}])
    assert retry(dataset) == RetryResult(1, 1, 0)
    assert had(dataset) == Counter([image_key(url)])
    assert len(planned_parts(dataset)) == 2


def test_a_failure_of_an_image_that_was_had_after_all_is_taken_back(dataset, faulty_site):
    urls = fill(dataset, faulty_site, [Row("/a.jpg", serve(picture(25)))])
    url = urls["/a.jpg"]
    with EventLog(dataset, "killed") as log:
        log.log_failure(failure("download", url, "truncated", key=image_key(url)))
    assert retry(dataset) == RetryResult(1, 1, 0)
    assert len(faulty_site.times("/a.jpg")) == 1
    assert not unresolved_failures(dataset)
    assert had(dataset) == Counter([image_key(url)])


def test_pages_are_mended_and_their_images_fetched(dataset, faulty_site):
    index = page("Shells", '<a href="/big.jpg"><img src="/small.jpg"></a>')
    faulty_site.rows |= {
        "/index.html": Row(
            "/index.html", first(2, status("503 Busy"), serve(index, type_="text/html"))
        ),
        "/big.jpg": Row("/big.jpg", serve(picture(26))),
        "/small.jpg": Row("/small.jpg", serve(picture(26))),
    }
    site = recipe(faulty_site.url("/index.html"))
    with EventLog(dataset, "first") as log:
        crawl(site, dataset, log)
        download(site, dataset, log)
    assert {row.kind for row in unresolved_failures(dataset).values()} == {"unavailable"}
    with EventLog(dataset, "retry") as log:
        assert retry_failures(site, dataset, log) == RetryResult(1, 1, 0)
    assert not unresolved_failures(dataset)
    assert [record.key for record in read_records(dataset)] == [
        image_key(faulty_site.url("/big.jpg"))
    ]


def test_a_kind_that_is_none_is_the_users_mistake(dataset):
    with pytest.raises(UserError, match="unknown failure kind 'sunspots'; choose from animated"):
        retry(dataset, kinds=("sunspots",))


def line(url: str, kind: str, hours: float, *, retryable: bool = True) -> LoggedFailure:
    then = datetime(2026, 1, 2, tzinfo=UTC) - timedelta(hours=hours)
    stamp = then.strftime("%Y-%m-%dT%H:%M:%SZ")
    return LoggedFailure("download", url, kind, retryable, ts=stamp)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "abd"),
        ({"everything": True}, "abcd"),
        ({"kinds": ("not_found",)}, "c"),
        ({"kinds": ("dns", "not_found")}, "bc"),
        ({"hosts": ("one.example",)}, "ab"),
        ({"hosts": ("two.example:8080",)}, "d"),
        ({"hosts": ("two.example",)}, "d"),
        ({"older_than": 5}, "bd"),
        ({"older_than": 5, "hosts": ("one.example",)}, "b"),
    ],
)
def test_what_is_chosen(options, expected):
    rows = [
        line("http://one.example/a", "truncated", 1),
        line("http://one.example/b", "dns", 6),
        line("http://two.example/c", "not_found", 6, retryable=False),
        line("http://two.example:8080/d", "refused", 48),
    ]
    found = filter_failures(rows, now=datetime(2026, 1, 2, tzinfo=UTC), **options)
    assert "".join(row.url[-1] for row in found) == expected


def test_the_parts_are_completed_by_who_is_asked_to(dataset, faulty_site):
    fill(dataset, faulty_site, [Row("/a.jpg", first(2, status("503 Busy"), serve(picture(20))))])
    asked = []

    def run(recipe, dataset, parts, log):
        asked.extend(parts)
        return download_parts(recipe, dataset, parts, log)

    assert retry(dataset, run=run).resolved == 1
    assert asked == ["shells-000001"]
    assert retry(dataset, run=run).tried == 0
    assert asked == ["shells-000001"]
