"""The examples of docs/api.md run, from top to bottom, and print nothing by themselves."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
OF_THE_TEST = {
    '"https://example.org/gallery/"': '"{gallery}"',
    '"rate": 2,': '"rate": 200, "allow_private": True,',
}
"""What a reader replaces by the gallery of his choice."""


@pytest.mark.slow
def test_examples_run(gallery: str, tmp_path: Path) -> None:
    examples = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S))
    for text, other in OF_THE_TEST.items():
        assert text in examples
        examples = examples.replace(text, other.format(gallery=gallery))
    said: list[str] = []
    names = {"print": lambda *words: said.append(" ".join(map(str, words)))}
    with contextlib.chdir(tmp_path):
        exec(compile(examples, str(PAGE), "exec"), names)
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert any("fd" in line for line in said)
    assert {path.name for path in tmp_path.iterdir()} == {
        "project", "cabinet.toml", "shell.png", "shells.png", "exported",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "project").iterdir()} >= {"data", "runs"}
