"""The generated pages are up to date, links lead to files, and all keys of a recipe are listed."""

from __future__ import annotations

import importlib.util
import platform
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.options import OriginalsOptions, SelectOptions, ShardOptions, StorageOptions
from pipeline.select.rules import REASONS
from pipeline.sources import SOURCES, CrawlLimits
from pipeline.web.failures import FAILURE_KINDS
from pipeline.web.politeness import Politeness

DOCS = Path(__file__).parents[1] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_help_in_the_docs_is_what_they_print() -> None:
    made = generator()
    if not platform.python_version().startswith(made.PYTHON + "."):
        pytest.skip(f"the help is worded by Python {made.PYTHON}")
    assert (DOCS / "commands.md").read_text() == made.commands_page(), "run make docs"


def test_every_command_of_the_project_is_there() -> None:
    root = DOCS.parent
    with_main = {
        str(path.relative_to(root).with_suffix("")).replace("/", ".").removesuffix(".__main__")
        for package in ("pipeline", "training")
        for path in (root / package).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    inner = {"training.catalogue", "pipeline.demo.gallery", "pipeline.demo.child_processes"}
    assert with_main - inner <= set(generator().COMMANDS)


@pytest.mark.parametrize("page", sorted([*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_key_of_a_recipe_is_documented() -> None:
    sections = (
        CrawlLimits,
        Politeness,
        StorageOptions,
        OriginalsOptions,
        SelectOptions,
        ShardOptions,
    )
    options = [*sections, *(adapter.config for adapter in SOURCES.values())]
    page = (DOCS / "recipes.md").read_text()
    keys = {field.name for section in options for field in fields(section)} - {"kind"}
    assert {key for key in keys if f"| `{key}` |" not in page} == set()


def test_every_failure_kind_and_rejection_reason_is_documented() -> None:
    page = (DOCS / "formats.md").read_text()
    assert {name for name in (*FAILURE_KINDS, *REASONS) if f"`{name}`" not in page} == set()
