"""Image numbers: every integer from 0 to 2^32 − 1 is one image of a generator.

The random numbers are a hash of (number, index), so that a few lines of JavaScript can compute the
same: the explorer, exported pages and the commands show the same image for a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.contract import UserError

LIMIT = 1 << 32


def _mix(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return a bijection of 32-bit integers in which every bit depends on every other (the
    finaliser of MurmurHash3)."""
    with np.errstate(over="ignore"):
        values = values ^ (values >> np.uint32(16))
        values = values * np.uint32(0x85EBCA6B)
        values = values ^ (values >> np.uint32(13))
        values = values * np.uint32(0xC2B2AE35)
        return values ^ (values >> np.uint32(16))


def _uniform(numbers: NDArray[np.uint32], count: int) -> NDArray[np.float64]:
    """(n, count) random numbers in (0, 1)."""
    with np.errstate(over="ignore"):
        places = _mix(np.arange(count, dtype=np.uint32) + np.uint32(0x9E3779B9))
        mixed = _mix(_mix(numbers + np.uint32(0x7F4A7C15))[:, None] ^ places)
    return (mixed + 0.5) / LIMIT


def latents_of(numbers: list[int], kind: str, z_dim: int) -> Tensor:
    """Return latents float32 (n, z_dim) of the numbers; `kind` as in `training.techniques`.

    Normal values are computed by Box and Muller (1958): indices 2k and 2k + 1 are one pair.
    """
    which = np.array(numbers, dtype=np.int64).astype(np.uint32)
    if kind == "uniform":
        return torch.from_numpy((_uniform(which, z_dim) * 2 - 1).astype(np.float32))
    pairs = _uniform(which, z_dim + z_dim % 2).reshape(len(numbers), -1, 2)
    radius = np.sqrt(-2 * np.log(pairs[:, :, 0]))
    angle = 2 * np.pi * pairs[:, :, 1]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    normal = normal.reshape(len(numbers), -1)[:, :z_dim]
    if kind == "sphere":
        normal *= z_dim**0.5 / np.linalg.norm(normal, axis=1, keepdims=True)
    return torch.from_numpy(normal.astype(np.float32))


def check_numbers(numbers: Sequence[int], least: int = 0) -> None:
    """Check that the numbers are image numbers, and at least `least` of them.

    Raises:
        UserError: they are not.
    """
    if len(numbers) < least:
        raise UserError(f"numbers: {len(numbers)} given; at least {least} are needed")
    for number in numbers:
        if not 0 <= number < LIMIT:
            raise UserError(f"numbers: {number} is not from 0 to {LIMIT - 1}")


def parse_numbers(text: str, option: str, at_most: int = 4096) -> list[int]:
    """Parse image numbers such as `3,8,20-24`.

    Raises:
        UserError: the text is invalid, or contains more than `at_most` numbers.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 99:
            raise UserError(f"{option} {text}: not a list of numbers such as 3,8,20-24")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high < LIMIT:
            raise UserError(
                f"{option} {text}: numbers must be from 0 to {LIMIT - 1}, ranges ascending"
            )
        if len(numbers) + high - low >= at_most:
            raise UserError(f"{option} {text}: more than {at_most} images")
        numbers += range(low, high + 1)
    return numbers
