"""Whole files or none; whole lines or none."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.atomic_io import atomic_file, remove_temp_files, write_atomic, write_json
from pipeline.errors import UserError
from pipeline.jsonl import JsonlAppender, read_jsonl


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_file(path) as file:
        file.write(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(bytes(1 // 0))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_leaves_the_old_file_and_a_sweepable_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    code = (
        "import sys, time; from pathlib import Path; from pipeline.atomic_io import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as f:\n"
        "    f.write(b'new'); f.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_temp_files(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": "ü"})
    write_json(tmp_path / "b", {"y": "ü", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_torn_last_line_is_ignored_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2}\n{"n": ' + b"3" * 100_000)
    assert [row["n"] for row in read_jsonl(path)] == [1, 2]
    with JsonlAppender(path) as log:
        log.append({"n": 4})
    assert [row["n"] for row in read_jsonl(path)] == [1, 2, 4]


@pytest.mark.parametrize("before", [b"", b'{"n": 1}\n', b'{"n": 1}\n\n'])
def test_a_complete_last_line_without_its_newline_counts(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(before + b'{"n": 2, "of": {"n": "\xc3\xbc"}}')
    numbers = [row["n"] for row in read_jsonl(path)]
    assert numbers == ([1, 2] if before else [2])
    with JsonlAppender(path) as log:
        log.append({"n": 3})
    assert [row["n"] for row in read_jsonl(path)] == [*numbers, 3]


@pytest.mark.parametrize("torn", [b'{"n": {"n": 2}', b"12", b'"text"', b"[]", b'{"n": "\xc3'])
def test_a_last_line_that_is_no_object_is_torn(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n' + torn)
    assert list(read_jsonl(path)) == [{"n": 1}]
    JsonlAppender(path).close()
    assert path.read_bytes() == b'{"n": 1}\n'


def test_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n"')
    JsonlAppender(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", ["{oops", "[1]"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"n": 1}}\n{line}\n{{"n": 2}}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:2: not (a )?JSON"):
        list(read_jsonl(path))


_APPEND = """
import sys
from pathlib import Path
from pipeline.jsonl import JsonlAppender
with JsonlAppender(Path(sys.argv[1])) as log:
    for number in range(200):
        log.append({"writer": int(sys.argv[2]), "number": number, "padding": "x" * 5000})
"""


def test_several_processes_append_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", _APPEND, str(path), str(writer)])
        for writer in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    rows = list(read_jsonl(path))
    assert sorted((row["writer"], row["number"]) for row in rows) == [
        (w, n) for w in range(3) for n in range(200)
    ]


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys; from pathlib import Path; from pipeline.jsonl import JsonlAppender\n"
        "log = JsonlAppender(Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    log.append({'n': n}); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(100)]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().splitlines(keepends=True)[:-1]
    reported = [json.loads(line) for line in first + rest]
    assert len(reported) >= 100
    kept = [row["n"] for row in read_jsonl(path)]
    assert kept[: len(reported)] == reported
