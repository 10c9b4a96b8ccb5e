"""Locations of shards: paths, globs, braces and lists, compared with webdataset's expansion."""

from __future__ import annotations

from pathlib import Path

import pytest
from webdataset.shardlists import expand_urls

from pipeline.errors import UserError
from training.streaming.locations import (
    dataset_name,
    expand_braces,
    expand_location,
    join_locations,
    split_locations,
)


@pytest.mark.parametrize(
    "text",
    [
        "shells-{000000..000012}.tar", "{a,b{1,2}}/x-{8..11}.tar", "{x}.tar", "{3..1}",
        "{a..c}{1..5..2}", "{a,}b", "s{00..10..5}", "plain.tar", "{01..10}", "{a,b}-{0..2}.tar",
    ],
)  # fmt: skip
def test_braces_stand_for_what_webdataset_reads(text: str) -> None:
    assert expand_braces(text) == list(expand_urls(text))


def test_too_many_names_are_refused() -> None:
    for text in ("{0..9999999}", "{0..999}{0..999}", "{000000000000..999999999999}"):
        with pytest.raises(UserError, match="stands for more than"):
            expand_braces(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["{a," * 800 + "}" * 800, "{1..1}" * 1500, "{" * 20_000 + "}" * 20_000,
     "{" + ",".join(["{1..99999}"] * 200) + "}", "{" + ",".join(["{1..99999}"] * 50) + "}"],
)  # fmt: skip
def test_many_braces_are_refused_in_a_short_line(text: str) -> None:
    with pytest.raises(UserError, match="more than 100") as caught:
        expand_braces(text)
    assert len(str(caught.value)) < 300


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("out/000.tar", "out/001.tar", "out/._001.tar", "out/notes.txt", "two/data/a.tar",
                 "many/train/a.tar", "many/test/b.tar", "odd,{name}/1.tar"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "shards.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("out/000.tar", ["out/000.tar"]),
        ("out", ["out/000.tar", "out/001.tar"]),
        ("out/", ["out/000.tar", "out/001.tar"]),
        ("out/*.tar", ["out/000.tar", "out/001.tar"]),
        ("out/00[1-3].tar", ["out/001.tar"]),
        ("out/{000..001}.tar", ["out/000.tar", "out/001.tar"]),
        ("{out,two/data}", ["out/000.tar", "out/001.tar", "two/data/a.tar"]),
        ("two", ["two/data/a.tar"]),
        ("ours", ["ours/shards.json"]),
        ("odd,{name}", ["odd,{name}/1.tar"]),
        ("https://h/x/{00..02}.tar", [f"https://h/x/{n:02d}.tar" for n in range(3)]),
        ("https://h/manifests/x", ["https://h/manifests/x/shards.json"]),
    ],
)
def test_each_form_stands_for_its_tars(folder: Path, location: str, expected: list[str]) -> None:
    assert expand_location(location) == expected
    if "://" not in location and not set("*[{") & set(location):
        absolute = [str(folder / one) for one in expected]
        assert expand_location((folder / location).as_uri()) == absolute


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("out/{000..002}.tar", r"out/002\.tar: No such file; give .*a glob"),
        ("out/*.zip", r"out/\*\.zip: no file has such a name"),
        ("many", r"many: tars in several folders \(test, train\); give one of them, or many/\*/"),
        ("none.tar", r"none\.tar: No such file"),
        ("pipe:cat a.tar", "pipe:cat a.tar: not a scheme for shards, because it would run a comm"),
        ("gopher://h/a.tar", "not a scheme for shards"),
        ("https://h/*.tar", r"web servers do not list folders; use braces"),
        ("simplecache::https://h/a.tar", "not a scheme for shards"),
    ],
)
def test_what_stands_for_nothing_is_refused_with_advice(
    folder: Path, location: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        expand_location(location)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a.tar, b-{1,2}.tar,c", ["a.tar", "b-{1,2}.tar", "c"]),
        ('["x,y.tar", "z"]', ["x,y.tar", "z"]),
        ("odd,{name}", ["odd,{name}"]),
    ],
)
def test_lists_have_commas_or_brackets(folder: Path, text: str, expected: list[str]) -> None:
    assert split_locations(text) == expected
    assert split_locations(join_locations(expected)) == expected


@pytest.mark.parametrize("text", ["", ",", "[]", "[1, 2]"])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        split_locations(text)


@pytest.mark.parametrize(
    ("locations", "name"),
    [
        (["/x/out/00000.tar", "/x/out/00001.tar"], "out"),
        (["/x/shells-000.tar", "/x/shells-001.tar"], "shells"),
        (["hf://datasets/ann/Sea Shells/data/train-0000.tar"], "sea-shells"),
        (["https://h/a.tar"], "shards"),
        (["/data/train/0.tar", "/data/test/0.tar"], "shards"),
    ],
)
def test_a_dataset_has_the_name_of_its_tars_or_their_folder(
    locations: list[str], name: str
) -> None:
    assert dataset_name(locations) == name


def test_a_folder_of_another_format_is_no_place_of_shards(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"neither a \.tar nor shards\.json.*00000\.parquet.*import"
    ):
        expand_location(str(tmp_path))
    (tmp_path / "urls.jsonl").write_bytes(b"")  # a manifest folder
    assert expand_location(str(tmp_path)) == [str(tmp_path / "shards.json")]
