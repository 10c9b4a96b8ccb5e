"""The items that the readers of other formats yield: images and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from pipeline.contract import Box, ManifestRow, image_key, now_utc
from pipeline.errors import Failure
from pipeline.imaging.images import EXTENSIONS
from pipeline.imaging.limits import ImageError
from pipeline.outside_text import safe_text, without_passwords
from pipeline.web.failures import failure

STAGE = "import"
IMAGE_SUFFIXES = frozenset(f".{extension}" for extension in EXTENSIONS.values()) | {
    ".jpeg", ".tiff", ".heif", ".hif", ".pbm", ".pgm", ".pnm", ".j2k", ".jpx",
}  # fmt: skip
_MAX_TEXT = 10_000
_MAX_COORDINATE = 1e8


LABEL_KEYS = ("labels", "label", "class", "category")
"""Usual keys and columns of labels, in order."""


@dataclass(frozen=True)
class ImportedImage:
    """An image of another tool's dataset: its URL, its metadata, and a function that reads it.

    `read` receives the maximum size in bytes. It raises `ImageError` if the bytes cannot be used,
    for example because there are too many, and `OSError` if they cannot be read.
    """

    url: str
    read: Callable[[int], bytes]
    labels: tuple[str, ...] = ()
    title: str = ""
    license: str = ""
    attribution: str = ""
    boxes: tuple[Box, ...] = ()
    held: int = 0

    @cached_property
    def key(self) -> str:
        return image_key(self.url)

    @property
    def row(self) -> ManifestRow:
        return ManifestRow(
            self.key, self.url, "", self.title, self.labels, self.license,
            self.attribution, now_utc(), self.boxes,
        )  # fmt: skip


@dataclass(frozen=True)
class ImportOptions:
    """What to take from a dataset.

    `label` names what becomes the label of an image: a column of a table, a key of JSON, or
    `attr:NAME` and `identity` of CelebA; empty: the format's own labels. `split` names the part to
    import, such as train; empty: all.
    """

    label: str = ""
    split: str = ""

    def has_split(self, name: str) -> bool:
        """Return True if the split of this name is imported."""
        return not self.split or split_name(self.split) == split_name(name)


SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val",
          "valid": "val", "validation": "val", "dev": "val"}  # fmt: skip
"""Usual names of splits."""


def split_name(text: str) -> str:
    """Return the usual name of a split; the text itself in lower case if it is not one."""
    return SPLITS.get(text.casefold(), text.casefold())


@dataclass(frozen=True)
class Skipped:
    """Images that a dataset contains but that are not imported: their number, the name of the
    first one, and why."""

    images: int
    first: str
    why: str


Items = Iterator[ImportedImage | Failure | Skipped]


def make_item(
    place: str, read: Callable[[int], bytes], labels: tuple[str, ...], title: str,
    metadata: dict[str, Any], boxes: tuple[Box, ...] = (), held: int = 0,
) -> ImportedImage:  # fmt: skip
    """Return an image; its URL is that in its metadata, or else its path on this machine. It is
    made safe like that of a manifest row, so that its key is the one of the stored URL."""
    return ImportedImage(
        safe_text(without_passwords(as_text(metadata.get("url") or place))), read, labels,
        as_text(metadata.get("title") or metadata.get("caption") or title),
        as_text(metadata.get("license") or ""), as_text(metadata.get("attribution") or ""), boxes,
        held,
    )  # fmt: skip


def as_text(value: object) -> str:
    """Convert a metadata value to text that can be stored."""
    text = value if isinstance(value, str) else repr(value)
    return text[:_MAX_TEXT].encode(errors="replace").decode()


def as_labels(value: object) -> tuple[str, ...]:
    """Convert a metadata value (a list, one label, or an empty value) to labels."""
    if value is None or value in ("", [], ()):
        return ()
    if isinstance(value, list | tuple):
        return tuple(as_text(one) for one in value)
    return (as_text(value),)


def labels_in(values: Mapping[str, Any], wanted: str = "") -> tuple[str, ...]:
    """Return the labels in the metadata of an image: those at the key `wanted`, or else at the
    first of the usual keys."""
    keys = (wanted,) if wanted else LABEL_KEYS
    return next(filter(None, (as_labels(values.get(key)) for key in keys)), ())


def label_of_number(number: object, names: Sequence[Any]) -> tuple[str, ...]:
    """Return the label of a class number: its name, or the number itself if it has none."""
    if isinstance(number, int) and 0 <= number < len(names):
        return (as_text(names[number]),)
    return as_labels(number)


def box_of_size(values: object) -> Box | None:
    """Return the box of (x, y, width, height); None if these are not four finite numbers."""
    if not (isinstance(values, list | tuple) and len(values) == 4):
        return None
    if not all(isinstance(one, int | float) and abs(one) <= _MAX_COORDINATE for one in values):
        return None
    x, y, width, height = values
    return (x, y, x + width, y + height)


def sort_objects(objects: Iterable[tuple[str, Box]]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Return the boxes of named objects, the largest first, and their names without repetition."""

    def area(entry: tuple[str, Box]) -> float:
        left, top, right, bottom = entry[1]
        return (right - left) * (bottom - top)

    ordered = sorted(objects, key=area, reverse=True)
    names = dict.fromkeys(as_text(name) for name, _ in ordered if name)
    return tuple(box for _, box in ordered), tuple(names)


def broken_metadata(url: str, detail: str) -> Failure:
    """Return the failure of one metadata row or one image."""
    return failure(STAGE, url, "parse_error", detail=detail)


def is_file(path: Path) -> bool:
    """Return True if the path is a readable regular file (not a FIFO, for example)."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_file(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes.

    Raises:
        ImageError: it is larger (`too_large`).
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return read_most(file, most)


def read_most(file: IO[bytes], most: int) -> bytes:
    """Read the rest of an open file, at most `most` bytes.

    Raises:
        ImageError: it is larger (`too_large`).
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise ImageError("too_large", f"more than {most} bytes")
    return data
