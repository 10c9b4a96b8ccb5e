"""The download and shard stages on a task runner: the work of each task, and the progress of all
tasks."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.console import describe_event
from pipeline.contract import DatasetPaths
from pipeline.events import Event, EventLog
from pipeline.imaging.limits import decode_budget, limit_decoding
from pipeline.options import ShardOptions
from pipeline.originals.download import STAGE, PartDownloader, PartResult, download_parts
from pipeline.originals.parts import PartFiles, PartLocked, is_complete, journal_line, read_summary
from pipeline.recipe import Recipe
from pipeline.runners import RunnerOptions, run_logger, run_tasks, split_evenly
from pipeline.shards.builder import BuiltShard, build_shard
from pipeline.shards.plan import ShardingPlan, ShardPlan
from pipeline.shards.stage import ShardBuilder
from pipeline.web.politeness import share

PARTS_PER_TASK = 5
"""5,000 URLs take ten seconds or more, so the overhead of a task, some 65 ms of CPU, is small."""

IMAGES_PER_TASK = 4000
_LOCK_TIMEOUT = 600
_LOCK_PAUSE = 0.5


def distributed_download(runner_options: RunnerOptions) -> PartDownloader:
    """Return a function that completes parts on the task runner, for `originals.download.download`.

    The number of parallel tasks is at most the recipe's `politeness.concurrency`, and each task
    gets its share of the recipe's politeness.
    """
    return partial(_run_parts, runner_options)


def _run_parts(
    runner_options: RunnerOptions,
    recipe: Recipe,
    dataset: DatasetPaths,
    parts: list[str],
    log: EventLog,
) -> list[PartResult]:
    limit_decoding(recipe.originals.decode_megabytes)
    at_once = max(1, min(runner_options.workers, recipe.politeness.concurrency, len(parts)))
    task_recipe = replace(recipe, politeness=share(recipe.politeness, at_once))
    calls = [
        partial(_download_batch, task_recipe, dataset, batch, log.run)
        for batch in split_evenly(parts, at_once, PARTS_PER_TASK)
    ]
    progress = _JournalProgress(dataset, parts, log)
    for _ in run_tasks(
        replace(runner_options, workers=at_once), "download parts", calls, progress.update
    ):
        pass
    progress.update()
    return [_result(dataset, part, progress.fetched[part]) for part in parts]


def _download_batch(recipe: Recipe, dataset: DatasetPaths, parts: list[str], run: str) -> None:
    """Complete, in a worker, the parts that are not complete yet.

    Waits for parts that another process has locked: a cluster can consider a running worker lost,
    and the workers of a killed flow can still finish their tasks.

    Raises:
        PartLocked: a part was still locked after `_LOCK_TIMEOUT` seconds.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    with EventLog(dataset, run, [_log_event]) as log:
        while left := [part for part in parts if not is_complete(dataset, part)]:
            try:
                download_parts(recipe, dataset, left, log)
            except PartLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_PAUSE)


def _log_event(event: Event) -> None:
    run_logger().info("%s", describe_event(event))


def _result(dataset: DatasetPaths, part: str, fetched: int) -> PartResult:
    summary = read_summary(PartFiles(dataset, part))
    return PartResult(part, summary["nsamples"], fetched, summary["image_bytes"], summary["failed"])


class _JournalProgress:
    """Reports the progress of parts from the lines that workers append to their journals.

    `fetched` counts, by part, the images downloaded since this object was created.
    """

    def __init__(self, dataset: DatasetPaths, parts: list[str], log: EventLog) -> None:
        self._dataset, self._log = dataset, log
        self._open = dict.fromkeys(parts, 0)
        self._done = self._bytes = 0
        self.fetched: dict[str, int] = dict.fromkeys(parts, 0)
        self._total = sum(_count_lines(PartFiles(dataset, part)) for part in parts)
        self._read_all()
        self._log.progress(STAGE, self._done, self._total, "images", self._bytes)

    def update(self) -> None:
        """Read new lines and report the progress."""
        for part, row in self._read_all():
            if row["ok"]:
                self.fetched[part] += 1
            else:
                status = row.get("status")
                detail = f"status {status}" if status else ""
                self._log.count_failure(STAGE, row["kind"], row.get("url", ""), detail)
        self._log.progress(STAGE, self._done, self._total, "images", self._bytes)

    def _read_all(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the new lines of the journals, each with its part, and count them."""
        new = []
        for part in list(self._open):
            ended = is_complete(self._dataset, part)
            for row in self._read(part):
                self._done += 1
                self._bytes += row.get("bytes", 0)
                new.append((part, row))
            if ended:
                del self._open[part]
        return new

    def _read(self, part: str) -> Iterator[dict[str, Any]]:
        path = PartFiles(self._dataset, part).journal
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._open[part])
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._open[part] += len(whole) + 1
            for line in whole.splitlines():
                # A worker that took over a part may have rewritten its journal.
                with contextlib.suppress(ValueError, AttributeError, RecursionError):
                    yield journal_line(part, json.loads(line))


def _count_lines(files: PartFiles) -> int:
    with files.plan.open("rb") as file:
        return sum(1 for _ in file)


def distributed_sharding(runner_options: RunnerOptions) -> ShardBuilder:
    """Return a function that builds shards on the task runner, for `shards.stage.shard`."""
    return partial(_run_shards, runner_options)


def _run_shards(
    runner_options: RunnerOptions,
    options: ShardOptions,
    source: DatasetPaths,
    target: DatasetPaths,
    plan: ShardingPlan,
    missing: Sequence[ShardPlan],
) -> Iterator[tuple[ShardPlan, BuiltShard]]:
    shards_per_task = max(1, IMAGES_PER_TASK // options.samples_per_shard)
    calls = [
        partial(
            _build_batch,
            options,
            source,
            target,
            plan.classes,
            batch,
            decode_budget().total >> 20,
            runner_options.workers,
        )
        for batch in split_evenly(missing, runner_options.workers, shards_per_task)
    ]
    for built in run_tasks(runner_options, "make shards", calls, lambda: None):
        yield from built


def _build_batch(
    options: ShardOptions, source: DatasetPaths, target: DatasetPaths, classes: tuple[str, ...],
    batch: list[ShardPlan], megabytes: int, workers: int,
) -> list[tuple[ShardPlan, BuiltShard]]:  # fmt: skip
    """Build, in a worker, the shards that are not built yet; return all of the batch."""
    limit_decoding(megabytes, workers)
    built = []
    for one in batch:
        built.append((one, build_shard(options, source, target, classes, one)))
        run_logger().info("shard %s: %d samples", one.name, built[-1][1].nsamples)
    return built
