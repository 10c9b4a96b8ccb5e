"""Decisions about single images: `manifests/NAME/curated.jsonl`, one line per decision.

A line has `version`, `ts`, `key`, `decision` (`keep`, `reject`, or `undo`, which withdraws the
earlier decisions about the image) and, if there is one, `reason`. The last line about an image
counts, except lines whose `ts` is earlier than that of a line before, as in merged files. Lines are
only appended, so every decision can be read and reversed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.contract import DatasetPaths, JsonlAppender, read_rows
from pipeline.outside_text import plain_value, safe_text
from pipeline.select.rules import CURATED, PERMANENT

KEEP, REJECT, UNDO = "keep", "reject", "undo"
DECISIONS = (KEEP, REJECT, UNDO)
_KEY = re.compile(r"[0-9a-f]{16}")

Rejection = tuple[str, str]
"""The reason to reject an image, and its details."""


@dataclass(frozen=True)
class Decision:
    """What a person decided about an image; `reason` is empty if none was given."""

    key: str
    decision: str
    reason: str = ""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Decision:
        """Return the decision in a line.

        Raises:
            ValueError: a member is missing or invalid; the message names it.
        """
        key, decision, reason = row.get("key"), row.get("decision"), row.get("reason", "")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(f"key: not 16 hex digits: {key!r:.60}")
        if decision not in DECISIONS:
            raise ValueError(f"decision: {decision!r:.60}: not one of {', '.join(DECISIONS)}")
        text = plain_value(reason)
        if text is None:
            raise ValueError(f"reason: not a text: {reason!r:.60}")
        return cls(key, decision, text)

    def to_json(self) -> dict[str, Any]:
        """Return the line, with the present time. Its microseconds distinguish the lines about one
        image, so that those of two machines can be merged."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        row = {"version": 1, "ts": now, "key": self.key, "decision": self.decision}
        return {**row, "reason": safe_text(self.reason)} if self.reason else row


@dataclass(frozen=True)
class Curation:
    """The decisions that count, by key.

    A decision changes the outcome for its own image only: duplicates and outliers are found as if
    there were no decisions.
    """

    by_key: dict[str, Decision] = field(default_factory=dict)

    def apply(self, key: str, rejection: Rejection | None) -> Rejection | None:
        """Return the rejection of an image after the decision about it; None to keep it.

        Args:
            rejection: what the limits say. A reason in `PERMANENT` stands.
        """
        decision = self.by_key.get(key)
        if decision is None or (rejection is not None and rejection[0] in PERMANENT):
            return rejection
        if decision.decision == KEEP:
            return None
        return CURATED, decision.reason or "rejected by eye"


def read_curation(dataset: DatasetPaths) -> Curation:
    """Return the decisions about the images of a dataset.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    by_key: dict[str, Decision] = {}
    latest: dict[str, datetime] = {}
    for made, one in read_rows(dataset.curation, _dated_decision):
        if made is not None:
            if made < latest.get(one.key, made):
                continue
            latest[one.key] = made
        if one.decision == UNDO:
            by_key.pop(one.key, None)
        else:
            by_key[one.key] = one
    return Curation(by_key)


def _dated_decision(row: dict[str, Any]) -> tuple[datetime | None, Decision]:
    """Return the decision in a line, and when it was made; None if the line does not tell."""
    made = None
    with suppress(TypeError, ValueError, OverflowError):
        made = datetime.fromisoformat(row.get("ts", "")).astimezone(UTC)
    return made, Decision.from_json(row)


def record_decisions(dataset: DatasetPaths, decisions: Iterable[Decision]) -> None:
    """Append decisions, all or none, and sync them to the disk."""
    with JsonlAppender(dataset.curation) as file:  # a store may have replaced the file meanwhile
        file.append(*(one.to_json() for one in decisions))
        file.sync()
