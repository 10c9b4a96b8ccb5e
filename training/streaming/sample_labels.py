"""Labels in members of samples, and the numbers of their classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import UserError
from pipeline.contract.tar import DamagedTar

MAX_CLASSES = 65_536
_LONGEST = 200
"""Maximum length of a name in characters."""
_MOST_KEYS = 20

Label = int | str | None
"""A class number, a name, or no label."""


@dataclass(frozen=True)
class OneHot:
    """A class number that was given as a list of `length` numbers, one of which is 1."""

    number: int
    length: int


class Labelled(Protocol):
    """A scan of a tar: its labels, and its number of samples."""

    labels: list[Label]
    samples: int


def parse_label(text: bytes, how: str, key: str) -> Label | OneHot:
    """Return the label in a member of the sample `key`.

    Args:
        how: `json:KEY`, or empty or an extension: the text is the label (or a JSON list).

    Raises:
        DamagedTar: it is not one number, name or one-hot list; the message names the sample.
    """
    where = f"the label of {key!r}"
    if how.startswith("json:"):
        value = _json(text, where)
        for name in how.removeprefix("json:").split("."):
            value = value.get(name) if isinstance(value, dict) else None
    else:
        try:
            value = text.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise DamagedTar(f"{where}: not UTF-8 text") from None
        if value.startswith("["):
            value = _json(value, where)
    if isinstance(value, list) and len(value) > 1:
        return _one_hot(value, where)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bool):
        value = str(value).lower()
    return _scalar(value, where)


def keys_of_json(text: bytes) -> list[str]:
    """Return the keys of a JSON object that can be a label, as they are written in `json:KEY`: the
    first `_MOST_KEYS`; none if it is not an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found: list[str] = []
    todo = [(str(key), one) for key, one in value.items()] if isinstance(value, dict) else []
    while todo and len(found) < _MOST_KEYS:
        key, value = todo.pop(0)
        if isinstance(value, dict):
            todo = [(f"{key}.{inner}", one) for inner, one in value.items()] + todo
        else:
            found.append(key[:_LONGEST])
    return found


def _scalar(value: Any, where: str) -> Label:
    """Return a class number or name; texts of digits are numbers."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and len(value) < 19:
        digits = value.removeprefix("-")
        value = int(value) if digits.isascii() and digits.isdigit() else value
    if isinstance(value, int) and value < 0:
        raise DamagedTar(
            f"{where}: {value}: class numbers begin at 0; leave the label out, or use "
            "--data.label none"
        )
    if not isinstance(value, int | str):
        raise DamagedTar(f"{where}: {value!r:.60}: neither a number nor a name")
    if isinstance(value, str) and len(value) > _LONGEST:
        raise DamagedTar(f"{where}: {len(value)} characters; a caption is no label")
    return value


def _one_hot(value: list[Any], where: str) -> OneHot:
    if not all(one in (0, 1) for one in value) or value.count(1) != 1:
        raise DamagedTar(f"{where}: {value!r:.60}: neither one label nor a one-hot list")
    return OneHot(value.index(1), len(value))


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedTar(f"{where}: not JSON ({error})") from None


def named_labels(scan: Labelled, names: Sequence[str]) -> list[Label]:
    """Return the labels of a tar, one per sample; numbers become names if there are `names` of all
    class numbers."""
    labels = scan.labels or [None] * scan.samples
    numbers = [one for one in labels if one is not None]
    if names and all(isinstance(one, int) and one < len(names) for one in numbers):
        return [names[one] if isinstance(one, int) else None for one in labels]
    return labels


def number_classes(
    labels: Sequence[Label], lengths: set[int], declared: Sequence[str], where: str
) -> tuple[NDArray[np.int32], list[str]]:
    """Return the class number of each sample (-1: none), and the names of the classes.

    Class numbers stay as they are; names are numbered in sorted order, or in that of `declared`
    names if all are among them.

    Args:
        lengths: of one-hot lists.

    Raises:
        UserError: there are too many classes, or one-hot lists of different lengths.
    """
    if len(lengths) > 1:
        raise UserError(f"{where}: one-hot lists of different lengths: {sorted(lengths)}")
    known = {label for label in labels if label is not None}
    numbers: dict[int | str, int]
    if not known:
        return np.full(len(labels), -1, np.int32), []
    if all(isinstance(label, int) for label in known):
        count = max(*lengths, *(int(label) + 1 for label in known), 0)
        names = [str(number) for number in range(min(count, MAX_CLASSES + 1))]
        numbers = {label: int(label) for label in known}
    else:
        names = sorted({str(label) for label in known})
        if set(names) <= set(declared):
            names = list(declared)
        places = {name: number for number, name in enumerate(names)}
        numbers = {label: places[str(label)] for label in known}
    if len(names) > MAX_CLASSES:
        raise UserError(
            f"{where}: more than {MAX_CLASSES} classes; if the label is a caption or an id, choose "
            "another one with --data.label, or none"
        )
    every = (-1 if label is None else numbers[label] for label in labels)
    return np.fromiter(every, np.int32, len(labels)), names
