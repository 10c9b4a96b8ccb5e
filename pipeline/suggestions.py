"""Suggestions for mistyped words: "did you mean …?"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean X?"` for the known word closest to `word`; empty if none is close, or
    if `word` is one of them."""
    words = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word, words, 1) if word not in words else []
    return f"; did you mean {near[0]}?" if near else ""
