"""Runs work on parts and shards in several processes or on several machines, with Prefect's task
runners.

Workers run the same code as a local run. The journals and sidecars on disk record what is done, so
the task of a lost worker is run again and repeats only the work in progress.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from pipeline.cores import cpu_count
from pipeline.errors import UserError
from pipeline.workers import begin_worker, single_threaded_children, worker_arguments

T = TypeVar("T")

RunnerName = Literal["local", "processes", "dask", "ray"]
ADDRESS_VARIABLE = "SHELLGAN_RUNNER_ADDRESS"
MAX_WORKER_LOSSES = 3
"""Give up on a task after it has lost this many workers; it probably crashes them."""

_POLL = 0.5
_ON_CLUSTERS = ("dask", "ray")


@dataclass(frozen=True)
class RunnerOptions:
    """The task runner's name, the number of parallel tasks, and the cluster's address (None: start
    workers on this machine)."""

    runner: RunnerName
    workers: int
    address: str | None = None


def resolve_runner(
    runner: RunnerName, workers: int | None, address: str | None
) -> RunnerOptions | None:
    """Return the task runner that a flow's parameters select; None: the flow's own process.

    Args:
        workers: number of parallel tasks; None: the number of cores of this machine.
        address: address of a Dask scheduler or a Ray cluster; None: that in
            SHELLGAN_RUNNER_ADDRESS, or else a cluster of `workers` is started on this machine.

    Raises:
        UserError: the parameters contradict each other, the runner's package is missing, or there
            is no Prefect server.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers: {workers}: give 1 or more")
    if runner in _ON_CLUSTERS:
        address = address or os.environ.get(ADDRESS_VARIABLE) or None
    elif address:
        raise UserError(f"runner_address: runner {runner} has none; it is for dask and ray")
    if runner == "local":
        return None
    if not PREFECT_API_URL.value():
        raise UserError(
            f"runner {runner}: PREFECT_API_URL is not set, so each worker would start a Prefect "
            "server of its own; start one: make serve"
        )
    if runner in _ON_CLUSTERS and importlib.util.find_spec(f"prefect_{runner}") is None:
        raise UserError(
            f"runner {runner}: prefect-{runner} is not installed; pip install 'shellgan[{runner}]'"
        )
    if address and workers is None:
        raise UserError(
            f"workers: required with runner_address; set the number of parallel tasks for {address}"
        )
    return RunnerOptions(runner, workers or cpu_count(), address)


def run_logger() -> logging.Logger:
    """Return the logger whose lines Prefect shows with the flow or task run that writes them."""
    logger = logging.getLogger("pipeline.run")
    logger.setLevel(logging.INFO)
    # Prefect's API handler is attached to the logger "pipeline"; the console has its own listener.
    logging.getLogger("pipeline").propagate = False
    return logger


@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
def _run_call(call: Callable[[], T]) -> T:
    """Run one call as a task. It is wrapped because Prefect searches plain arguments for
    futures."""
    try:
        return call()
    except TimeoutError as error:  # `_run_round` would mistake it for a running task
        raise RuntimeError(f"timed out: {error}") from error


def run_tasks(
    runner_options: RunnerOptions,
    name: str,
    calls: Sequence[Callable[[], T]],
    meanwhile: Callable[[], None],
) -> Iterator[T]:
    """Run each call as a task named `name`, at most `runner_options.workers` at once.

    A call whose worker is lost is run again, so it must skip work that is already done.

    Args:
        calls: picklable functions without arguments, such as partials of module functions.
        meanwhile: called about twice a second while tasks run.

    Yields:
        the results, in the order in which the calls finish.

    Raises:
        UserError: a call lost its worker too often; or the exception of a call.
    """
    waiting = deque(calls)
    runner_options = replace(
        runner_options, workers=max(1, min(runner_options.workers, len(calls)))
    )
    losses: Counter[int] = Counter()
    while waiting:
        # A lost process breaks its pool, so a new pool runs the remaining calls.
        with _RUNNERS[runner_options.runner](runner_options) as runner:
            lost: list[Callable[[], T]] = []
            yield from _run_round(runner_options, runner, name, waiting, lost, meanwhile)
        for call in lost:
            losses[id(call)] += 1
            if losses[id(call)] >= MAX_WORKER_LOSSES:
                raise UserError(f"{name}: {MAX_WORKER_LOSSES} workers were lost over the same task")
        waiting.extendleft(lost)


def _run_round(
    runner_options: RunnerOptions,
    runner: TaskRunner[Any],
    name: str,
    waiting: deque[Callable[[], T]],
    lost: list[Callable[[], T]],
    meanwhile: Callable[[], None],
) -> Iterator[T]:
    """Run the waiting calls until all are done or a worker is lost; put the calls of lost workers
    in `lost`."""
    named = _run_call.with_options(name=name, task_run_name=name)
    worker_errors = _worker_errors(runner_options)
    running: dict[Any, Callable[[], T]] = {}
    while running or (waiting and not lost):
        while waiting and len(running) < runner_options.workers and not lost:
            call = waiting.popleft()
            running[runner.submit(named, {"call": call})] = call
        for future, call in list(running.items()):
            try:
                result = future.result(timeout=_POLL / len(running))
            except TimeoutError:
                continue
            except worker_errors as error:
                run_logger().warning("%s: a worker was lost: %r", name, error)
                lost.append(call)
            else:
                yield result
            del running[future]
        meanwhile()


def split_evenly(items: Sequence[T], workers: int, at_most: int) -> list[list[T]]:
    """Divide `items` into lists whose lengths differ by at most one and are at most `at_most`: as
    few as possible, but at least one per worker if there are enough items."""
    count = min(len(items), max(workers, -(-len(items) // at_most)))
    ends = [len(items) * number // count for number in range(count + 1)] if count else []
    return [list(items[start:end]) for start, end in pairwise(ends)]


@contextmanager
def _processes(runner_options: RunnerOptions) -> Iterator[TaskRunner[Any]]:
    """Start processes that end with this one, or at once if the block raises an exception."""
    theirs, ours = multiprocessing.get_context("spawn").Pipe(duplex=False)
    pool = ProcessPoolTaskRunner(
        runner_options.workers, initializer=begin_worker, initargs=worker_arguments(theirs)
    )
    with theirs, ours, single_threaded_children(), pool as runner:
        try:
            yield runner
        except BaseException:
            ours.close()
            raise


def _dask(runner_options: RunnerOptions) -> AbstractContextManager[TaskRunner[Any]]:
    cluster = {
        "n_workers": runner_options.workers,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        # Plugins start an event loop, but a Dask worker imports Prefect inside a running one.
        "env": {"PREFECT_PLUGINS_ENABLED": "false"},
    }
    options = (
        {"address": runner_options.address}
        if runner_options.address
        else {"cluster_kwargs": cluster}
    )
    runner: TaskRunner[Any] = importlib.import_module("prefect_dask").DaskTaskRunner(**options)
    # At INFO it logs every connection.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    return runner


def _ray(runner_options: RunnerOptions) -> AbstractContextManager[TaskRunner[Any]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = {"num_cpus": runner_options.workers, "include_dashboard": False}
    options = (
        {"address": runner_options.address} if runner_options.address else {"init_kwargs": cluster}
    )
    runner: TaskRunner[Any] = importlib.import_module("prefect_ray").RayTaskRunner(**options)
    return runner


_RUNNERS: dict[str, Callable[[RunnerOptions], AbstractContextManager[TaskRunner[Any]]]] = {
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}


def _worker_errors(runner_options: RunnerOptions) -> tuple[type[BaseException], ...]:
    """Return the exceptions of a future whose worker is lost (Dask and Ray retry first)."""
    if runner_options.runner == "dask":
        distributed: Any = importlib.import_module("distributed")
        return (distributed.KilledWorker, distributed.client.FutureCancelledError)
    if runner_options.runner == "ray":
        errors: Any = importlib.import_module("ray.exceptions")
        return (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)
    return (importlib.import_module("concurrent.futures.process").BrokenProcessPool,)
