"""A full disk ends each command with one line and exit status 2; with space again it completes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.contract import DatasetPaths, JsonlAppender, ManifestRow, image_key, load_index
from pipeline.contract.tar import read_samples
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.shards.verify import verify
from tests.helpers.processes import run_python
from tests.helpers.static_site import served

RECIPE = """
[source]
kind = "html"
start = ["https://shells.example/"]
image = "img"
[politeness]
rate = 500
allow_private = true
[select]
min_side = 8
[shards]
resolution = 32
samples_per_shard = 20
"""
COUNT = 40
LEAVING = (0, 4_096, 20_000, 60_000, 150_000)
"""Bytes that are left: each ends the command at another point."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB; skipped if this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def filled(folder: Path, leaving: int) -> Iterator[None]:
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    ballast.write_bytes(b"x" * max(0, free - leaving))
    try:
        yield
    finally:
        ballast.unlink()


class Project:
    """A project on the small disk, and its commands."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        self.dataset = DatasetPaths("shells", root)
        self.recipe = root / "shells.toml"
        self.recipe.write_text(RECIPE)

    def run(self, *words: str) -> tuple[int, str]:
        self._capsys.readouterr()
        words = (words[0], str(self.recipe), *words[1:], "--root", str(self.root), "--quiet")
        status = main(list(words))
        return status, self._capsys.readouterr().err

    def fails_and_completes(self, *words: str, leaving: tuple[int, ...] = LEAVING) -> None:
        """With less and less of the disk full the command ends in one line, until it does not;
        then it completes."""
        stopped = 0
        for bytes_left in leaving:
            with filled(self.root, bytes_left):
                status, said = self.run(*words)
            assert "Traceback" not in said
            if status == 2:
                stopped += 1
                assert said.count("\n") == 1, said
                assert "no space left on the disk; free some and run the same command" in said
        assert stopped
        status, said = self.run(*words)
        assert (status, "error" in said) == (0, False), said


@pytest.fixture
def project(disk: Path, shop: Any, capsys: pytest.CaptureFixture[str]) -> Project:
    made = Project(disk, capsys)
    shop.dataset = made.dataset
    return made


@pytest.fixture
def full(project: Project, shop: Any) -> Project:
    """With originals, a selection, and shards."""
    shop.add(shop.served(COUNT))
    assert project.run("select")[0] == 0
    assert project.run("shard")[0] == 0
    return project


def samples(dataset: DatasetPaths) -> dict[str, bytes]:
    index, paths = load_index(dataset.manifest_dir)
    return {key: files[index.format] for one in paths for key, files in read_samples(Path(one))}


def test_download(project: Project, shop: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    images = shop.served(COUNT)
    for one in images:
        (site / one.name).write_bytes(one.data)
    with served(site) as base:
        rows = [
            ManifestRow(image_key(f"{base}/{one.name}"), f"{base}/{one.name}") for one in images
        ]
        with JsonlAppender(project.dataset.url_manifest) as manifest:
            manifest.append(*(row.to_json() for row in rows))
        project.fails_and_completes("download")
    records = list(read_records(project.dataset))
    assert len(records) == COUNT
    found = {read_original(project.dataset, record) for record in records}
    assert found == {one.data for one in images}


def test_select(project: Project, shop: Any) -> None:
    shop.add(shop.served(COUNT))
    project.fails_and_completes("select", leaving=(0, 4_096, 20_000))
    assert len(project.dataset.selection.read_bytes().splitlines()) == COUNT


@pytest.mark.parametrize("cores", [1, 2])
def test_shard(project: Project, shop: Any, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, and in others."""
    monkeypatch.setattr("pipeline.shards.stage.cpu_count", lambda: cores)
    shop.add(shop.served(COUNT))
    assert project.run("select")[0] == 0
    project.fails_and_completes("shard", leaving=LEAVING[1::2] if cores > 1 else LEAVING)
    assert len(samples(project.dataset)) == COUNT


def test_verify_repair(full: Project, shop: Any, log: Any) -> None:
    before = samples(full.dataset)
    path = sorted(full.dataset.shards_dir.glob("*.tar"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    full.fails_and_completes("verify", "--repair", leaving=(0, 4_096, 20_000))
    assert samples(full.dataset) == before


def test_forget(full: Project, shop: Any, log: Any) -> None:
    key = shop.served(1)[0].key
    full.fails_and_completes("forget", "--key", key, leaving=(0, 4_096, 20_000))
    assert len(samples(full.dataset)) == COUNT - 1
    assert verify(shop.recipe(resolution=32, samples_per_shard=20), full.dataset, log).damaged == {}


@pytest.mark.parametrize(
    "form", ["imagefolder", "nvlabs", "huggingface", "huggingface-webdataset"]
)  # fmt: skip
def test_export(full: Project, form: str) -> None:
    out = full.root / ("out.zip" if form == "nvlabs" else "out")
    full.fails_and_completes("export", str(out), "--format", form, leaving=(0, 4_096, 12_000))
    assert out.exists()
    assert not list(full.root.glob(".out*"))


def test_import(project: Project, shop: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    images = shop.served(COUNT)
    for one in images:
        (folder / one.name).write_bytes(one.data)
    project.fails_and_completes("import", str(folder))
    records = list(read_records(project.dataset))
    assert {read_original(project.dataset, one) for one in records} == {one.data for one in images}


def test_preview(full: Project) -> None:
    before = full.dataset.selection.read_bytes()
    full.fails_and_completes("select", "--preview")
    assert full.dataset.selection.read_bytes() == before
    assert (full.dataset.manifest_dir / "preview.html").stat().st_size > 100_000


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_the_manifest_written_and_read(
    full: Project, ending: str, shop: Any, tmp_path: Path
) -> None:
    file = full.root / f"out.{ending}"
    full.fails_and_completes("export-manifest", str(file), leaving=(0, 2_000, 4_096))
    copy = tmp_path / file.name
    shutil.copyfile(file, copy)
    full.dataset.url_manifest.unlink()
    full.fails_and_completes("import-manifest", str(copy), leaving=(0, 4_096))
    assert len(full.dataset.url_manifest.read_bytes().splitlines()) == COUNT


LIMITED = """
import resource, sys
from pipeline.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(shop: Any) -> None:
    shop.add(shop.served(COUNT))
    recipe = shop.root / "shells.toml"
    recipe.write_text(RECIPE)
    words = [str(recipe), "--root", str(shop.root), "--quiet"]
    assert main(["select", *words]) == 0
    done = run_python(LIMITED, "shard", *words)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "no space left on the disk" in done.stderr
    assert main(["shard", *words]) == 0
    assert len(samples(shop.dataset)) == COUNT
