"""Parses dictionaries of Structured Field Values (RFC 9651, 4.2.2), for usage preferences.

Only tokens are kept; members with values of other types are parsed and have the value None.
"""

from __future__ import annotations

import re

MAX_LENGTH = 8192
"""Maximum length of a value in characters; longer ones are ignored."""

_KEY = r"[a-z*][a-z0-9_.*-]*+"
_TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*+"
_OTHER = (
    r"-?[0-9]{1,15}+(?:\.[0-9]{1,3}+)?+|@-?[0-9]{1,15}+|\?[01]|:[A-Za-z0-9+/=]*+:"
    r'|%?"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'
)
_PARAMETERS = rf"(?:;\ *+{_KEY}(?:=(?:{_TOKEN}|{_OTHER}))?+)*+"
_LIST = rf"\(\ *+(?:(?:{_TOKEN}|{_OTHER}){_PARAMETERS}(?:\ ++|(?=\))))*+\)"
_MEMBER = re.compile(
    rf"(?P<key>{_KEY})(?:=(?:(?P<token>{_TOKEN})|{_OTHER}|{_LIST}))?+{_PARAMETERS}"
)
_COMMA = re.compile(r"[ \t]*+,[ \t]*+")


def parse_tokens(value: str) -> dict[str, str | None]:
    """Return the members of a dictionary: the text of a token, or None for other types.

    An invalid value has no members, as the standard requires. Of several members with the same key,
    the last one counts.
    """
    members: dict[str, str | None] = {}
    value = value.strip(" \t")
    if len(value) > MAX_LENGTH:
        return {}
    position = 0
    while position < len(value):
        member = _MEMBER.match(value, position)
        if member is None:
            return {}
        members[member["key"]] = member["token"]
        position = member.end()
        if position == len(value):
            return members
        comma = _COMMA.match(value, position)
        if comma is None or comma.end() == len(value):
            return {}
        position = comma.end()
    return members
