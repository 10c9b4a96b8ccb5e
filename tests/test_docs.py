"""The generated pages are up to date, all keys are explained, and the site builds."""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.recipe import Recipe
from pipeline.select.rules import REASONS
from pipeline.sources import SOURCES
from pipeline.web.failures import FAILURE_HELP, FAILURE_KINDS
from training.config import Config

DOCS = Path(__file__).parents[1] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date() -> None:
    made = generator()
    if not platform.python_version().startswith(made.PYTHON + "."):
        pytest.skip(f"the help is worded by Python {made.PYTHON}")
    pages = {name: text for name, text in made.pages().items() if name != "presets.md"}
    assert {name: (DOCS / name).read_text() for name in pages} == pages, "run make docs"


def test_every_command_of_the_project_is_there() -> None:
    root = DOCS.parent
    with_main = {
        str(path.relative_to(root).with_suffix("")).replace("/", ".").removesuffix(".__main__")
        for package in ("pipeline", "shellgan", "training")
        for path in (root / package).rglob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    inner = {"training.catalogue", "pipeline.demo.gallery", "pipeline.demo.child_processes"}
    assert with_main - inner <= set(generator().COMMANDS)


@pytest.mark.parametrize("page", sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_key_has_a_meaning() -> None:
    keys = generator().keys
    classes = [Recipe, Config, *keys.INLINE, *(adapter.config for adapter in SOURCES.values())]
    for owner in classes:  # those of sections follow
        classes += [
            one
            for hint in keys.hints_of(owner).values()
            for one in keys.sections_in(hint)
            if one not in classes
        ]
    assert {one.__name__: keys.unexplained(one) for one in classes if keys.unexplained(one)} == {}


def test_every_failure_kind_has_advice_and_every_rejection_reason_is_documented() -> None:
    assert FAILURE_HELP.keys() == FAILURE_KINDS.keys()
    page = (DOCS / "formats.md").read_text()
    assert {name for name in REASONS if f"`{name}`" not in page} == set()


def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    """Sphinx warns about links to missing pages and headings, and pages that no menu contains."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", DOCS,
         tmp_path / "site"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert {page.stem for page in DOCS.rglob("*.md")} <= {page.stem for page in pages}
    loaded = r"""<(?:script|img|link|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"""
    assert [(page.name, re.findall(loaded, page.read_text())) for page in pages
            if re.search(loaded, page.read_text())] == []  # fmt: skip


def test_every_picture_is_made_by_the_script_shown_and_small() -> None:
    script = (DOCS / "pictures.py").read_text()
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    shown = set(re.findall(r"pictures/(\w+\.\w+)\)", "".join(one.read_text() for one in pages)))
    files = [one for one in (DOCS / "pictures").iterdir() if one.is_file()]
    assert {one.name for one in files} == shown
    assert [one.name for one in files if f"def {one.stem}(" not in script] == []
    assert [one.name for one in files if one.stat().st_size >= 200_000] == []


def test_every_picture_of_a_benchmark_is_shown_and_small() -> None:
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    files = [*(DOCS / "pictures").glob("*/*.jpg"), *(DOCS / "pictures").glob("*/*.svg")]
    assert files
    assert [
        one.name for one in files if f"](pictures/{one.parent.name}/{one.name})" not in text
    ] == []
    assert [one.name for one in files if one.stat().st_size >= 80_000] == []
