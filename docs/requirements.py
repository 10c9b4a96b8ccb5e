"""Writes requirements-train.txt from the imports of `training`: `python docs/requirements.py`.

The file lists what `training` needs: `pip install -r requirements-train.txt` and
`pip install --no-deps .` suffice for training on a rented GPU.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "shellgan", "training")
TRAIN_FILE = "requirements-train.txt"
_HEADER = (
    "# What training needs, without the pipeline; written by docs/requirements.py.\n"
    "# pip install -r requirements-train.txt && pip install --no-deps .\n"
)


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(package: str) -> dict[str, Path]:
    """Return the files of a package's modules by their dotted names."""
    found = {}
    for path in (PROJECT / package).rglob("*.py"):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere."""
    return names_in(parse(path))


def names_in(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of the imports below `tree`, with `a.b` for `from a import b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def external(names: Iterator[str]) -> set[str]:
    """Return the top-level packages among `names` that other distributions provide."""
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {*PACKAGES}


def used_by(package: str) -> set[Path]:
    """Return the files of `package` and of the modules of this project that it imports."""
    known = {name: path for one in PACKAGES for name, path in modules(one).items()}
    found: set[Path] = set()
    waiting = list(modules(package))
    while waiting:
        name = waiting.pop()
        path = known.get(name)
        if path is None and "." in name:  # `from module import name`
            waiting.append(name.rpartition(".")[0])
        if path is None or path in found:
            continue
        found.add(path)
        waiting += [*imported_names(path), name.rpartition(".")[0]]
    return found


def distribution_name(requirement: str) -> str:
    """Return the normalised name of the distribution that a requirement line names."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def declared() -> dict[str, dict[str, str]]:
    """Return the requirement lines by distribution of each group of pyproject.toml; the group of
    the dependencies has the name ``."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups: Mapping[str, list[str]] = {
        "": project["dependencies"], **project["optional-dependencies"],
    }  # fmt: skip
    return {
        group: {distribution_name(line): line for line in lines} for group, lines in groups.items()
    }


@cache
def distributions() -> dict[str, set[str]]:
    """Return the normalised names of the installed distributions that provide each package."""
    return {
        top: {distribution_name(name) for name in names}
        for top, names in packages_distributions().items()
    }


def providers(top: str) -> set[str]:
    """Return the installed distributions that provide a package."""
    return distributions().get(top, set())


def train_requirements() -> str:
    """Return the text of requirements-train.txt."""
    tops = external(name for path in used_by("training") for name in imported_names(path))
    needed = {name for top in tops for name in providers(top)}
    lines = [line for name, line in declared()[""].items() if name in needed]
    return _HEADER + "\n".join(sorted(lines)) + "\n"


def main() -> int:
    """Write the file."""
    path = PROJECT / TRAIN_FILE
    path.write_text(train_requirements(), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
