"""Recipes of generated values: a recipe, or one line that names the file and the key."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.config_io import parse_config
from pipeline.errors import UserError
from pipeline.recipe import Recipe, load_recipe
from pipeline.sources import SOURCES

text = st.text(st.characters(exclude_categories=()), max_size=30)
strings = text | st.sampled_from([
    "http://a.example/", "http://[bad", "(", "a{99999999999}", "(?i)a", "(?P<a>x)(?P<a>y)", "[",
    "a[", ":nth-child(99999999999999999999)", "items[", "@", "x" * 5000, "a\0b", "[" * 2000,
    "\\",
])  # fmt: skip
values = st.recursive(
    st.booleans() | st.integers() | st.floats() | strings | st.none() | st.just(10**4000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=6,
)
TABLES = [one.name for one in fields(Recipe)]


def check(make: Any, where: str) -> Recipe | None:
    try:
        recipe: Recipe = make()
    except UserError as error:
        said = str(error)
        assert said.startswith(where)
        assert "\n" not in said
        assert len(said) < 12_000
        return None
    return recipe


def keys_of(kind: str) -> list[str]:
    return [one.name for one in fields(SOURCES[kind].config)]


@given(st.data(), st.sampled_from(list(SOURCES)))
def test_any_value_of_any_key_of_a_source(data: st.DataObject, kind: str) -> None:
    start = ["http://a.example/"] if kind not in ("list", "folder") else ["/"]
    source: dict[str, Any] = {"kind": kind, "start": start}
    for _ in range(data.draw(st.integers(0, 3))):
        source[data.draw(st.sampled_from(keys_of(kind)) | strings)] = data.draw(values)
    recipe = check(lambda: parse_config(Recipe, {"source": source}, "r.toml"), "r.toml")
    if recipe is not None and kind not in ("list", "folder"):
        for request in SOURCES[kind].start(recipe.source):
            assert request.url.isascii()


@given(st.dictionaries(st.sampled_from(TABLES) | strings, values, max_size=4))
def test_any_tables(tables: dict[str, Any]) -> None:
    source = {"kind": "html", "start": ["http://a.example/"]}
    check(lambda: parse_config(Recipe, {"source": source, **tables}, "r.toml"), "r.toml")


@given(st.binary(max_size=200) | st.sampled_from([
    b"a = " + b"[" * 3000, b"a = " + b"9" * 5000, b"\xff\xfe", b"a = \x00", b"[a" * 999,
    b"a.b=1\na=2",    b"a = 1e999999999", b"a = 99999-99-99", b"'''" * 99, b"\xef\xbb\xbfa = 1",
]))  # fmt: skip
def test_files_of_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_bytes(content)
        check(lambda: load_recipe(path), str(path))


DOTTED = st.sampled_from(["source.start", "a.b.c", "", ".", "source"])


@given(st.dictionaries(strings | DOTTED, values, max_size=3))
def test_overrides(overrides: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.toml"
        path.write_text("[source]\nkind = 'html'\nstart = ['http://a.example/']\n")
        check(lambda: load_recipe(path, overrides), "")
