"""The shard index: the shards of a dataset, the format of their samples and their locations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.config_io import STRICT, parse_config
from pipeline.contract.paths import INDEX_FILE, NAME
from pipeline.credentials import with_user_of
from pipeline.errors import UserError
from pipeline.reading import is_url, is_web_page, read_bytes
from pipeline.versions import Migration, migrate

LARGEST_SIDE = 16_384
"""Maximum side of a sample in pixels."""
MAX_SAMPLES = 2**31 - 1
MAX_SHARD_BYTES = 1 << 50
MIGRATIONS: tuple[Migration, ...] = ()
"""Migrations of the shard index, see `pipeline.versions`."""


CHANNELS = (1, 3, 4)
"""Gray, RGB and RGBA."""


def _valid_channels(channels: int) -> int:
    if channels not in CHANNELS:
        raise ValueError("1, 3 or 4, an integer")
    return channels


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError("a label occurs twice")
    return labels


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


@typed_dataclass(frozen=True, config=STRICT)
class ShardEntry:
    """One shard: its `url`, absolute or relative to the index, its number of samples, its size in
    bytes and its hash."""

    url: Annotated[str, Field(min_length=1, max_length=4096)]
    nsamples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0, le=MAX_SHARD_BYTES)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def cache_name(self) -> str:
        """A text that differs between shards with different bytes; a part of file names."""
        return self.sha256


@typed_dataclass(frozen=True, config=STRICT)
class ShardIndex:
    """The shard index, `shards.json`: version 1 of the wids format, with metadata of the dataset.

    `resolution` is (height, width) in pixels; `channels` is 1, 3 or 4 (RGBA, straight alpha);
    `format` is the extension of the image members; `labels` contains the class names in the order
    of the class numbers; `counts` contains the numbers of images found, selected and rejected;
    `version` is the version of these keys; `digest` identifies the samples (recipe, options and
    inputs).
    """

    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    shardlist: tuple[ShardEntry, ...]
    resolution: tuple[_Side, _Side]
    channels: Annotated[int, AfterValidator(_valid_channels)]
    format: Annotated[str, Field(pattern=r"^[a-z0-9]{1,8}$")]
    digest: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{0,128}$")]  # a part of file names
    labels: Annotated[tuple[str, ...], AfterValidator(_unique)] = ()
    counts: dict[str, int] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    wids_version: int = 1
    version: int = 1
    __kind__: str = "wids-shard-index-v1"

    @property
    def nsamples(self) -> int:
        return sum(shard.nsamples for shard in self.shardlist)


def index_to_json(index: ShardIndex) -> dict[str, Any]:
    """Return the index as the JSON object that `load_index` reads back."""
    return asdict(index)


def locate_index(location: str | Path) -> str:
    """Return the path or URL of the index at `location`: a manifest folder, an index, or a URL of
    either."""
    text = str(location)
    try:
        path = urlsplit(text).path
    except ValueError as error:
        raise UserError(f"{text}: not a URL ({error})") from None
    if PurePosixPath(path).suffix == ".json":
        return text
    return text.rstrip("/") + "/" + INDEX_FILE


def load_index(location: str | Path) -> tuple[ShardIndex, list[str]]:
    """Return the shard index at `location` and the absolute path or URL of each of its shards.

    Args:
        location: a manifest folder, an index file, or a URL of either (file, http, s3, …).

    Raises:
        UserError: the index does not exist or is invalid; the message names it.
    """
    where = locate_index(location)
    index = _parse(_read(where), where)
    return index, list(_shard_locations([entry.url for entry in index.shardlist], where))


def read_index(where: str) -> tuple[ShardIndex | None, list[str], dict[str, Any]]:
    """Return the index in the file `where`, the location of each of its shards, and its JSON
    object. The index is None if it has only what wids requires: URLs and numbers of samples.

    Raises:
        UserError: as in `load_index`.
    """
    values = _read(where)
    if not _is_wids(values):
        index = _parse(values, where)
        return index, list(_shard_locations([one.url for one in index.shardlist], where)), values
    for place, entry in enumerate(values["shardlist"]):
        if not isinstance(entry.get("url"), str) or not entry["url"]:
            raise UserError(f"{where}: shardlist.{place}.url: missing")
    return None, list(_shard_locations([one["url"] for one in values["shardlist"]], where)), values


def _is_wids(values: Any) -> bool:
    """Return True if an index lacks what this project adds to those of wids."""
    entries = values.get("shardlist") if isinstance(values, dict) else None
    if (
        not isinstance(entries, list)
        or not entries
        or not all(isinstance(one, dict) for one in entries)
    ):
        return False
    return not {"resolution", "channels", "format", "digest"} & values.keys() or any(
        not one.keys() >= {"bytes", "sha256"} for one in entries
    )


def _read(where: str) -> Any:
    try:
        data = read_bytes(where)
        if is_web_page(data):
            raise UserError(
                f"{where}: a web page or an error page, not a shard index; open it in a browser"
            )
        return json.loads(data)
    except FileNotFoundError:
        raise UserError(
            f"{where}: no shard index there; `python -m pipeline shard` writes it; a tar, a folder "
            "of tars, a glob and {000..099}.tar need none"
        ) from None
    except OSError as error:
        advice = "; tars without an index: {000..099}.tar" if is_url(where) else ""
        raise UserError(f"{where}: no shard index there ({error}){advice}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: not a shard index ({error}); `python -m pipeline shard` writes it again"
        ) from None


def _parse(values: Any, where: str) -> ShardIndex:
    index = parse_config(ShardIndex, migrate(values, MIGRATIONS, where), where)
    if index.nsamples > MAX_SAMPLES:
        raise UserError(f"{where}: shardlist: more than {MAX_SAMPLES} samples")
    return index


def _shard_locations(urls: Iterable[str], where: str) -> Iterator[str]:
    for url in urls:
        try:
            if is_url(url):
                yield with_user_of(where, url)
            elif is_url(where):
                yield _join_url(where, url)
            else:
                yield str((Path(where).parent / url).resolve())
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise UserError(f"{where}: shardlist: {url!r}: {error}") from None


def _join_url(base: str, url: str) -> str:
    """Resolve `url` relative to the URL `base`. `urljoin` alone does not join URLs of schemes that
    it does not know, such as s3."""
    parts = urlsplit(base)
    joined = urlsplit(urljoin(parts._replace(scheme="http").geturl(), url))
    return urlunsplit(joined._replace(scheme=parts.scheme))
