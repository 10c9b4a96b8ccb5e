"""Parses usage preferences: IETF AIPREF `Content-Usage` and Cloudflare's `Content-Signal`.

AIPREF: draft-ietf-aipref-attach-05 (2026-08-19) and draft-ietf-aipref-vocab-08 (2026-09-14).
"""

from __future__ import annotations

import re

_USAGE_LABELS = ("train-genai", "train-ai", "bots")
"""The labels that cover training a GAN, the most specific first. `train-ai` is from the current
draft; the others are from earlier drafts and still in use."""

_SIGNAL = re.compile(r"([a-z-]+)\s*=\s*([a-z]+)")

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


def usage_disallows(value: str) -> bool:
    """Return True if a `Content-Usage` value disallows training, by its most specific label."""
    members = parse_tokens(value)
    for label in _USAGE_LABELS:
        if members.get(label) in ("y", "n"):
            return members[label] == "n"
    return False


def signal_disallows(value: str) -> bool:
    """Return True if a `Content-Signal` value (`search=yes, ai-train=no`) disallows training."""
    return any(
        (match := _SIGNAL.fullmatch(part.strip().lower())) and match.groups() == ("ai-train", "no")
        for part in re.split(r"[,;]", value)
    )


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
