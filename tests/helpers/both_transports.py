"""URLs fetched by both transports: that of the pages and that of the images."""

from __future__ import annotations

import time

from pipeline.errors import Failure
from pipeline.fetcher import Fetcher, Politeness
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.responses import Response
from tests.helpers.faulty_site import ATTEMPTS, FaultySite, serve

QUICK = {
    "rate": 500.0, "concurrency": 4, "allow_private": True, "attempts": ATTEMPTS, "backoff": 0.05,
    "max_backoff": 0.1, "first_byte_timeout": 0.5, "total_timeout": 1.5, "min_speed": 2000,
    "min_speed_window": 0.5, "max_bytes": 1 << 20, "max_redirects": 5, "max_wait": 20,
}  # fmt: skip


def polite(**changes) -> Politeness:
    return Politeness(**{**QUICK, **changes})


def get(url: str, **changes) -> Response | Failure:
    with Fetcher(polite(**changes)) as fetcher:
        return fetcher.get(url, stage="crawl")


def get_in_bulk(urls: list[str], **changes) -> dict[str, Response | Failure]:
    """Outcomes in the order in which they came."""
    outcomes: dict[str, Response | Failure] = {}
    with BulkFetcher[str](polite(**changes), "crawl") as bulk:
        for url in urls:
            bulk.add(url, url)
        end = time.monotonic() + 20
        while bulk.pending and time.monotonic() < end:
            outcomes.update(bulk.poll(0.1))
    return outcomes


def get_either_way(url: str, **changes) -> list[Response | Failure]:
    return [get(url, **changes), get_in_bulk([url], **changes)[url]]


def kind(outcome: Response | Failure) -> str | None:
    return outcome.kind if isinstance(outcome, Failure) else None


def with_robots(text: str) -> FaultySite:
    return FaultySite(robots=serve(text.encode(), type_="text/plain"))
