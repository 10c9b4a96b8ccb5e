"""Rows of the files on disk: images of the URL manifest and records of originals."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.outside_text import plain_value, safe_text, without_passwords

_MAX_COORDINATE = 1e9
Box = tuple[float, float, float, float]
"""Left, top, right, bottom of an object, in pixels of the upright image."""


def now_utc() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_key(url: str) -> str:
    """Return the key of an image: the first 16 hex digits of the sha256 of its canonical URL."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True)
class ManifestRow:
    """One image of the URL manifest. `boxes` are annotated objects, each (left, top, right,
    bottom) in pixels of the upright image; `page_opt_out` lists the opt-out signals of the page
    (`noai: meta element`): those that the recipe overrides, or that the page got after a crawl.

    Text from outside enters the dataset here, so it is made safe to write (`safe_text`), and
    passwords are removed from URLs.
    """

    key: str
    url: str
    page: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    attribution: str = ""
    found: str = ""
    boxes: tuple[Box, ...] = ()
    page_opt_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            if "@" in text or not text.isprintable():
                object.__setattr__(self, name, safe_text(without_passwords(text)))
        for name in _LISTS:
            texts = getattr(self, name)
            if not all(map(str.isprintable, texts)):
                object.__setattr__(self, name, tuple(map(safe_text, texts)))

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ManifestRow:
        """Return the row in a JSON object; other members are ignored.

        Raises:
            ValueError: a member is missing or of the wrong type; the message names it.
        """
        texts = {name: _text_of(row, name) for name in _TEXTS if name in row}
        for name in ("key", "url"):
            if name not in texts:
                raise ValueError(f"{name}: missing")
        return cls(
            **texts,
            labels=tuple(_texts_of(row, "labels")),
            boxes=parse_boxes(row.get("boxes")),
            page_opt_out=tuple(_texts_of(row, "page_opt_out")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; `boxes` and `page_opt_out` only if there are any."""
        row = {**vars(self), "labels": list(self.labels)}  # asdict costs ten times more
        del row["boxes"], row["page_opt_out"]
        if self.boxes:
            row["boxes"] = [list(box) for box in self.boxes]
        if self.page_opt_out:
            row["page_opt_out"] = list(self.page_opt_out)
        return row


_TEXTS = ("key", "url", "page", "title", "license", "attribution", "found")
_LISTS = ("labels", "page_opt_out")


def _text_of(row: dict[str, Any], name: str) -> str:
    text = row[name]
    if text.__class__ is str:
        return text
    plain = plain_value(text)
    if plain is None:
        raise ValueError(f"{name}: not a text: {text!r:.60}")
    return plain


def _texts_of(row: dict[str, Any], name: str) -> Iterator[str]:
    values = row.get(name) or ()
    for one in values if isinstance(values, list | tuple) else [values]:
        yield _text_of({name: one}, name)


def parse_boxes(boxes: Any) -> tuple[Box, ...]:
    """Return the boxes in a JSON value: a list of boxes, or nothing.

    Raises:
        ValueError: a box is not a list of four finite numbers.
    """
    return tuple(map(_box, boxes if isinstance(boxes, list | tuple) else [boxes] if boxes else []))


def _box(box: Any) -> Box:
    numbers = box if isinstance(box, list | tuple) else ()
    good = (one for one in numbers if isinstance(one, int | float) and one is not True)
    if len(numbers) != 4 or sum(abs(one) <= _MAX_COORDINATE for one in good) != 4:
        raise ValueError(f"boxes: not four numbers: {box!r:.60}")
    return (box[0], box[1], box[2], box[3])


@dataclass(frozen=True)
class OriginalRecord:
    """The recorded properties of one downloaded image; `select` reads nothing else.

    `part` is the name of the tar without its extension and `member` the image in it. The image's
    bytes begin at `offset` in the tar and have the length `bytes`, so one seek reads them. `width`
    and `height` are in pixels after EXIF orientation. `mode` is Pillow's mode of the file. `phash`
    is a 64-bit perceptual hash in hex, `detail_hash` one of 256 bits (empty in old records).
    `sharpness` is the variance of the Laplacian of the gray image at 256 px short side, values 0 to
    255; `contrast` is the standard deviation of its gray values. On disk, `detail_hash`,
    `sharpness` and `contrast` are called `detail`, `blur` and `spread`. `missing_part` is the
    fraction of the image, from 0 to 1, that decoders filled because the file ended early (0 in old
    records). `opt_out` lists the opt-out signals that the recipe overrides, empty if there were
    none; it is None in old records.
    """

    key: str
    part: str
    member: str
    offset: int
    bytes: int
    sha256: str
    format: str
    mode: str
    width: int
    height: int
    phash: str
    sharpness: float
    contrast: float
    detail_hash: str = ""
    missing_part: float = 0.0
    opt_out: list[dict[str, str]] | None = None

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> OriginalRecord:
        """Return the record in a JSON object; other members are ignored.

        Raises:
            ValueError: a member is missing or of the wrong type; the message names it.
        """
        values: dict[str, Any] = {}
        for name, kind in _RECORD_TYPES.items():
            stored = _NAMES_ON_DISK.get(name, name)
            value: Any = row.get(stored, getattr(cls, name, None))  # old records lack some
            good = isinstance(value, kind) and value.__class__ is not bool
            if not good or (kind is not str and not 0 <= value < _MAX_COUNT):
                raise ValueError(f"{stored}: {'missing' if value is None else f'{value!r:.60}'}")
            values[name] = value
        if not _HEX.fullmatch(values["phash"] + values["detail_hash"]):
            raise ValueError(f"phash or detail: not hexadecimal: {values['phash']!r:.60}")
        seen = row.get("opt_out")
        if not (
            seen is None or (isinstance(seen, list) and all(isinstance(one, dict) for one in seen))
        ):
            raise ValueError(f"opt_out: not a list of objects: {seen!r:.60}")
        return cls(**values, opt_out=seen)

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {_NAMES_ON_DISK.get(name, name): value for name, value in vars(self).items()}


_NAMES_ON_DISK = {"sharpness": "blur", "contrast": "spread", "detail_hash": "detail"}
_HEX = re.compile(r"[0-9a-f]*")
_MAX_COUNT = 1 << 63
_RECORD_TYPES: dict[str, Any] = {
    name: {"int": int, "float": (int, float)}.get(str(kind), str)
    for name, kind in OriginalRecord.__annotations__.items()
    if name != "opt_out"
}
