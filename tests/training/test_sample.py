"""The commands after training: sample grids and the report of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import checkpoint, sample
from training.grid import tile
from training.report import curves, thin, write_report
from training.runs import Run


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
        (["tiny", "--n", "0"], "--n: at least 1"),
        (["empty"], "runs/empty/checkpoints: no whole checkpoint"),
        (["torn"], "runs/torn/config.json: not"),
    ],
)
def test_sample_says_what_is_missing(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("empty", (trained / "config.json").read_text()), ("torn", "{")):
        (trained.parent / name).mkdir()
        (trained.parent / name / "config.json").write_text(text)
    assert sample.main([*arguments, "--out", "x.png"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_sample_falls_back_to_a_whole_checkpoint(trained: Path, tmp_path: Path) -> None:
    newest = checkpoint.listed(trained / "checkpoints")[0]
    newest.data.write_bytes(b"")
    assert sample.main(["tiny", "--n", "1", "--out", str(tmp_path / "a.png")]) == 0


class Page(HTMLParser):
    """The open elements, the references and the scripts of a page."""

    VOID = frozenset({"meta", "img", "input", "br", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.images = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.images += tag == "img"
        named = dict(attrs)
        self.references += [v for k, v in named.items() if k in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def test_the_report_is_one_self_contained_page(trained: Path) -> None:
    text = (trained / "report.html").read_text()
    page = Page(text)
    assert set(page.open) <= {"html"}  # all other elements are closed
    assert page.images
    assert all(value.startswith("data:") for value in page.references)
    outside = re.sub(r"http://www\.w3\.org/\d+/\w+", "", text)  # names, not addresses
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", outside.partition("<table")[0])
    assert "url(" not in text
    assert "@import" not in text
    data = json.loads(page.scripts[0])
    rows = [json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()]
    assert data["curves"]["loss_d"] == [row["loss_d"] for row in rows]
    grids = sorted(int(path.stem) / 1000 for path in (trained / "samples").glob("*.png"))
    assert [frame["kimg"] for frame in data["frames"]] == grids
    assert "</script><b>whelk" not in text  # labels are escaped


def test_a_report_of_a_long_run_stays_small(trained: Path) -> None:
    picture = next((trained / "samples").glob("*.png")).read_bytes()
    for number in range(100):
        (trained / "samples" / f"{number + 1000:010d}.png").write_bytes(picture)
    rows = [{"seen": n, "images_per_second": 1.0, "loss_d": n / 7, "loss_g": 1.0}
            for n in range(5000)]  # fmt: skip
    write_report(Run(trained), rows)
    text = (trained / "report.html").read_text()
    data = json.loads(Page(text).scripts[0])
    assert len(data["frames"]) == 24
    assert data["frames"][-1]["kimg"] == 1.099
    assert len(data["curves"]["seen"]) == 600
    assert data["curves"]["seen"][-1] == 4999


def test_thin_and_curves_and_tile() -> None:
    assert thin(3, 5) == [0, 1, 2]
    assert thin(100, 3) == [0, 50, 99]
    assert curves([{"seen": 1}, {"seen": 2, "r1": 3.0}]) == {"seen": [1, 2], "r1": [None, 3.0]}
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    grid = tile(images)
    assert grid.shape == (4, 4, 3)
    assert [grid[0, 0, 0], grid[0, 2, 0], grid[2, 0, 0], grid[2, 2, 0]] == [0, 1, 2, 0]
