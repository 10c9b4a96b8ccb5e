"""The commands after training: sample grids and the report of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import checkpoint, sample
from training.grid import make_grid


@pytest.fixture
def trained(tmp_path: Path, small_shards: Callable[..., Any], in_process: Any) -> Path:
    run = tmp_path / "runs" / "tiny"
    shards = small_shards(labels=("cone", "</script><b>whelk"))
    assert in_process(run, shards, "--total-kimg", "0.08") == 0
    return run


def test_sample_draws_what_the_run_drew(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "grid.png"
    assert sample.main(["tiny", "--n", "4", "--seed", "0", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    grid = np.asarray(Image.open(out))
    assert grid.shape == (32, 32, 3)
    newest = max((trained / "samples").glob("*.png"))
    assert np.array_equal(grid, np.asarray(Image.open(newest)))  # same seed, same latents
    other = tmp_path / "other.png"
    assert sample.main([str(trained), "--n", "5", "--seed", "1", "--out", str(other)]) == 0
    drawn = np.asarray(Image.open(other))
    assert drawn.shape == (32, 48, 3)
    assert not np.array_equal(drawn[:32, :32], grid)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "runs/nowhere/config.json: no run there"),
        (["tiny", "--n", "0"], "--n 0: must be an integer from 1"),
        (["empty"], "runs/empty/checkpoints: no checkpoint yet"),
        (["torn"], "runs/torn/config.json: not"),
        (["list"], "runs/list/config.json: not a run's configuration"),
        (["bare"], "runs/bare/config.json: dataset.channels: missing"),
        (["./runs/empty/config.json"], "runs/empty/config.json/config.json: no run there"),
    ],
)
def test_sample_says_what_is_missing(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (trained / "config.json").read_text()
    bare = '{"config": {}, "dataset": {}}'
    for name, text in (("empty", whole), ("torn", "{"), ("list", "[]"), ("bare", bare)):
        (trained.parent / name).mkdir()
        (trained.parent / name / "config.json").write_text(text)
    assert sample.main([*arguments, "--out", "x.png"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_sample_falls_back_to_a_whole_checkpoint(trained: Path, tmp_path: Path) -> None:
    newest = checkpoint.list_checkpoints(trained / "checkpoints")[0]
    newest.data_path.write_bytes(b"")
    assert sample.main(["tiny", "--n", "1", "--out", str(tmp_path / "a.png")]) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_make_grid(channels: int) -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, channels), np.uint8
    )
    grid = make_grid(images)
    assert grid.shape == (4, 4, channels)
    assert [grid[0, 0, 0], grid[0, 2, 0], grid[2, 0, 0], grid[2, 2, 0]] == [0, 1, 2, 0]
    row = np.concatenate(list(images), axis=1)
    np.testing.assert_array_equal(make_grid(images, 3), row)
