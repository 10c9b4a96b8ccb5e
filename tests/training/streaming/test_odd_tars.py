"""Tars with a matching hash that are not what they ought to be: each is refused, none hangs."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contract.tar import BLOCK, DamagedTar, members, samples
from pipeline.errors import UserError
from training.config import Config, DataOptions
from training.data import Loader
from training.streaming.dataset import open_shard_dataset
from training.streaming.shards import DamagedShard

END = bytes(2 * BLOCK)


def read(data: bytes) -> dict[str, bytes]:
    return {
        name: data[extent.offset : extent.offset + extent.size]
        for name, extent in members(lambda size, at: data[at : at + size], len(data))
    }


def header(
    name: bytes = b"a.png", size: bytes = b"00000000003", kind: bytes = b"0", magic: bool = True
) -> bytes:
    """A header with any bytes in its fields and a right checksum."""
    block = bytearray(BLOCK)
    block[: len(name)], block[124 : 124 + len(size)] = name, size
    block[156:157] = kind
    if magic:
        block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes = b"a.png", data: bytes = b"abc", kind: bytes = b"0") -> bytes:
    return header(name, b"%011o" % len(data), kind) + padded(data)


def pax(*records: bytes) -> bytes:
    return member(b"pax", b"".join(records), b"x")


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) > length:
        length += 1
    return b"%d" % length + rest


REFUSED = {
    "a record of length 0": pax(b"0 path=x\n") + member(),
    "a record of negative length": pax(b"-5 path=x\n") + member(),
    "a record of a length that is no number": pax(b"ab path=x\n") + member(),
    "a record of other digits": pax("١٢ path=x\n".encode()) + member(),
    "a record that is longer than the header": pax(b"99 path=x\n") + member(),
    "a record of 5,000 digits": pax(b"9" * 5000 + b" path=x\n") + member(),
    "a record without an equals sign": pax(b"9 pathxx\n") + member(),
    "a record without its newline": pax(b"9 path=xy") + member(),
    "a negative pax size": pax(record(b"size", b"-1")) + member(),
    "a pax size of words": pax(record(b"size", b"many")) + member(),
    "a pax size of 5,000 digits": pax(record(b"size", b"1" * 5000)) + member(),
    "a pax size beyond the end": pax(record(b"size", b"999999")) + member(),
    "a pax name that is not UTF-8": pax(record(b"path", b"\xff\xfe.png")) + member(),
    "a sparse file in pax words": pax(record(b"GNU.sparse.map", b"0,1")) + member(),
    "a GNU sparse file": member(kind=b"S"),
    "a piece of several volumes": member(kind=b"M"),
    "a size for all members": member(b"g", record(b"size", b"1"), b"g") + member(),
    "a name for all members": member(b"g", record(b"path", b"x.png"), b"g") + member(),
    "a name that is not UTF-8": member(b"\xff\xfe.png"),
    "a GNU name that is not UTF-8": member(b"L", b"\xff.png\0", b"L") + member(),
    "no name": member(b""),
    "a huge base-256 size": header(size=b"\x80" + b"\x7f" * 11) + padded(b"abc"),
    "a negative base-256 size": header(size=b"\xff" * 12) + padded(b"abc"),
    "a size with a minus": header(size=b"-0000000003") + padded(b"abc"),
    "a size with an underscore": header(size=b"0000000_003") + padded(b"abc"),
    "a size in other digits": header(size=b"00000000009") + padded(b"abc"),
    "a size beyond the end": header(size=b"77777777777") + padded(b"abc"),
    "a name of 4 GB": header(b"L", b"37777777777", b"L") + member(),
    "a pax header of 4 GB": header(b"x", b"37777777777", b"x") + member(),
    "the same member twice": member() + member(),
    "no end": None,
    "too many members": b"".join(member(b"a.%03d" % number) for number in range(101)),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", REFUSED)
def test_an_odd_tar_is_refused_at_once(case: str) -> None:
    odd = REFUSED[case]
    data = member() if odd is None else odd + END
    with pytest.raises(DamagedTar):
        samples(lambda size, at: data[at : at + size], len(data))


def test_a_name_of_several_megabytes_is_refused_though_it_is_there() -> None:
    for kind in (b"L", b"K", b"x", b"g"):
        data = member(b"long", bytes(3 << 20), kind) + member() + END
        with pytest.raises(DamagedTar, match="a name of 3145728 bytes"):
            read(data)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [b"a/" * 400_000 + b"b", b"a/" * 400_000 + b"b.png"])
def test_a_long_name_of_many_folders_takes_no_time(name: bytes) -> None:
    data = member(b"long", name, b"L") + member() + END
    found = samples(lambda size, at: data[at : at + size], len(data))
    assert [sample.key for sample in found] == ([name[:-4].decode()] if b"." in name else [])


@pytest.mark.timeout(20)
def test_pax_headers_of_many_records_take_no_time() -> None:
    data = pax(b"5 a=\n" * 200_000) * 20 + member() + END
    assert read(data) == {"a.png": b"abc"}


def test_pax_sizes_and_names_hold_for_the_next_member_alone() -> None:
    both = record(b"size", b"5") + record(b"path", b"n.png")
    data = pax(both) + header(b"a.png", b"0") + padded(b"12345") + member(b"b.png") + END
    assert read(data) == {"n.png": b"12345", "b.png": b"abc"}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(one.name, one.size) for one in tar] == [("n.png", 5), ("b.png", 3)]


def test_links_folders_and_devices_are_left_out_whatever_size_they_name() -> None:
    odd = b"".join(header(b"l", b"77777777777", b"%d" % kind) for kind in range(1, 7))
    assert read(odd + member() + END) == {"a.png": b"abc"}
    assert read(header(b"folder/", b"0", b"\0", magic=False) + member() + END) == {"a.png": b"abc"}
    assert read(member(b"/etc/passwd.png") + member(b"../up.png") + END).keys() == {
        "/etc/passwd.png",
        "../up.png",
    }


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(buffer, "JPEG", quality=1)
    return buffer.getvalue()


def eps() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "EPS")
    return buffer.getvalue()


ODD_SAMPLES: dict[str, tuple[dict[str, bytes], str]] = {
    "a PNG of 12,000² px": ({"png": png(12_000, 12_000, "1")}, r"x\.png is 12000×12000 px"),
    "a JPEG of 9,000² px": ({"jpg": jpeg(9000, 9000)}, r"x\.jpg is 9000×9000 px"),
    "another shape": ({"png": png(8, 16)}, r"x\.png is 8×16 px"),
    "a smaller one": ({"png": png(8, 8)}, r"x\.png is 8×8 px"),
    "no image": ({"cls": b"0"}, "x has no image"),
    "an empty image": ({"webp": b""}, r"x\.webp is no image"),
    "half a PNG": ({"png": png(16, 16)[:40]}, r"x\.png "),
    "half a JPEG": ({"jpg": jpeg(16, 16)[:30]}, r"x\.jpg "),
    "PostScript": ({"png": eps()}, r"x\.png is no image"),
    "a label of 5,000 digits": ({"png": png(16, 16), "cls": b"1" * 5000}, r"x\.cls has 5000 bytes"),
    "a label of 60 digits": ({"png": png(16, 16), "cls": b"1" * 60}, r"x\.cls is 1{60}, the in"),
    "a negative label": ({"png": png(16, 16), "cls": b"-1"}, r"x\.cls is b'-1', not the number"),
    "a label of other digits": ({"png": png(16, 16), "cls": "١".encode()}, r"x\.cls is b'"),
    "a label out of range": ({"png": png(16, 16), "cls": b"2"}, r"x\.cls is 2, the index names f"),
    "a label of words": ({"png": png(16, 16), "cls": b"cone"}, r"x\.cls is b'cone', not the n"),
}


def with_sample(shards: Any, odd: dict[str, bytes]) -> Any:
    """The shards, the first of which holds nothing but the odd sample; its hash fits."""
    shards.tars[0] = (
        b"".join(member(f"x.{ending}".encode(), data) for ending, data in odd.items()) + END
    )
    shards.path(0).write_bytes(shards.tars[0])
    sizes = list(shards.sizes)
    sizes[0] = 1
    object.__setattr__(shards, "sizes", sizes)
    shards.write_index(f"../../data/{shards.name}/shards/")
    return shards


def take(shards: Any, count: int, **data: Any) -> tuple[list[Any], list[str]]:
    config = Config(batch=10, data=DataOptions(window=1, **data))
    with Loader(open_shard_dataset(shards.manifest, 0), config) as loader:
        batches = [next(loader) for _ in range(count)]
        warned = [loader.warnings.get() for _ in range(loader.warnings.qsize())]
    return batches, warned


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", ODD_SAMPLES)
def test_an_odd_sample_is_named_and_its_shard_can_be_left_out(
    case: str, small_shards: Callable[..., Any]
) -> None:
    odd, said = ODD_SAMPLES[case]
    shards = with_sample(small_shards(labels=("cone", "whelk")), odd)
    with pytest.raises(DamagedShard, match=rf"small-000000\.tar: {said}") as caught:
        take(shards, 10)
    assert "skip_corrupt" in str(caught.value)
    batches, warned = take(shards, 10, skip_corrupt=True)
    assert len(batches) == 10
    assert len(warned) == 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "missing"])
def test_what_is_no_file_is_named_and_never_waited_for(
    kind: str, small_shards: Callable[..., Any]
) -> None:
    shards = small_shards(sizes=(20,))
    path = shards.path(0)
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    for base in (f"../../data/{shards.name}/shards/", f"{shards.folder.as_uri()}/"):
        shards.write_index(base)
        with pytest.raises(UserError, match=r"(0\.tar|/dev/zero): (not a regular|No such) f"):
            take(shards, 1)


@pytest.mark.timeout(20)
def test_a_fifo_in_the_place_of_an_index_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shards.json")
    for location in (tmp_path, tmp_path.as_uri(), tmp_path / "shards.json"):
        with pytest.raises(UserError, match=r"shards\.json: no shard index there \(.*not a regul"):
            open_shard_dataset(location, 0)
