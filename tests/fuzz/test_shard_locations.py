"""Odd locations and labels of shards of other tools: read, or refused in one line."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract.paths import NAME
from pipeline.contract.tar import DamagedTar
from pipeline.errors import UserError
from training.streaming.locations import (
    dataset_name,
    expand_location,
    join_locations,
    split_locations,
)
from training.streaming.sample_labels import OneHot, parse_label

TEXTS = st.text(alphabet="ab0./*[]{},:\\?-\0 é~\ud83d\"'", max_size=24)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
)


@given(TEXTS, st.sampled_from(["{}", "file:{}", "http://h/{}", "[{}]"]))
@example("x" * 300 + "*", "{}")
@example("{" * 2000, "{}")
@example("{a,b}" * 40, "{}")
@example("[" * 5000, "{}")
@example("{0..99999999999999999}", "{}")
@example("\0/?", "{}")
def test_an_odd_location_stands_for_tars_or_is_refused(text: str, form: str) -> None:
    try:
        for location in split_locations(form.format(text)):
            found = expand_location(location)
            assert not found or NAME.fullmatch(dataset_name(found))
    except UserError:
        return


@given(st.lists(TEXTS.filter(str.strip).map(str.strip), min_size=2, max_size=3))
def test_joined_locations_are_split_again(locations: list[str]) -> None:
    assert split_locations(join_locations(locations)) == locations


@given(
    st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())),
    st.sampled_from(["", "txt", "json:a", "json:a.b"]),
)
@example(b"[" * 100_000, "json:a")
@example(b"9" * 5000, "")
@example(b'{"a": 1e999}', "json:a")
@example(b"\xef\xbb\xbf3", "")
def test_an_odd_label_is_a_number_a_name_or_refused(text: bytes, how: str) -> None:
    try:
        label = parse_label(text, how, "key")
    except DamagedTar:
        return
    if isinstance(label, OneHot):
        assert 0 <= label.number < label.length
    elif isinstance(label, int):
        assert label >= 0
    else:
        assert label is None or 0 < len(label) <= 200
