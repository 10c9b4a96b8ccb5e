"""The embedded gallery with few shells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.demo.gallery import serve
from tests.helpers.plain_gallery import plain_gallery

COUNT = 120


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the gallery's first page."""
    with serve(plain_gallery(COUNT, 4, tmp_path_factory.mktemp("gallery"))) as running:
        yield running.url
