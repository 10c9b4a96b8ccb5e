"""Parses objects and arrays in scripts: JSON and JavaScript literals.

The parser is tolerant and takes linear time: other code is skipped, and unclosed literals end with
the text.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
"""Maximum depth of literals; deeper ones are ignored."""

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\\n]++|\\.)*+"?|'(?:[^'\\\n]++|\\.)*+'?|`(?:[^`\\]++|\\.)*+`?)"""
    r"""|(?P<skip>//[^\n]*|/\*.*?(?:\*/|\Z))"""
    r"""|(?P<mark>[\[\]{}(),:;])|(?P<word>[\w$.+-]+)""",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL
)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


def read_json(text: str) -> Any:
    """Return the JSON value in `text`; None if it is not JSON or nested too deeply."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def read_literals(text: str) -> list[Any]:
    """Return all outermost objects (dict) and arrays (list) in `text`.

    Values are strings, numbers (as text), dicts and lists; the arguments of a call are a `Call`. A
    block of code is parsed like an object, so that literals in it are found.
    """
    root: list[Any] = []
    stack: list[_Frame] = [_Frame(root)]
    skipped = 0
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if token["skip"] is not None:
            continue
        if mark is None:
            string = token["string"]
            stack[-1].see(token["word"] if string is None else _unquote(string))
        elif mark in "[({":
            if len(stack) > MAX_DEPTH:
                skipped += 1
                continue
            frame = _Frame({} if mark == "{" else [] if mark == "[" else Call())
            stack[-1].see(frame.node)
            stack.append(frame)
        elif mark in "])}":
            if skipped:
                skipped -= 1
            elif len(stack) > 1:
                stack.pop().commit()
        elif mark == ":":
            stack[-1].name_value()
        else:
            stack[-1].commit()
    while stack:
        stack.pop().commit()
    return [one for one in root if isinstance(one, dict | list)]


class Call(list[Any]):
    """The arguments of a call."""


class _Frame:
    """An object or array that is being parsed: the last value, and the key it belongs to."""

    def __init__(self, node: dict[str, Any] | list[Any]) -> None:
        self.node = node
        self.key: str | None = None
        self.value: Any = None

    def see(self, value: Any) -> None:
        """Start a value. An object or array before it is complete even without a comma."""
        if isinstance(self.value, dict | list):
            self.commit()
        self.value = value

    def name_value(self) -> None:
        """Use the last value as the key of the next one."""
        if isinstance(self.value, str):
            self.key, self.value = self.value, None

    def commit(self) -> None:
        """Add the last value to the object or array."""
        if self.value is not None:
            if isinstance(self.node, list):
                self.node.append(self.value)
            else:
                key = self.key if self.key is not None else f"#{len(self.node)}"
                self.node[key] = self.value
        self.key = self.value = None


def _unquote(string: str) -> str:
    quote = string[0]
    text = string[1:-1] if len(string) > 1 and string[-1] == quote else string[1:]
    if "\\" not in text:
        return text
    units = _ESCAPE.sub(_unescape, text).encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace")  # joins surrogate pairs; a lone half is replaced


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        number = int(code, 16)
        return chr(number) if number < 0x110000 else ""
    return _SIMPLE.get(match[4], match[4])
