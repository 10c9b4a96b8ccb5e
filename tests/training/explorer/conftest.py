"""Runs with weights that nobody trained, and a browser to look at pages with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.browser import Browser
from tests.helpers.untrained_runs import make_run


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run of a kind: `run_of("dcgan")`."""
    return lambda kind, *rest: make_run(tmp_path / "runs" / kind, kind, *rest)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
