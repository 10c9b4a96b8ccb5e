"""Keeps drawn pictures in a folder, and draws what is missing on all cores."""

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

FULL, MEDIUM, THUMB = 256, 160, 96
BATCH = 8
ORPHAN_CHECK_SECONDS = 0.5
STOPS = (signal.SIGINT, signal.SIGTERM)


def picture_path(folder: Path, drawing: int, seed: int, index: int, side: int, kind: str) -> Path:
    """Return where a picture is kept; ``drawing`` is the number of the way of drawing."""
    return folder / f"shell-d{drawing}-s{seed}-i{index:06d}-{side}px.{kind}"


def write_file_atomic(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that it is there whole or not at all, whatever kills the process."""
    with NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            write(file)
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).replace(path)


def encode(image: Image.Image, kind: str) -> Callable[[IO[bytes]], None]:
    """Return a writer of an image as JPEG (quality 95, full colour resolution) or PNG."""
    if kind == "png":
        return lambda file: image.save(file, "PNG")
    return lambda file: image.save(file, "JPEG", quality=95, subsampling=0)


def draw_into(folder: Path, seed: int, index: int, kind: str) -> None:
    """Draw a specimen and write its three sizes, the full one last.

    The full size is what tells that a specimen is there, so it may not come first.
    """
    from pipeline.demo.shells import DRAWING, draw

    full = draw(seed, index, FULL)
    for side in (THUMB, MEDIUM, FULL):
        scaled = full if side == FULL else full.resize((side, side), Image.Resampling.LANCZOS)
        write_file_atomic(
            picture_path(folder, DRAWING, seed, index, side, kind), encode(scaled, kind)
        )


_leaving: Event | None = None
"""In a worker: set when no further picture is to be begun."""


def draw_batch(folder: Path, seed: int, batch: list[tuple[int, str]]) -> int:
    """Draw a batch of (index, "jpg" or "png") in a worker; returns how many were drawn."""
    for done, (index, kind) in enumerate(batch):
        if _leaving is not None and _leaving.is_set():
            return done
        draw_into(folder, seed, index, kind)
    return len(batch)


def prepare_worker(parent: int, leaving: Event) -> None:
    """Prepare a worker: interrupts are the parent's affair, and it does not outlive it."""
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
    """Hold back stop signals, so that worker processes start with them held as well."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def draw_missing(
    folder: Path, seed: int, wanted: list[tuple[int, str]], progress: Callable[[int, int], None]
) -> None:
    """Draw all of the wanted (index, kind) on all cores; calls progress(done, of how many).

    ``wanted`` should list a species' specimens together: workers keep its pigment patterns.
    """
    total, done = len(wanted), 0
    progress(done, total)
    if not wanted:
        return
    batches = [wanted[at : at + BATCH] for at in range(0, total, BATCH)]
    context = get_context("spawn")
    leaving = context.Event()
    pool = ProcessPoolExecutor(
        min(os.cpu_count() or 1, len(batches)),
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
