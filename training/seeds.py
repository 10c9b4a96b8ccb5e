"""Seeds as pure functions of their purpose: the same on every machine and in every run."""

from __future__ import annotations

import hashlib
import json


def derive(*parts: int | float | str) -> int:
    """Return a seed in [0, 2^63) from `parts`, by sha256; different parts give unrelated seeds."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
