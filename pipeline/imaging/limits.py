"""What an image may cost: limits on its size, checked before decoding, and one budget of memory for
all images that are decoded at the same time."""

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
"""In pixels: as long as a side of a JPEG can be."""
MAX_ASPECT = 1000.0
DECODE_MEGABYTES = 2048
_M_MMAP_THRESHOLD = -3
"""Of `mallopt` (glibc's malloc.h)."""


class ImageError(Exception):
    """Bytes that give no usable image: `kind` is one of `FAILURE_KINDS`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = " ".join(detail.split())

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: `max_pixels` in all, `max_side` along its longer side,
    `max_aspect` long side over short side."""

    max_pixels: int
    max_side: int = MAX_SIDE
    max_aspect: float = MAX_ASPECT

    @classmethod
    def of_size(cls, width: int, height: int) -> ImageLimits:
        """No larger than an image of this size, for a file whose size is recorded."""
        return cls(width * height, max(width, height), math.inf)

    def check(self, width: int, height: int) -> None:
        """Raise if an image of this size is empty or too large.

        Raises:
            ImageError: zero_size or too_many_pixels.
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
    """The memory for all images that are decoded at the same time, by the threads of this process
    and, with `context`, by the processes that it is handed to.

    Args:
        total: bytes.
        context: makes a budget that processes of this context share.
        sharers: how many processes that share nothing have such a budget; each keeps to its part,
            but for a single image that takes more.
    """

    def __init__(self, total: int, context: BaseContext | None = None, sharers: int = 1) -> None:
        self.total = total
        self.is_shared = context is not None
        self._mine = total // sharers
        self._condition: Any = context.Condition() if context else threading.Condition()
        self._used: Any = context.RawValue(ctypes.c_int64) if context else ctypes.c_int64(0)

    @contextmanager
    def hold(self, needed: int) -> Iterator[None]:
        """Hold `needed` bytes while the block runs; wait until they are free.

        Raises:
            ImageError: too_many_pixels, since the whole budget is less.
        """
        if needed > self.total:
            raise ImageError(
                "too_many_pixels",
                f"needs {needed >> 20} MB to decode, over originals.decode_megabytes = "
                f"{self.total >> 20}",
            )
        with self._condition:
            self._condition.wait_for(
                lambda: self._used.value == 0 or self._used.value + needed <= self._mine
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
    """The budget of this process."""
    return _budget


def set_decode_budget(budget: DecodeBudget) -> None:
    """Replace the budget of this process. Not while images are decoded."""
    global _budget
    _return_large_blocks()
    _budget = budget


def limit_decoding(megabytes: int, sharers: int = 1) -> None:
    """Give this process a budget of so many MB, or the part of one of so many processes; unless it
    shares one with others already."""
    if not _budget.is_shared:
        set_decode_budget(DecodeBudget(megabytes << 20, sharers=sharers))


def _return_large_blocks() -> None:
    """Make the C library give the memory of decoded images back as soon as it is freed.

    By default it keeps blocks of up to 32 MB for each thread: three times the budget was measured.
    """
    with contextlib.suppress(AttributeError, OSError):  # another library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 << 20)
