"""The contract between the parts: names, files and formats on disk.

One dataset is one NAME. Its small description is in `manifests/NAME/`, its large bytes in
`data/NAME/`, its history in `logs/NAME/`. `training` knows the pipeline by this module alone,
so the helpers it shares with the pipeline are handed on here too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.atomic_io import (
    JsonlAppender,
    atomic_file,
    read_jsonl,
    read_rows,
    remove_temp_files,
    write_atomic,
    write_json,
)
from pipeline.config_io import STRICT, parse_config, read_toml
from pipeline.credentials import (
    basic_authorization,
    fsspec_arguments,
    split_user,
    with_user_of,
)
from pipeline.errors import UserError, describe_os_error, is_disk_full
from pipeline.exit import CommandParser, exit_status
from pipeline.markup import STILL_PAGE, code_span, disarm_markdown, escape_markdown
from pipeline.outside_text import plain_value, printable, safe_text, without_passwords
from pipeline.reading import is_url, local_path, open_regular, read_bytes

__all__ = [
    "NAME",
    "STILL_PAGE",
    "STRICT",
    "CommandParser",
    "DatasetPaths",
    "JsonlAppender",
    "ManifestRow",
    "OriginalRecord",
    "ShardEntry",
    "ShardIndex",
    "UserError",
    "atomic_file",
    "basic_authorization",
    "code_span",
    "describe_os_error",
    "disarm_markdown",
    "escape_markdown",
    "exit_status",
    "fsspec_arguments",
    "image_key",
    "is_disk_full",
    "is_url",
    "load_index",
    "local_path",
    "now_utc",
    "open_regular",
    "parse_config",
    "printable",
    "read_bytes",
    "read_jsonl",
    "read_rows",
    "read_toml",
    "remove_temp_files",
    "safe_text",
    "split_user",
    "without_passwords",
    "write_atomic",
    "write_json",
]  # fmt: skip

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
INDEX_FILE = "shards.json"


def now_utc() -> str:
    """The time now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_key(url: str) -> str:
    """The key of an image: the first 16 hex digits of the sha256 of its canonical URL."""
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True)
class DatasetPaths:
    """Where the files of dataset `name` are, under the project's folder `root`.

    With `store`, a URL that fsspec reaches, the tars of complete parts are there instead of in
    `originals`, and the rest is mirrored there under the same paths.

    Raises:
        UserError: the name is not one that is safe as a file name.
    """

    name: str
    root: Path = field(default_factory=Path.cwd)
    store: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"dataset name {self.name!r}: use lower-case letters, digits, '.', '_', '-'"
            )

    @property
    def manifest_dir(self) -> Path:
        return self.root / "manifests" / self.name

    @property
    def url_manifest(self) -> Path:
        """The URL manifest, a `ManifestRow` a line."""
        return self.manifest_dir / "urls.jsonl"

    @property
    def selection(self) -> Path:
        """What select kept, a line an image: `key`, `part` and what sharding needs."""
        return self.manifest_dir / "kept.jsonl"

    @property
    def rejections(self) -> Path:
        """What select rejected, a line an image: `key`, `url`, `reason`, `detail`."""
        return self.manifest_dir / "rejected.jsonl"

    @property
    def shard_index(self) -> Path:
        """The shard index, written last."""
        return self.manifest_dir / INDEX_FILE

    @property
    def card(self) -> Path:
        return self.manifest_dir / "README.md"

    @property
    def card_page(self) -> Path:
        """The card as one page with its pictures."""
        return self.manifest_dir / "card.html"

    @property
    def data_dir(self) -> Path:
        return self.root / "data" / self.name

    @property
    def crawl_state(self) -> Path:
        return self.data_dir / "crawl.sqlite"

    @property
    def originals_dir(self) -> Path:
        """The parts: for part N `NAME-N.plan.jsonl` (its manifest rows), `NAME-N.tar` (the bytes
        as served), `NAME-N.jsonl` (its journal, an `OriginalRecord` or a failure a line) and
        `NAME-N.json` (its record, written last)."""
        return self.data_dir / "originals"

    @property
    def shards_dir(self) -> Path:
        return self.data_dir / "shards"

    @property
    def failure_log(self) -> Path:
        return self.root / "logs" / self.name / "failures.jsonl"

    @property
    def event_log(self) -> Path:
        return self.root / "logs" / self.name / "events.jsonl"


_MAX_COORDINATE = 1e9


@dataclass(frozen=True)
class ManifestRow:
    """One image of the URL manifest. `boxes` are annotated objects, each (left, top, right,
    bottom) in pixels of the upright image; `page_opt_out` the opt-out signals of the page that the
    recipe overrides (`noai: meta element`).

    Here text from outside enters the dataset: it is made safe to write (`safe_text`), and has no
    password of a URL.
    """

    key: str
    url: str
    page: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    license: str = ""
    attribution: str = ""
    found: str = ""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
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
        """The row that a JSON object holds; members that are not of a row are ignored.

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
            boxes=tuple(_boxes_of(row.get("boxes") or ())),
            page_opt_out=tuple(_texts_of(row, "page_opt_out")),
        )

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values; `boxes` and `page_opt_out` only if there are any."""
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


def _boxes_of(boxes: Any) -> Iterator[tuple[float, float, float, float]]:
    """Boxes as they are in a row.

    Raises:
        ValueError: they are not lists of four finite numbers.
    """
    for box in boxes if isinstance(boxes, list | tuple) else [boxes]:
        numbers = box if isinstance(box, list | tuple) else ()
        good = (one for one in numbers if isinstance(one, int | float) and one is not True)
        if len(numbers) != 4 or sum(abs(one) <= _MAX_COORDINATE for one in good) != 4:
            raise ValueError(f"boxes: not four numbers: {box!r:.60}")
        yield (box[0], box[1], box[2], box[3])


@dataclass(frozen=True)
class OriginalRecord:
    """The recorded facts of one downloaded image; select judges on these alone.

    `part` names the tar without its ending, `member` the image in it; `offset` is where the
    image's bytes begin in the tar and `bytes` their length, so it can be read with one seek.
    `width` and `height` are in pixels after EXIF orientation. `mode` is Pillow's word for the
    file's pixels. `phash` is a 64-bit perceptual hash in hex, `detail_hash` one of 256 bits (empty
    in records of before there was one). `sharpness` is the variance of the Laplacian of the gray
    image at 256 px short side, values 0 to 255; `contrast` the standard deviation of its gray
    values. On disk these three are called `detail`, `blur` and `spread`. `opt_out` lists
    the opt-out signals that were seen and that the recipe overrides, empty if none was seen; it is
    None in older records.
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
    opt_out: list[dict[str, str]] | None = None

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> OriginalRecord:
        """The record that a JSON object holds; other members are ignored.

        Raises:
            ValueError: a member is missing or of the wrong type; the message names it.
        """
        values: dict[str, Any] = {}
        for name, kind in _RECORD_TYPES.items():
            stored = _NAMES_ON_DISK.get(name, name)
            value: Any = row.get(stored, "" if name == "detail_hash" else None)
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
        """The record as a JSON object."""
        return {_NAMES_ON_DISK.get(name, name): value for name, value in vars(self).items()}


_NAMES_ON_DISK = {"sharpness": "blur", "contrast": "spread", "detail_hash": "detail"}
_HEX = re.compile(r"[0-9a-f]*")
_MAX_COUNT = 1 << 63
_RECORD_TYPES: dict[str, Any] = {
    name: {"int": int, "float": (int, float)}.get(str(kind), str)
    for name, kind in OriginalRecord.__annotations__.items()
    if name != "opt_out"
}


LARGEST_SIDE = 16_384
"""Pixels; samples with a longer side are refused."""
MOST_SAMPLES = 2**31 - 1


def _one_or_three(channels: int) -> int:
    if channels not in (1, 3):
        raise ValueError("1 or 3, an integer")
    return channels


def _different(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError("a label is there twice")
    return labels


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


@typed_dataclass(frozen=True, config=STRICT)
class ShardEntry:
    """One shard: `url` absolute or relative to the index, its samples, size and hash."""

    url: Annotated[str, Field(min_length=1, max_length=4096)]
    nsamples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0, le=1 << 50)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@typed_dataclass(frozen=True, config=STRICT)
class ShardIndex:
    """The shard index, `shards.json`: form 1 of wids, with the facts of the dataset beside it.

    `resolution` is (height, width) in pixels; `channels` 1 or 3; `format` the ending of the image
    members; `labels` the class names in the order of the class numbers; `counts` what was found,
    kept and rejected on the way; `digest` identifies the samples (recipe, options and inputs).
    """

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    shardlist: tuple[ShardEntry, ...]
    resolution: tuple[_Side, _Side]
    channels: Annotated[int, AfterValidator(_one_or_three)]
    format: Annotated[str, Field(pattern=r"^[a-z0-9]{1,8}$")]
    digest: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{0,128}$")]  # a part of file names
    labels: Annotated[tuple[str, ...], AfterValidator(_different)] = ()
    counts: dict[str, int] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    wids_version: int = 1
    __kind__: str = "wids-shard-index-v1"

    @property
    def nsamples(self) -> int:
        return sum(shard.nsamples for shard in self.shardlist)


def index_to_json(index: ShardIndex) -> dict[str, Any]:
    """The index as the JSON object that `load_index` reads back."""
    return asdict(index)


def locate_index(location: str | Path) -> str:
    """The path or URL of the index that `location` means: a manifest folder, an index, or a URL."""
    text = str(location)
    try:
        path = urlsplit(text).path
    except ValueError as error:
        raise UserError(f"{text}: not a URL ({error})") from None
    if PurePosixPath(path).suffix == ".json":
        return text
    return text.rstrip("/") + "/" + INDEX_FILE


def load_index(location: str | Path) -> tuple[ShardIndex, list[str]]:
    """The shard index at `location` and the absolute path or URL of each of its shards.

    Args:
        location: a manifest folder, an index file, or a URL of either (file, http, s3, …).

    Raises:
        UserError: there is no index, or it is not one; the message names it.
    """
    where = locate_index(location)
    try:
        values = json.loads(read_bytes(where))
    except FileNotFoundError:
        raise UserError(
            f"{where}: no shard index there; `python -m pipeline shard` writes it"
        ) from None
    except OSError as error:
        raise UserError(f"{where}: no shard index there ({error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not a shard index ({error})") from None
    index = parse_config(ShardIndex, values, where)
    if index.nsamples > MOST_SAMPLES:
        raise UserError(f"{where}: shardlist: more than {MOST_SAMPLES} samples")
    return index, list(_shard_locations(index, where))


def _shard_locations(index: ShardIndex, where: str) -> Iterator[str]:
    for entry in index.shardlist:
        try:
            if is_url(entry.url):
                yield with_user_of(where, entry.url)
            elif is_url(where):
                yield _beside(where, entry.url)
            else:
                yield str((Path(where).parent / entry.url).resolve())
        except (ValueError, OSError, RuntimeError) as error:  # a loop of links is the last one
            raise UserError(f"{where}: shardlist: {entry.url!r}: {error}") from None


def _beside(base: str, url: str) -> str:
    """`url`, relative to the URL `base`; `urljoin` alone leaves schemes it does not know, as s3."""
    parts = urlsplit(base)
    joined = urlsplit(urljoin(parts._replace(scheme="http").geturl(), url))
    return urlunsplit(joined._replace(scheme=parts.scheme))
