"""Zips, tars and lists of strangers through import: each member gives an image or one failure, and
good neighbours arrive."""

from __future__ import annotations

import functools
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.contract import DatasetPaths, UserError, read_jsonl
from pipeline.crawl.manifest_lookup import manifest_rows
from pipeline.events import EventLog
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.select.selection import SelectedImage
from pipeline.web.failures import FAILURE_KINDS


@functools.cache
def good(number: int) -> bytes:
    file = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@contextmanager
def project() -> Iterator[tuple[Path, DatasetPaths, EventLog]]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # its syncs cost nothing
    with TemporaryDirectory(dir=memory) as folder:
        dataset = DatasetPaths("fuzz", Path(folder))
        with EventLog(dataset, "fuzz") as log:
            yield Path(folder), dataset, log


def take(
    path: Path, dataset: DatasetPaths, log: EventLog
) -> tuple[ImportResult | None, set[bytes]]:
    """Import, and check that all that was written can be read back."""
    result = None
    with suppress(UserError):
        result = import_dataset(path, dataset, log)
    found = set()
    for record in read_records(dataset):
        data = read_original(dataset, record)
        assert len(data) == record.bytes
        found.add(data)
    rows = {row.key: row for row in manifest_rows(dataset)}
    for record in read_records(dataset):
        line = SelectedImage(record, rows[record.key]).to_line()
        assert SelectedImage.from_json(json.loads(line)).row == rows[record.key]
    for line in read_jsonl(dataset.failure_log):
        assert line["kind"] in FAILURE_KINDS
        assert line["kind"] != "internal", line["detail"]
    return result, found


def check(path: Path, dataset: DatasetPaths, log: EventLog, neighbours: set[bytes]) -> None:
    """Import: the neighbours arrive; a second time brings nothing new."""
    result, found = take(path, dataset, log)
    assert neighbours <= found
    if result is not None and result.images % 3 == 1:
        again, same = take(path, dataset, log)
        assert same == found
        assert again is not None
        assert again.images == 0
        assert again.known + again.failed >= result.images


NAMES = st.sampled_from(
    ["a.png", "a.jpg", "../../up.png", "/etc/abs.png", "dir/b.png", "x", ".png", "a.b.c.png",
     "dataset.json", "sub/dataset.json", "metadata.jsonl", "\u00e9.png", "nul\x01.png", "a" * 200 +
     ".png", "con.png", "x/../y.png", "x.zip", "x.tar"]
) | st.text(max_size=12).map(lambda text: text.replace("\0", "") + ".png")  # fmt: skip

WORDS = ["labels", "label_names", "url", "title", "file_name", "label", "license"]
KEYS = st.sampled_from(WORDS) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
CONTENT = (
    st.binary(max_size=60)
    | st.sampled_from([good(7), good(8), good(9)[:-20], b"", b"{", b"[" * 5000])
    | JSON.map(lambda value: json.dumps(value).encode())
)
PATCHES = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), max_size=4
)


@pytest.mark.slow
@given(
    members=st.lists(st.tuples(NAMES, CONTENT, st.sampled_from([0, 8, 12])), max_size=5),
    flags=st.lists(st.sampled_from([0, 1, 0x800, 0x41]), min_size=5, max_size=5),
    modes=st.lists(st.sampled_from([0, 0o120777, 0o010644, 0o040755]), min_size=5, max_size=5),
)
def test_members_of_a_zip(
    members: list[tuple[str, bytes, int]], flags: list[int], modes: list[int]
) -> None:
    neighbours = {f"good{number}.png": good(number) for number in range(2)}
    members = [one for one in members if one[0] not in ("dataset.json", "metadata.jsonl")]
    with project() as (folder, dataset, log):
        path = folder / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for (name, data, packing), flag, mode in zip(members, flags, modes, strict=False):
                info = zipfile.ZipInfo(name.encode(errors="replace").decode())
                info.compress_type, info.external_attr = packing, mode << 16
                if info.filename not in archive.NameToInfo:
                    archive.writestr(info, data)
                    info.flag_bits |= flag
            for name, data in neighbours.items():
                archive.writestr(name, data)
        check(path, dataset, log, set(neighbours.values()))


@pytest.mark.slow
@given(patches=PATCHES, cut=st.integers(0, 60), content=JSON)
def test_bytes_of_a_zip(patches: list[tuple[int, bytes]], cut: int, content: object) -> None:
    with project() as (folder, dataset, log):
        path = folder / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("dataset.json", json.dumps(content))
            for number in range(3):
                archive.writestr(f"{number}.png", good(number))
        data = bytearray(path.read_bytes())
        for place, new in patches:
            place %= len(data)
            data[place : place + len(new)] = new
        path.write_bytes(data[: len(data) - cut] if cut % 3 == 0 else data)
        check(path, dataset, log, set())


def header(name: bytes, size: bytes, kind: bytes, link: bytes = b"") -> bytes:
    block = bytearray(512)
    block[: len(name[:100])] = name[:100]
    block[100:108], block[108:124] = b"0000644\0", 2 * b"0000000\0"
    block[124:136], block[136:148], block[156:157] = size, b"00000000000\0", kind
    block[157 : 157 + len(link[:100])] = link[:100]
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


SIZES = st.one_of(
    st.integers(0, 2000).map(lambda size: b"%011o\0" % size),
    st.integers(-5, 1 << 70).map(
        lambda size: b"\xff" * 12 if size < 0 else b"\x80" + size.to_bytes(11)
    ),
    st.binary(min_size=12, max_size=12),
)
PAX = st.sampled_from(
    [b"0 path=x\n", b"12 size=abc\n", b"11 size=-9\n", b"26 size=99999999999999999\n", b"junk",
     b"13 path=\xff\xfe\xfd\n", b"30 GNU.sparse.size=9999999999\n", b"22 GNU.sparse.major=1\n",
     b"99999999999999999999 path=x\n", b"-5 path=x\n"]
)  # fmt: skip


@st.composite
def tar_blocks(draw: st.DrawFn) -> bytes:
    """Members of a tar, some of them whole."""
    made = b""
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from([b"0", b"0", b"1", b"2", b"3", b"5", b"6", b"x", b"g", b"L",
                                     b"K", b"S", b"V", b"Z", b"\0"]))  # fmt: skip
        name = draw(NAMES).encode(errors="replace")
        data = draw(PAX) if kind in (b"x", b"g") and draw(st.booleans()) else draw(CONTENT)
        size = b"%011o\0" % len(data) if draw(st.booleans()) else draw(SIZES)
        made += header(name, size, kind, draw(st.binary(max_size=20)))
        made += data + bytes(-len(data) % 512)
    return made


@given(blocks=tar_blocks(), patches=PATCHES)
def test_members_of_a_tar(blocks: bytes, patches: list[tuple[int, bytes]]) -> None:
    """What comes before them, and the next tar, arrives."""
    with project() as (folder, dataset, log):
        (folder / "in").mkdir()
        data = bytearray(blocks)
        for place, new in patches if blocks else ():
            place %= len(data)
            data[place : place + len(new)] = new
        first = header(b"first.png", b"%011o\0" % len(good(0)), b"0") + good(0)
        first += bytes(-len(first) % 512)
        (folder / "in/0.tar").write_bytes(first + bytes(data))
        with tarfile.open(folder / "in/1.tar", "w") as archive:
            info = tarfile.TarInfo("last.png")
            info.size = len(good(1))
            archive.addfile(info, io.BytesIO(good(1)))
        check(folder / "in", dataset, log, {good(0), good(1)})


LINES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from([b'{"file_name": "bad.png"}', b'{"file_name": "none.png"}', b"[" * 5000,
                     b'{"file_name": "\\ud83d.png", "label": "\\ud83d"}', b"",
                     b'{"file_name": "good.png", "label": {"a": [1]}, "license": 5}']),
)  # fmt: skip


@given(lines=st.lists(LINES, max_size=6), form=st.sampled_from(["jsonl", "csv"]))
def test_lines_of_metadata(lines: list[bytes], form: str) -> None:
    with project() as (folder, dataset, log):
        (folder / "in").mkdir()
        (folder / "in/good.png").write_bytes(good(0))
        (folder / "in/bad.png").write_bytes(b"junk")
        if form == "jsonl":
            text = b"\n".join([*lines, b'{"file_name": "good.png", "label": "a"}'])
        else:
            text = b"\r\n".join([b"file_name,label", b"good.png,a", *lines])
        (folder / f"in/metadata.{form}").write_bytes(text)
        check(folder / "in", dataset, log, {good(0)})


@given(data=st.binary(max_size=300), name=st.sampled_from(["x.zip", "x.tar", "x.json", "x"]))
def test_any_file(data: bytes, name: str) -> None:
    with project() as (folder, dataset, log):
        (folder / name).write_bytes(data)
        check(folder / name, dataset, log, set())


def test_the_header_is_one_that_tarfile_reads() -> None:
    data = header(b"a.png", b"%011o\0" % 3, b"0") + b"abc".ljust(512, b"\0") + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a.png"]
    assert struct.calcsize("512s") == 512
