"""The locations of shards: an index, tars, folders, globs, brace notation, and lists of these."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.contract import UserError, is_url, local_path
from pipeline.contract.paths import INDEX_FILE, URL_MANIFEST
from training.streaming.schemes import HTTP, check_scheme, file_system, from_store

MOST_TARS = 100_000
_MOST_BRACES = 100
_NUMBERS = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?[1-9]\d{0,8}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])")
_VAGUE = frozenset({"data", "main", "part", "resolve", "shard", "shards", "test", "train", "val"})
"""Names that say nothing of a dataset."""
_GLOB = re.compile(r"[*?\[]")
FORMS = "a manifest folder, an index, a tar, a folder of tars, a glob, or braces ({000..099}.tar)"


def split_locations(text: str) -> list[str]:
    """Return the locations in a text: one, or several separated by commas (outside braces), or a
    list as in TOML and JSON (`["a.tar", "b.tar"]`).

    An existing path is one location, whatever its name contains.

    Raises:
        UserError: there is none.
    """
    found = [text]
    if text.startswith("[") and not _exists(text):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = [text]
        if not all(isinstance(one, str) for one in found):
            raise UserError(f"{text}: not a list of texts")
    if found == [text] and not _exists(text):
        found = [one.strip() for one in _split_outside_braces(text)]
    found = [one for one in found if one]
    if not found:
        raise UserError(f"{text!r}: no shards; give {FORMS}")
    return found


def join_locations(locations: Sequence[str]) -> str:
    """Return one text from which `split_locations` returns the locations."""
    if len(locations) == 1:
        return locations[0]
    text = ",".join(locations)
    is_plain = not any(set(", []{}") & set(one) for one in locations) and not _exists(text)
    return text if is_plain else json.dumps(list(locations))


def _exists(text: str) -> bool:
    try:
        path = local_path(text)
        return path is not None and path.exists()
    except (OSError, ValueError, UserError):
        return False


def _split_outside_braces(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth <= 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def expand_braces(text: str) -> list[str]:
    """Expand `{a,b}`, `{000..099}` and `{a..e}`, also nested, as shells and webdataset do.

    Raises:
        UserError: it stands for more than `MOST_TARS` names, or has more than `_MOST_BRACES`
            braces.
    """
    if text.count("{") > _MOST_BRACES:
        raise UserError(f"{text:.200}: more than {_MOST_BRACES} braces; use a glob or a list")
    for start, end in _pairs_of_braces(text):
        inside = text[start + 1 : end]
        options = _range(inside)
        if not options and len(parts := list(_split_outside_braces(inside))) > 1:
            for part in parts:
                options += expand_braces(part)
                _check_count(text, len(options))
        if options:
            tails = expand_braces(text[end + 1 :])
            _check_count(text, len(options) * len(tails))
            return [text[:start] + option + tail for option in options for tail in tails]
    return [text]


def _check_count(text: str, count: int) -> None:
    if count > MOST_TARS:
        raise UserError(f"{text:.200}: stands for more than {MOST_TARS} names")


def _pairs_of_braces(text: str) -> Iterator[tuple[int, int]]:
    """Yield the places of each brace and of the one that closes it."""
    opened: list[int] = []
    found: list[tuple[int, int]] = []
    for place, letter in enumerate(text):
        if letter == "{":
            opened.append(place)
        elif letter == "}" and opened:
            found.append((opened.pop(), place))
    yield from sorted(found)


def _range(inside: str) -> list[str]:
    """Return the texts of `first..last` or `first..last..step`; none if it is not a range."""
    if match := _NUMBERS.fullmatch(inside):
        first, last, step = int(match[1]), int(match[2]), abs(int(match[3] or 1))
        padded = any(re.match("-?0.", end) for end in (match[1], match[2]))
        width = max(len(match[1]), len(match[2])) if padded else 0
        _check_count(f"{{{inside}}}", abs(last - first) // step + 1)
        return [f"{number:0{width}d}" for number in _steps(first, last, step)]
    if match := _LETTERS.fullmatch(inside):
        return [chr(code) for code in _steps(ord(match[1]), ord(match[2]), 1)]
    return []


def _steps(first: int, last: int, step: int) -> range:
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def expand_location(location: str) -> list[str]:
    """Return the indexes (`….json`) and tars, as paths or URLs, that a location stands for.

    Raises:
        UserError: there is none; the message names the location.
    """
    try:
        if not is_url(location) or urlsplit(location).scheme == "file":
            return _local(location)
        return _store(location) if check_scheme(location) not in HTTP else _http(location)
    except (ValueError, OSError) as error:
        raise UserError(f"{location!r:.200}: not a path or URL ({error})") from None


def _local(location: str) -> list[str]:
    path = local_path(location)
    assert path is not None
    if _exists(location):
        return _in_folder(path) if path.is_dir() else [str(path)]
    found: list[str] = []
    for name in expand_braces(str(path)):
        if _exists(name):
            found += _in_folder(Path(name)) if Path(name).is_dir() else [name]
        elif _GLOB.search(name):
            every = glob.iglob(name, recursive=True)  # noqa: PTH207 (a path with a glob)
            matched = sorted(one for one in every if Path(one).is_file())
            if not matched:
                raise UserError(f"{name}: no file has such a name; give {FORMS}")
            found += matched
        elif name == str(path) and path.suffix != ".tar":  # a manifest folder without an index
            return [_index_of(location)]
        else:
            raise UserError(f"{name}: No such file; give {FORMS}")
    return found


def _index_of(location: str) -> str:
    return location if location.endswith(".json") else f"{location.rstrip('/')}/{INDEX_FILE}"


def _in_folder(folder: Path) -> list[str]:
    if (folder / INDEX_FILE).exists():
        return [str(folder / INDEX_FILE)]

    def tars(pattern: str) -> list[str]:
        found = sorted(folder.glob(pattern))
        return [str(one) for one in found if one.is_file() and not one.name.startswith(".")]

    found = _tars_of(str(folder), tars)
    others = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    if not found and others and not (folder / URL_MANIFEST).exists():
        raise UserError(
            f"{folder}: neither a .tar nor {INDEX_FILE} in it (but {', '.join(others[:3])}); "
            "unpack compressed tars; `python -m pipeline import` reads other formats"
        )
    return found or [str(folder / INDEX_FILE)]


def _tars_of(folder: str, tars: Callable[[str], list[str]]) -> list[str]:
    """Return the tars in a folder or, if it has none, in its only subfolder with tars (such as
    `data` in datasets of Hugging Face).

    Raises:
        UserError: several subfolders have tars.
    """
    if found := tars("*.tar"):
        return found
    found = tars("*/*.tar")
    folders = sorted({one.rpartition("/")[0] for one in found})
    if len(folders) > 1:
        names = ", ".join(one.rpartition("/")[2] for one in folders[:5])
        raise UserError(
            f"{folder}: tars in several folders ({names}); give one of them, or "
            f"{folder.rstrip('/')}/*/*.tar for all"
        )
    return found


def _http(location: str) -> list[str]:
    path = urlsplit(location).path
    names = expand_braces(location)
    if "*" in path:
        raise UserError(
            f"{location}: web servers do not list folders; use braces, as in {{000..099}}.tar"
        )
    if len(names) > 1 or path.endswith((".tar", ".json")):
        return names
    return [_index_of(location)]


def _store(location: str) -> list[str]:
    scheme = location.partition("://")[0]

    def find() -> list[str]:
        system, path = file_system(location)

        def tars(pattern: str) -> list[str]:
            return sorted(f"{scheme}://{one}" for one in system.glob(pattern))

        found: list[str] = []
        for name in expand_braces(path.rstrip("/")):
            if _GLOB.search(name):
                matched = tars(name)
                if not matched:
                    raise UserError(f"{scheme}://{name}: no file has such a name")
                found += matched
                continue
            index = _index_of(name)
            if name.endswith(".tar") or index == name or system.exists(index):
                found.append(f"{scheme}://{name if name.endswith('.tar') else index}")
            else:
                inside = _tars_of(f"{scheme}://{name}", partial(_below, tars, name))
                found += inside or [f"{scheme}://{index}"]
        return found

    return _with_user(location, from_store(location, find))


def _below(tars: Callable[[str], list[str]], folder: str, pattern: str) -> list[str]:
    return tars(f"{folder}/{pattern}")


def _with_user(location: str, found: list[str]) -> list[str]:
    """Return URLs with the user and password of `location`, which file systems leave out."""
    user, at, _ = urlsplit(location).netloc.rpartition("@")
    if not at:
        return found
    return [one.replace("://", f"://{user}@", 1) if "@" not in one else one for one in found]


def dataset_name(locations: Sequence[str]) -> str:
    """Return a name for the dataset of tars: what their names have in common, or else the name of
    their folder."""
    paths = [urlsplit(one).path if is_url(one) else str(Path(one).absolute()) for one in locations]
    stems = [one.rpartition("/")[2].partition(".")[0] for one in paths]
    folders = os.path.commonpath(one.rpartition("/")[0] or "/" for one in paths).split("/")
    common = os.path.commonprefix(stems)  # noqa: RUF071 (of texts, not of paths)
    for name in (common.rstrip("0123456789"), *reversed(folders)):
        safe = re.sub(r"[^a-z0-9._-]+", "-", name.lower())[:64].strip("-._")
        if len(safe) > 1 and safe not in _VAGUE:
            return safe
    return "shards"
