"""Generated and mutated shard indexes: each is read or refused in one line, and a name from one
never leaves the folders of its dataset."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract import DatasetPaths, UserError, index_to_json, load_index
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import open_shard_dataset

VALID: dict[str, Any] = {
    "__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "small",
    "shardlist": [{"url": "a.tar", "nsamples": 3, "bytes": 10240, "sha256": "ab" * 32}],
    "resolution": [16, 16], "channels": 3, "format": "png", "labels": ["cone", "whelk"],
    "counts": {"kept": 3}, "recipe": {}, "digest": "cd" * 32,
}  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([-5, -1, 0, 1, 2, 16, 2**31, 2**63, 10**9, 10**30, 1.5]), st.integers()
)
TEXTS = st.one_of(
    st.sampled_from([
        "", "../../x", "/etc/x", "a\0b", "\ud83d", "pipe:cat /etc/passwd", "file:///dev/zero",
        "simplecache::file:///a", "http://[bad", "nosuch://a/b.tar", "..", "x" * 5000, "a.tar",
        "file:///", "memory://nowhere/a.tar",
    ]),
    st.text(max_size=20),
)  # fmt: skip
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def indexes(draw: st.DrawFn) -> Any:
    """A valid index with some values replaced, removed or added."""
    values = {**VALID, "shardlist": [dict(VALID["shardlist"][0])]}
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from([values, values["shardlist"][0]]))
        key = draw(st.sampled_from(sorted(target)))
        if draw(st.integers(0, 9)):
            target[key] = draw(st.one_of(NUMBERS, TEXTS, JUNK, st.lists(NUMBERS, max_size=3)))
            if not isinstance(values.get("shardlist"), list) or values["shardlist"] == []:
                break
            if not isinstance(values["shardlist"][0], dict):
                break
        else:
            del target[key]
            if not values.get("shardlist") or not values["shardlist"][0]:
                break
    return values


def written(text: bytes) -> Path:
    folder = Path(tempfile.mkdtemp())
    (folder / "shards.json").write_bytes(text)
    return folder


def removed(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def check(text: bytes) -> None:
    folder = written(text)
    try:
        index, locations = load_index(folder)
        DatasetPaths(index.name)  # a safe name of files
        assert os.sep not in index.digest
        assert len(locations) == len(index.shardlist)
        assert json.loads(json.dumps(index_to_json(index))) == json.loads(
            json.dumps(index_to_json(load_index(folder)[0]))
        )
        config = Config(batch=2, data=DataOptions(cache=str(folder / "cache"), memory_gb=0.001))
        with Loader(open_shard_dataset(folder, 0), config) as loader:
            next(loader)
    except UserError:
        pass
    finally:
        for path in (folder / "cache").glob("*") if (folder / "cache").exists() else ():
            path.unlink()
        if (folder / "cache").exists():
            (folder / "cache").rmdir()
        removed(folder)


@pytest.mark.timeout(300)
@given(indexes())
@example({**VALID, "resolution": [0, 0]})
@example({**VALID, "name": "../../x"})
@example({**VALID, "digest": "../../../../x"})
@example({**VALID, "labels": ["cone", "cone"]})
@example({**VALID, "labels": ["\ud83d"]})
@example({**VALID, "shardlist": []})
@example({**VALID, "shardlist": [{**VALID["shardlist"][0], "nsamples": 2**63}]})
@example({**VALID, "shardlist": [{**VALID["shardlist"][0], "nsamples": 10**9, "bytes": 2**49}]})
@example({**VALID, "shardlist": [{**VALID["shardlist"][0], "url": "file:///dev/zero"}]})
@example({**VALID, "counts": {"kept": 10**400}})
def test_an_odd_index_is_read_or_refused(values: Any) -> None:
    check(json.dumps(values).encode())


@given(st.one_of(st.binary(max_size=200), JUNK.map(lambda value: json.dumps(value).encode())))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 5000)
@example(b"NaN")
@example("\ufeff{}".encode())
def test_what_is_no_index_is_refused_in_one_line(text: bytes) -> None:
    folder = written(text)
    try:
        with pytest.raises(UserError):
            load_index(folder)
    finally:
        removed(folder)


@given(TEXTS)
def test_an_odd_location_is_refused_in_one_line(location: str) -> None:
    if location.startswith(("http://", "https://")):
        location = location.replace("http", "nosuch", 1)
    with pytest.raises(UserError):
        open_shard_dataset(f"{location}/none", 0)
