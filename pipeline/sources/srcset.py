"""The `srcset` attribute, parsed as HTML says (section 4.8.4.3.10, "parsing a srcset attribute").

Splitting at commas is wrong: URLs may hold commas, and a candidate need not have a descriptor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPACE = " \t\n\f\r"
_DESCRIPTOR = re.compile(r"(\d+)([wh])|((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)x")


@dataclass(frozen=True)
class SrcsetCandidate:
    """One candidate: its URL as written, and its `width` in pixels or its `density`."""

    url: str
    width: int | None = None
    density: float = 1.0


def parse_srcset(text: str) -> list[SrcsetCandidate]:
    """The valid candidates of a `srcset`, in order; those with a bad descriptor are left out."""
    found: list[SrcsetCandidate] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in _SPACE + ",":
            position += 1
        if position >= end:
            return found
        start = position
        while position < end and text[position] not in _SPACE:
            position += 1
        url = text[start:position]
        descriptors: list[str] = []
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            descriptors, position = _descriptors(text, position)
        candidate = _candidate(url, descriptors)
        if candidate:
            found.append(candidate)


def _descriptors(text: str, position: int) -> tuple[list[str], int]:
    """The descriptors from `position` up to the comma outside parentheses that ends them."""
    depth, start = 0, position
    while position < len(text) and not (text[position] == "," and depth == 0):
        depth = max(0, depth + {"(": 1, ")": -1}.get(text[position], 0))
        position += 1
    return text[start:position].split(), position + 1


def _candidate(url: str, descriptors: list[str]) -> SrcsetCandidate | None:
    width: int | None = None
    density: float | None = None
    for word in descriptors:
        match = _DESCRIPTOR.fullmatch(word)
        if not match:
            return None
        if match[3] is not None:
            if density is not None or width is not None:
                return None
            density = float(match[3])
        elif match[2] == "w":
            if density is not None or width is not None or int(match[1]) == 0:
                return None
            width = int(match[1])
    return SrcsetCandidate(url, width, 1.0 if density is None else density) if url else None
