"""All kinds of opt-out signals, and how they are described and recorded."""

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
