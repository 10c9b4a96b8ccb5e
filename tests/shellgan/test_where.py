"""Odd addresses and names, lists of shards, and shards that need options of training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import shellgan
from shellgan.__main__ import WORDS, main
from shellgan.journey import Options, read_index
from shellgan.where import find
from tests.helpers.commands import run_here
from tests.helpers.small_shards import encoded, tar_of

TINY = (
    "--yes", "--no-explorer", "--preset", "shells64", "--total-kimg", "0.008", "--batch", "8",
    "--generator.width", "4", "--discriminator.width", "4", "--threads", "1", "--resolution", "16",
    "--evaluate.kimg", "0",
)  # fmt: skip
MALFORMED: dict[str, Callable[[str], object]] = {
    "command": lambda url: find(url, Path.cwd(), WORDS),
    "propose": lambda url: shellgan.Recipe.propose(url, "some"),
    "load": lambda url: shellgan.Recipe.load(f"{url}.toml"),
    "stage": lambda url: shellgan.crawl(f"{url}.toml"),
}


@pytest.mark.parametrize("call", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_address_is_one_line(call: Callable[[str], object]) -> None:
    with pytest.raises(shellgan.UserError) as error:
        call("http://me:secret@[bad")
    assert str(error.value).startswith("http://[bad")
    assert str(error.value).endswith("not a URL (Invalid IPv6 URL); write it as "
                                     "https://HOST/PATH")  # fmt: skip


@pytest.mark.parametrize(
    "name", [b"a\nb", b"a\rb", b"a\x7fb", b"a\xffb"], ids=["line", "return", "delete", "bytes"]
)
def test_names_that_no_recipe_can_contain_are_refused(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    (folder / "0.png").write_bytes(encoded(0, 64, "PNG"))
    for place, where in ((tmp_path, name), (folder, b".")):
        said = run_here(main, place, where, "--out", str(tmp_path / "out"), "--yes")
        assert said.returncode == 2
        assert len(said.stderr.splitlines()) == 1
        assert said.stderr.endswith("bytes that are not UTF-8, in its name; rename it\n")
    assert [one for one in tmp_path.iterdir() if one != folder] == []


def test_each_part_of_a_list_of_shards_is_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for text, location in (
        ("a/*.tar, ../b/*.tar", f"{tmp_path}/here/a/*.tar,{tmp_path}/b/*.tar"),
        ("a/*.tar,s3://some/b.tar", f"{tmp_path}/here/a/*.tar,s3://some/b.tar"),
        ("s3://some/b.tar,a/*.tar", f"s3://some/b.tar,{tmp_path}/here/a/*.tar"),
        ("{a,b}.tar", f"{tmp_path}/here/{{a,b}}.tar"),
        ("a.tar,../b.tar", f"{tmp_path}/here/a.tar,{tmp_path}/b.tar"),
        ("a-?.tar", f"{tmp_path}/here/a-?.tar"),
    ):
        found = find(text, tmp_path / "out", WORDS)
        assert (found.kind, found.location) == ("shards", location)


@pytest.mark.parametrize("text", ["site.org/gallery?page=1", "Photos, 2023", "?", ","])
def test_what_is_neither_a_path_nor_shards_is_not_found(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        shellgan.UserError, match=r"not found; give an address \(https://…\), a path"
    ):
        find(text, tmp_path, WORDS)


def write_tar(path: Path, side: int, *names: str) -> None:
    members = {
        f"{number:04d}.{name}": encoded(number, side, "PNG")
        for number in range(16) for name in names
    }  # fmt: skip
    path.write_bytes(tar_of(members))


def test_shards_are_opened_with_the_options_of_training(tmp_path: Path) -> None:
    write_tar(tmp_path / "two-0.tar", 16, "a.png", "b.png")
    said = run_here(main, tmp_path, "two-*.tar", "--data.image", "b.png", "--out", "out", *TINY)
    assert said.returncode == 0, said.stderr
    config = tmp_path / "out" / "runs" / "two-shells64" / "config.json"
    assert json.loads(config.read_text())["config"]["data.image"] == "b.png"


@pytest.mark.parametrize("preset", ["auto", "shells64"])
@pytest.mark.parametrize("label", ["", "clusters:4"])
def test_images_of_several_sizes_are_resized(tmp_path: Path, preset: str, label: str) -> None:
    for side in (16, 20):
        write_tar(tmp_path / f"mixed-{side}.tar", side, "png")
    training = {"data.fit": "crop", "resolution": "16", "data.label": label}
    options = Options(tmp_path / "out", 1.0, preset, training)
    index = read_index(f"{tmp_path}/mixed-*.tar", options)
    assert (index.name, index.nsamples) == ("mixed", 32)


def test_the_first_screen_names_the_run_of_a_preset_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('extends = "shells64"\n')
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "0.png").write_bytes(encoded(0, 64, "PNG"))
    said = run_here(main, tmp_path, "some", "--preset", str(tmp_path / "my.toml"))
    (line,) = [one for one in said.stdout.splitlines() if one.split()[:1] == ["result"]]
    assert line.split()[1] == f"{tmp_path}/runs/some-my,"
