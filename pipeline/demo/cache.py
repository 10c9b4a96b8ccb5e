"""The cache of drawn images: draws missing ones on all cores."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from PIL import Image

from pipeline.cores import cpu_count

FULL, MEDIUM, THUMB = 256, 160, 96
BATCH = 8
ORPHAN_CHECK_SECONDS = 0.5
STOPS = (signal.SIGINT, signal.SIGTERM)


def image_path(folder: Path, drawing: int, seed: int, index: int, side: int, kind: str) -> Path:
    """Return the path of an image in the cache; ``drawing`` is the version of the drawing code."""
    return folder / f"shell-d{drawing}-s{seed}-i{index:06d}-{side}px.{kind}"


def write_file_atomic(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file atomically, so that it is complete or does not exist."""
    with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            write(file)
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).replace(path)


def encode(image: Image.Image, kind: str) -> Callable[[IO[bytes]], None]:
    """Return a function that writes an image as JPEG (quality 95, no chroma subsampling) or PNG."""
    if kind == "png":
        return lambda file: image.save(file, "PNG")
    return lambda file: image.save(file, "JPEG", quality=95, subsampling=0)


def draw_into(folder: Path, seed: int, index: int, kind: str) -> None:
    """Draw a specimen and write its three sizes, the full size last.

    The full size marks a specimen as complete, so it must be written last.
    """
    from pipeline.demo.shells import DRAWING, draw

    full = draw(seed, index, FULL)
    for side in (THUMB, MEDIUM, FULL):
        scaled = full if side == FULL else full.resize((side, side), Image.Resampling.LANCZOS)
        write_file_atomic(
            image_path(folder, DRAWING, seed, index, side, kind), encode(scaled, kind)
        )


_leaving: Event | None = None
"""In a worker: set when no further image should be started."""


def draw_batch(folder: Path, seed: int, batch: list[tuple[int, str]]) -> int:
    """Draw a batch of (index, "jpg" or "png") in a worker; return how many were drawn."""
    for done, (index, kind) in enumerate(batch):
        if _leaving is not None and _leaving.is_set():
            return done
        draw_into(folder, seed, index, kind)
    return len(batch)


def prepare_worker(parent: int, leaving: Event) -> None:
    """Initialise a worker: it ignores interrupts, and exits with its parent."""
    global _leaving
    _leaving = leaving
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block stop signals, so that worker processes start with them blocked as well."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def draw_missing(
    folder: Path, seed: int, wanted: list[tuple[int, str]], progress: Callable[[int, int], None]
) -> None:
    """Draw all of the wanted (index, kind) on all cores; calls progress(done, total).

    ``wanted`` should list the specimens of a species together, because workers cache its pigment
    patterns.
    """
    total, done = len(wanted), 0
    progress(done, total)
    if not wanted:
        return
    batches = [wanted[at : at + BATCH] for at in range(0, total, BATCH)]
    context = get_context("spawn")
    leaving = context.Event()
    pool = ProcessPoolExecutor(
        min(cpu_count(), len(batches)),
        context,
        initializer=prepare_worker,
        initargs=(os.getpid(), leaving),
    )
    try:
        with blocked_signals():
            futures = [pool.submit(draw_batch, folder, seed, batch) for batch in batches]
        for future in as_completed(futures):
            done += future.result()
            progress(done, total)
    finally:
        leaving.set()
        pool.shutdown(cancel_futures=True)
