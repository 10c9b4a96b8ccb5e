"""Reads images in TFRecord files, such as img2dataset's output, without TensorFlow.

A record is a length (8 bytes), a checksum, the data and a checksum; the data is a protocol buffer
`tf.train.Example`, a map from names to lists of bytes, floats or integers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.formats import image_format
from pipeline.imaging.limits import ImageError
from pipeline.importers.items import (
    STAGE,
    ImportOptions,
    Items,
    as_text,
    broken_metadata,
    labels_in,
    make_item,
)
from pipeline.importers.tree import Tree, base_name, describe_files
from pipeline.units import count_of
from pipeline.web.failures import failure

_SUFFIXES = (".tfrecord", ".tfrecords")
_MAX_RECORD = 256 << 20
_HEADER = struct.Struct("<QI")


def detect(tree: Tree) -> str:
    """Return what was found; empty if it is not of this format."""
    return describe_files(tree, _files(tree), "tfrecord", "TFRecord")


def _files(tree: Tree) -> list[str]:
    return [
        name for name in tree.files
        if PurePosixPath(name).suffix.lower() in _SUFFIXES or ".tfrecord-" in base_name(name)
    ]  # fmt: skip


def read(tree: Tree, options: ImportOptions) -> Items:
    """Yield the image of each record: its first feature whose bytes are an image."""
    for name in _files(tree):
        url = tree.files[name].url
        number = 0
        try:
            with tree.open(name) as file:
                for place, data in _records(file):
                    yield from _image(tree, name, place, data, options)
                    number += 1
        except (ImageError, OSError, ValueError) as error:
            detail = error.detail if isinstance(error, ImageError) else str(error)
            detail = f"not a complete TFRecord file, after {count_of(number, 'record')}: {detail}"
            yield failure(STAGE, url, "damaged", detail=detail)


def _records(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and data of each record.

    Raises:
        ValueError: the file is damaged.
    """
    while True:
        place = file.tell()
        header = file.read(_HEADER.size)
        if not header:
            return
        if len(header) < _HEADER.size:
            raise ValueError(f"truncated at byte {place}")
        length, checksum = _HEADER.unpack(header)
        if masked_crc32c(header[:8]) != checksum or length > _MAX_RECORD:
            raise ValueError(f"damaged at byte {place}")
        data = file.read(length + 4)
        if len(data) < length + 4:
            raise ValueError(f"truncated at byte {place}")
        yield place, data[:-4]


def _image(tree: Tree, name: str, place: int, data: bytes, options: ImportOptions) -> Items:
    url = f"{tree.files[name].url}#{place}"
    try:
        features = parse_example(memoryview(data))
    except (ValueError, IndexError, struct.error) as error:
        yield broken_metadata(url, f"record at byte {place}: not a tf.train.Example ({error})")
        return
    image = next(
        (one for one in features.values() if isinstance(one, bytes) and image_format(one)), None
    )
    if image is None:
        yield broken_metadata(url, f"record at byte {place}: no image among {', '.join(features)}")
        return
    values = {
        key.rpartition("/")[2]: one.decode(errors="replace") if isinstance(one, bytes) else one
        for key, one in features.items() if one is not image
    }  # fmt: skip
    values = {key: one for key, one in values.items() if one != ""}
    title = values.get("key") or f"{base_name(name)} {place}"
    yield make_item(url, partial(_limited, image), labels_in(values, options.label), as_text(title),
                    values, held=len(image))  # fmt: skip


def _limited(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise ImageError("too_large", f"{len(data)} bytes, over {most}")
    return data


# tf.train.Example


def parse_example(data: memoryview) -> dict[str, Any]:
    """Return the features of a `tf.train.Example`: bytes, an integer, a float or a list of them.

    Raises:
        ValueError, IndexError: it is damaged.
    """
    found: dict[str, Any] = {}
    for number, features in _fields(data):
        if number != 1 or not isinstance(features, memoryview):
            continue
        for _, entry in _fields(features):
            parts = dict(_fields(entry)) if isinstance(entry, memoryview) else {}
            key, value = parts.get(1), parts.get(2)
            if isinstance(key, memoryview) and isinstance(value, memoryview):
                found[bytes(key).decode()] = _feature(value)
    return found


def _feature(data: memoryview) -> Any:
    values: list[Any] = []
    for kind, content in _fields(data):
        if not isinstance(content, memoryview) or kind not in _LISTS:
            raise ValueError("an unknown kind of feature")
        for _, value in _fields(content):
            values += _LISTS[kind](value)
    return values[0] if len(values) == 1 else values


def _as_bytes(value: memoryview | int) -> list[Any]:
    return [bytes(value)] if isinstance(value, memoryview) else []


def _as_floats(value: memoryview | int) -> list[Any]:
    data = bytes(value) if isinstance(value, memoryview) else value.to_bytes(4, "little")
    return [one for (one,) in struct.iter_unpack("<f", data)]


def _as_integers(value: memoryview | int) -> list[Any]:
    if isinstance(value, int):
        return [_signed(value)]
    found, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        found.append(_signed(number))
    return found


_LISTS: dict[int, Callable[[memoryview | int], list[Any]]] = {
    1: _as_bytes, 2: _as_floats, 3: _as_integers,
}  # fmt: skip


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the number and value of each field of a protocol buffer."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        size, place = _varint(data, place) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), place)
        if size < 0 or place + size > len(data):
            raise ValueError("damaged")
        part = data[place : place + size]
        yield tag >> 3, part if kind == 2 else int.from_bytes(part, "little")
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return the integer of 7 bits per byte at `place`, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("damaged")


# checksums


def _table() -> NDArray[np.uint32]:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(0x82F63B78), values >> 1)
    return values


_CRC = [int(value) for value in _table()]


def masked_crc32c(data: bytes) -> int:
    """Return TFRecord's checksum of a few bytes (CRC-32C, rotated by 15 bits, plus a constant)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
