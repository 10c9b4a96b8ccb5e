"""The commands on latents, on a small trained run."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.small_shards import SmallShards
from tests.helpers.training_runs import fit_here
from tests.helpers.untrained_runs import make_run
from training import directions, explore, mix, nearest, project, sample, walk

COMMANDS = {
    "sample": sample, "walk": walk, "mix": mix, "directions": directions, "nearest": nearest,
    "project": project, "explore": explore,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run `tiny` is, which no test changes."""
    folder = tmp_path_factory.mktemp("work")
    shards = SmallShards(folder / "set", labels=("cone", "whelk"))
    condition = ("--generator.condition", "norm", "--discriminator.condition", "projection")
    with contextlib.chdir(folder):
        assert fit_here("tiny", shards, "--total-kimg", "0.04", *condition) == 0
    make_run(folder / "runs" / "styled", "stylegan2")
    return folder


@pytest.fixture
def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder / "runs" / "tiny"


def drawn(command: str, out: Path, *arguments: str) -> np.ndarray:
    assert COMMANDS[command].main(["tiny", *arguments, "--out", str(out)]) == 0
    return np.asarray(Image.open(out))


def test_sheets_have_their_rows_and_columns(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert drawn("sample", out, "--numbers", "1-5", "--truncation", "0,0.5,1").shape == (48, 80, 3)
    assert drawn("walk", out, "--numbers", "1-3", "--steps", "6").shape == (32, 96, 3)
    assert drawn("mix", out, "--rows", "1,2", "--columns", "5-7").shape == (48, 64, 3)
    both = drawn("directions", out, "--k", "2", "--numbers", "4,9", "--json", str(tmp_path / "d"))
    assert both.shape == (64, 112, 3)
    written = json.loads((tmp_path / "d").read_text())
    assert np.linalg.norm(written["vectors"], axis=1) == pytest.approx([1, 1])
    assert written["strengths"][0] >= written["strengths"][1]


def test_a_number_is_the_same_picture_everywhere(trained: Path, tmp_path: Path) -> None:
    one = drawn("sample", tmp_path / "a.png", "--numbers", "7", "--label", "whelk")
    walked = drawn("walk", tmp_path / "b.png", "--numbers", "7,8", "--label", "1")
    mixed = drawn("mix", tmp_path / "c.png", "--rows", "7", "--columns", "8", "--label", "whelk")
    changed = drawn("directions", tmp_path / "d.png", "--numbers", "7", "--label", "whelk")
    for other in (walked[:16, :16], mixed[16:32, :16], changed[:16, 48:64]):
        assert abs(other.astype(int) - one).max() <= 1
    other = drawn("sample", tmp_path / "e.png", "--numbers", "7", "--label", "cone")
    assert (other != one).any()


def test_films(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk.gif"
    arguments = ["--numbers", "1-3", "--steps", "4", "--scale", "2", "--out", str(out)]
    assert walk.main(["tiny", *arguments]) == 0
    with Image.open(out) as film:
        assert (film.n_frames, film.size) == (12, (32, 32))
    assert walk.main(["tiny", *arguments, "--no-loop"]) == 0
    with Image.open(out) as film:
        assert film.n_frames == 9


@pytest.mark.slow
@pytest.mark.parametrize("by", ["pixels", "features"])
def test_a_training_image_is_nearest_to_itself(by: str, small_shards: Callable[..., Any]) -> None:
    import torch

    from training.latent.neighbours import as_images, choose_embedding, embed_all
    from training.streaming.dataset import open_shard_dataset

    source = open_shard_dataset(small_shards(sizes=(9, 7)).manifest, 0)
    describe = choose_embedding(by, torch.device("cpu"))
    every = embed_all(source, describe)
    assert len(every.vectors) == 16
    pictures = every.images([0, 9, 15])
    assert [int(p[0, 0, 0]) * 256 + int(p[0, 1, 0]) for p in pictures] == [
        0,
        9,
        15,
    ]  # as it was drawn
    distances, places = every.nearest(describe(as_images(pictures)), 3)
    assert places[:, 0].tolist() == [0, 9, 15]
    assert distances[:, 0].max() < 1e-3 < distances[:, 1].min()


def test_nearest_and_project(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = drawn(
        "nearest", tmp_path / "n.png", "--numbers", "1,2", "--k", "3", "--distance", "pixels"
    )
    assert sheet.shape == (32, 64, 3)
    said = capsys.readouterr().out.splitlines()
    near = [float(part) for part in said[0].removeprefix("1: ").split(",")]
    assert len(near) == 3
    assert near == sorted(near)
    image = tmp_path / "own.png"
    drawn("sample", image, "--numbers", "9", "--label", "cone")
    options = ["--steps", "60", "--distance", "pixels", "--ws", str(tmp_path / "ws.safetensors")]
    both = drawn("project", tmp_path / "p.png", str(image), *options)
    assert both.shape == (16, 32, 3)
    assert (both[:, :16] == np.asarray(Image.open(image))).all()
    last = capsys.readouterr().out.splitlines()[-2]
    distance, start = (float(word.strip(";")) for word in last.split() if word[0].isdigit())
    assert 0 < distance < start
    from safetensors.torch import load_file

    assert load_file(tmp_path / "ws.safetensors")["ws"].shape == (1, 1, 8)


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("sample", ["tiny", "--out", "x.tiff"], "--out x.tiff"),
        ("sample", ["tiny", "--out", "x.png", "--truncation", "much"], "--truncation much"),
        ("sample", ["tiny", "--out", "x.png", "--label", "snail"], "cone, whelk"),
        ("sample", ["tiny", "--out", "x.png", "--label", "9" * 5000], "unknown class"),
        ("sample", ["none", "--out", "x.png", "--numbers", "1", "--n", "1"], "--n: --numbers"),
        ("sample", ["none", "--out", "x.png", "--numbers", "1", "--seed", "0"], "--seed: --num"),
        ("walk", ["none", "--out", "x.png", "--fps", "3"], "--fps: only for a video"),
        ("walk", ["none", "--out", "x.png", "--no-loop"], "--no-loop: only for a video"),
        ("walk", ["none", "--out", "x.png", "--background", "#000000"], "--background: only for"),
        ("walk", ["none", "--out", "x.gif", "--fps", "51"], "x.gif: a .gif has at most 50"),
        ("mix", ["styled", "--out", "x.png", "--share", "0"], "has a mapping; use --layer"),
        ("walk", ["tiny", "--out", "x.txt"], "--out x.txt"),
        ("walk", ["tiny", "--out", "x.png", "--space", "w"], "has no mapping"),
        ("walk", ["tiny", "--out", "x.png", "--numbers", "3"], "at least two"),
        ("walk", ["nowhere", "--out", "x.png"], "no run there"),
        ("mix", ["tiny", "--out", "x.png", "--layer", "2"], "has no mapping"),
        ("mix", ["tiny", "--out", "x.png", "--rows", "b"], "--rows b"),
        ("directions", ["tiny", "--out", "x.png", "--layers", "3"], "layers 0 to 0"),
        ("directions", ["tiny", "--out", "x.png", "--layers", ""], "--layers :"),
        ("nearest", ["tiny", "--out", "x.png", "--shards", "no"], "no shard index"),
        ("project", ["tiny", "no.png", "--out", "x.png"], "no.png: cannot be read as an image"),
        ("project", ["tiny", "bomb.png", "--out", "x.png"], "bomb.png: is no image that can"),
        ("project", ["tiny", "no.png", "--out", "x.png", "--w-plus"], "has no mapping"),
        ("sample", ["tiny", "--out", "x.webp", "--n", "1024", "--truncation", "0,1"], "16384×32"),
        ("sample", ["tiny", "--out", "x.jpg", "--n", "4094", "--truncation", "0,1"], "65504×32"),
        ("walk", ["tiny", "--out", "x.jpg", "--steps", "2047", "--scale", "2"], "65504×96"),
        ("nearest", ["tiny", "--out", "x.webp", "--k", "1023"], "16384×96"),
        ("directions", ["tiny", "--out", "x.webp", "--steps", "1024"], "16384×96"),
        # before anything is loaded: this run is not there
        ("sample", ["none", "--out", "folder.png"], "--out folder.png: is a folder"),
        ("sample", ["none", "--out", "file/a/b.png"], "--out file/a/b.png: cannot be written"),
        ("walk", ["none", "--out", "/proc/a.gif"], "--out /proc/a.gif: cannot be written"),
        ("mix", ["none", "--out", f"{'x' * 255}.png"], "cannot be written"),
        (
            "project",
            ["none", "no", "--out", "x.png", "--ws", "folder.png"],
            "--ws folder.png: is",
        ),
        ("directions", ["none", "--out", "x.png", "--json", "file/a"], "--json file/a: cannot"),
    ],
)
def test_mistakes_are_one_line(
    trained: Path, command: str, arguments: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("folder.png").mkdir(exist_ok=True)
    Path("file").touch()
    Path("bomb.png").write_bytes(png_header(20_000, 20_000))
    before = sorted(Path().iterdir())
    assert_refused(command, arguments, said, capsys)
    assert sorted(Path().iterdir()) == before


def png_header(width: int, height: int) -> bytes:
    """A gray PNG of that size, without its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc


def assert_refused(
    command: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert COMMANDS[command].main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "option", "bad"),
    [
        ("sample", "--n", ["0", "much", "1e3", str(2**70)]),
        ("sample", "--seed", ["-1", str(2**63), str(2**70)]),
        ("sample", "--truncation", ["nan", "1,inf", "", "1e3"]),
        ("sample", "--numbers", ["", "9" * 5000]),
        ("walk", "--steps", ["0", "1"]),
        ("walk", "--fps", ["0", "101"]),
        ("walk", "--scale", ["0", "17"]),
        ("walk", "--truncation", ["nan", "much"]),
        ("mix", "--share", ["nan", "-0.1", "1.1"]),
        ("nearest", "--k", ["0"]),
        ("directions", "--k", ["0"]),
        ("directions", "--steps", ["1"]),
        ("directions", "--amount", ["0", "nan", "inf", "1e39"]),
        ("project", "--steps", ["0"]),
        ("project", "--seed", [str(2**70)]),
        ("explore", "--port", ["-1", "65536"]),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    command: str, option: str, bad: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    most = ["none", *["image"] * (command == "project")]
    out = ["--out", "x.png"] * (command != "explore")
    for value in bad:
        wrong = value.rpartition(",")[2] if option == "--truncation" else value
        said = f"{option} {wrong}: "
        assert_refused(command, [*most, *out, f"{option}={value}"], said, capsys)


@pytest.mark.parametrize(
    ("command", "option", "good"),
    [
        ("sample", "--n", ["1", "65536"]),
        ("sample", "--seed", ["0", str(2**63 - 1)]),
        ("sample", "--truncation", ["0", "-1,0.5,2"]),
        ("walk", "--steps", ["2"]),
        ("mix", "--share", ["0", "1"]),
        ("directions", "--amount", ["0.001", "30"]),
        ("project", "--steps", ["1"]),
    ],
)
def test_the_ends_of_the_ranges_are_good(
    command: str, option: str, good: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    most = ["none", *["image"] * (command == "project"), "--out", "x.png"]
    for value in good:
        assert_refused(command, [*most, f"{option}={value}"], "none/config.json: no run", capsys)
