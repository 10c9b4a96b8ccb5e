"""Text and JSON from outside, made safe to write anywhere."""

from __future__ import annotations

import json
import math
import re
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_DIGITS = 300


def safe_text(text: str) -> str:
    """`text` that every encoding, file and terminal takes: lone surrogates and control characters
    other than tab and line ends become U+FFFD."""
    return text if text.isprintable() else _UNSAFE.sub(REPLACEMENT, text)


def plain_value(value: object) -> str | None:
    """A scalar from a file as text: "" for a missing value (also NaN), None for an object, a list
    or another type that is no text."""
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
    """The value of a JSON text from outside.

    Bytes that are not of its encoding become U+FFFD. NaN and infinities, which JSON does not have,
    become None, and an integer of more than 300 digits its text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    if isinstance(data, bytes):
        encoding = json.detect_encoding(data)
        data = data.decode(encoding, "replace")
    try:
        return json.loads(
            data.removeprefix("\ufeff"),
            parse_constant=lambda _: None,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None
