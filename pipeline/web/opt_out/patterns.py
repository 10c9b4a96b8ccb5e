"""Path patterns of robots.txt (RFC 9309, 2.2.2 and 2.2.3): `*` is any text, a final `$` the end.

Matching takes linear time in the path for each part of the pattern.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_UNRESERVED = re.compile(r"%(2d|2e|3\d|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")
_SAFE = "/?:@!$&'()*+,;=%~#[]"


def normalize(path: str) -> str:
    """Return a path or pattern with escapes normalised as in RFC 9309: unreserved characters are
    decoded (but not `%2A` and `%24`, which mean literal characters), others are in capitals."""
    path = quote(path, safe=_SAFE, errors="replace")
    path = _UNRESERVED.sub(_unescape, path)
    return _ESCAPE.sub(lambda match: match[0].upper(), path)


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if re.match(r"[A-Za-z0-9._~-]", character) else match[0].upper()


def target_path(url: str) -> str:
    """Return the normalised path and query of `url`, with which patterns are compared."""
    parts = urlsplit(url)
    return normalize((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def matches(pattern: str, target: str) -> bool:
    """Return True if the normalised `pattern` matches a prefix of the normalised `target`."""
    anchored = pattern.endswith("$")
    first, *rest = (pattern[:-1] if anchored else pattern).split("*")
    if not target.startswith(first):
        return False
    if not rest:
        return not anchored or target == first
    position = len(first)
    *middle, last = rest
    for part in middle:
        found = target.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    if anchored:
        return len(target) - len(last) >= position and target.endswith(last)
    return target.find(last, position) >= 0
