"""The items that the readers of other formats yield: images and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.contract import ManifestRow, image_key, now_utc
from pipeline.errors import Failure
from pipeline.imaging.images import EXTENSIONS
from pipeline.imaging.limits import ImageError
from pipeline.web.failures import failure

STAGE = "import"
IMAGE_SUFFIXES = frozenset(f".{extension}" for extension in EXTENSIONS.values()) | {
    ".jpeg", ".tiff", ".heif", ".hif", ".pbm", ".pgm", ".pnm", ".j2k", ".jpx",
}  # fmt: skip
_MAX_TEXT = 10_000


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

    @property
    def row(self) -> ManifestRow:
        return ManifestRow(
            image_key(self.url), self.url, "", self.title, self.labels, self.license,
            self.attribution, now_utc(),
        )  # fmt: skip


Items = Iterator[ImportedImage | Failure]


def make_item(
    place: str, read: Callable[[int], bytes], labels: tuple[str, ...], title: str,
    metadata: dict[str, Any],
) -> ImportedImage:  # fmt: skip
    """Return an image; its URL is that in its metadata, or else its path on this machine."""
    return ImportedImage(
        as_text(metadata.get("url") or place), read, labels,
        as_text(metadata.get("title") or title),
        as_text(metadata.get("license") or ""), as_text(metadata.get("attribution") or ""),
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
