"""Reads the elements of large JSON lists one by one, without reading the whole file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from pipeline.outside_text import JSON_DECODER

_CHUNK = 1 << 20
MAX_ELEMENT = 64 << 20
"""Maximum length of an element in characters."""


def json_elements(file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Yield the elements of a JSON list, with an empty key; or those of all lists of a JSON
    object, with the keys of the lists.

    Raises:
        ValueError: it is not JSON, or ends early.
        RecursionError: it is nested too deeply.
    """
    text = _Text(file)
    if text.peek() == "[":
        yield from (("", value) for value in _list(text))
        return
    text.expect("{")
    while text.peek() != "}":
        key = text.value()
        text.expect(":")
        if text.peek() == "[":
            yield from ((str(key), value) for value in _list(text))
        else:
            text.value()
        if text.peek() == ",":
            text.expect(",")


def _list(text: _Text) -> Iterator[Any]:
    text.expect("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.expect(",")
    text.expect("]")


class _Text:
    """Reads JSON from a file value by value."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._buffer = ""
        self._place = 0

    def peek(self) -> str:
        """Return the next character that is not white space, without moving past it.

        Raises:
            ValueError: the file ends.
        """
        while True:
            while self._place < len(self._buffer):
                if not self._buffer[self._place].isspace():
                    return self._buffer[self._place]
                self._place += 1
            if not self._more():
                raise ValueError("the file ends early")

    def expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise ValueError(f"{found!r} instead of {character!r}")
        self._place += 1

    def value(self) -> Any:
        """Return the next value, and move past it."""
        self.peek()
        while True:
            try:
                found, end = JSON_DECODER.raw_decode(self._buffer, self._place)
            except ValueError:
                if not self._more():
                    raise
                continue
            if end == len(self._buffer) and self._more():  # a number may continue
                continue
            self._place = end
            return found

    def _more(self) -> bool:
        rest = self._buffer[self._place :]
        if len(rest) > MAX_ELEMENT:
            return False
        more = self._file.read(max(_CHUNK, len(rest)))
        self._buffer, self._place = rest + more, 0
        return bool(more)
