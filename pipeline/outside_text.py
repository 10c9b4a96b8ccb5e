"""Text from outside (URLs, titles, file names, messages, JSON), made safe to print and to store."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import Any

_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)([/\\]+)[^/?#\\\s]*@")
_JOINERS = frozenset("\u200c\u200d")  # needed for correct spelling and emoji
_SPACES = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_DIGITS = 300


def printable(text: str, max_length: int | None = None) -> str:
    """Return `text` as one line without control characters.

    Line breaks and tabs become spaces. Other control characters, invisible format characters (such
    as those that reverse the direction of writing) and lone surrogates become escapes as in JSON
    and TOML. Text longer than `max_length` is truncated.
    """
    if max_length is not None and len(text) > max_length:
        text = text[: max_length - 1] + "…"
    return text if text.isprintable() else "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character in _SPACES:
        return " "
    if unicodedata.category(character) in _UNSAFE:
        code = ord(character)
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def without_passwords(text: str) -> str:
    """Return `text` without user names and passwords in URLs."""
    return _PASSWORD.sub(r"\1\2", text) if "@" in text else text


def safe_text(text: str) -> str:
    """Return `text` that every encoding, file and terminal accepts: lone surrogates and control
    characters other than tab and line ends become U+FFFD."""
    return text if text.isprintable() else _UNWRITABLE.sub(REPLACEMENT, text)


def plain_value(value: object) -> str | None:
    """Return a scalar from a file as text: "" for a missing value (also NaN), None for an
    object, a list or another type that is not text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, dict | list | tuple | set | bool):
        return None
    return str(value)


def parse_json(data: str | bytes) -> Any:
    """Parse JSON from outside.

    Bytes that are invalid in its encoding become U+FFFD. NaN and infinities, which JSON does not
    have, become None, and an integer of more than 300 digits becomes text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    if isinstance(data, bytes):
        encoding = json.detect_encoding(data)
        data = data.decode(encoding, "replace")
    try:
        return _DECODER.decode(data.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_int=_integer, parse_float=_finite)
