"""Sound: synthetic signals whose loudness, bass and onsets are known, and films that they drive."""

from __future__ import annotations

import json
import resource
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contract import UserError
from tests.helpers.untrained_runs import make_run
from training import directions, walk
from training.latent.audio import RATE, Sound, find_onsets, measure, read_sound
from training.latent.drive import drive_frames, parse_drives
from training.latent.sefa import Directions
from training.latent.space import build_latent_space
from training.latent.video import write_video
from training.networks import ImageShape, build_generator
from training.options.architectures import DcganGenerator

av = pytest.importorskip("av")
SECONDS = np.arange(6 * RATE) / RATE
TIMES = np.arange(180) / 30
CLICKS = [0.5, 1.2, 3.0, 3.25, 5.77]


def sound(samples: np.ndarray) -> Sound:
    return Sound(Path("made"), samples.astype(np.float32))


def tone(hertz: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * SECONDS)


def clicks() -> np.ndarray:
    samples = np.random.default_rng(0).normal(0, 1e-4, len(SECONDS))
    for second in CLICKS:
        samples[round(second * RATE)] += 0.8
    return samples


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def test_clicks_are_onsets_at_their_times() -> None:
    times, strengths = find_onsets(sound(clicks()))
    np.testing.assert_allclose(times, CLICKS, atol=0.015)
    assert strengths.min() > 0.8
    pulses = measure(sound(clicks()), TIMES)["onsets"]
    for second in CLICKS:
        frame = int(np.ceil((second + 0.015) * 30))
        assert pulses[frame] > 0.5
        assert pulses[frame - 2] < 0.4 * pulses[frame]


def test_notes_are_onsets_at_their_times() -> None:
    starts, samples = [1.0, 1.5, 2.5, 4.1], np.random.default_rng(0).normal(0, 1e-3, len(SECONDS))
    for start, hertz in zip(starts, [220, 330, 262, 392], strict=True):
        age = SECONDS - start
        samples += np.where(age >= 0, np.exp(-age.clip(0) / 0.3), 0) * tone(hertz)
    times, _ = find_onsets(sound(samples))
    np.testing.assert_allclose(times, starts, atol=0.02)


def test_a_steady_tone_has_one_onset_and_silence_none() -> None:
    assert len(find_onsets(sound(tone(440)))[0]) <= 1  # its start
    assert not len(find_onsets(sound(SECONDS * 0))[0])
    silence = measure(sound(SECONDS * 0), TIMES)
    assert all(not level.any() for level in silence.values())


def test_loudness_follows_a_known_envelope() -> None:
    """5 dB less per second are an eighth of the range of 40 dB."""
    level = measure(sound(10 ** (-5 * SECONDS / 20) * tone(440)), TIMES)["loudness"]
    middle = slice(10, -10)
    np.testing.assert_allclose(np.diff(level[middle]) * 30, -5 / 40, atol=0.002)
    assert level.max() == 1


def test_bass_is_what_is_below_150_hz() -> None:
    inside = slice(5, -5)  # the tone begins and ends suddenly
    low, high = measure(sound(tone(60)), TIMES), measure(sound(tone(1000)), TIMES)
    assert low["bass"][inside].min() > 0.99
    assert high["loudness"][inside].min() > 0.99
    assert high["bass"][inside].max() == 0
    both = measure(sound(tone(60) * (SECONDS > 3) + 0.3 * tone(1000)), TIMES)["bass"]
    assert both[5:80].max() == 0
    assert both[100:175].min() > 0.9


def test_every_format_and_rate_is_read(tmp_path: Path) -> None:
    whole = read_sound(write_wav(tmp_path / "a.wav", tone(440)[:RATE], RATE))
    again = read_sound(write_wav(tmp_path / "b.wav", tone(440)[:RATE:2], RATE // 2))
    assert whole.seconds == pytest.approx(1, abs=0.001)
    assert again.seconds == pytest.approx(1, abs=0.01)
    assert abs(whole.samples).max() == pytest.approx(0.5, abs=0.01)
    path = tmp_path / "c.ogg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        samples = np.repeat(tone(440)[:RATE], 2)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert read_sound(path).seconds == pytest.approx(1, abs=0.05)


def test_drives_change_truncation_speed_and_directions() -> None:
    made = sound(tone(440) * (SECONDS > 3))
    found = Directions(torch.eye(3, 8), torch.ones(3), ())
    drives = parse_drives("loudness:truncation:0.4,loudness:speed:3,loudness:2:1.5,bass:1:2")
    driven = drive_frames(drives, made, TIMES, 0.8, found, std=2.0)
    quiet, loud = 30, 150
    assert driven.psi[[quiet, loud]] == pytest.approx([0.8 * 0.6, 0.8], abs=0.01)
    assert driven.rates[[quiet, loud]] == pytest.approx([1, 4], abs=0.05)
    (second, amounts), (first, none) = driven.moves
    assert (second, first) == (1, 0)
    assert amounts[[quiet, loud]] == pytest.approx([0, 3], abs=0.05)
    assert none[[quiet, loud]] == pytest.approx([0, 0], abs=0.05)
    generator = build_generator(DcganGenerator(width=4, z_dim=8), ImageShape(16, 16, 3, 0)).eval()
    ws = torch.ones(2, 1, 8)
    moved = driven.change(build_latent_space(generator, "gaussian", 0), loud, ws)[:, 0]
    wanted = torch.full((2, 8), 0.8)
    wanted[:, 1] += 3
    torch.testing.assert_close(moved, wanted, atol=0.06, rtol=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "made", "stylegan2")


def test_a_film_has_its_sound_and_follows_it(run: Path, tmp_path: Path) -> None:
    """The images change faster after each click, and the same inputs give the same file."""
    source, out = write_wav(tmp_path / "clicks.wav", clicks()), tmp_path / "walk.mp4"
    arguments = [
        str(run), "--audio", str(source), "--out", str(out), "--fps", "30", "--device", "cpu",
        "--drive", "onsets:speed:30", "--speed", "pixels",
    ]  # fmt: skip
    assert walk.main(arguments) == 0
    first = out.read_bytes()
    assert walk.main(arguments) == 0
    assert out.read_bytes() == first
    with av.open(str(out)) as container:
        film = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert len(film) == 180
    heard = read_sound(out)
    assert heard.seconds == pytest.approx(6, abs=0.05)
    np.testing.assert_allclose(find_onsets(heard)[0], CLICKS, atol=0.05)
    change = abs(np.diff(film.astype(float), axis=0)).mean(axis=(1, 2))
    after = [int(second * 30) + step for second in CLICKS for step in (1, 2, 3)]
    assert change[after].mean() > 3 * np.delete(change, after).mean()


def test_directions_of_a_file_drive_a_film(run: Path, tmp_path: Path) -> None:
    written, out = tmp_path / "found.json", tmp_path / "walk.mp4"
    source = write_wav(tmp_path / "low.wav", tone(60)[:RATE])
    sheet = ["--out", str(tmp_path / "sheet.png"), "--device", "cpu"]
    assert directions.main([str(run), "--k", "2", "--json", str(written), *sheet]) == 0
    plain = [str(run), "--audio", str(source), "--out", str(out), "--device", "cpu", "--drive"]

    def film(*more: str) -> bytes:
        assert walk.main([*plain, *more]) == 0
        return out.read_bytes()

    strongest = film("bass:2:2")
    assert film("bass:2:2", "--directions", str(written)) == strongest
    assert film("bass:2:0") != strongest
    values = json.loads(written.read_text())
    values["vectors"].reverse()
    written.write_text(json.dumps(values))
    assert film("bass:1:2", "--directions", str(written)) == strongest


def test_a_playlist_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_wav(Path("other.wav"), tone(60))
    Path("list.wav").write_text("ffconcat version 1.0\nfile other.wav\n")
    with pytest.raises(UserError, match=r"list.wav: cannot be read as sound"):
        read_sound(Path("list.wav"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--audio", "none.wav"], "none.wav: cannot be read as sound (No such file"),
        (["--audio", "text.wav"], "text.wav: cannot be read as sound (Invalid data"),
        (["--audio", "mute.mp4"], "mute.mp4: has no sound; give a file with an audio stream"),
        (["--audio", "empty.wav"], "empty.wav: its sound is empty"),
        (["--drive", "bass:7:2"], "--drive bass:7: there is no direction 7; choose from 1 to 6"),
        (["--drive", "bass:size:2"], "--drive bass:size:2: must be SIGNAL:TARGET:AMOUNT"),
        (["--drive", "treble:1:2"], "--drive treble:1:2: must be SIGNAL:TARGET:AMOUNT"),
        (["--drive", "bass:1:much"], "--drive bass:1: much: must be a number"),
        (["--drive", "bass:speed:-1"], "--drive bass:speed: -1: must be a number from 0"),
        (["--directions", "text.wav"], "text.wav: not a file of directions"),
        (["--directions", "other.json"], "other.json: its directions are those of another"),
        (["--directions", "none.json"], "none.json: cannot be read"),
    ],
)
def test_wrong_sounds_and_drives_are_refused_in_one_line(
    options: list[str], said: str, run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_wav(Path("good.wav"), tone(60)[:RATE])
    write_wav(Path("empty.wav"), tone(60)[:0])
    Path("text.wav").write_text("no sound")
    Path("other.json").write_text('{"layers": [], "strengths": [1], "vectors": [[1, 0]]}')
    plain = [str(run), "--out", "mute.mp4", "--steps", "2", "--device", "cpu"]
    if "mute.mp4" in options:
        assert walk.main(plain) == 0
    capsys.readouterr()
    arguments = [str(run), "--audio", "good.wav", "--out", "a.mp4", "--device", "cpu", *options]
    assert walk.main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("a.mp4").exists()


@pytest.mark.parametrize("with_sound", [False, True])
def test_a_full_disk_names_the_film(with_sound: bool, tmp_path: Path) -> None:
    made = read_sound(write_wav(tmp_path / "a.wav", clicks())) if with_sound else None
    film = np.random.default_rng(0).integers(0, 256, (48, 256, 256, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_video(tmp_path / "walk.mp4", film, 24, made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "walk.mp4")
    assert not list(tmp_path.glob("*.mp4"))


def test_sound_without_pyav_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="sound needs PyAV"):
        read_sound(Path("a.wav"))
