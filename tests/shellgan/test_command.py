"""The command: from a folder to an evaluated run, resumed; and what it refuses."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from pipeline.contract import load_index
from pipeline.errors import UserError
from shellgan.__main__ import FORWARDED, WORDS, _training_options, main, parser
from shellgan.journey import Line
from shellgan.where import check_owner, find
from tests.helpers.commands import run_here
from tests.helpers.processes import child_env
from tests.helpers.small_shards import SmallShards, picture
from tests.helpers.static_site import served
from tests.helpers.untrained_runs import make_run

IMPORTS = Path(__file__).parents[1] / "data" / "imports"
TINY = (
    "--yes", "--no-explorer", "--preset", "shells64", "--total-kimg", "0.016", "--batch", "8",
    "--generator.width", "4", "--discriminator.width", "4", "--record.log_kimg", "0.008",
    "--threads", "1",
)  # fmt: skip


def shellgan(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_here(main, folder, *words)


def write_pictures(folder: Path, count: int, size: int = 64) -> None:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(number, size)).save(folder / f"{number}.png")


def test_a_folder_to_an_evaluated_run_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "My Shells", 100)
    done = shellgan(tmp_path, "My Shells", "--out", "all", *TINY)
    assert done.returncode == 0, done.stderr
    assert "[1 of 5] import: 100 images" in done.stderr
    assert "[5 of 5] evaluate:" in done.stderr
    assert "lower is better" in done.stdout
    run = tmp_path / "all" / "runs" / "my-shells-shells64"
    assert (run / "evaluation.json").exists()
    assert {one.name for one in tmp_path.iterdir()} == {"My Shells", "all"}
    checkpoints = sorted((run / "checkpoints").glob("*.pt"))
    explored: list[list[str]] = []
    monkeypatch.setattr("training.explore.main", lambda words: explored.append(words) or 0)
    words = [word for word in TINY if word != "--no-explorer"]
    again = shellgan(tmp_path, "My Shells", "--out", "all", *words)
    assert again.returncode == 0, again.stderr
    assert explored == [[str(run)]]
    last = again.stderr.splitlines()[-1]
    assert last.startswith("[6 of 6] explore: ")
    assert last.endswith(f": shellgan explore {run}")
    assert "recipe " not in again.stdout  # not asked again
    assert sorted((run / "checkpoints").glob("*.pt")) == checkpoints


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the runs that were evaluated, or rather would have been."""
    folders: list[Path] = []
    monkeypatch.setattr(
        "shellgan.journey.evaluate", lambda run, _samples, _line: folders.append(run.folder)
    )
    return folders


def test_killed_in_the_middle_and_resumed(tmp_path: Path, evaluated: list[Path]) -> None:
    write_pictures(tmp_path / "some", 100)
    command = [sys.executable, "-m", "shellgan", "some", *TINY]
    child = subprocess.Popen(
        command, cwd=tmp_path, env=child_env(), stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("[3 of 5] shard"):
            child.kill()
            break
    child.stderr.close()
    assert child.wait() == -signal.SIGKILL
    again = shellgan(tmp_path, "some", *TINY)
    assert again.returncode == 0, again.stderr
    assert evaluated == [tmp_path / "runs" / "some-shells64"]
    assert load_index(tmp_path / "manifests" / "some")[0].nsamples == 100


def test_too_few_images_say_how_many_are_needed(tmp_path: Path) -> None:
    write_pictures(tmp_path / "few", 3)
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        for path in (tmp_path / "few").iterdir():
            archive.write(path, f"train/{path.name}")
    for where in ("few.zip", str(IMPORTS / "img2dataset" / "webdataset")):
        out = tmp_path / Path(where).stem
        said = shellgan(tmp_path, where, "--out", f"few/../{out.name}", *TINY)
        assert said.returncode == 2, said.stderr
        last = said.stderr.splitlines()[-1]
        assert last.startswith(f"error: {out}/")  # the recipe, without `..`
        assert "at least 100 are needed; add images" in last
        assert not (out / "runs").exists()


def test_too_few_kept_images_name_the_limits(tmp_path: Path) -> None:
    write_pictures(tmp_path / "some", 100, 20)
    said = shellgan(tmp_path, "some", *TINY)
    assert said.returncode == 2, said.stderr
    assert "are needed; change min_side under [select] in it, or add images" in said.stderr
    assert "opened in the explorer" not in said.stdout


@pytest.mark.parametrize("after", [(), ("--yes",)], ids=["last", "before another"])
def test_an_option_of_another_command_is_unknown(after: tuple[str, ...], tmp_path: Path) -> None:
    write_pictures(tmp_path / "some", 1)
    said = shellgan(tmp_path, "some", "--dry-run", *after)
    assert said.returncode == 2
    assert "error: --dry-run: unknown option; shellgan --help lists them" in said.stderr


def test_mixed_content_stops_once_and_shows_the_strangest(
    tmp_path: Path, evaluated: list[Path]
) -> None:
    write_pictures(tmp_path / "some", 100)
    for number in range(12):
        page = Image.new("RGB", (200, 200), "white")
        letters = random.Random(number).choices("abcdefghij klmnop qrstu", k=14 * 30)
        words = "\n".join("".join(letters[line::14]) for line in range(14))
        ImageDraw.Draw(page).text((8, 4), words, fill="black")
        page.save(tmp_path / "some" / f"page-{number}.png")
    said = shellgan(tmp_path, "some", *TINY)
    assert said.returncode == 1, said.stderr
    assert "mixed content: 12 of 112 images are of another kind" in said.stderr
    for advice in ("strangest.jpg", "shellgan curate ", "run the same command again"):
        assert advice in said.stderr
    folder = tmp_path / "data" / "some"
    with Image.open(folder / "strangest.jpg") as sheet:
        assert sheet.width > 2 * sheet.height  # two rows of five
    urls = json.loads((folder / "strangest.json").read_text())["urls"]
    assert len(urls) == 12
    assert all("/page-" in url for url in urls)
    assert not (tmp_path / "manifests" / "some" / "shards.json").exists()
    again = shellgan(tmp_path, "some", *TINY)
    assert again.returncode == 0, again.stderr
    assert load_index(tmp_path / "manifests" / "some")[0].nsamples == 112
    assert evaluated == [tmp_path / "runs" / "some-shells64"]


def test_pages_that_scripts_draw_and_robots_are_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<html><body><script src='x.js'></script></body></html>")
    with served(site) as url:
        said = shellgan(tmp_path, f"{url}/index.html", *TINY)
        assert said.returncode == 2
        assert "scripts build it" in said.stderr
        (site / "robots.txt").write_text("User-agent: *\nDisallow: /\n")
        said = shellgan(tmp_path, f"{url}/index.html", *TINY)
        assert said.returncode == 2
        assert "robots" in said.stderr
    assert {one.name for one in tmp_path.iterdir()} == {"site"}


def test_no_terminal_means_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", no_terminal)
    write_pictures(tmp_path / "some", 2)
    said = shellgan(tmp_path, "some")
    assert (said.returncode, said.stderr) == (
        2, "error: no terminal to ask on; add --yes\n",
    )  # fmt: skip
    assert not (tmp_path / "data").exists()


def test_what_it_is_pointed_at(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1)
    shards = SmallShards(tmp_path)
    make_run(tmp_path / "runs" / "mine", "dcgan")
    (tmp_path / "my.toml").write_text("")

    def kind(text: str) -> str:
        return find(text, tmp_path, WORDS).kind

    assert kind("https://example.org/gallery/") == "gallery"
    assert kind("https://example.org/my.toml") == kind(str(tmp_path / "my.toml")) == "recipe"
    assert kind("shells") == "recipe"
    assert kind(str(shards.manifest)) == kind("s3://some/{0..9}.tar") == "shards"
    assert kind("mine") == kind(str(tmp_path / "runs" / "mine")) == "run"
    assert kind(str(tmp_path / "pictures")) == "files"


def test_a_path_through_another_folder_is_the_same_place(tmp_path: Path) -> None:
    write_pictures(tmp_path / "some", 1)
    where = find(f"{tmp_path}/some/../some", tmp_path, WORDS)
    assert where == find(f"{tmp_path}/some", tmp_path, WORDS)
    recipe = tmp_path / "some.toml"
    earlier = f"{tmp_path}/other/../some"
    recipe.write_text(f"# shellgan {earlier}\n")  # the keys of its images have this path
    assert check_owner(recipe, where).location == earlier
    recipe.write_text(f"# shellgan {tmp_path}/other\n")
    with pytest.raises(UserError, match=r"is for .*/other; use another folder"):
        check_owner(recipe, where)


@pytest.mark.parametrize(("wrong", "right"), [("statsu", "status"), ("shels", "shells")])
def test_unknown_words_get_a_suggestion(tmp_path: Path, wrong: str, right: str) -> None:
    said = shellgan(tmp_path, wrong)
    assert said.returncode == 2
    assert f"did you mean {right}?" in said.stderr


def test_the_help_fits_on_one_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(parser().format_help().splitlines()) <= 24


def test_subcommands_and_doctor(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "mine", "dcgan")
    sampled = shellgan(tmp_path, "sample", "mine", "--n", "1")
    assert (sampled.returncode, sampled.stdout) == (0, "mine-sample.png\n")
    for name in FORWARDED:
        assert shellgan(tmp_path, name).stderr.startswith(f"usage: shellgan {name} ")
    examined = shellgan(tmp_path, "doctor")
    assert [line.split()[0] for line in examined.stdout.splitlines()] == [
        "disk", "memory", "threads", "gpu", "packages", "ports",
    ]  # fmt: skip


def test_the_time_left_is_that_of_the_work_in_progress(capsys: pytest.CaptureFixture[str]) -> None:
    now = 1000.0
    line = Line(["evaluate"], hours=1, clock=lambda: now)
    line.begin("evaluate")
    for seconds, done in ((0, 10), (10, 20), (90, 100), (300, 0), (340, 20)):
        now = 1000.0 + seconds
        line.show(f"{done} of 100", done, 100)
    said = capsys.readouterr().err.splitlines()
    assert [one.partition("; ")[2].partition(" left")[0] for one in said] == [
        "1:20", "0:00", "", "2:40",
    ]  # fmt: skip


def test_a_log_of_eight_hours_has_hundreds_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = 1000.0
    line = Line(["train"], hours=8, clock=lambda: now)
    line.begin("train")
    for second in range(8 * 3600):
        now = 1000.0 + second
        line.show(f"{second} images", second, None)
    shown = [int(one.split()[4]) for one in capsys.readouterr().err.splitlines()]
    pauses = [after - before for before, after in itertools.pairwise(shown)]
    assert pauses[:5] == [5] * 5
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60
    assert len(shown) < 600


def test_options_of_training_are_those_of_a_preset_that_auto_takes() -> None:
    projected, pixels = ["--discriminator.size", "128"], ["--generator.activation", "relu"]
    for words in (projected, pixels, ["--data.label", "out"]):  # as in --out
        assert _training_options(parser(), "auto", words) == {words[0][2:]: words[1]}
    with pytest.raises(UserError, match=r"generator\.growth: unknown key"):
        _training_options(parser(), "auto", ["--generator.growth", "2"])
    with pytest.raises(UserError, match=r"generator\.activation: unknown key"):
        _training_options(parser(), "projected64", pixels)
