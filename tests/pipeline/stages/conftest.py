"""Datasets of real originals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.events import EventLog
from tests.helpers.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def log(shop: Shop) -> Iterator[EventLog]:
    with EventLog(shop.dataset, "test") as log:
        yield log


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """The files of a folder and their bytes."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
