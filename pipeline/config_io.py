"""Parses TOML and JSON configuration into frozen dataclasses; unknown keys are errors.

A user error is one line: the file, the key, and what is wrong.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import UserError, describe_os_error
from pipeline.outside_text import decode_text
from pipeline.reading import read_bytes
from pipeline.suggestions import suggestion

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""For `pydantic.dataclasses.dataclass(frozen=True, config=STRICT)`: rejects unknown keys."""

_MAX_BYTES = 16 << 20
_UNKNOWN = "unknown key"

T = TypeVar("T")


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read the sections of a TOML file, from a path or URL.

    Raises:
        UserError: the file does not exist or is not TOML.
    """
    try:
        text = decode_text(read_bytes(path, _MAX_BYTES), "strict")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        why = describe_os_error(error)
        raise UserError(why if str(path) in why else f"{path}: {why}") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML ({error})") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the sections of a TOML text.

    Raises:
        UserError: it is not TOML; the message names `where`.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for an integer of 5,000 digits
        raise UserError(f"{where}: not TOML ({error})") from None


def format_toml(values: Mapping[str, Any]) -> str:
    """Return the TOML text of sections: plain keys first, then one section per mapping. Values of
    None are left out."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [
        f"{_key(key)} = {_literal(value)}" for key, value in plain.items() if value is not None
    ]
    for name, section in values.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{_key(name)}]"]
            lines += [
                f"{_key(key)} = {_literal(value)}"
                for key, value in section.items()
                if value is not None
            ]
    return "\n".join(lines).lstrip("\n") + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_literal(one)}" for key, one in value.items() if one is not None)
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value).replace("\x7f", "\\u007f")


def parse_config(model: type[T], values: Any, where: str) -> T:
    """Parse `values` as a `model`.

    Raises:
        UserError: a value is invalid; the message names `where`, the key and the reason.
    """
    try:
        return TypeAdapter(model).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(_keys(first["loc"], values, first["type"] == "missing"))
        reason = {
            "extra_forbidden": _UNKNOWN,
            "unexpected_keyword_argument": _UNKNOWN,
            "missing": "missing",
        }.get(first["type"], first["msg"].removeprefix("Value error, "))
        reason = reason.replace("Input should be '', ", "Input should be empty, ")
        if first["type"] == "tuple_type":
            given, reason = first["input"], "not a list"
            if isinstance(given, str | int | float):
                reason += f"; write {json.dumps([given], ensure_ascii=False)}"
        if reason == _UNKNOWN:
            reason += suggestion(key.rpartition(".")[2], _field_names(model))
        raise UserError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}") from None


def _field_names(kind: Any) -> Iterator[str]:
    """Yield the names of the fields of a dataclass, and of those of the dataclasses in it."""
    if is_dataclass(kind):
        for name, inner in get_type_hints(kind).items():
            yield name
            yield from _field_names(inner)
    for inner in get_args(kind):
        yield from _field_names(inner)


def _keys(location: Sequence[int | str], values: Any, missing: bool) -> Iterator[str]:
    """Yield the keys that lead to an error, without pydantic's names of union branches."""
    for depth, part in enumerate(location, start=1):
        within = isinstance(values, Mapping) and part in values
        if within or (isinstance(values, list | tuple) and isinstance(part, int)):
            values = values[part] if within or int(part) < len(values) else None
            yield str(part)
        elif missing and depth == len(location):
            yield str(part)
