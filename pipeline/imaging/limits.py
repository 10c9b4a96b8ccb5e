"""Limits on the size of images, checked before decoding, and one memory budget for all images that
are decoded at the same time."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

MAX_SIDE = 65_535
"""In pixels: the maximum side of a JPEG."""
MAX_ASPECT = 1000.0
DECODE_MEGABYTES = 2048
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from glibc's malloc.h."""
_SMALL_BLOCK = 4 << 20


class ImageError(Exception):
    """Bytes that are not a usable image; `kind` is one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = " ".join(detail.split())

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the images to decode: `max_pixels` in total, `max_side` for the longer side,
    `max_aspect` for long side / short side."""

    max_pixels: int
    max_side: int = MAX_SIDE
    max_aspect: float = MAX_ASPECT

    @classmethod
    def of_size(cls, width: int, height: int) -> ImageLimits:
        """Return the limits for a file whose size is recorded: at most this size."""
        return cls(width * height, max(width, height), math.inf)

    def check(self, width: int, height: int) -> None:
        """Check the size of an image.

        Raises:
            ImageError: it is empty (`zero_size`) or too large (`too_many_pixels`).
        """
        size = f"{width} × {height}"
        if width <= 0 or height <= 0:
            raise ImageError("zero_size", size)
        if width * height > self.max_pixels:
            raise ImageError("too_many_pixels", f"{size} is over max_pixels = {self.max_pixels}")
        if max(width, height) > self.max_side:
            raise ImageError("too_many_pixels", f"{size}: a side is over {self.max_side}")
        if max(width, height) > self.max_aspect * min(width, height):
            raise ImageError("too_many_pixels", f"{size}: an aspect over {self.max_aspect:g}")


class DecodeBudget:
    """The memory for all images that are decoded at the same time by the threads of this process
    and, with `context`, of the processes that receive this object.

    Args:
        total: the budget in bytes.
        context: create a budget that processes of this multiprocessing context share.
        sharers: number of processes with separate budgets; each uses its share of `total`, or more
            for a single image that needs it.
    """

    def __init__(self, total: int, context: BaseContext | None = None, sharers: int = 1) -> None:
        self.total = total
        self.is_shared = context is not None
        self._own_share = total // sharers
        self._condition: Any = context.Condition() if context else threading.Condition()
        self._used: Any = context.RawValue(ctypes.c_int64) if context else ctypes.c_int64(0)

    @contextmanager
    def hold(self, needed: int) -> Iterator[None]:
        """Wait until `needed` bytes are free and hold them while the block runs.

        Raises:
            ImageError: the whole budget is smaller (`too_many_pixels`).
        """
        if needed > self.total:
            raise ImageError(
                "too_many_pixels",
                f"needs {needed >> 20} MB to decode, over originals.decode_megabytes = "
                f"{self.total >> 20}",
            )
        with self._condition:
            self._condition.wait_for(
                lambda: self._used.value == 0 or self._used.value + needed <= self._own_share
            )
            self._used.value += needed
        try:
            yield
        finally:
            with self._condition:
                self._used.value -= needed
                self._condition.notify_all()


_budget = DecodeBudget(DECODE_MEGABYTES << 20)


def decode_budget() -> DecodeBudget:
    """Return the budget of this process."""
    return _budget


def set_decode_budget(budget: DecodeBudget) -> None:
    """Replace the budget of this process. Do not call it while images are decoded."""
    global _budget
    _return_large_blocks()
    _budget = budget


def limit_decoding(megabytes: int, sharers: int = 1) -> None:
    """Set the budget of this process to its share of `megabytes`, unless it already shares a budget
    with other processes."""
    if not _budget.is_shared:
        set_decode_budget(DecodeBudget(megabytes << 20, sharers=sharers))


def _return_large_blocks() -> None:
    """Make the C library return the memory of decoded images to the system as soon as it is freed.

    By default it keeps blocks of up to 32 MB per thread, and used up to three times the budget.
    The memory of small images is kept, 4 MB per thread: to get it again for each image took 0.6 ms.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _SMALL_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _SMALL_BLOCK)
