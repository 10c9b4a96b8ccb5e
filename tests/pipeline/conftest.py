"""Fixtures for tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.events import EventLog
from tests.helpers.shop import Shop


@pytest.fixture(scope="session")
def gallery_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which galleries of one seed find what an earlier one drew."""
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def log(shop: Shop) -> Iterator[EventLog]:
    with EventLog(shop.dataset, "test") as log:
        yield log
