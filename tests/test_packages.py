"""The wheel and the sdist are complete, and the installed wheel works outside the checkout."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import shellgan
from pipeline.demo.__main__ import PREFECT_SETTINGS
from pipeline.web.politeness import Politeness
from tests.helpers.small_shards import picture

PROJECT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
PACKAGES = tuple(
    pattern.removesuffix("*")
    for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
)
BUILD = (
    "import sys; from setuptools import build_meta; "
    "print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
)
Run = Callable[..., subprocess.CompletedProcess[str]]


def build(kind: str, source: Path, out: Path) -> Path:
    """Build as `pip` and `build` do, with the setuptools of this environment."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", out], cwd=source, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the project that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.split("\0") if name and (PROJECT / name).exists()}


@pytest.fixture(scope="module")
def sdist(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of the tracked files."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist, as installing from an sdist does."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", next(folder.iterdir()), sdist.parent)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs programs of a fresh environment with the wheel, in an empty folder.

    The dependencies are those of this environment; the checkout is not among its paths.
    """
    root = tmp_path_factory.mktemp("installed")
    venv.create(root / "venv")
    folder = root / "folder"
    folder.mkdir()
    paths = {"base": str(root / "venv"), "platbase": str(root / "venv")}
    own = Path(sysconfig.get_path("purelib", "venv", paths))
    others = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "dependencies.pth").write_text("\n".join(others) + "\n")
    programs = root / "venv" / "bin"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / program, *words], cwd=folder, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, env=env)
    return run


def test_the_wheel_has_every_file_of_the_packages(wheel: Path, tracked: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    packaged = {name for name in tracked if name.split("/")[0] in PACKAGES}
    assert names == packaged


def test_the_sdist_has_every_tracked_file(sdist: Path, tracked: set[str]) -> None:
    with tarfile.open(sdist) as archive:
        files = [member.name.partition("/")[2] for member in archive if member.isfile()]
    own = {name for name in files if name.startswith("shellgan.egg-info/")}
    assert set(files) - own - {"PKG-INFO", "setup.cfg"} == tracked


def test_the_installed_commands_work_in_an_empty_folder(installed: Run, tmp_path: Path) -> None:
    where = installed("python", "-c", "import pipeline, training; print(pipeline.__file__)")
    assert not Path(where.stdout.strip()).is_relative_to(PROJECT), where
    for program in PYPROJECT["project"].get("scripts", {}):
        assert installed(program, "--help").returncode == 0
    (tmp_path / "images").mkdir()
    for number in range(24):
        Image.fromarray(picture(number, 16)).save(tmp_path / f"images/{number}.png")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        f'[source]\nkind = "folder"\nstart = ["{tmp_path / "images"}"]\n'
        "[select]\nmin_side = 8\nmin_contrast = 0\nnear_duplicate_bits = \"off\"\n"
        "[shards]\nresolution = 16\n"
    )  # fmt: skip
    scraped = installed("python", "-m", "pipeline", "run", recipe, "--quiet", "--json")
    assert scraped.returncode == 0, scraped.stderr
    plan = ("--preset", "shells64", "--resolution", "16", "--dry-run")
    planned = installed("python", "-m", "training.fit", "--shards", "manifests/tiny", *plan)
    assert planned.returncode == 0, planned.stderr
    assert "parameters" in planned.stdout


def test_the_version_is_the_same_everywhere(wheel: Path, sdist: Path, installed: Run) -> None:
    version = shellgan.__version__
    assert wheel.name == f"shellgan-{version}-py3-none-any.whl"
    assert sdist.name == f"shellgan-{version}.tar.gz"
    assert installed("shellgan", "--version").stdout == f"shellgan {version}\n"
    assert runpy.run_path(str(PROJECT / "docs/conf.py"))["release"] == version
    assert Politeness().user_agent == f"ShellGAN/{version.rpartition('.')[0]}"


def test_the_demo_needs_no_settings_of_the_folder() -> None:
    in_folder = tomllib.loads((PROJECT / "prefect.toml").read_text())
    del in_folder["home"], in_folder["api"]  # of the demo's own server
    assert dict(environment("PREFECT", in_folder)) == PREFECT_SETTINGS


def environment(prefix: str, settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The environment variables with the meaning of a prefect.toml."""
    for key, value in settings.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, dict):
            yield from environment(name, value)
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
