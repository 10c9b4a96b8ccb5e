"""A pool of processes that end when their parent ends, even if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.imaging.limits import DecodeBudget, decode_budget, set_decode_budget

K = TypeVar("K")
T = TypeVar("T")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that numpy reads when a worker starts. There is one worker per core, so each uses one
thread."""


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of new processes (a parent with threads cannot be forked safely).

    An exception in the block ends them at once. They share one memory budget for decoding, as large
    as that of this process.

    Raises:
        UserError: one of them was killed.
    """
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=begin_worker, initargs=worker_arguments(theirs)
    )
    with single_threaded_children():
        try:
            yield pool
        except BaseException as error:
            ours.close()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "a worker process was killed, perhaps for lack of memory; run the same command "
                    "again (finished work is kept)"
                ) from None
            raise
        else:
            pool.shutdown(wait=True)
            ours.close()
        finally:
            theirs.close()


def run_unordered(
    workers: int, calls: Sequence[tuple[K, Callable[[], T]]]
) -> Iterator[tuple[K, T]]:
    """Yield the key and the result of each call as it ends, in any order.

    Args:
        workers: maximum number of processes; one or fewer: the calls run in this process.
        calls: keys, each with a function without arguments that can be pickled.

    Raises:
        UserError: a process was killed; or the exception of a call.
    """
    if min(workers, len(calls)) <= 1:
        yield from ((key, call()) for key, call in calls)
        return
    with process_pool(min(workers, len(calls))) as pool:
        futures = {pool.submit(call): key for key, call in calls}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Limit processes that are started in the block to one thread each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def worker_arguments(parent_pipe: Connection) -> tuple[Connection, DecodeBudget]:
    """Return the arguments of `begin_worker` for processes that share one decoding budget."""
    context = multiprocessing.get_context("spawn")
    return parent_pipe, DecodeBudget(decode_budget().total, context)


def begin_worker(parent_pipe: Connection, budget: DecodeBudget) -> None:
    """Initialise a worker process, which ends with its parent and decodes within `budget`."""
    exit_with_parent(parent_pipe)
    set_decode_budget(budget)


def exit_with_parent(parent_pipe: Connection) -> None:
    """End this process when the other end of `parent_pipe` is closed, which also happens if the
    parent is killed."""

    def watch() -> None:
        parent_pipe.poll(None)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
