"""A run of one step, whose options name the method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TinyRun = Callable[..., Path]


@pytest.fixture
def tiny_run(tmp_path: Path, small_shards: Callable[..., Any], in_process: Any) -> TinyRun:
    """Train the run `tiny` for one step in the test's folder, and return its folder."""

    def train(*options: str, labels: tuple[str, ...] = ()) -> Path:
        run = tmp_path / "runs" / "tiny"
        shards = small_shards(labels=labels) if labels else small_shards()
        assert in_process(run, shards, *options, "--total-kimg", "0.016") == 0
        return run

    return train
