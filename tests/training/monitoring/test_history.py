"""Reading the history of a run: what is wrong with it is said, and nothing else fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.monitoring.history import read_history

DAMAGED = [b"\xcd\n", b"{\n", b"[]\n", b'{"loss": 1}\n', b'{"seen": "x"}\n', b'{"seen": -1}\n']


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_history_is_named_and_left_out(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"seen": 4}\n' + data)
    assert read_history(path) == []
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {path}")
    assert len(said.splitlines()) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_history_that_is_no_file_is_not_waited_for(
    make: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(make)
    make(tmp_path / "metrics.jsonl")
    assert read_history(tmp_path / "metrics.jsonl") == []
    assert "not a regular file" in capsys.readouterr().err


def test_a_torn_last_line_and_no_file_are_no_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"seen": 4}\n{"se')
    assert read_history(tmp_path / "metrics.jsonl") == [{"seen": 4}]
    assert read_history(tmp_path / "none.jsonl") == []
    assert capsys.readouterr().err == ""
