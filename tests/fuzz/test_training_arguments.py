"""Any words on the command line of the training tools: one line and exit status 2."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract import UserError
from training import (
    directions,
    evaluate,
    explore,
    export,
    fit,
    mix,
    nearest,
    probe,
    project,
    sample,
    walk,
)
from training.latent.image_numbers import parse_numbers
from training.machine.distributed import init_distributed

MAINS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "sample": (sample.main, ["--n", "--seed", "--numbers", "--truncation", "--label", "--out"]),
    "walk": (
        walk.main,
        [
            "--numbers",
            "--steps",
            "--seconds",
            "--fps",
            "--scale",
            "--truncation",
            "--out",
            "--audio",
            "--drive",
            "--directions",
        ],
    ),
    "mix": (mix.main, ["--rows", "--columns", "--layer", "--share", "--out"]),
    "project": (project.main, ["--steps", "--ws", "--seed", "--out"]),
    "nearest": (nearest.main, ["--numbers", "--k", "--shards", "--distance", "--by", "--out"]),
    "directions": (directions.main, ["--numbers", "--k", "--layers", "--amount", "--json"]),
    "probe": (
        probe.main,
        ["--num-labels", "--labels", "--n", "--held-out", "--steps", "--seed", "--shards"],
    ),
    "export": (export.main, ["--format", "--out", "--tolerance", "--title", "--runtime"]),
    "explore": (explore.main, ["--port", "--host", "--nearest", "--title"]),
    "evaluate": (evaluate.main, ["--samples", "--real", "--ppl", "--seed", "--out", "--inception"]),
    "fit": (fit.main, ["--shards", "--preset", "--run", "--batch", "--max-hours", "--data.window"]),
}
WORDS = st.one_of(
    st.sampled_from([
        "nan", "inf", "-inf", "1e30", "-1", "0", "", " ", "١٢", "²", "9" * 5000, "1-1000000000000",
        "0-", "4-1", "3,,8", "/", ".", "..", "/proc/x.png", "x" * 300 + ".png", "x.png", "x.exe",
        "a\0.png", "\udcff.png", "../x.png", "[1]", "whole@best", "http://[bad", "pipe:cat",
    ]),
    st.text(max_size=8),
    st.integers().map(str),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _elsewhere() -> Iterator[None]:
    """A folder without runs, for what is written to a path by mistake."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        yield
        os.chdir(before)


def said_by(main: Callable[[list[str]], int], words: list[str]) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(words)
        except SystemExit as ended:  # argparse: its usage, and a line
            return int(str(ended.code)), ""
    return status, err.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(
    st.sampled_from(sorted(MAINS)),
    st.data(),
    st.lists(WORDS, min_size=1, max_size=5),
    st.booleans(),
)
def test_any_words_are_refused_in_one_line(
    command: str, data: st.DataObject, values: list[str], named: bool
) -> None:
    main, options = MAINS[command]
    words = [] if command == "fit" else ["none"]
    words += ["--out", "x.png"] if named and command != "fit" else ["--shards", "none"]
    for value in values:
        words += [data.draw(st.sampled_from(options)), value]
    status, said = said_by(main, words)
    if status == 0:
        assert any(word in ("-h", "--help") for word in words)
    else:
        assert status == 2, said
        assert len(said.splitlines()) <= 1, said
        assert "Traceback" not in said


@given(WORDS, st.integers(1, 5000))
@example("0-999999999999", 10)
@example(",".join(["0-9"] * 10_000), 100)
def test_any_numbers_are_few_or_refused(text: str, most: int) -> None:
    try:
        numbers = parse_numbers(text, "--numbers", most)
    except UserError:
        return
    assert 1 <= len(numbers) <= most
    assert all(0 <= number < 2**32 for number in numbers)


NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ODD = st.sampled_from(["abc", "", "-1", "2", "0", "1e3", "²", "9" * 5000, "3", " 1"])


@given(st.dictionaries(st.sampled_from(NAMES[:4]), ODD, min_size=1))
@example({"WORLD_SIZE": "2", "RANK": "abc"})
@example({"WORLD_SIZE": "abc"})
@example({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"})
def test_an_odd_environment_is_refused(found: dict[str, str]) -> None:
    before = dict(os.environ)
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ.update(found)  # without MASTER_ADDR nobody can be reached
    try:
        with init_distributed(torch.device("cpu")) as ranks:
            assert ranks.world_size == 1
    except UserError:
        pass
    finally:
        os.environ.clear()
        os.environ.update(before)
