"""Unknown words of every command get a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.__main__
import shellgan.__main__
import training.evaluate
import training.export
import training.fit
import training.sample
from pipeline.suggestions import suggestion
from tests.helpers.commands import run_here
from tests.helpers.untrained_runs import make_run

RECIPE = '[source]\nkind = "html"\nstart = ["http://127.0.0.1:1/"]\n'


def test_only_close_words_are_suggested() -> None:
    assert suggestion("statsu", ["status", "crawl"]) == "; did you mean status?"
    assert suggestion("xyz", ["status"]) == ""
    assert suggestion("rate", ["rate", "rates"]) == ""  # known, but not where it is


@pytest.mark.parametrize(
    ("command", "words", "right"),
    [
        (pipeline, "statsu shells", "status"),
        (pipeline, "status shels", "shells"),
        (pipeline, "status shells --qiet", "--quiet"),
        (pipeline, "crawl mine.toml --set shards.resolutoin=3", "resolution"),
        (pipeline, "retry mine.toml --kind trunctaed", "truncated"),
        (training.sample, "mnie", "mine"),
        (training.sample, "mine --truncatoin 1", "--truncation"),
        (training.sample, "mine --device cpuu", "cpu"),
        (training.export, "mine --format safetensor", "safetensors"),
        (training.evaluate, "mine --seeed 3", "--seed"),
        (training.fit, "--shardz x", "--shards"),
        (training.fit, "--shards x --generator.widht 3", "width"),
        (training.fit, "--shards x --preset shell64", "shells64"),
        (shellgan, "smple mine", "sample"),
        (shellgan, "mine.toml --hurs 3", "--hours"),
        (shellgan, "mine.toml --yess", "--yes"),
        (shellgan, "mine.toml --generator.widht=3", "width"),
        (shellgan, "sample mine --truncatoin 1", "--truncation"),
    ],
)  # fmt: skip
def test_unknown_words_get_a_suggestion(
    tmp_path: Path, command: object, words: str, right: str
) -> None:
    make_run(tmp_path / "runs" / "mine", "dcgan")
    (tmp_path / "mine.toml").write_text(RECIPE)
    module = getattr(command, "__main__", command)
    said = run_here(module.main, tmp_path, *words.split())
    assert said.returncode == 2
    assert f"did you mean {right}?" in said.stderr


def test_a_required_option_that_is_spelled_right_is_not_suggested(tmp_path: Path) -> None:
    said = run_here(training.fit.main, tmp_path, "--seed", "1")
    assert said.returncode == 2
    assert "did you mean" not in said.stderr
