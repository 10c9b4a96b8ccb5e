"""Recipes: defaults, overrides, and mistakes said in one line."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.names import recipe_names
from pipeline.recipe import load_recipe, locate_recipe, parse_recipe, recipe_path
from pipeline.sources import SOURCES
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.url_rules import is_allowed

SMALL = """
[source]
kind = "html"
start = ["http://a.example/"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


def test_defaults_are_polite(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL))
    assert isinstance(recipe.source, HtmlSource)
    assert recipe.politeness.obey_robots
    assert not recipe.politeness.allow_private
    assert recipe.politeness.rate <= 2


def test_boxes_need_whole_images() -> None:
    """They are in pixels of the image as it was served."""
    values = {"originals": {"side": 256}, "shards": {"crop": "box"}}
    with pytest.raises(UserError, match=r'shards\.crop: "box" needs the whole images'):
        parse_recipe(values, "mine")
    assert parse_recipe({"originals": {"side": 256}}, "mine").originals.side == 256


def test_overrides_by_dotted_key(tmp_path: Path) -> None:
    overrides = {"shards.resolution": 128, "source.max_pages": "7", "source.next": "a.n"}
    recipe = load_recipe(write(tmp_path, SMALL), overrides)
    assert (recipe.shards.resolution, recipe.source.max_pages) == (128, 7)
    assert isinstance(recipe.source, HtmlSource)
    assert recipe.source.next == "a.n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[source]\nkind = 'web'\n", "source"),
        ("[source]\nkind = 'html'\n", "source.start: missing"),
        (SMALL + "selector = 'a'\n", "source.selector: unknown key"),
        (SMALL + "[politenes]\n", "politenes: unknown key"),
        (SMALL + "image = 'a['\n", "source.image: not a CSS selector"),
        (SMALL + "max_pages = 0\n", "source.max_pages"),
        (SMALL + "[politeness]\nrate = 'fast'\n", "politeness.rate"),
        ("[source\n", "not TOML"),
        (SMALL + "max_pages = " + "9" * 30, "source.max_pages"),
        (SMALL + "max_pages = " + "9" * 5000, "not TOML"),
        (SMALL + "follow = " + "[" * 5000, "not TOML"),
        (SMALL + "include = ['a{99999999999}']\n", "source.include.0: not a regular expression"),
        (SMALL + "[politeness]\nrate = inf\n", "politeness.rate"),
        ("source = 3\n", "source: "),
        (SMALL.replace("a.example", "a..example"), "is not an http(s) URL"),
        (SMALL.replace("a.example", "[bad"), "is not an http(s) URL"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pattern_that_python_warns_of_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SMALL + "include = ['[[a]x']\n")
    assert load_recipe(path).source.include == ("[[a]x",)


def test_overrides_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    for key in ("shards.resolutoin", "source.kind.x", "nothing"):
        with pytest.raises(UserError):
            load_recipe(path, {key: 1})


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"source.license": {"value": "CC0"}}, "source.license"),
        ({"shards.resolution": 4000}, "shards.resolution"),
        ({"shards.resolution": [64, 4000]}, "shards.resolution"),
        ({"select.labels": ["a", 3]}, "select.labels.1"),
    ],
)
def test_a_mistake_is_named_by_the_key_that_was_written(
    tmp_path: Path, values: dict[str, object], key: str
) -> None:
    path = write(tmp_path, f"[source]\nkind = 'folder'\nstart = ['{tmp_path}']\n")
    with pytest.raises(UserError) as error:
        load_recipe(path, values)
    assert str(error.value).startswith(f"{path}: {key}: ")


def test_names_and_paths(tmp_path: Path) -> None:
    assert {"shells", "gbif-mollusca", "commons-shells", "inaturalist-mollusca"} <= set(
        recipe_names()
    )
    assert recipe_path("shells").name == "shells.toml"
    path = write(tmp_path, SMALL)
    assert recipe_path(str(path)) == path
    with pytest.raises(UserError, match=r"choose a file or one of .*shells"):
        recipe_path("shels")


def test_every_kind_of_source_can_be_written_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("http://a.example/1.jpg\n")
    for kind, adapter in SOURCES.items():
        where = {"list": str(tmp_path / "urls.txt"), "folder": str(tmp_path)}
        start = where.get(kind, "http://a.example/")
        recipe = load_recipe(write(tmp_path, f"[source]\nkind = '{kind}'\nstart = ['{start}']\n"))
        assert isinstance(recipe.source, adapter.config)
        assert len(adapter.start(recipe.source)) == 1


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe[source]")
    with pytest.raises(UserError, match=r"bytes\.toml: not TOML"):
        load_recipe(tmp_path / "bytes.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match=r"folder\.toml: "):
        load_recipe(tmp_path / "folder.toml")
    with pytest.raises(UserError, match=r"folder\.toml: recipe not found"):
        recipe_path(str(tmp_path / "folder.toml"))


def test_each_pattern_has_its_own_flags_and_groups() -> None:
    include = (r"(?i)\.JPG$", r"(?i)(a)\1\.png$", r"(?P<x>b)")
    assert is_allowed("http://a.example/1.jpg", include, ())
    assert is_allowed("http://a.example/aa.png", include, ())
    assert not is_allowed("http://a.example/c.png", include, include)


def test_the_name_of_a_recipe_in_this_folder_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "[source]\n").rename(tmp_path / "mine.toml")
    with pytest.raises(UserError, match=r"mine\.toml: recipe not found; use mine\.toml, choose"):
        recipe_path("mine")
    with pytest.raises(UserError, match=r"other\.toml: recipe not found; choose a file"):
        recipe_path("other")


def test_a_recipe_for_import_needs_no_source(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[shards]\nresolution = 32\n")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.shards.resolution == 32
    with pytest.raises(UserError, match=r"source\.start: missing; name what to crawl"):
        SOURCES[recipe.source.kind].start(recipe.source)
    with pytest.raises(UserError, match=r"to import images, create other\.toml \(it may be empty"):
        recipe_path("other")


@pytest.mark.parametrize(
    "name",
    ["tars", "a.tar", "tars/*.tar", "tars/{000..009}.tar", "https://a.example/b.tar?x=1"],
)
def test_shards_in_the_place_of_a_recipe_are_told_from_a_mistyped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tars").mkdir()
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        locate_recipe(name)
    said = str(caught.value).replace("'", "")
    assert said.startswith(f"{name}: not a recipe; name the recipe")
    path = "b.tar" if name.startswith("https") else name
    assert f" import NAME.toml {path}, " in said
    assert ("download it, then run" in said) == name.startswith("https")
    (tmp_path / "shells").mkdir()
    assert recipe_path("shells").is_file()
