"""What tests of several parts share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    """A module of the tests, by its path: the tests are no packages."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


# Importable as `faulty_site` and `static_site` from every test.
_load("static_site", Path(__file__).parent / "pipeline" / "static_site.py")
faulty = _load("faulty_site", Path(__file__).parent / "pipeline" / "faulty_site.py")


@pytest.fixture
def faulty_site() -> Iterator[object]:
    """A site on loopback that misbehaves in every way (`faulty_site.ROWS`)."""
    with faulty.FaultySite() as site:
        yield site
