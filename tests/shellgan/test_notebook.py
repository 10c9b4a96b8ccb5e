"""docs/shellgan.ipynb runs cell by cell, also after a cut session; it is stored without outputs."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from PIL import Image

import shellgan
from tests.helpers.processes import child_env
from tests.helpers.small_shards import picture

pytestmark = pytest.mark.slow
NOTEBOOK = Path(__file__).parents[2] / "docs" / "shellgan.ipynb"
SMALL: dict[str, Any] = {
    "COLLECTION": "pictures.zip", "NAME": "mine", "KEEP": "mounted", "RESOLUTION": 16,
    "RECIPE": {"select": {"min_side": 8, "near_duplicate_bits": "off"}},
    "PRESET": "shells64", "FORMATS": ["safetensors"],
    "OPTIONS": {
        "total_kimg": 0.064, "batch": 8, "resolution": 16, "generator.width": 4, "threads": 1,
        "generator.z_dim": 8, "discriminator.width": 4, "record.log_kimg": 0.016,
        "record.checkpoint_kimg": 0.016, "record.time_share": 0, "device": "cpu",
    },
}  # fmt: skip
"""Settings of the first cell for a run of seconds."""
CUT = """
import os, signal, sys

def cut(event, words):
    if event == "os.rename" and str(words[1]).endswith("0000000048.json"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(cut)
"""
"""Kills the session while it saves the checkpoint at 48 images."""


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_all(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "", **settings: Any) -> str:
    """Run all cells in a kernel of their own with these settings; return what they print."""
    notebook = read()
    first = code_cells(notebook)[0]
    chosen = SMALL | settings
    lines = [f"{name} = {value!r}" for name, value in chosen.items()]
    place = notebook.cells.index(first) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell("\n".join([*lines, more])))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / "jupyter"))
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute(env=child_env())
    return "".join(
        output.text for cell in code_cells(notebook) for output in cell.outputs
        if output.output_type == "stream"
    )  # fmt: skip


def test_it_is_stored_without_outputs() -> None:
    for cell in code_cells(read()):
        assert (cell.outputs, cell.execution_count) == ([], None)


def test_it_is_readable_and_has_all_settings_in_its_first_cell() -> None:
    notebook = read()
    first = ast.parse(code_cells(notebook)[0].source)
    settings = {
        target.id for line in first.body if isinstance(line, ast.Assign)
        for target in line.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    assert set(SMALL) < settings
    assert f'"shellgan-{shellgan.__version__}-' in code_cells(notebook)[0].source
    for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert above.cell_type == "markdown", cell.source
            assert len(cell.source.splitlines()) <= 15, cell.source


def test_it_runs_and_continues_after_a_cut_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for number in range(40):
            with archive.open(f"cone/{number}.png", "w") as file:
                Image.fromarray(picture(number, 16)).save(file, "PNG")
    with pytest.raises(DeadKernelError):
        run_all(tmp_path, monkeypatch, CUT)
    run = tmp_path / "mounted" / "runs" / "mine"
    assert max(path.stem for path in (run / "checkpoints").glob("*.json")) == "0000000032"
    (tmp_path / "pictures.zip").unlink()  # an upload is lost with the session

    said = run_all(tmp_path, monkeypatch, COLLECTION="")
    assert "resuming at 0.032 kimg" in said
    assert "64 images seen; ended: done" in said
    exported = tmp_path / "mounted" / "exported" / "mine"
    expected = shellgan.load(run, device="cpu").sample(numbers=[1])
    assert np.array_equal(shellgan.load(exported, device="cpu").sample(numbers=[1]), expected)
    with zipfile.ZipFile(tmp_path / "mounted" / "mine-export.zip") as archive:
        assert {"model.safetensors", "README.md", "config.json"} <= set(archive.namelist())
    assert json.loads((run / "config.json").read_text())["config"]["batch"] == 8
