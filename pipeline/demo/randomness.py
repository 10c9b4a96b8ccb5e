"""Random generators derived from names, so that every draw is reproducible."""

from __future__ import annotations

import hashlib

import numpy as np


def derived_key(*labels: object) -> int:
    """Return a 64-bit key in [0, 2**64) from the sha256 of the labels' text.

    Python's own ``hash`` is salted per process, so it cannot identify a random stream.
    """
    text = "\x1f".join(str(label) for label in labels)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def generator(*labels: object) -> np.random.Generator:
    """Return the random generator for the labels."""
    return np.random.Generator(np.random.PCG64(derived_key(*labels)))


def jitter(rng: np.random.Generator, value: float, spread: float) -> float:
    """Return ``value`` times a factor drawn uniformly from [1 - spread, 1 + spread]."""
    return value * float(rng.uniform(1.0 - spread, 1.0 + spread))
