"""The README and the file tree of CONTRIBUTING.md are up to date."""

import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text()
WORKFLOW = (PROJECT / ".github/workflows/ci.yml").read_text()


def tree() -> list[str]:
    """The paths of the tree in CONTRIBUTING.md; folders end with a slash."""
    block = re.search(r"## Project layout.*?\n```\n(.*?)```", CONTRIBUTING, re.S)
    assert block is not None
    paths: list[str] = []
    folders: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        entry = re.match(r"( *)(\S+)", line)
        assert entry is not None, line
        depth, name = len(entry[1]), entry[2]
        while folders and folders[-1][0] >= depth:
            folders.pop()
        path = (folders[-1][1] if folders else "") + name
        paths.append(path)
        if name.endswith("/"):
            folders.append((depth, path))
    return paths


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the project that git knows."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return set(listed.stdout.splitlines())


def test_every_path_of_the_tree_is_there() -> None:
    for path in tree():
        assert (PROJECT / path).exists(), path
        assert (PROJECT / path).is_dir() == path.endswith("/"), path


def test_every_module_is_in_the_tree(tracked: set[str]) -> None:
    said = tree()
    modules = {
        path
        for path in tracked
        if re.fullmatch(r"(pipeline|shellgan|training)/(?!sites|presets|demo)[\w/]+\.py", path)
        and not path.endswith("__init__.py")
    }
    whole = [path for path in said if path.endswith("/")]
    missing = {
        path
        for path in modules
        if path not in said
        and not any(
            path.startswith(folder) and not any(s != folder and s.startswith(folder) for s in said)
            for folder in whole
        )
    }
    assert missing == set()


def test_every_top_level_file_is_in_the_tree(tracked: set[str]) -> None:
    said = {path.split("/")[0] for path in tree()}
    top = {path.split("/")[0] for path in tracked}
    assert {name for name in top if not name.startswith(".")} <= said


def test_install_ends_with_what_to_run_next() -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "install"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^echo .*/shellgan WHERE .*, or make demo", shown.stdout.splitlines()[-1])


def test_every_make_target_exists() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    text = README + CONTRIBUTING + WORKFLOW
    for target in set(re.findall(r"^make (\w+)|`make (\w+)`|run: make (\w+)", text, re.M)):
        name = "".join(target)
        assert re.search(rf"^{name}:", makefile, re.M), name
