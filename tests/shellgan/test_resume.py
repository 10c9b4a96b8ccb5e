"""Interrupted or killed in crawl or download, the command resumes; nothing is fetched twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.demo.gallery import ServedGallery, serve
from tests.helpers.plain_gallery import plain_gallery
from tests.helpers.processes import child_env

COUNT = 120
RECIPE = """[source]
kind = "html"
start = ["{url}"]
follow = ["li.species-card a"]
next = "a[rel~=next]"
image = "a[href$='.jpg' i]"

[politeness]
rate = 20
allow_private = true

[select]
min_side = 64

[shards]
resolution = 32
"""
TINY = ("--yes", "--no-explorer", "--preset", "shells64", "--threads", "1")


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[ServedGallery]:
    with serve(plain_gallery(COUNT, 7, tmp_path / "drawn")) as served:
        yield served


def run_until(folder: Path, beginning: str, number: int) -> None:
    """Run the command until a line begins so, and send it a signal."""
    child = subprocess.Popen(
        [sys.executable, "-m", "shellgan", "mine.toml", *TINY],
        cwd=folder, env=child_env(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith(beginning):
            child.send_signal(number)
            break
    said.append(child.stderr.read())
    child.stderr.close()
    expected = 130 if number == signal.SIGINT else -number
    assert child.wait() == expected, "".join(said)


def fetched(gallery: ServedGallery) -> Counter[str]:
    return Counter(path for path in gallery.requests if "robots" not in path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_in_each_stage_of_the_network(
    tmp_path: Path, gallery: ServedGallery, number: signal.Signals
) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.format(url=gallery.url))
    for stage in ("[1 of 6] crawl: ", "[2 of 6] download: "):
        run_until(tmp_path, stage, number)
    run_until(tmp_path, "[3 of 6] select: ", signal.SIGKILL)
    # requests in flight when it was interrupted are repeated
    repeated = {path: count for path, count in fetched(gallery).items() if count > 1}
    assert sum(count - 1 for count in repeated.values()) <= 8, repeated
    with_images = [path for path in fetched(gallery) if "/images/full/" in path]
    assert len(with_images) >= 100
    before = fetched(gallery)
    run_until(tmp_path, "[3 of 6] select: ", signal.SIGKILL)
    assert fetched(gallery) == before
