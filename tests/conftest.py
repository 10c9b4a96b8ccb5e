"""Fixtures for tests of several parts; `helpers` has what they are made of."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.browser import Browser, find_chromium
from tests.helpers.faulty_site import FaultySite
from tests.helpers.prefect_server import PrefectServer, serve_prefect
from tests.helpers.slow import is_slow

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
for _name, _examples in (("short", 25), ("long", 1000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        derandomize=_name == "short",
        suppress_health_check=_SLOW_IS_FINE,
    )
settings.load_profile("short")  # the same examples every time; `make fuzz` tries new ones


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out."""
    for item in items:
        if isinstance(item, pytest.Function) and is_slow(item):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Leave what was imported so far out of garbage collections: the trainer makes one before it
    measures memory, which takes 0.2 s with the objects of torch and of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_signal_handlers() -> Iterator[None]:
    """Commands called in this process set handlers, which would swallow Ctrl-C in later tests."""
    names = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(name) for name in names]
    yield
    for name, handler in zip(names, handlers, strict=True):
        signal.signal(name, handler)


@pytest.fixture
def faulty_site() -> Iterator[FaultySite]:
    """A site on loopback that misbehaves in every way (`faulty_site.ROWS`)."""
    with FaultySite() as site:
        yield site


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server of the module's own."""
    with serve_prefect(tmp_path_factory.mktemp("project")) as server:
        yield server


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A stand-in for the Hugging Face Hub, to which uploads go with a valid token."""
    from huggingface_hub import constants

    from tests.helpers.hub_server import TOKEN, HubServer

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
