"""The page about a run."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.shards.card import card_page
from training import report
from training.latent.neighbours import Neighbours
from training.pretrained.inference import load_generator
from training.report import (
    ReportExtras,
    curves,
    evenly_spaced,
    latest_quality_metrics,
    write_report,
)
from training.reporting.figures import STEPS, WAYS, RealNeighbours, ReportFigures, interpolation
from training.runs import Run
from training.streaming.dataset import open_shard_dataset


@pytest.fixture
def trained(tmp_path: Path, small_shards: Callable[..., Any], in_process: Any) -> Path:
    run = tmp_path / "runs" / "tiny"
    shards = small_shards(labels=("cone", "</script><b>whelk"))
    assert in_process(run, shards, "--total-kimg", "0.08") == 0
    return run


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


def test_the_report_shows_ways_neighbours_cost_and_the_card(trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "contact.jpg")
    card = card_page("# Shells\n\n![samples](contact.jpg)\n\n<b>no</b>\n", tmp_path)
    (tmp_path / "card.html").write_text(card)
    (tmp_path / "shards.json").write_text("{}")
    described = json.loads((trained / "config.json").read_text())
    described["dataset"]["location"] = str(tmp_path)
    described["config"]["price_per_hour"] = 3.0
    (trained / "config.json").write_text(json.dumps(described))
    pixels = np.zeros((8, 16, 3), np.uint8)
    write_report(Run(trained), [], ReportExtras(1800.0, ReportFigures(pixels, pixels, 77)))
    page = (trained / "report.html").read_text()
    assert "1.50</b>" in page  # half an hour at 3
    assert "among 77 images" in page
    assert "<h1>Shells</h1>" in page
    assert "<b>no</b>" not in page  # the card's text is no markup
    assert all(one.startswith("data:") for one in re.findall(r'src="([^"]*)"', page))
    write_report(Run(trained), [], ReportExtras(0.0, ReportFigures(pixels[..., :1], None)))
    assert "Nearest training images" not in (trained / "report.html").read_text()


def test_frames_are_embedded_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 reports, each after one more grid."""
    picture = next((trained / "samples").glob("*.png")).read_bytes()
    encoded, encode, frames = list[Path](), report.embed, report.FrameCache()

    def noted(path: Path) -> str:
        encoded.append(path)
        return encode(path)

    monkeypatch.setattr(report, "embed", noted)
    paths = [trained / "samples" / f"{number:010d}.png" for number in range(200)]
    for number, path in enumerate(paths):
        path.write_bytes(picture)
        chosen = [paths[index] for index in report.spread_frames(number + 1, 24)]
        assert (chosen[0], chosen[-1]) == (paths[0], path)
        assert len(frames.select(chosen)) <= 24
    assert len(encoded) <= 200
    assert max(Counter(encoded).values()) <= 2  # forgotten as the newest, and then one of a step
    Image.new("RGB", (8, 8)).save(paths[-1])  # again, after a rollback
    os.utime(paths[-1], ns=(1, 1))
    assert frames.select(paths[-1:]) == [encode(paths[-1])]
    assert report.spread_frames(0, 24) == []


def test_a_report_without_rows_says_when_the_first_come(trained: Path) -> None:
    write_report(run := Run(trained), [])
    assert "no values yet: the first follow after 16 images (record.log_kimg)" in (
        run.report.read_text()
    )


def test_thin_and_curves() -> None:
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(100, 3) == [0, 50, 99]
    assert curves([{"seen": 1}, {"seen": 2, "r1": 3.0}]) == {"seen": [1, 2], "r1": [None, 3.0]}


def test_rare_measures_stay_in_the_curves() -> None:
    rows = [{"seen": number} for number in range(5000)]
    rows[1234]["fd_efficientnet_lite0"] = 9.5
    assert 9.5 in curves(rows)["fd_efficientnet_lite0"]
    assert latest_quality_metrics(rows) == {"fd_efficientnet_lite0": 9.5}


def test_ways_and_neighbours_are_what_they_say(trained: Path) -> None:
    known = load_generator(str(trained), torch.device("cpu"))
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(64, known.generator.z_dim, generator=random)
    labels = torch.zeros(64, dtype=torch.long)
    assert interpolation(known.space, latents[:1], labels[:1]) is None
    ways = interpolation(known.space, latents, labels)
    assert ways is not None
    size = known.shape.height
    assert ways.shape == (WAYS * size, STEPS * size, known.shape.channels)
    ends = known.space.generate(known.space.map(latents[:2], labels[:2]), labels[:2])
    assert np.abs(ways[:size, :size].astype(int) - ends[0]).max() <= 1
    assert np.abs(ways[:size, -size:].astype(int) - ends[1]).max() <= 1
    described = json.loads((trained / "config.json").read_text())
    source = open_shard_dataset(described["dataset"]["location"], size)
    real = RealNeighbours(source)
    some = Neighbours(source, torch.zeros(0), [(0, 3), (0, 5)]).images([0, 1])
    sheet = real.sheet(some)
    assert real.count == source.index.nsamples
    assert np.array_equal(sheet[:size, size : 2 * size], some[0])  # a real image is its nearest
    assert np.array_equal(sheet[size:, size : 2 * size], some[1])


def test_a_report_of_a_long_run_stays_small(trained: Path) -> None:
    picture = next((trained / "samples").glob("*.png")).read_bytes()
    for number in range(100):
        (trained / "samples" / f"{number + 1000:010d}.png").write_bytes(picture)
    rows = [{"seen": n, "images_per_second": 1.0, "loss_d": n / 7, "loss_g": 1.0}
            for n in range(5000)]  # fmt: skip
    write_report(Run(trained), rows)
    text = (trained / "report.html").read_text()
    data = json.loads(Page(text).scripts[0])
    assert 12 < len(data["frames"]) <= 24
    assert data["frames"][0]["kimg"] == 0
    assert data["frames"][-1]["kimg"] == 1.099
    assert len(data["curves"]["seen"]) == 600
    assert data["curves"]["seen"][-1] == 4999
