"""Rows of every origin: what is written is read back alike, by every reader of the manifest."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.contract import DatasetPaths, ManifestRow, OriginalRecord, image_key
from pipeline.crawl.manifest_exchange import export_manifest, import_manifest
from pipeline.crawl.manifest_lookup import ManifestLookup, manifest_rows
from pipeline.errors import UserError
from pipeline.jsonl import JsonlAppender
from pipeline.originals.parts import PartFiles, write_plan
from pipeline.outside_text import parse_json, safe_text
from pipeline.select.selection import SelectedImage, read_selection
from pipeline.sources.list_files import plain_records

FEWER = settings(max_examples=max(10, settings.default.max_examples // 5))
"""For tests that open databases and write files."""

GOOD = "http://good.example/good.jpg"
text = st.text(st.characters(exclude_categories=()), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.just(-(10**4000)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ["key", "url", "page", "title", "labels", "license", "attribution", "found", "boxes"]
rows = st.builds(
    ManifestRow,
    key=st.just(""), url=text.map(lambda end: f"http://a.example/{end}"), page=text, title=text,
    labels=st.lists(text, max_size=3).map(tuple), license=text, attribution=text, found=text,
    boxes=st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 4), max_size=2).map(tuple),
)  # fmt: skip


@given(text)
def test_safe_text_can_be_written_and_stays_as_it_is(said: str) -> None:
    safe = safe_text(said)
    safe.encode()
    assert "\x00" not in safe
    assert len(safe) == len(said)
    assert safe_text(safe) == safe


@FEWER
@given(st.lists(rows, max_size=5))
def test_rows_come_back_from_every_file(found: list[ManifestRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = DatasetPaths("d", Path(folder))
        keyed = [ManifestRow(image_key(row.url), **_without_key(row)) for row in found]
        keyed = list({row.key: row for row in keyed}.values())
        with JsonlAppender(dataset.url_manifest) as file:
            file.append(*(row.to_json() for row in keyed))
        assert list(manifest_rows(dataset)) == keyed
        with ManifestLookup(dataset.url_manifest) as lookup:
            assert [lookup.get(row.key) for row in keyed] == keyed
        write_plan(dataset, "d-000000", [row.to_json() for row in keyed])
        assert list(PartFiles(dataset, "d-000000").rows()) == keyed
        record = OriginalRecord(
            "0" * 16, "p", "m", 0, 1, "s", "JPEG", "RGB", 1, 1, "0" * 16, 0.0, 0.0
        )
        kept = [SelectedImage(record, row) for row in keyed]
        dataset.selection.write_bytes(b"".join(one.to_line() for one in kept))
        assert [one.row.title for one in read_selection(dataset.selection)] == [
            row.title for row in keyed
        ]
        for ending in ("csv", "parquet", "jsonl"):
            export_manifest(dataset, Path(folder) / f"out.{ending}")


def _without_key(row: ManifestRow) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "key"}


LINES = st.binary(max_size=60) | values.map(lambda one: json.dumps(one).encode())


@FEWER
@given(st.lists(LINES, max_size=4), st.dictionaries(st.sampled_from(MEMBERS), values))
def test_a_manifest_with_any_line_is_read_or_named(lines: list[bytes], row: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = DatasetPaths("d", Path(folder))
        dataset.manifest_dir.mkdir(parents=True)
        text = b"\n".join([json.dumps(row).encode(), *lines])
        dataset.url_manifest.write_bytes(text + b"\n")
        dataset.selection.write_bytes(text + b"\n")
        plan = PartFiles(dataset, "d-000000")
        plan.plan.parent.mkdir(parents=True)
        plan.plan.write_bytes(text + b"\n")
        readers = [
            lambda: list(manifest_rows(dataset)),
            lambda: ManifestLookup(dataset.url_manifest).__exit__(None, None, None),
            lambda: list(read_selection(dataset.selection)),
            lambda: list(plan.rows()),
        ]
        for read in readers:
            try:
                read()
            except UserError as error:
                assert ".jsonl:" in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017


RECORD = st.dictionaries(st.sampled_from(MEMBERS), values)


@FEWER
@given(st.lists(RECORD | values, max_size=4), st.booleans())
def test_import_of_json_lines(records: list[Any], own: bool) -> None:
    good = {"url": GOOD, **({"found": "2026-01-01"} if own else {})}
    with tempfile.TemporaryDirectory() as folder:
        dataset = DatasetPaths("d", Path(folder))
        path = Path(folder) / "in.jsonl"
        lines = [json.dumps(one) for one in (good, *records, {"url": GOOD + "2"})]
        path.write_text("\n".join(lines))
        result = import_manifest(dataset, path)
        urls = [row.url for row in manifest_rows(dataset)]
        assert {GOOD, GOOD + "2"} <= set(urls)
        assert result.added == len(urls) == len(set(urls))


@FEWER
@given(
    st.lists(st.binary(max_size=8), max_size=5), st.lists(st.integers(-(2**62), 2**62), max_size=5)
)
def test_columns_that_python_cannot_have(texts: list[bytes], times: list[int]) -> None:
    count = min(len(texts), len(times)) + 1
    title = pyarrow.array([*texts[: count - 1], b"good"], pyarrow.binary())
    names = {
        "url": pyarrow.array([f"http://a.example/{n}.jpg" for n in range(count)]),
        "title": title.view(pyarrow.string()),
        "when": pyarrow.array([*times[: count - 1], 0], pyarrow.timestamp("s")),
    }
    table = pyarrow.table(names)
    records = [one for batch in table.to_batches() for one in plain_records(batch)]
    assert [one["url"] for one in records] == names["url"].to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.parquet"
        parquet.write_table(table.select(["url", "title"]), path)
        dataset = DatasetPaths("d", Path(folder))
        assert import_manifest(dataset, path).added == count
        assert [row.title for row in manifest_rows(dataset)][-1] == "good"


@given(st.binary(max_size=200) | values.map(lambda one: json.dumps(one).encode()))
def test_json_of_anything(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError:
        return
    json.dumps(value, allow_nan=False)
