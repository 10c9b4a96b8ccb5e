"""All kinds of opt-out signals, how they are described and recorded, and the values of usage
preferences: IETF AIPREF `Content-Usage` and Cloudflare's `Content-Signal`.

AIPREF: draft-ietf-aipref-attach-05 (2026-08-19) and draft-ietf-aipref-vocab-08 (2026-09-14).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.outside_text import printable, without_passwords

SIGNALS: Final[dict[str, str]] = {
    "content-signal": "Content-Signal: ai-train=no in robots.txt",
    "content-usage": "Content-Usage: train-ai=n in robots.txt or as a header (IETF AIPREF)",
    "tdm-reservation": "tdm-reservation 1 as header, meta element or in /.well-known/tdmrep.json",
    "noai": "noai in X-Robots-Tag or a meta element",
    "noimageai": "noimageai in X-Robots-Tag or a meta element",
    "noml": "noml in X-Robots-Tag or a meta element",
    "rsl": "an RSL licence that prohibits ai-train",
    "plus-data-mining": "plus:DataMining in the XMP of the image file",
}
"""Descriptions of the signals, by the names that recipes, failures and provenance use."""

NAMELESS: Final = "unnamed"
"""The name for a logged opt-out whose detail contains no known signal."""

_LONGEST = 500
_SEGMENT = re.compile(r"(?:^|; )([a-z-]+): ?([^;]*)")
_WORD = re.compile(r"[a-z-]+")

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


@dataclass(frozen=True)
class Signal:
    """An opt-out signal: its name, where it was found, and the policy it refers to, if any. `where`
    and `policy` are made printable, without passwords."""

    name: str
    where: str
    policy: str = ""

    def __post_init__(self) -> None:
        for field in ("where", "policy"):
            text = printable(without_passwords(getattr(self, field)), _LONGEST)
            object.__setattr__(self, field, text)

    def __str__(self) -> str:
        policy = f", policy {self.policy[:200]}" if self.policy else ""
        # "; " separates the signals of a detail
        return f"{self.name}: {self.where}{policy}".replace("; ", ";")

    def to_json(self, reason: str | None) -> dict[str, str]:
        """Return the record for an image; `reason` is why the recipe overrides the signal."""
        values = {
            "signal": self.name, "where": self.where, "policy": self.policy,
            "overridden": reason or "",
        }  # fmt: skip
        return {name: value for name, value in values.items() if value}


def describe(signals: Iterable[Signal]) -> str:
    """Return the detail of an `opt_out` failure: `noai: X-Robots-Tag; tdm-reservation: header`."""
    return "; ".join(str(signal) for signal in dict.fromkeys(signals))


def signal_texts(detail: str) -> list[str]:
    """Return the signals in the detail of an `opt_out` failure, each as `noai: X-Robots-Tag`."""
    return [one for one in detail.split("; ") if one.partition(": ")[0] in SIGNALS]


def signal_names(detail: str) -> list[str]:
    """Return the names of the signals in the detail of an `opt_out` failure; `NAMELESS` if none.

    Details from older versions (`x-robots-tag: noai`) are also understood.
    """
    found: list[str] = []
    for name, rest in _SEGMENT.findall(detail):
        if name in SIGNALS:
            found.append(name)
        else:
            found += [word for word in _WORD.findall(rest.lower()) if word in SIGNALS]
    return list(dict.fromkeys(found)) or [NAMELESS]


def count_signals(rows: Iterable[Mapping[str, object]]) -> dict[str, int]:
    """Return how often each signal occurs in the `opt_out` failures among `rows` of the log."""
    counts: Counter[str] = Counter()
    for row in rows:
        if row.get("kind") == "opt_out":
            counts.update(signal_names(str(row.get("detail") or "")))
    return dict(counts)


def check_overrides(overrides: dict[str, str]) -> dict[str, str]:
    """Validate the overrides of a recipe and return them unchanged.

    Raises:
        ValueError: a signal is unknown or has no reason.
    """
    for name, reason in overrides.items():
        if name not in SIGNALS:
            raise ValueError(f"unknown signal {name!r}; choose from {', '.join(SIGNALS)}")
        if not reason.strip():
            raise ValueError(f'{name}: no reason; state one, such as {name} = "I own the site"')
    return overrides


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
