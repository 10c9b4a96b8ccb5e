"""Shards of other tools: tars without a complete index, which is built on first use and cached.

The cache is one file per tar in `data/NAME/index/`. It is used while size and time (or ETag) of the
tar are the same. If it cannot be written, the tars are scanned each time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.contract import STRICT, UserError, count_of, without_passwords
from pipeline.contract.index import CHANNELS, MAX_SAMPLES, ShardEntry, ShardIndex, read_index
from pipeline.contract.paths import DatasetPaths
from training.streaming.locations import dataset_name, expand_location, split_locations
from training.streaming.sample_labels import named_labels, number_classes
from training.streaming.scans import FoundTar, scan_tars, sha256_of_texts
from training.streaming.tar_scan import IMAGES, SampleOptions, TarScan

_TIMEOUT = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_CHARACTERS = 4096


@typed_dataclass(frozen=True, config=STRICT)
class ScannedShard(ShardEntry):
    """A shard that was scanned. `headers` is the sha256 of its headers; `sha256` is empty if no
    index states it; `image` is as in `SampleOptions`; `identity` is different for every tar."""

    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    headers: str = ""
    image: str = ""
    identity: str = ""

    @property
    def cache_name(self) -> str:
        return self.sha256 or self.identity


@dataclass(frozen=True)
class ForeignShards:
    """Shards of another tool. `classes` is the class number of each sample in order, -1 if it has
    none. `sizes` are the (height, width) of the first images, each with the place of one of them;
    `transparent` is the place of one that may have transparent pixels, empty if there is none;
    `notes` are sentences for the user."""

    index: ShardIndex
    locations: list[str]
    classes: NDArray[np.int32]
    sizes: dict[tuple[int, int], str]
    transparent: str
    notes: tuple[str, ...]


def find_shards(
    location: str, complete: bool = True
) -> tuple[ShardIndex, list[str]] | list[FoundTar]:
    """Return the tars at `location`, or the shard index as `load_index` does, if there is a
    complete one and `complete` is True.

    Raises:
        UserError: there is none, or an index is invalid.
    """
    found = [one for part in split_locations(location) for one in expand_location(part)]
    if len(found) == 1 and found[0].endswith(".json"):
        index, locations, claims = read_index(found[0])
        if index is not None and complete:
            return index, locations
        return _claimed(found[0], locations, claims)
    tars: list[FoundTar] = []
    for one in found:
        if one.endswith(".json"):
            index, locations, claims = read_index(one)
            tars += _claimed(one, locations, claims)
        else:
            tars.append(FoundTar(one))
    return tars


def _claimed(where: str, locations: Sequence[str], claims: dict[str, Any]) -> list[FoundTar]:
    """Return the tars of the index at `where`, with what it states about them.

    Raises:
        UserError: a hash is none, or two classes have the same name.
    """
    labels = claims.get("labels")
    names = tuple(labels) if isinstance(labels, list | tuple) else ()
    if not all(isinstance(name, str) for name in names):
        names = ()
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise UserError(f"{where}: labels: {twice!r:.60} occurs twice; correct the index")
    channels: Any = claims.get("channels")
    found = []
    for location, entry in zip(locations, claims["shardlist"], strict=True):
        samples, sha256 = entry.get("nsamples"), entry.get("sha256")
        sha256 = sha256.lower() if isinstance(sha256, str) else ""
        if sha256 and not _SHA256.fullmatch(sha256):
            raise UserError(f"{where}: {location}: sha256: not 64 hex digits; correct the index")
        size = entry.get("bytes", entry.get("filesize"))  # wids's own name is the second
        found.append(
            FoundTar(
                location,
                samples if isinstance(samples, int) else None,
                size if isinstance(size, int) else None,
                sha256,
                names,
                channels if type(channels) is int and channels in CHANNELS else 0,
            )
        )
    return found


def index_tars(
    tars: Sequence[FoundTar],
    options: SampleOptions,
    skip_damaged: bool = False,
    timeout: float = _TIMEOUT,
) -> ForeignShards:
    """Scan tars, or read the cache of an earlier scan, and number their classes.

    Args:
        skip_damaged: leave out damaged tars, with a note.
        timeout: seconds without a response.

    Raises:
        UserError: a tar does not exist, is damaged or does not fit its index, or the labels cannot
            be numbered; the message names the tar.
    """
    twice, count = Counter(one.location for one in tars).most_common(1)[0]
    if count > 1:
        raise UserError(f"{twice}: given twice")
    if long := [one.location for one in tars if len(one.location) > _MOST_CHARACTERS]:
        raise UserError(f"{long[0]:.200}: more than {_MOST_CHARACTERS} characters; shorten it")
    name = dataset_name([one.location for one in tars])
    cache = DatasetPaths(name).data_dir / "index"
    notes: list[str] = []
    scans = scan_tars(tars, options, cache, timeout, notes if skip_damaged else None)
    kept = [(tar, scan) for tar, scan in zip(tars, scans, strict=True) if scan is not None]
    total = sum(scan.samples for _, scan in kept)
    where = tars[0].location + (f" and {len(tars) - 1} more" if len(tars) > 1 else "")
    if not total:
        raise UserError(_no_images(where, options, [scan for _, scan in kept]))
    if total > MAX_SAMPLES:
        raise UserError(f"{where}: more than {MAX_SAMPLES} samples")
    labels = [label for tar, scan in kept for label in named_labels(scan, tar.labels)]
    declared = {tar.labels for tar, _ in kept}
    lengths = {scan.one_hot for _, scan in kept if scan.one_hot}
    order = declared.pop() if len(declared) == 1 else ()
    classes, names = number_classes(labels, lengths, order, where)
    if not names and options.label not in ("", "none"):
        raise UserError(_no_such_label(where, options, [scan for _, scan in kept]))
    sizes = _sizes(kept, where)
    heights, widths = zip(*sizes, strict=True)
    entries = tuple(
        ScannedShard(
            tar.location, scan.samples, scan.size, tar.sha256, scan.headers, options.image,
            sha256_of_texts(tar.location, scan.validator, scan.headers, str(scan.size)),
        )
        for tar, scan in kept
    )  # fmt: skip
    extension = next(scan.extension for _, scan in kept if scan.extension)
    index = ShardIndex(
        name, entries, (max(heights), max(widths)),
        _channels(kept), extension.rpartition(".")[2],
        sha256_of_texts(options.key_id, *(scan.content for _, scan in kept), *names), tuple(names),
    )  # fmt: skip
    notes += _describe(kept, options, classes, names)
    clear = [f"{tar.location}: {scan.transparent}" for tar, scan in kept if scan.transparent]
    transparent, *safe = map(without_passwords, (clear[0] if clear else "", *notes))
    locations = [tar.location for tar, _ in kept]
    return ForeignShards(index, locations, classes, sizes, transparent, tuple(safe))


def _sizes(scans: Sequence[tuple[FoundTar, TarScan]], where: str) -> dict[tuple[int, int], str]:
    """Return the (height, width) of the first images, each with the place of one of them.

    Raises:
        UserError: none can be read.
    """
    images = [(tar, *image) for tar, scan in scans for image in scan.images]
    sizes = {(height, width): f"{tar.location}: {key}" for tar, key, width, height, _ in images}
    if not sizes:
        first = "; ".join([one for _, scan in scans for one in scan.unreadable][:3])
        why = f" ({first})" if first else ""
        raise UserError(
            f"{where}: none of the first images can be read{why}; `python -m pipeline import` "
            "lists all that cannot be read"
        )
    return sizes


def _channels(scans: Sequence[tuple[FoundTar, TarScan]]) -> int:
    """Return the channels that an index states, or else 1 if all first images are gray, 3 if
    not."""
    stated = {tar.channels for tar, _ in scans} - {0}
    if len(stated) == 1:
        return stated.pop()
    return 1 if all(gray for _, scan in scans for *_, gray in scan.images) else 3


def _no_images(where: str, options: SampleOptions, scans: Sequence[TarScan]) -> str:
    first = next((scan.first_other for scan in scans if scan.first_other), "")
    if not first:
        return f"{where}: the shards hold no samples"
    wanted = f".{options.image}" if options.image else "a member with the extension of an image"
    return (
        f"{where}: no sample has {wanted} (the first has {first}); name the extension with "
        "--data.image"
    )


def _no_such_label(where: str, options: SampleOptions, scans: Sequence[TarScan]) -> str:
    keys = next((scan.keys for scan in scans if scan.keys), [])
    known = [f"json:{key}" for key in keys]
    if not known:
        members = next((scan.members for scan in scans if scan.members), [])
        known = [one for one in members if one not in IMAGES]
    there = f"there are {', '.join(known)}" if known else "samples have only an image"
    return f"--data.label {options.label}: no sample of {where} has such a label; {there}"


def _describe(
    scans: Sequence[tuple[FoundTar, TarScan]], options: SampleOptions,
    classes: NDArray[np.int32], names: Sequence[str],
) -> list[str]:  # fmt: skip
    """Return what the user should know about the shards."""
    notes = []
    without = sum(not tar.sha256 for tar, _ in scans)
    if without:
        notes.append(
            f"{without} of {len(scans)} shards have no sha256: sizes and headers are checked, not "
            "the bytes of images"
        )
    others = sum(scan.others for _, scan in scans)
    if others:
        first = next(scan.first_other for _, scan in scans if scan.others)
        left = f"{count_of(others, 'sample')} without an image {'is' if others == 1 else 'are'}"
        notes.append(f"{left} left out (the first: {first})")
    rest = [one for one in scans[0][1].members if one not in IMAGES]
    if not names and not options.label and rest:
        notes.append(
            f"no labels, because no sample has a .cls; --data.label takes them from other members "
            f"({', '.join(rest[:5])})"
        )
    if names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        few = "; most have a single sample" if 3 * len(names) > 2 * len(classes) else ""
        notes.append(f"{count_of(len(names), 'label')}: {shown}{few}")
    missing = int((classes < 0).sum())
    if names and missing:
        tar, scan = next(one for one in scans if one[1].first_unlabelled)
        notes.append(
            f"{missing} of {len(classes)} samples have no label (.{options.label_member}); the "
            f"first is {scan.first_unlabelled} in {tar.location}"
        )
    return notes
