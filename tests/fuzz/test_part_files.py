"""Journals, tars and records of parts with damage: a complete part is read or named in one line, an
incomplete one goes on, and what was not damaged is not lost."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.contract import DatasetPaths, ManifestRow, UserError, image_key
from pipeline.imaging.images import decode_image
from pipeline.imaging.properties import measure_image
from pipeline.originals.part_tars import DamagedOriginal, read_original, read_originals
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import PartFiles, read_journal, read_records, read_summary, write_plan

COUNT = 4
PART = "fuzz-000000"


@functools.cache
def image(number: int) -> tuple[ManifestRow, bytes]:
    file = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "PNG")
    url = f"http://127.0.0.1/{number}.png"
    return ManifestRow(image_key(url), url), file.getvalue()


def fill(writer: PartWriter) -> None:
    """Add the images that the part has not."""
    for row, data in map(image, range(COUNT)):
        if row.key not in writer.done:
            facts = measure_image(decode_image(data, max_pixels=10**6))
            writer.add(row, "png", data, facts.recorded(), {})
    writer.finish()


def dataset_in(folder: str) -> DatasetPaths:
    dataset = DatasetPaths("fuzz", Path(folder))
    write_plan(dataset, PART, [image(number)[0].to_json() for number in range(COUNT)])
    fill(PartWriter(dataset, PART))
    return dataset


@st.composite
def damage(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """How to damage a file, where (in 65536ths), and with what."""
    new = draw(
        st.binary(max_size=12)
        | st.sampled_from([b"\n", b"{}\n", b"[]\n", b'{"ok": true}\n', b"[" * 3000, b"\0" * 600,
                           b'"offset": -1', b'"end": "x"', b"99999999999999999999", b"null"])
    )  # fmt: skip
    return (
        draw(st.sampled_from(["set", "put", "cut", "end", "double"])),
        draw(st.integers(0, 65_535)),
        new,
    )


def damaged(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for how, where, new in changes:
        place = where * len(changed) // 65_536
        if how == "set":
            changed[place : place + len(new)] = new
        elif how == "put":
            changed[place:place] = new
        elif how == "cut":
            del changed[place : place + len(new)]
        elif how == "end":
            del changed[place:]
        else:
            changed += changed[place : place + 700]
    return bytes(changed)


@pytest.mark.parametrize("end", [-1, 0, 700, True, 10**30])
def test_a_line_with_an_odd_end(tmp_path: Path, end: int) -> None:
    """The image of such a line is fetched again."""
    dataset = dataset_in(str(tmp_path))
    part = PartFiles(dataset, PART)
    rows = [json.loads(line) for line in part.journal.read_bytes().splitlines()]
    rows[1]["end"] = end
    part.journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part.summary.unlink()
    fill(PartWriter(dataset, PART))
    assert len(list(read_records(dataset))) == COUNT


@example(
    journal=[("end", 16_332, b"")], tar=[], record=[], complete=False
)  # cut before its newline
@given(
    journal=st.lists(damage(), max_size=3),
    tar=st.lists(damage(), max_size=1),
    record=st.lists(damage(), max_size=1),
    complete=st.booleans(),
)
def test_a_damaged_part(
    journal: list[tuple[str, int, bytes]],
    tar: list[tuple[str, int, bytes]],
    record: list[tuple[str, int, bytes]],
    complete: bool,
) -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # its syncs cost nothing
    with TemporaryDirectory(dir=memory) as folder:
        dataset = dataset_in(folder)
        part = PartFiles(dataset, PART)
        part.journal.write_bytes(damaged(part.journal.read_bytes(), journal))
        part.tar.write_bytes(damaged(part.tar.read_bytes(), tar))
        if complete:
            part.summary.write_bytes(damaged(part.summary.read_bytes(), record))
            read_what_is_there(dataset)
        part.summary.unlink()
        fill(PartWriter(dataset, PART))
        records = list(read_records(dataset))
        want = {image(number)[1] for number in range(COUNT)}
        assert {read_original(dataset, one) for one in records} == want
        assert len(records) == read_summary(part)["nsamples"] == COUNT
        assert [row["key"] for row in read_journal(dataset, PART)] == [one.key for one in records]


def read_what_is_there(dataset: DatasetPaths) -> None:
    """Every reader of a complete part gives values or one line."""
    readers = (
        lambda: list(read_originals(dataset, read_records(dataset))),
        lambda: list(read_journal(dataset, PART)),
        lambda: [read_summary(PartFiles(dataset, PART))],
    )
    for read in readers:
        found: list[object] = []
        with catch_line(dataset):
            found = read()
        assert all(isinstance(one, bytes | DamagedOriginal) or json.dumps(one) for one in found)


@contextmanager
def catch_line(dataset: DatasetPaths) -> Iterator[None]:
    """A mistake of the user's is one line that names the file."""
    said = ""
    try:
        yield
    except UserError as error:
        said = str(error)
    assert not said or (str(dataset.originals_dir) in said and len(said.splitlines()) == 1), said
