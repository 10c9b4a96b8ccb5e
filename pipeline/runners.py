"""Runs the work on parts and shards in several processes or on several machines, on Prefect's task
runners.

Workers run the same code as a local run. The journals and sidecars on disk record what is done, so
a lost worker's task is run again and costs what was in flight.
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

from pipeline.errors import UserError
from pipeline.workers import begin_worker, cpu_count, single_threaded_children, worker_arguments

T = TypeVar("T")

RunnerName = Literal["local", "processes", "dask", "ray"]
ADDRESS_VARIABLE = "SHELLGAN_RUNNER_ADDRESS"
MAX_WORKER_LOSSES = 3
"""Give up on a task after it has lost this many workers; it probably crashes them."""

_POLL = 0.5
_ON_CLUSTERS = ("dask", "ray")


@dataclass(frozen=True)
class RunnerOptions:
    """Who works: the runner's name, how many tasks at once, and the cluster's address (None:
    workers of our own on this machine)."""

    runner: RunnerName
    workers: int
    address: str | None = None


def resolve_runner(
    runner: RunnerName, workers: int | None, address: str | None
) -> RunnerOptions | None:
    """Return the task runner that a flow's parameters select; None is the flow's own process.

    Args:
        workers: tasks at once; all cores of this machine when None.
        address: of a Dask scheduler or a Ray cluster; else that of the environment's
            SHELLGAN_RUNNER_ADDRESS, else a cluster of `workers` is started on this machine.

    Raises:
        UserError: the parameters do not go together, the runner's package is missing, or there
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
    # The API handler hangs on the logger "pipeline"; the console has its own listener.
    logging.getLogger("pipeline").propagate = False
    return logger


@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
def _run_call(call: Callable[[], T]) -> T:
    """Return a task: one call, opaque to Prefect, which would search plain arguments for
    futures."""
    try:
        return call()
    except TimeoutError as error:  # here it would look like a task that is not done
        raise RuntimeError(f"timed out: {error}") from error


def run_tasks(
    runner_options: RunnerOptions,
    name: str,
    calls: Sequence[Callable[[], T]],
    meanwhile: Callable[[], None],
) -> Iterator[T]:
    """Run each call as a task named `name`, at most `runner_options.workers` at once.

    A call whose worker is lost is run again, so it must skip what it has done already.

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
        # A lost process breaks its pool: what is left goes to a new one.
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
    """Submit what waits until it is done or until workers are lost; `lost` takes their calls."""
    named = _run_call.with_options(name=name, task_run_name=name)
    losing = _lost_worker(runner_options)
    under_way: dict[Any, Callable[[], T]] = {}
    while under_way or (waiting and not lost):
        while waiting and len(under_way) < runner_options.workers and not lost:
            call = waiting.popleft()
            under_way[runner.submit(named, {"call": call})] = call
        for future, call in list(under_way.items()):
            try:
                result = future.result(timeout=_POLL / len(under_way))
            except TimeoutError:
                continue
            except losing as error:
                run_logger().warning("%s: a worker was lost: %r", name, error)
                lost.append(call)
            else:
                yield result
            del under_way[future]
        meanwhile()


def split_evenly(items: Sequence[T], workers: int, at_most: int) -> list[list[T]]:
    """Divide `items` into runs of equal length (give or take one) of `at_most` items: as few as
    possible, but one per worker if there are enough items."""
    count = min(len(items), max(workers, -(-len(items) // at_most)))
    ends = [len(items) * number // count for number in range(count + 1)] if count else []
    return [list(items[start:end]) for start, end in pairwise(ends)]


@contextmanager
def _processes(runner_options: RunnerOptions) -> Iterator[TaskRunner[Any]]:
    """Processes that end when this one does, and at once when the block ends by an exception."""
    theirs, ours = multiprocessing.get_context("spawn").Pipe(duplex=False)
    made = ProcessPoolTaskRunner(
        runner_options.workers, initializer=begin_worker, initargs=worker_arguments(theirs)
    )
    with theirs, ours, single_threaded_children(), made as runner:
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
        # Plugins run an event loop, and a Dask worker imports Prefect within its own.
        "env": {"PREFECT_PLUGINS_ENABLED": "false"},
    }
    options = (
        {"address": runner_options.address}
        if runner_options.address
        else {"cluster_kwargs": cluster}
    )
    made: TaskRunner[Any] = importlib.import_module("prefect_dask").DaskTaskRunner(**options)
    # It tells of each connection.
    logging.getLogger("distributed").setLevel(logging.WARNING)
    return made


def _ray(runner_options: RunnerOptions) -> AbstractContextManager[TaskRunner[Any]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = {"num_cpus": runner_options.workers, "include_dashboard": False}
    options = (
        {"address": runner_options.address} if runner_options.address else {"init_kwargs": cluster}
    )
    made: TaskRunner[Any] = importlib.import_module("prefect_ray").RayTaskRunner(**options)
    return made


_RUNNERS: dict[str, Callable[[RunnerOptions], AbstractContextManager[TaskRunner[Any]]]] = {
    "processes": _processes,
    "dask": _dask,
    "ray": _ray,
}


def _lost_worker(runner_options: RunnerOptions) -> tuple[type[BaseException], ...]:
    """Return the exception of a future whose worker is lost (Dask and Ray retry first)."""
    if runner_options.runner == "dask":
        distributed: Any = importlib.import_module("distributed")
        return (distributed.KilledWorker, distributed.client.FutureCancelledError)
    if runner_options.runner == "ray":
        errors: Any = importlib.import_module("ray.exceptions")
        return (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)
    return (importlib.import_module("concurrent.futures.process").BrokenProcessPool,)
