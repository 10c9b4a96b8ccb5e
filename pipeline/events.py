"""The event log and the failure log of a dataset.

Every event is a line of `logs/NAME/events.jsonl` and is passed to the listeners (the console, a
Prefect run). Every failure is a line of `logs/NAME/failures.jsonl`, from which `retry` works. The
listeners also receive the first failure of each kind, and progress, which is not logged. Passwords
in URLs are removed everywhere.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.contract import DatasetPaths, JsonlAppender, now_utc, read_jsonl
from pipeline.errors import Failure
from pipeline.outside_text import without_passwords
from pipeline.units import count_of
from pipeline.versions import migrate

FIRST_FAILURE = "first failure"
"""The event for the first failure of each kind in a run; its facts are `kind`, `url` and
`detail`."""

RESOLVED = "resolved"
"""The kind of the line that cancels an earlier failure."""

RENAMED_KINDS = {
    "unexpected_form": "parse_error", "host_resting": "host_cooldown", "mended": RESOLVED,
}  # fmt: skip
"""Kinds in version 1 of the failure log, and their present names."""


def _rename_kind(row: dict[str, Any]) -> dict[str, Any]:
    kind = str(row.get("kind"))
    return {**row, "kind": RENAMED_KINDS[kind]} if kind in RENAMED_KINDS else row


_FAILURE_MIGRATIONS = (_rename_kind,)
_FAILURE_VERSION = len(_FAILURE_MIGRATIONS) + 1


@dataclass(frozen=True)
class LoggedFailure(Failure):
    """A line of the failure log; `ts` is its time, ISO 8601 in UTC."""

    ts: str = ""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> LoggedFailure:
        """Return the failure in a line, which must have `stage`, `url` and `kind`."""
        return cls(
            stage=str(row["stage"]),
            url=str(row["url"]),
            kind=str(row["kind"]),
            retryable=row.get("retryable") is True,
            key=row.get("key"),
            status=row.get("status"),
            attempts=row.get("attempts", 1),
            detail=str(row.get("detail") or ""),
            ts=str(row.get("ts") or ""),
        )


@dataclass(frozen=True)
class Event:
    """One event of a stage; `facts` are its details, as JSON values."""

    ts: str
    run: str
    stage: str
    event: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """The progress of a stage: `done` of `total` units (None while the total is unknown).

    `failed` counts failures by kind so far; `bytes` counts bytes fetched or written.
    """

    stage: str
    done: int
    total: int | None
    unit: str
    bytes: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    def count(self, number: int) -> str:
        """Return `number` with the unit, such as `1 page` or `2,000 pages`."""
        return count_of(number, self.unit.removesuffix("s"), self.unit)


EventListener = Callable[[Event], None]
ProgressListener = Callable[[Progress], None]


class EventLog:
    """Writes the logs of a dataset. Safe to use from several threads.

    Args:
        run: a name for this run, written in every line.
        on_event: called with each event.
        on_progress: called with each progress report.
    """

    def __init__(
        self,
        dataset: DatasetPaths,
        run: str,
        on_event: Sequence[EventListener] = (),
        on_progress: Sequence[ProgressListener] = (),
    ) -> None:
        self.run = run
        self._events = JsonlAppender(dataset.event_log)
        self._failures = JsonlAppender(dataset.failure_log)
        self._on_event = tuple(on_event)
        self._on_progress = tuple(on_progress)
        self._lock = threading.Lock()
        self.failed: Counter[str] = Counter()

    def emit(self, stage: str, event: str, **facts: Any) -> None:
        """Record that `event` happened in `stage`."""
        happened = Event(now_utc(), self.run, stage, event, _without_passwords(facts))
        with self._lock:
            self._events.append(asdict(happened))
            for listener in self._on_event:
                listener(happened)

    def log_failure(self, failure: Failure) -> None:
        """Record a failed page or image."""
        with self._lock:
            self._append_failure({"ts": now_utc(), **asdict(failure), "run": self.run})
        self.count_failure(failure.stage, failure.kind, failure.url, failure.detail)

    def count_failure(self, stage: str, kind: str, url: str, detail: str = "") -> None:
        """Count a failure that is in the log, and notify the listeners of the first of its kind."""
        with self._lock:
            self.failed[kind] += 1
            if self.failed[kind] > 1:
                return
            facts = _without_passwords({"kind": kind, "url": url, "detail": detail})
            for listener in self._on_event:
                listener(Event(now_utc(), self.run, stage, FIRST_FAILURE, facts))

    def log_resolved(self, failure: Failure) -> None:
        """Record that an earlier failure was resolved, by a line with the kind "resolved"."""
        changes = {"kind": RESOLVED, "detail": f"was {failure.kind}", "run": self.run}
        with self._lock:
            self._append_failure({**asdict(failure), **changes, "ts": now_utc()})

    def _append_failure(self, row: dict[str, Any]) -> None:
        self._failures.append({**row, "version": _FAILURE_VERSION})

    def progress(
        self, stage: str, done: int, total: int | None, unit: str, nbytes: int = 0
    ) -> None:
        """Report the progress of `stage` to the listeners."""
        with self._lock:
            report = Progress(stage, done, total, unit, nbytes, dict(self.failed))
            for listener in self._on_progress:
                listener(report)

    def close(self) -> None:
        self._events.close()
        self._failures.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unresolved_failures(dataset: DatasetPaths) -> dict[tuple[str, str], LoggedFailure]:
    """Return the last line of each (stage, url) in the failure log, if it is not resolved."""
    last = last_failures(read_jsonl(dataset.failure_log))
    return {where: LoggedFailure.from_json(row) for where, row in last.items()}


def last_failures(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the last row of each (stage, url), if it is not resolved. Rows without stage, URL or
    kind are skipped; rows of earlier versions are migrated.

    Raises:
        UserError: a row has a later version.
    """
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if not {"stage", "url", "kind"} <= row.keys():
            continue
        row = migrate(row, _FAILURE_MIGRATIONS, "failures.jsonl")
        where = (str(row["stage"]), str(row["url"]))
        if row["kind"] == RESOLVED:
            last.pop(where, None)
        else:
            last[where] = row
    return last


def _without_passwords(value: Any) -> Any:
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, dict):
        return {key: _without_passwords(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(one) for one in value]
    return value


class EventTail:
    """Reads the events that other processes write after its creation."""

    def __init__(self, dataset: DatasetPaths) -> None:
        self._path = dataset.event_log
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def read_new(self) -> list[Event]:
        """Return the events since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self._offset += len(whole) + 1
        return [Event(**json.loads(line)) for line in whole.splitlines()]
