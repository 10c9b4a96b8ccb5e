"""Imports, pyproject.toml and the requirements of training agree; private names are not used."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1]
NOT_IMPORTED = {
    "fastapi",  # limits the version that Prefect's server gets
}


PUBLIC = ("_exit", "_replace", "_asdict", "_fields", "_make", "_foreach_")
"""Documented names that begin with an underscore, of the standard library and of PyTorch (which
lists its foreach operations in the manual), or their beginnings."""
WITHOUT_PUBLIC_NAME = {
    # the only name of this class in PyTorch, and that of its manual ("Extending PyTorch")
    "from torch.utils._python_dispatch import TorchDispatchMode",
}


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script("requirements")
DECLARED: dict[str, dict[str, str]] = script.declared()
EXTRAS = {
    name for group, lines in DECLARED.items() if group not in ("", "dev") for name in lines
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]


def undeclared(path: Path, names: Iterator[str], allowed: set[str]) -> set[str]:
    return {
        f"{path.relative_to(PROJECT)}: {top}"
        for top in script.external(names)
        if not script.providers(top) & allowed
    }


@pytest.mark.slow
def test_every_import_is_declared() -> None:
    allowed = {*DECLARED[""], *EXTRAS}
    missing = [undeclared(p, script.imported_names(p), allowed) for p in sources(*script.PACKAGES)]
    assert set().union(*missing) == set()


def top_level_names(path: Path) -> set[str]:
    """The functions, classes and constants of a script."""
    body = ast.parse(path.read_text()).body
    named = {one.name for one in body if isinstance(one, ast.FunctionDef | ast.ClassDef)}
    assigned = [target for one in body if isinstance(one, ast.Assign) for target in one.targets]
    assigned += [one.target for one in body if isinstance(one, ast.AnnAssign)]
    return named | {one.id for one in assigned if isinstance(one, ast.Name)}


@pytest.mark.slow
@pytest.mark.parametrize("path", sources("benchmarks", "docs"), ids=lambda path: path.name)
def test_every_name_that_a_script_imports_exists(path: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        names, beside = {one.name for one in node.names}, path.with_name(f"{node.module}.py")
        if beside.exists():
            missing += sorted(names - top_level_names(beside))
        elif node.module.split(".")[0] in ("pipeline", "shellgan", "tests", "training"):
            module = importlib.import_module(node.module)
            missing += sorted(
                name for name in names
                if not hasattr(module, name)
                and importlib.util.find_spec(f"{node.module}.{name}") is None
            )  # fmt: skip
    assert missing == []


@pytest.mark.slow
def test_every_import_of_a_test_is_declared() -> None:
    allowed = {*DECLARED[""], *DECLARED["dev"]}
    files = sources("tests")
    scripts = sources("benchmarks")
    own = {path.stem for path in files + scripts} | {
        path.name for path in (PROJECT / "tests").iterdir()
    }
    missing = [
        undeclared(path, (n for n in script.imported_names(path) if n.split(".")[0] not in own),
                   allowed)
        for path in files
    ]  # fmt: skip
    assert set().union(*missing) == set()


@pytest.mark.slow
def test_extras_are_imported_inside_functions() -> None:
    for path in sources(*script.PACKAGES):
        top_level = ast.Module(
            [n for n in script.parse(path).body if isinstance(n, ast.Import | ast.ImportFrom)], []
        )
        names = script.names_in(top_level)
        assert undeclared(path, names, set(DECLARED[""])) == set()


@pytest.mark.slow
def test_every_dependency_is_imported() -> None:
    tops = script.external(
        name for path in sources(*script.PACKAGES) for name in script.imported_names(path)
    )
    used = {name for top in tops for name in script.providers(top)}
    assert set(DECLARED[""]) - used == NOT_IMPORTED


def test_the_requirements_of_training_are_up_to_date() -> None:
    text = (PROJECT / script.TRAIN_FILE).read_text()
    assert text == script.train_requirements(), "run make docs"


IMPORT_TRAINING = """
import contextlib, importlib, json, pkgutil, sys

blocked = set(json.loads(sys.stdin.read()))

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
import training

names = [found.name for found in pkgutil.walk_packages(training.__path__, "training.")]
modules = [importlib.import_module(name) for name in names]
helped = []
for module in modules:
    if hasattr(module, "main") and module.__name__.count(".") == 1:
        with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
            module.main(["--help"])
        helped.append(module.__name__)
print(json.dumps([names, helped, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def with_dependencies(names: set[str]) -> set[str]:
    """The distributions and all that they require here, without extras."""
    found: set[str] = set()
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        needed = (Requirement(line) for line in requires(name) or ())
        waiting += [
            script.distribution_name(one.name)
            for one in needed
            if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return found


def test_training_imports_with_its_requirements_alone() -> None:
    lines = (PROJECT / script.TRAIN_FILE).read_text().splitlines()
    listed = {script.distribution_name(line) for line in lines if not line.startswith("#")}
    allowed = {*with_dependencies(listed), "shellgan"}
    blocked = {top for top, names in script.distributions().items() if not allowed & names}
    assert {"prefect", "requests", "pycurl", "bs4", "lxml"} <= blocked
    said = subprocess.run(
        [sys.executable, "-c", IMPORT_TRAINING], cwd=PROJECT, input=json.dumps(sorted(blocked)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    names, helped, loaded = json.loads(said.stdout)
    assert set(names) >= set(script.modules("training")) - {"training"}
    assert {"training.fit", "training.export", "training.explore"} <= set(helped)
    assert not blocked & set(loaded)


def pins(name: str) -> dict[str, tuple[str, bool]]:
    """The pinned version of each distribution of a file, and whether it is for some platforms."""
    found = {}
    for line in (PROJECT / name).read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)( ;)?", line):
            found[script.distribution_name(match[1])] = match[2], bool(match[3])
    return found


def test_the_lock_has_the_tested_versions() -> None:
    tested, locked = pins("constraints.txt"), pins("requirements.lock")
    assert {name: locked.get(name, ("", False))[0] for name in tested} == {
        name: version for name, (version, _) in tested.items()
    }, "run make lock"
    assert {name for name in locked.keys() - tested.keys() if not locked[name][1]} == set()


def test_the_lock_satisfies_pyproject_and_has_hashes() -> None:
    locked = pins("requirements.lock")
    for line in {**DECLARED[""], **DECLARED["dev"]}.values():
        requirement = Requirement(line)
        version, _ = locked[script.distribution_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}: run make lock"
    text = (PROJECT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert len(entries) == len(locked)
    hashed = re.compile(r"\S+==\S+( ;[^\\]*)? \\(\n +--hash=sha256:[0-9a-f]{64}( \\)?)+\s*")
    assert [entry for entry in entries if not hashed.fullmatch(entry)] == []
    assert "://" not in text


def private_uses(path: Path) -> Iterator[str]:
    """Yield the private names that a file imports, and those of other objects than its own."""
    for node in ast.walk(script.parse(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [part for name in script.names_in(node) for part in name.split(".")]
        elif isinstance(node, ast.Attribute) and not is_own(node.value):
            names = [node.attr]
        else:
            continue
        text = ast.unparse(node)
        if any(map(is_private, names)) and text not in WITHOUT_PUBLIC_NAME:
            yield f"{path.relative_to(PROJECT)}:{node.lineno}: {text}"


def is_own(owner: ast.expr) -> bool:
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and not name.startswith(PUBLIC)


def test_no_private_names_of_others_are_used() -> None:
    files = sources(*script.PACKAGES, "docs")
    assert [use for path in files for use in private_uses(path)] == []


@pytest.mark.slow
def test_tests_and_benchmarks_import_no_private_names_of_other_packages() -> None:
    own = (*script.PACKAGES, "tests")
    uses = [
        f"{path.relative_to(PROJECT)}: {name}"
        for path in sources("tests", "benchmarks")
        for node in ast.walk(script.parse(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node) not in WITHOUT_PUBLIC_NAME
        for name in script.names_in(node)
        if name.split(".")[0] not in own and any(map(is_private, name.split(".")))
    ]
    assert uses == []
