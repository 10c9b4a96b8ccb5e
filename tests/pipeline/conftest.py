"""Fixtures for tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gallery_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which galleries of one seed find what an earlier one drew."""
    return tmp_path_factory.mktemp("gallery")
