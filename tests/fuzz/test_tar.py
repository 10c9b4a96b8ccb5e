"""Generated and mutated tars through the reader of shards, beside the standard library's."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract import ShardEntry
from pipeline.contract.tar import BLOCK, DamagedTar, members, samples
from training.streaming.shards import DamagedShard, open_verified

ENDINGS = ("png", "jpg", "cls", "json", "seg.png")
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.builds(
    lambda folder, key, ending: f"{folder}{key}.{ending}",
    st.sampled_from(["", "a/", "a/b.c/", "f" * 60 + "/"]),
    st.text("abcö0_-", min_size=1, max_size=70),
    st.sampled_from(ENDINGS),
)
CONTENT = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=12)


def packed(content: dict[str, bytes], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    return {
        name: data[extent.offset : extent.offset + extent.size]
        for name, extent in members(lambda size, at: data[at : at + size], len(data))
    }


@given(CONTENT, st.sampled_from(FORMATS))
def test_what_tarfile_writes_is_read_back(content: dict[str, bytes], form: int) -> None:
    try:
        data = packed(content, form)
    except ValueError:  # ustar holds no such name
        return
    assert read(data) == content


def rechecked(data: bytearray) -> bytes:
    """The tar with right checksums in all blocks that look like headers."""
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)


FIELDS = st.sampled_from(
    [(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([
        b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"77777777777", b"-1", b"0 path=", b"L", b"x", b"g",
        b"S", b"1", b"5", b"\xff\xfe", b"", b"00000000003", b"9" * 30,
    ]),
)  # fmt: skip


class Tar(bytes):
    """Bytes that are short to print: `zlib.decompress(base64.b64decode(…))`."""

    def __repr__(self) -> str:
        return f"Tar({base64.b64encode(zlib.compress(self)).decode()})"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A tar in which some headers or records say something else, their checksums being right."""
    content = draw(st.dictionaries(NAMES, st.binary(max_size=700), min_size=1, max_size=5))
    try:
        data = bytearray(packed(content, draw(st.sampled_from(FORMATS))))
    except ValueError:
        data = bytearray(packed({"a.png": b"x"}, tarfile.PAX_FORMAT))
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.integers(0, len(data) // BLOCK - 1)) * BLOCK
        start, length = draw(FIELDS)
        value = draw(VALUES)[:length]
        data[block + start : block + start + len(value)] = value
    fixed = rechecked(data)
    return Tar(fixed[: draw(st.integers(0, len(fixed)))] if draw(st.booleans()) else fixed)


@pytest.mark.parametrize(
    "digits", [b"\0" + b"0" * 9 + b"1\0", b"0000\0000001\0", b"0001 001\0\0\0\0"]
)
def test_digits_after_a_zero_byte_are_refused(digits: bytes) -> None:
    """GNU tar reads 1 where Python's tarfile reads 0."""
    tar = bytearray(packed({"0.png": b"x"}, tarfile.USTAR_FORMAT))
    tar[124:136] = digits
    with pytest.raises(DamagedTar, match="not a number"):
        read(rechecked(tar))


@pytest.mark.timeout(120)
@given(st.one_of(mutated(), st.binary(max_size=3000)))
def test_an_odd_tar_is_read_or_refused(data: bytes) -> None:
    try:
        found = samples(lambda size, at: data[at : at + size], len(data), most=50)
    except DamagedTar:
        return
    assert len(found) <= 50
    for sample in found:
        assert sample.members
        for extent in sample.members.values():
            assert 0 <= extent.offset <= extent.offset + extent.size <= len(data)
    try:  # what both find is the same; tarfile stops without a word at a header that it cannot read
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            theirs = {one.name: one.size for one in tar if one.isfile()}
    except (tarfile.TarError, ValueError, OverflowError):
        return
    ours = {name.rstrip("/"): len(content) for name, content in read(data).items()}
    both = ours.keys() & theirs.keys()
    assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(mutated(), st.integers(0, 6))
@example(packed({"a.png": b"x", "b.png": b"yy"}, tarfile.PAX_FORMAT), 2)
def test_a_shard_with_a_matching_hash_opens_or_is_refused(data: bytes, nsamples: int) -> None:
    entry = ShardEntry("a.tar", nsamples, len(data), hashlib.sha256(data).hexdigest())
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        before, said = open_files(), ""
        try:
            shard = open_verified(os.open(file.name, os.O_RDONLY), entry, "a.tar")
        except DamagedShard as error:
            said = str(error)
        else:
            said = "a.tar: "
            assert len(shard.samples) == nsamples
            for number, sample in enumerate(shard.samples):
                for ending, extent in sample.members.items():
                    content = shard.read(number, ending, 1 << 20)
                    assert content == data[extent.offset : extent.offset + extent.size]
            shard.close()
        assert said.startswith("a.tar: ")
        assert open_files() == before
