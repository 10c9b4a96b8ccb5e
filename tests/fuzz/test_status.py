"""Arbitrary bytes in every file that a status reads: what can be counted is, the rest is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import DatasetPaths, image_key
from pipeline.originals.parts import PartFiles
from pipeline.status import format_status, read_status

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([
    "ok", "ts", "bytes", "kind", "stage", "url", "reason", "retryable", "detail", "nsamples",
    "image_bytes", "failed", "shardlist", "name", "key",
])  # fmt: skip
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6).map(
    lambda row: json.dumps(row).encode() + b"\n"
)
FILE = st.lists(OBJECTS | st.binary(max_size=30) | st.just(b"\n"), max_size=4).map(b"".join)


def files(dataset: DatasetPaths) -> list[Path]:
    part = PartFiles(dataset, "mine-000000")
    other = PartFiles(dataset, "mine-000001")
    return [
        dataset.url_manifest,
        dataset.selection,
        dataset.rejections,
        dataset.shard_index,
        dataset.crawl_state,
        dataset.failure_log,
        part.plan,
        part.summary,
        other.plan,
        other.journal,
    ]


@given(st.lists(st.none() | FILE, min_size=10, max_size=10))
def test_a_status_of_damaged_files_is_a_status(contents: list[bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = DatasetPaths("mine", Path(folder))
        for path, data in zip(files(dataset), contents, strict=True):
            if data is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        status = read_status(dataset)
        assert format_status(status).startswith("dataset   mine\npages     ")
        assert json.loads(json.dumps(status.to_json()))["name"] == "mine"
        status.progress()


@given(st.lists(FILE, min_size=1, max_size=4))
def test_good_rows_are_counted_among_bad_ones(noise: list[bytes]) -> None:
    """A good image beside each piece of garbage is counted."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = DatasetPaths("mine", Path(folder))
        dataset.url_manifest.parent.mkdir(parents=True)
        dataset.failure_log.parent.mkdir(parents=True)
        url = "http://x.example/"
        for number, bad in enumerate(noise):
            row = {"key": image_key(f"{url}{number}"), "url": f"{url}{number}"}
            failure = {"stage": "good", "url": f"{url}{number}", "kind": "dns", "retryable": True}
            for path, value in ((dataset.url_manifest, row), (dataset.failure_log, failure)):
                with path.open("ab") as file:
                    file.write(bad + b"\n" + json.dumps(value).encode() + b"\n")
        status = read_status(dataset)
        assert status.urls >= len(noise)
        assert status.failed["dns"] >= len(noise)
