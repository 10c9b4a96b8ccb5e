"""Runs with weights that nobody trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.untrained_runs import make_run


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run of a kind: `run_of("dcgan")`."""
    return lambda kind, *rest: make_run(tmp_path / "runs" / kind, kind, *rest)
