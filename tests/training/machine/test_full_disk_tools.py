"""A full disk in every tool that writes: one line, exit status 2, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here
from training import directions, evaluate, export, mix, nearest, probe, project, sample, walk
from training.machine.disk import free_bytes

KEPT = 4096
"""Bytes of a page of the small disk."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 4 MB with a finished run and its shards; skipped where none can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs takes root")
    before = Path.cwd()
    os.chdir(folder)
    try:
        shards = SmallShards(folder, sizes=(60, 60), labels=("cone", "whelk"))
        assert fit_here("whole", shards, "--record.spare_mb", "0.1") == 0
        yield folder
    finally:
        os.chdir(before)
        subprocess.run(["umount", "-l", str(folder)], check=True)


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != "ballast"
    }


def fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 16, KEPT, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


TOOLS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "sample": (sample.main, ["whole", "--out", "out.png", "--device", "cpu"]),
    "sample in a new folder": (sample.main, ["whole", "--out", "a/b/out.png", "--device", "cpu"]),
    "walk": (walk.main, ["whole", "--out", "out.gif", "--device", "cpu"]),
    "mp4": (walk.main, ["whole", "--out", "out.mp4", "--steps", "3", "--device", "cpu"]),
    "mix": (mix.main, ["whole", "--out", "out.png", "--device", "cpu"]),
    "directions": (directions.main, ["whole", "--out", "out.png", "--json", "out.json"]),
    "nearest": (nearest.main, ["whole", "--out", "out.png", "--distance", "pixels"]),
    "project": (
        project.main,
        ["whole", "in.png", "--out", "out.png", "--ws", "out.safetensors", "--steps", "2",
         "--distance", "pixels"],
    ),
    "safetensors": (export.main, ["whole", "--format", "safetensors", "--out", "given"]),
    "onnx": (export.main, ["whole", "--format", "onnx", "--out", "given"]),
}  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_on_a_full_disk_says_so_in_one_line(
    tool: str, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(disk)
    main, arguments = TOOLS[tool]
    if tool == "project":
        shutil.copy(next((disk / "runs/whole/samples").glob("*.png")), "in.png")
    before = files(disk)
    fill(disk)
    try:
        status = main(arguments)
        said = capsys.readouterr().err.splitlines()
        assert status == 2
        assert len(said) == 1, said
        assert "no space left on the disk" in said[0] or "No space left on device" in said[0]
        assert files(disk) == before
    finally:
        (disk / "ballast").unlink()
        Path("in.png").unlink(missing_ok=True)
        shutil.rmtree("given", ignore_errors=True)
    assert free_bytes(disk) > 0


def test_an_evaluation_on_a_full_disk_prints_its_numbers_first(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(disk)
    before = files(disk)
    fill(disk)
    try:
        assert evaluate.main(["whole", "--samples", "50", "--real", "100", "--device", "cpu"]) == 2
        said = capsys.readouterr()
        assert "fd_" in said.out
        assert "evaluation.json: no space left on the disk" in said.err.splitlines()[-1]
        assert "Traceback" not in said.err
        assert files(disk) == before
    finally:
        (disk / "ballast").unlink()


def test_a_probe_needs_no_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(disk)
    fill(disk)
    try:
        assert probe.main(["whole", "--steps", "0", "--device", "cpu"]) == 0
    finally:
        (disk / "ballast").unlink()


def test_a_training_on_a_full_disk_prints_no_traceback(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(disk)
    shutil.copytree("runs/whole", "runs/more")
    before = files(disk / "runs/more/checkpoints")
    fill(disk)
    try:
        options = ("--total-kimg", "0.6", "--record.spare_mb", "0")
        assert fit_here("more", str(disk / "manifests" / "small"), *options) in (1, 2)
        said = capfd.readouterr()
        assert "disk" in said.out + said.err
        assert "Traceback" not in said.out + said.err  # nor does a thread print one
        assert before.items() <= files(disk / "runs/more/checkpoints").items()
    finally:
        (disk / "ballast").unlink()
    assert (
        fit_here(
            "more",
            str(disk / "manifests" / "small"),
            "--total-kimg",
            "0.48",
            "--record.spare_mb",
            "0",
        )
        == 0
    )
    shutil.rmtree("runs/more")
