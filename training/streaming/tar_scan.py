"""Finds the samples of a WebDataset tar without an index: their number, labels and first images."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.contract import STRICT, is_web_page
from pipeline.contract.tar import (
    DamagedTar,
    Extent,
    TarSample,
    group_samples,
    members,
    split_name,
)
from pipeline.imaging.formats import image_format
from pipeline.imaging.images import ImageHeader, image_header
from pipeline.imaging.limits import ImageError
from training.streaming.ranges import RangeReader
from training.streaming.sample_labels import OneHot, keys_of_json, parse_label

SCAN_VERSION = 1
IMAGES = (
    "jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "jp2", "jxl", "heic",
    "heif", "ppm", "pgm", "pbm", "pnm",
)  # fmt: skip
"""Extensions of image members, in order of preference."""
MAX_LABEL_BYTES = 1 << 20
MAX_IMAGE_BYTES = 256 << 20
_PROBED = 3
"""Number of images per tar whose size is read."""
_PROBE_BYTES = 4096
_HEADER_BYTES = (_PROBE_BYTES, 64 << 10, 1 << 20, 16 << 20)
"""How many bytes of an image are read to find its size, until they suffice: metadata before the
pixels can take megabytes."""
_BLOCK = 512


@dataclass(frozen=True)
class SampleOptions:
    """What a sample consists of: the extension of its `image` member (empty: the first of
    `IMAGES`), and its `label`: empty (`.cls`, if samples have it), `none`, the extension of a text
    member, or `json:KEY` (a key of the JSON member; `a.b` is key b of the object a)."""

    image: str = ""
    label: str = ""

    @property
    def label_member(self) -> str:
        """The extension of the member with the label; empty if labels are not read."""
        if self.label == "none":
            return ""
        return "json" if self.label.startswith("json:") else self.label or "cls"

    @property
    def key_id(self) -> str:
        return json.dumps([SCAN_VERSION, self.image, self.label])


@typed_dataclass(config=STRICT)
class TarScan:
    """What a scan of a tar found.

    `headers` is the sha256 of all headers, `content` one of headers, labels and the beginnings of
    the first images. `samples` counts those with an image, `others` those without. `labels` has one
    entry per sample with an image: a class number, a name, or None; empty if no sample has a label.
    `one_hot` is the length of one-hot labels. `keys` are those of the first JSON member, if no
    sample has the label that was asked for. `extension` is that of the first image, `members` are
    those of its sample. `images` lists (key, width, height, is gray) of the first images;
    `transparent` is the key of the first of them that may have transparent pixels, and `unreadable`
    names those that cannot be read, with the reasons.
    """

    size: int
    validator: str
    headers: str = ""
    content: str = ""
    samples: int = 0
    others: int = 0
    first_other: str = ""
    first_unlabelled: str = ""
    labels: list[int | str | None] = field(default_factory=list)
    one_hot: int = 0
    extension: str = ""
    members: list[str] = field(default_factory=list)
    images: list[tuple[str, int, int, bool]] = field(default_factory=list)
    transparent: str = ""
    unreadable: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_consistent(self) -> bool:
        """False if the content of a cache cannot be that of a scan."""
        return self.samples >= 0 and len(self.labels) in (0, self.samples)


def pick_image(found: Mapping[str, object], image: str) -> str | None:
    """Return the extension of a sample's image; None if it has none."""
    if image:
        return image if image in found else None
    for extension in IMAGES:
        if extension in found:
            return extension
    return None


def scan_tar(reader: RangeReader, options: SampleOptions, ahead: int) -> TarScan:
    """Find the samples of a tar.

    Args:
        ahead: bytes to read at each header.

    Raises:
        DamagedTar: it is not a complete tar, or a sample or label in it cannot be used; the message
            names the key.
    """
    _refuse_other_files(reader.pread(_BLOCK, 0))
    scan = TarScan(reader.size, reader.validator)
    headers, content = hashlib.sha256(), hashlib.sha256()
    passed = _Passed(reader, options)
    found = members(reader.pread, reader.size, ahead=ahead, digest=headers)
    for sample in group_samples(passed.watch(found)):
        extension = pick_image(sample.members, options.image)
        label = passed.label(sample)
        if extension is None:
            if label is not None and options.label_member == "cls":
                raise DamagedTar(f"the sample {sample.key!r} has a label but no image")
            scan.others += 1
            scan.first_other = scan.first_other or f"{sample.key}.{next(iter(sample.members))}"
            continue
        scan.samples += 1
        scan.extension = scan.extension or extension
        scan.members = scan.members or sorted(sample.members)
        scan.labels.append(label)
        if label is None:
            scan.first_unlabelled = scan.first_unlabelled or sample.key
        if (known := passed.images.get(sample.members[extension].offset)) is not None:
            scan.images.append((sample.key, known.width, known.height, known.is_gray))
            if known.has_alpha and not scan.transparent:
                scan.transparent = sample.key
    scan.one_hot, scan.unreadable = passed.one_hot, passed.unreadable
    if all(label is None for label in scan.labels):
        scan.labels, scan.keys = [], passed.keys
    scan.headers = headers.hexdigest()
    for part in (scan.headers.encode(), json.dumps(scan.labels).encode(), *passed.beginnings):
        content.update(part)
    scan.content = content.hexdigest()
    return scan


def _refuse_other_files(start: bytes) -> None:
    """Raise DamagedTar if a file that begins with these bytes is not a tar."""
    if start[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
        raise DamagedTar("compressed, so samples cannot be read one by one; unpack it (.tar)")
    if is_web_page(start):
        raise DamagedTar("a web page or an error page, not a tar; open it in a browser")
    if start and not start.strip(b"\0"):
        return  # an empty tar
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise DamagedTar(
            "not a tar; `python -m pipeline import` reads images in other formats"
        ) from None


class _Passed:
    """The labels and first images of a tar, read while its headers are passed, because a tar from a
    server is read in order."""

    def __init__(self, reader: RangeReader, options: SampleOptions) -> None:
        self._reader, self._options = reader, options
        self._texts: dict[int, bytes] = {}
        self.images: dict[int, ImageHeader] = {}
        self.beginnings: list[bytes] = []
        self.unreadable: list[str] = []
        self.one_hot = 0
        self.keys: list[str] = []

    def watch(self, found: Iterator[tuple[str, Extent]]) -> Iterator[tuple[str, Extent]]:
        """Yield the members, and remember the labels and images among them."""
        image, label = self._options.image, self._options.label_member
        for name, extent in found:
            parts = split_name(name)
            if parts is not None:
                if parts[1] == label:
                    if extent.size > MAX_LABEL_BYTES:
                        raise DamagedTar(f"{name}: has {extent.size} bytes, too many for a label")
                    self._texts[extent.offset] = self._reader.pread(extent.size, extent.offset)
                is_image = parts[1] == image if image else parts[1] in IMAGES
                if is_image and len(self.beginnings) < _PROBED:
                    self._look_at(name, extent)
            yield name, extent

    def _look_at(self, name: str, extent: Extent) -> None:
        if extent.size > MAX_IMAGE_BYTES:
            raise DamagedTar(f"{name}: has {extent.size} bytes, over {MAX_IMAGE_BYTES}")
        for most in _HEADER_BYTES:
            data = self._reader.pread(min(most, extent.size), extent.offset)
            is_enough = most == _HEADER_BYTES[-1] and extent.size > most
            try:
                self.images[extent.offset] = image_header(data, is_part=is_enough)
                break
            except ImageError as error:  # more bytes are needed, or decoding it will report it
                if most >= extent.size or image_format(data) is None:
                    self.unreadable.append(f"{name}: {error.detail}")
                    break
        self.beginnings.append(data[:_PROBE_BYTES])

    def label(self, sample: TarSample) -> int | str | None:
        """Return the label of a sample; None if it has none.

        Raises:
            DamagedTar: it is not one number, name or one-hot list.
        """
        extent = sample.members.get(self._options.label_member)
        if extent is None:
            return None
        text = self._texts.pop(extent.offset)
        found = parse_label(text, self._options.label, sample.key)
        if found is None and not self.keys and self._options.label_member == "json":
            self.keys = keys_of_json(text)
        if isinstance(found, OneHot):
            if self.one_hot not in (0, found.length):
                both = f"{self.one_hot} and {found.length}"
                raise DamagedTar(f"{sample.key}: one-hot lists of different lengths: {both}")
            self.one_hot = found.length
            return found.number
        return found
