"""The Prefect flows: the stages as subflows, shown in Prefect's UI.

The journals on disk record what is done; Prefect only displays it. So no flow caches results or
retries (the HTTP client does), and a flow that is run again does the remaining work.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, flow
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from pipeline.console import Console, describe_count, describe_event
from pipeline.contract import DatasetPaths
from pipeline.distributed_stages import distributed_download, distributed_sharding
from pipeline.events import FIRST_FAILURE, Event, EventLog
from pipeline.events import Progress as Report
from pipeline.job import Job, Stage, run_stage
from pipeline.markup import disarm_markdown
from pipeline.names import BUILD_SHARDS, RETRY_FAILURES
from pipeline.originals.download import download as download_stage
from pipeline.outside_text import printable
from pipeline.recipe import Recipe
from pipeline.retry import retry_failures as retry_stage
from pipeline.runners import RunnerName, RunnerOptions, resolve_runner, run_logger
from pipeline.shards.stage import shard as shard_stage
from pipeline.status import read_status
from pipeline.web.host_headers import take_credentials

ARTIFACT_EVERY = 2.0
"""Seconds between two updates of a progress artifact (an update takes some 30 ms)."""

Overrides = dict[str, Any] | None


class _PrefectReporter:
    """Shows a job in Prefect: events as log lines of the run, progress as one artifact per
    stage."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = run_logger()
        self._artifacts: dict[str, UUID] = {}
        self._updated: dict[str, float] = {}

    def on_event(self, event: Event) -> None:
        level = logging.WARNING if event.event == FIRST_FAILURE else logging.INFO
        self._logger.log(level, "%s", describe_event(event))

    def on_progress(self, report: Report) -> None:
        if not report.total:
            return
        percent = 100.0 * min(report.done, report.total) / report.total
        words = f"{report.stage}: {describe_count(report)}"
        now = time.monotonic()
        if report.stage not in self._artifacts:
            made = create_progress_artifact(
                percent, key=f"{_slug(self._name)}-{report.stage}", description=words
            )
            assert isinstance(made, UUID)
            self._artifacts[report.stage] = made
        elif percent >= 100.0 or now - self._updated[report.stage] >= ARTIFACT_EVERY:
            update_progress_artifact(
                self._artifacts[report.stage], progress=percent, description=words
            )
        else:
            return
        self._updated[report.stage] = now


def _slug(name: str) -> str:
    """Return `name` as a Prefect artifact key: letters, digits and dashes."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@contextmanager
def _open_job(job: Job) -> Iterator[tuple[Recipe, DatasetPaths, EventLog]]:
    display = _PrefectReporter(job.dataset.name)
    with (
        Console(live=False) as console,
        job.open(
            [console.on_event, display.on_event], [console.on_progress, display.on_progress]
        ) as opened,
    ):
        yield opened


def _show_results(dataset: DatasetPaths) -> None:
    """Show the dataset's card and its failures by kind as artifacts in Prefect's UI."""
    name = _slug(dataset.name)
    if dataset.card.exists():
        lines = dataset.card.read_bytes().decode("utf-8", "replace").splitlines()
        # Prefect cannot read the images, which are files beside the card.
        words = "\n".join(line for line in lines if not line.startswith("!["))
        create_markdown_artifact(disarm_markdown(words), key=f"{name}-card")
    contact = dataset.card.with_name("contact.jpg")
    if contact.exists():
        data = base64.b64encode(contact.read_bytes()).decode()
        create_image_artifact(
            f"data:image/jpeg;base64,{data}",
            key=f"{name}-contact",
            description="A contact sheet of the samples",
        )
    failed = read_status(dataset).failed
    table = [{"kind": printable(kind), "count": count} for kind, count in sorted(failed.items())]
    create_table_artifact(
        table or [{"kind": "none", "count": 0}],
        key=f"{name}-failures",
        description=f"Outstanding failures; retry them with {RETRY_FAILURES}",
    )


_SECRET_KEYS = ("politeness.headers", "politeness.host_headers", "storage.url")
_private_overrides: dict[tuple[str, str | None], dict[str, Any]] = {}
"""The overrides with secrets of the runs in this process, by recipe and root. The parameters of
subflows lack the secrets, since Prefect stores and shows them."""


@dataclass(frozen=True)
class FlowOptions:
    """The parameters that all flows share; `scrape` documents them."""

    recipe: str
    overrides: Overrides = None
    root: str | None = None
    runner: RunnerName = "local"
    workers: int | None = None
    runner_address: str | None = None
    refresh: bool = False

    @contextmanager
    def public(self) -> Iterator[FlowOptions]:
        """Give the options for subflows, without secrets. Until the end of the block, `job` of
        options for the same recipe and root has them."""
        run = self.recipe, self.root
        before, private = _private_overrides.get(run, {}), self._private()
        _private_overrides[run] = private
        values = take_credentials(private, {})
        shown = {key: values[key] for key in values if not key.startswith(_SECRET_KEYS)}
        try:
            yield replace(self, overrides=shown or None)
        finally:
            _private_overrides[run] = before

    def _private(self) -> dict[str, Any]:
        return {**(self.overrides or {}), **_private_overrides.get((self.recipe, self.root), {})}

    def job(self) -> Job:
        root = Path(self.root).absolute() if self.root else Path.cwd()
        return Job(self.recipe, self._private(), root)

    def resolve_runner(self) -> RunnerOptions | None:
        """Return the task runner, see `runners.resolve_runner`."""
        return resolve_runner(self.runner, self.workers, self.runner_address)


def _stage(name: str, options: FlowOptions, stage: Stage | None = None) -> Any:
    with _open_job(options.job()) as (loaded, dataset, log):
        return run_stage(name, loaded, dataset, log, stage=stage, refresh=options.refresh)


@flow(flow_run_name="{options.recipe} manifest")
def manifest(options: FlowOptions) -> Any:
    """Crawl the pages; write the URL manifest."""
    return _stage("crawl", options)


@flow(flow_run_name="{options.recipe} download")
def download(options: FlowOptions) -> Any:
    """Download the images of the manifest, part by part."""
    runner = options.resolve_runner()
    stage = partial(download_stage, run=distributed_download(runner)) if runner else None
    return _stage("download", options, stage)


@flow(flow_run_name="{options.recipe} select")
def select(options: FlowOptions) -> Any:
    """Select images by the properties recorded at download."""
    return _stage("select", options)


@flow(flow_run_name="{options.recipe} shard")
def shard(options: FlowOptions) -> Any:
    """Crop and resize images and write the training shards."""
    runner = options.resolve_runner()
    stage = partial(shard_stage, make=distributed_sharding(runner)) if runner else None
    return _stage("shard", options, stage)


def _run_subflows(subflows: Sequence[Flow[..., Any]], options: FlowOptions) -> None:
    options.resolve_runner()  # raises for invalid options before the first stage
    with options.public() as public:
        for subflow in subflows:
            result: Any = subflow(public)
            words = ", ".join(f"{key}={value}" for key, value in asdict(result).items())
            run_logger().info("%s done: %s", subflow.name, words)
    _show_results(options.job().dataset)


@flow(flow_run_name="scrape {recipe}")
def scrape(
    recipe: str,
    overrides: Overrides = None,
    root: str | None = None,
    runner: RunnerName = "local",
    workers: int | None = None,
    runner_address: str | None = None,
    refresh: bool = False,
) -> None:
    """Build training shards from a site: crawl, download, select, shard.

    Args:
        recipe: a recipe's name in pipeline/sites, or a path to a TOML file.
        overrides: values by dotted key of the recipe, such as {"shards.resolution": 128}.
        root: the project's folder; by default that of `pipeline.serve`.
        runner: the task runner of download and shard: a local pool of processes ("local"), or
            Prefect's task runner for processes, Dask or Ray.
        workers: parallel tasks if the runner is not local; all cores of this machine by default.
        runner_address: address of the Dask scheduler or the Ray cluster; if neither it nor
            SHELLGAN_RUNNER_ADDRESS is set, a cluster is started on this machine.
        refresh: visit every page again and add what is new.
    """
    options = FlowOptions(recipe, overrides, root, runner, workers, runner_address, refresh)
    _run_subflows((manifest, download, select, shard), options)


@flow(name=BUILD_SHARDS, flow_run_name="build shards of {recipe}")
def build_shards(
    recipe: str,
    overrides: Overrides = None,
    root: str | None = None,
    runner: RunnerName = "local",
    workers: int | None = None,
    runner_address: str | None = None,
) -> None:
    """Select and shard the existing originals again without downloading.

    The parameters are those of the scrape flows.
    """
    options = FlowOptions(recipe, overrides, root, runner, workers, runner_address)
    _run_subflows((select, shard), options)


@flow(name=RETRY_FAILURES, flow_run_name="retry failures of {recipe}")
def retry_failures(
    recipe: str,
    kinds: list[str] | None = None,
    hosts: list[str] | None = None,
    older_than_hours: float | None = None,
    everything: bool = False,
    overrides: Overrides = None,
    root: str | None = None,
    runner: RunnerName = "local",
    workers: int | None = None,
    runner_address: str | None = None,
) -> None:
    """Retry the failures in logs/NAME/failures.jsonl, and add recovered images to the shards.

    The runner parameters are those of the scrape flows.
    """
    options = FlowOptions(recipe, overrides, root, runner, workers, runner_address)
    job, runner_options = options.job(), options.resolve_runner()
    with _open_job(job) as (loaded, dataset, log):
        result = retry_stage(
            loaded,
            dataset,
            log,
            kinds=tuple(kinds or ()),
            hosts=tuple(hosts or ()),
            older_than=older_than_hours,
            everything=everything,
            run=distributed_download(runner_options) if runner_options else None,
        )
        log.emit("retry", "done", tried=result.tried, resolved=result.resolved)
    if result.resolved:
        with options.public() as public:
            build_shards(recipe, public.overrides, root, runner, workers, runner_address)
    _show_results(job.dataset)
