"""The download stage: fetches the images of the manifest into parts.

One thread sends requests, a few threads decode, and the main thread writes. An image is done when
its line in the journal is written; a kill loses only the images in flight.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipeline.atomic_io import remove_temp_files
from pipeline.contract import DatasetPaths, ManifestRow
from pipeline.cores import cpu_count
from pipeline.errors import Failure
from pipeline.events import EventLog
from pipeline.forgotten import read_forgotten
from pipeline.imaging.images import EXTENSIONS
from pipeline.imaging.limits import limit_decoding
from pipeline.originals.inspect_image import StoredImage, check_body, inspect_image
from pipeline.originals.page_opt_outs import PageOptOuts
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PART_SIZE, PartFiles
from pipeline.recipe import Recipe
from pipeline.sources.folder import local_files
from pipeline.web.bulk_fetcher import BulkFetcher
from pipeline.web.failures import caught_failure, internal_failure
from pipeline.web.responses import Response
from pipeline.web.waits import log_waits

STAGE = "download"
_OPEN_PARTS = 16
_QUEUED = 2 * PART_SIZE
_MIN_IN_FLIGHT = 32
"""If fewer requests are in flight, further parts are opened, whose hosts may be ready."""

_BACKLOG_BYTES = 16 << 20
_REPORT_INTERVAL = 0.2


@dataclass(frozen=True)
class PartResult:
    """The number of images in a part, how many of them this run fetched, the bytes of all, and the
    failures by kind."""

    part: str
    nsamples: int
    fetched: int
    bytes: int
    failed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DownloadResult:
    """The number of parts that this run completed, of images in them, of failures and of bytes;
    `fetched` counts the images that this run fetched."""

    parts: int
    images: int
    failed: int
    bytes: int
    fetched: int = field(default=0, compare=False)


@dataclass(frozen=True)
class _InspectedResponse:
    """A response and its outcome: the image, its failure, or an error that ends the command, such
    as a full disk."""

    writer: PartWriter
    row: ManifestRow
    response: Response
    outcome: StoredImage | Failure | BaseException


PartDownloader = Callable[[Recipe, DatasetPaths, list[str], EventLog], list[PartResult]]
"""A function that completes planned parts: `download_parts`, or one that distributes the work."""


def download(
    recipe: Recipe, dataset: DatasetPaths, log: EventLog, run: PartDownloader | None = None
) -> DownloadResult:
    """Fetch every image of the manifest that is not in a complete part and not forgotten.

    Args:
        run: completes the parts; None: in this process.
    """
    dataset.originals_dir.mkdir(parents=True, exist_ok=True)
    remove_temp_files(dataset.originals_dir)
    results = (run or download_parts)(recipe, dataset, assign_parts(dataset), log)
    return DownloadResult(
        parts=len(results),
        images=sum(result.nsamples for result in results),
        failed=sum(sum(result.failed.values()) for result in results),
        bytes=sum(result.bytes for result in results),
        fetched=sum(result.fetched for result in results),
    )


def download_parts(
    recipe: Recipe, dataset: DatasetPaths, parts: list[str], log: EventLog
) -> list[PartResult]:
    """Fetch planned parts together. While one waits for a slow host, others continue."""
    run = _Downloader(recipe, dataset, parts, log)
    try:
        return run.run()
    finally:
        run.close()


def decoding_threads() -> int:
    """Return two decoding threads per core, because of the GIL."""
    return 2 * cpu_count()


class _Downloader:
    """Passes rows to the fetcher, responses to the decoders, images to the writers."""

    def __init__(
        self, recipe: Recipe, dataset: DatasetPaths, parts: list[str], log: EventLog
    ) -> None:
        self._recipe = recipe
        self._dataset = dataset
        self._log = log
        limit_decoding(recipe.originals.decode_megabytes, recipe.politeness.num_processes)
        self._fetcher: BulkFetcher[tuple[PartWriter, ManifestRow]] = BulkFetcher(
            recipe.politeness,
            STAGE,
            check=check_body,
            local=local_files(recipe.source, recipe.politeness.max_bytes),
            on_wait=log_waits(log, STAGE),
        )
        self._pool = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")
        # Finishing a part can take long (a disk, a store), and must not delay requests in flight.
        self._finish_pool = ThreadPoolExecutor(1, thread_name_prefix="part")
        self._finishing: dict[PartWriter, Future[None]] = {}
        self._inspected: queue.SimpleQueue[_InspectedResponse] = queue.SimpleQueue()
        self._waiting_parts = iter(parts)
        self._rows: Iterator[ManifestRow] = iter(())
        self._feeding: PartWriter | None = None
        self._remaining: dict[PartWriter, int] = {}
        self._fetched: Counter[str] = Counter()
        self._results: dict[str, PartResult] = {}
        self._parts = parts
        self._forgotten = read_forgotten(dataset).keys
        self._opt_outs = PageOptOuts(dataset, recipe.politeness)
        self._backlog = 0
        self._total = len(parts) * PART_SIZE
        self._done = 0
        self._bytes = 0
        self._reported_at = 0.0

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._finish_pool.shutdown(wait=True, cancel_futures=True)
        self._fetcher.close()
        for writer in (*self._remaining, *self._finishing):
            writer.close()

    def run(self) -> list[PartResult]:
        while True:
            self._feed()
            if not self._remaining and not self._finishing and self._feeding is None:
                break
            room = self._backlog + self._fetcher.received < _BACKLOG_BYTES
            for (writer, row), outcome in self._fetcher.poll(0.5, may_start=room):
                self._handle_outcome(writer, row, outcome)
            for file in self._fetcher.take_unread():
                self._log.emit(STAGE, "policy file not read", url=file.url, reason=file.reason)
            while not self._inspected.empty():
                self._store(self._inspected.get())
            self._collect_finished()
            self._report_progress()
        self._report_progress(final=True)
        return [self._results[part] for part in self._parts]

    def _feed(self) -> None:
        """Pass rows to the fetcher while its queue has room; open further parts if necessary."""
        limit = _QUEUED
        if self._fetcher.in_flight < _MIN_IN_FLIGHT:
            limit = max(limit, self._fetcher.pending + PART_SIZE)
        while self._fetcher.pending < limit:
            row = next(self._rows, None)
            if row is not None:
                assert self._feeding is not None
                self._request(self._feeding, row)
                continue
            self._feeding = None
            if len(self._remaining) + len(self._finishing) >= _OPEN_PARTS:
                return
            part = next(self._waiting_parts, None)
            if part is None:
                return
            self._open_part(part)

    def _request(self, writer: PartWriter, row: ManifestRow) -> None:
        """Pass a row to the fetcher, unless its page opts out."""
        if refused := self._opt_outs.refusal(row, STAGE):
            self._fail(writer, row, refused)
        else:
            self._fetcher.add((writer, row), row.url)

    def _open_part(self, part: str) -> None:
        writer = PartWriter(self._dataset, part)
        planned = list(PartFiles(self._dataset, part).rows())
        excluded = (writer.done, self._forgotten)
        rows = [row for row in planned if not any(row.key in keys for keys in excluded)]
        self._total += len(planned) - PART_SIZE
        self._done += len(planned) - len(rows)
        self._bytes += writer.bytes
        self._remaining[writer] = len(rows)
        self._rows = iter(rows)
        self._feeding = writer
        if not rows:
            self._finish_part(writer)

    def _handle_outcome(
        self, writer: PartWriter, row: ManifestRow, outcome: Response | Failure
    ) -> None:
        if isinstance(outcome, Failure):
            self._fail(writer, row, outcome)
            return
        self._backlog += len(outcome.body)
        self._pool.submit(self._inspect, writer, row, outcome)

    def _inspect(self, writer: PartWriter, row: ManifestRow, response: Response) -> None:
        """On a decoding thread: inspect a response; errors of one image are caught here."""
        outcome: StoredImage | Failure | BaseException
        try:
            try:
                outcome = inspect_image(row, response, self._recipe, STAGE)
            except Exception as error:  # noqa: BLE001 errors of one image are caught here
                outcome = caught_failure(STAGE, row.url, error, row.key)
        except BaseException as error:  # noqa: BLE001 raised again on the main thread
            outcome = error
        self._inspected.put(_InspectedResponse(writer, row, response, outcome))
        self._fetcher.wake()

    def _store(self, inspected: _InspectedResponse) -> None:
        writer, row, response = inspected.writer, inspected.row, inspected.response
        self._backlog -= len(response.body)
        if isinstance(inspected.outcome, Failure):
            self._fail(writer, row, inspected.outcome)
            return
        if isinstance(inspected.outcome, BaseException):
            raise inspected.outcome
        kept = inspected.outcome
        try:
            extension = EXTENSIONS[kept.properties.format]
            writer.add(row, extension, kept.data, kept.properties.recorded(), kept.sidecar)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 errors of one image are caught here
            self._fail(writer, row, internal_failure(STAGE, row.url, error, row.key))
            return
        self._bytes += len(response.body)
        self._fetched[writer.part] += 1
        self._count_outcome(writer)

    def _fail(self, writer: PartWriter, row: ManifestRow, failed: Failure) -> None:
        failed = replace(failed, url=row.url, key=row.key)
        # The log comes first: after a kill in between, the failure is logged twice, not lost.
        self._log.log_failure(failed)
        writer.add_failure(row.key, failed)
        self._count_outcome(writer)

    def _count_outcome(self, writer: PartWriter) -> None:
        self._done += 1
        self._remaining[writer] -= 1
        if self._remaining[writer] == 0:
            self._finish_part(writer)

    def _finish_part(self, writer: PartWriter) -> None:
        del self._remaining[writer]
        self._finishing[writer] = future = self._finish_pool.submit(writer.finish)
        future.add_done_callback(lambda _: self._fetcher.wake())

    def _collect_finished(self) -> None:
        """Record the parts that are complete now; raise the error of one that failed."""
        for writer in [one for one, future in self._finishing.items() if future.done()]:
            self._finishing[writer].result()
            del self._finishing[writer]
            self._results[writer.part] = PartResult(
                writer.part,
                writer.nsamples,
                self._fetched[writer.part],
                writer.bytes,
                dict(writer.failed),
            )
            self._log.emit(
                STAGE, "part", part=writer.part, images=writer.nsamples, failed=dict(writer.failed)
            )

    def _report_progress(self, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._reported_at >= _REPORT_INTERVAL:
            self._reported_at = now
            self._log.progress(STAGE, self._done, self._total, "images", self._bytes)
