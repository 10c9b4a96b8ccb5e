"""The scripts of `shellgan completion` complete commands, options, recipes and runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shellgan.__main__ import WORDS, main
from shellgan.completion import SHELLS
from tests.helpers.commands import run_here

CHECKS = {"bash": ("bash", "-n"), "zsh": ("zsh", "-n"), "fish": ("fish", "--no-execute")}
COMPLETE = """
source ./script
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_shellgan
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("completion")
    (made / "runs" / "my-run").mkdir(parents=True)
    (made / "my-recipe.toml").write_text("")
    said = run_here(main, made, "completion", "bash")
    assert said.returncode == 0, said.stderr
    (made / "script").write_text(said.stdout)
    return made


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_valid(tmp_path: Path, shell: str) -> None:
    said = run_here(main, tmp_path, "completion", shell)
    (tmp_path / "script").write_text(said.stdout)
    assert all(word in said.stdout for word in (*WORDS, "truncation", "no-browser"))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([*CHECKS[shell], "script"], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("shellgan ''", set(WORDS)),
        ("shellgan st", {"status"}),
        ("shellgan --ho", {"--hours"}),
        ("shellgan sample my", {"my-run"}),
        ("shellgan evaluate my", {"my-run"}),
        ("shellgan walk my-run --curv", {"--curve"}),
        ("shellgan walk my-run --curve s", {"slerp", "spline"}),
        ("shellgan status my", {"my-recipe.toml"}),
        ("shellgan curate gb", {"gbif-mollusca"}),
        ("shellgan completion f", {"fish"}),
    ],
)
def test_bash_completes(folder: Path, words: str, found: set[str]) -> None:
    said = subprocess.run(
        ["bash", "-c", COMPLETE.format(words=words)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(said.stdout.split()) == found


def test_an_unknown_shell(tmp_path: Path) -> None:
    said = run_here(main, tmp_path, "completion", "bsh")
    assert said.returncode == 2
    assert "did you mean bash?" in said.stderr
