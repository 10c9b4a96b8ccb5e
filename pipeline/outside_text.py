"""Makes text from outside (URLs, titles, file names, messages, JSON) safe to print and store."""

from __future__ import annotations

import codecs
import io
import json
import math
import re
import unicodedata
from typing import IO, Any, Literal

_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)([/\\]+)[^/?#\\\s]*@")
_JOINERS = frozenset("\u200c\u200d")  # needed for correct spelling and emoji
_SPACES = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_BYTE = re.compile("[\udc80-\udcff]")
_MAX_DIGITS = 300
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ZEROS: dict[tuple[bool, ...], str] = {
    (True, False, True, False): "utf-16-le", (False, True, False, True): "utf-16-be",
    (True, False, False, False): "utf-32-le", (False, False, False, True): "utf-32-be",
}  # fmt: skip
"""Encodings; each key says which of the first four bytes are not zero."""
NOT_UTF8 = "not UTF-8; save the file as UTF-8"


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
    """Return `text` in a form that every encoding, file and terminal accepts: lone surrogates and
    control characters other than tabs and line ends become U+FFFD."""
    return text if text.isprintable() else _UNWRITABLE.sub(REPLACEMENT, text)


def plain_value(value: object) -> str | None:
    """Return a scalar from a file as text: "" for a missing value or NaN; None for an object, a
    list or another type that is not text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, dict | list | tuple | set | bool):
        return None
    return str(value)


def text_encoding(head: bytes) -> str:
    """Detect the encoding of a text that starts with `head`: UTF-16 or UTF-32 if it has their byte
    order mark or zero bytes, otherwise UTF-8."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    return _ZEROS.get(tuple(map(bool, head[:4])), "utf-8")


def decode_text(data: bytes, errors: Literal["replace", "strict"] = "replace") -> str:
    """Decode a text from outside and remove its byte order mark.

    Args:
        errors: "replace" turns invalid bytes into U+FFFD.

    Raises:
        ValueError: `errors` is "strict" and a byte is invalid; the message names the line and says
            what to do.
    """
    try:
        return data.decode(text_encoding(data), errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: {NOT_UTF8}") from None


def open_text(file: IO[bytes]) -> io.TextIOWrapper:
    """Open a binary file from outside as text, in its encoding. Line ends (LF, CR or both) are
    kept; `has_invalid_bytes` finds lines that are not UTF-8."""
    encoding = text_encoding(file.read(4))
    file.seek(0)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    return io.TextIOWrapper(file, encoding, errors, newline="")


def has_invalid_bytes(text: str) -> bool:
    """Return True if a text read from `open_text` contains bytes that are not UTF-8."""
    return not text.isascii() and _INVALID_BYTE.search(text) is not None


def parse_json(data: str | bytes) -> Any:
    """Parse JSON from outside.

    Invalid bytes become U+FFFD; NaN and infinities, which JSON does not have, become None; an
    integer of more than 300 digits becomes text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    if isinstance(data, bytes):
        data = decode_text(data)
    try:
        return JSON_DECODER.decode(data.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


JSON_DECODER = json.JSONDecoder(
    parse_constant=lambda _: None, parse_int=_integer, parse_float=_finite
)
"""NaN and infinities are None, and an integer of more than 300 digits is text."""
