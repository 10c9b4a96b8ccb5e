"""Text from outside (URLs, titles, file names, messages), made safe to print and to store."""

from __future__ import annotations

import re
import unicodedata

_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)(//|\\\\)[^/?#\\\s]*@")
_JOINERS = frozenset("\u200c\u200d")  # part of correct spelling and of emoji
_SPACES = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def printable(text: str, max_length: int | None = None) -> str:
    """`text` as one line without control characters.

    Line breaks and tabs become spaces. Other control characters, invisible format characters
    (such as those that reverse the direction of writing) and lone surrogates become escapes as in
    JSON and TOML. Text longer than `max_length` is cut.
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
    """`text` without the user names and passwords of the URLs in it."""
    return _PASSWORD.sub(r"\1\2", text) if "@" in text else text
