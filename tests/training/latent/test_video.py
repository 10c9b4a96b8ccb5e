"""Films that other programs can read."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.contract import UserError
from training import walk
from training.latent.video import write_video


def frames(channels: int, size: int = 33) -> np.ndarray:
    """A bright square that moves over a dark ground."""
    film = np.full((9, size, size, channels), 40, dtype=np.uint8)
    for number in range(9):
        film[number, 4:20, number * 2 : number * 2 + 12] = 200
    return film


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations(ending: str, channels: int, tmp_path: Path) -> None:
    film, path = frames(channels), tmp_path / f"walk.{ending}"
    write_video(path, film, 20)
    with Image.open(path) as image:
        assert image.n_frames == 9
        assert image.info["loop"] == 0
        for number in range(9):
            image.seek(number)
            seen = np.asarray(image.convert("RGB")).astype(int)
            assert image.info["duration"] == 50
            assert abs(seen - film[number]).mean() < 4


@pytest.mark.parametrize("channels", [1, 3])
def test_mp4(channels: int, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    film, path = frames(channels), tmp_path / "walk.mp4"
    write_video(path, film, 25)
    with av.open(io.BytesIO(path.read_bytes())) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 25
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(seen) == 9
    assert seen[0].shape == (34, 34, 3)  # even sides: half-resolution colour wants them
    for number in range(9):
        assert abs(seen[number][:33, :33].astype(int) - film[number]).mean() < 6


def test_an_mp4_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Memory that other work has used does not change a film that is nine blocks of 16 px wide."""
    pytest.importorskip("av")
    rng, written = np.random.default_rng(0), set()
    blocks = 128 + rng.normal(0, 9, (60, 9, 9, 3)).cumsum(axis=0)
    film = blocks.clip(0, 255).astype(np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    for _ in range(8):
        used = [rng.bytes(int(count)) for count in rng.integers(100, 200_000, 100)]
        del used
        write_video(tmp_path / "walk.mp4", film, 30)
        written.add(hash((tmp_path / "walk.mp4").read_bytes()))
    assert len(written) == 1


@pytest.mark.parametrize(("ending", "fps"), [("gif", 24), ("gif", 30), ("gif", 50), ("webp", 60)])
def test_animations_have_the_given_rate(ending: str, fps: int, tmp_path: Path) -> None:
    """A GIF counts hundredths of a second, so that its frames are not all shown equally long."""
    film, path = np.concatenate([frames(1), frames(1)[::-1]] * 2), tmp_path / f"walk.{ending}"
    write_video(path, film, fps)
    total = 0
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            total += image.info["duration"]
    assert total == pytest.approx(len(film) * 1000 / fps, abs=5 if ending == "gif" else 1)


def test_mp4_without_pyav_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert walk.main(["none", "--out", "walk.mp4"]) == 2
    said = "error: walk.mp4: mp4 needs PyAV: pip install 'shellgan[video]'\n"
    assert capsys.readouterr().err == said


def test_a_gif_of_more_than_50_frames_per_second_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"walk\.gif: a \.gif has at most 50 frames per second, not"
    ):
        write_video(tmp_path / "walk.gif", frames(3), 51)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="avi"):
        write_video(tmp_path / "walk.avi", frames(3), 20)
