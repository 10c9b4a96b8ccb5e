"""One schema, one writer."""

import json
import threading
from pathlib import Path

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.errors import Failure
from pipeline.events import Event, EventLog, EventTail, Progress
from pipeline.web.failures import failure


def test_events_and_failures_reach_their_logs_and_the_listeners(tmp_path: Path) -> None:
    dataset = DatasetPaths("shells", tmp_path)
    events: list[Event] = []
    reports: list[Progress] = []
    with EventLog(dataset, "run-1", [events.append], [reports.append]) as log:
        log.emit("crawl", "done", pages=3)
        log.log_failure(Failure("crawl", "http://x/a", "http-404", retryable=False, status=404))
        log.log_failure(Failure("crawl", "http://x/b", "http-404", retryable=False, status=404))
        log.progress("crawl", 1, 2, "pages", 100)
    (row,) = read_jsonl(dataset.event_log)
    assert row == {
        "ts": events[0].ts,
        "run": "run-1",
        "stage": "crawl",
        "event": "done",
        "facts": {"pages": 3},
    }
    first, _ = read_jsonl(dataset.failure_log)
    assert set(first) == {
        *("ts", "stage", "url", "key", "kind", "status", "attempts", "retryable", "detail", "run"),
        "version",
    }
    assert reports == [Progress("crawl", 1, 2, "pages", 100, {"http-404": 2})]


def test_threads_may_share_the_log(tmp_path: Path) -> None:
    dataset = DatasetPaths("shells", tmp_path)
    with EventLog(dataset, "run") as log:
        threads = [
            threading.Thread(target=lambda: [log.emit("s", "e", n=n) for n in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(read_jsonl(dataset.event_log))) == 200


def test_the_tail_gives_what_is_new_and_whole(tmp_path: Path) -> None:
    dataset = DatasetPaths("shells", tmp_path)
    with EventLog(dataset, "run") as log:
        log.emit("crawl", "start")
        tail = EventTail(dataset)
        assert tail.read_new() == []
        log.emit("crawl", "done", urls=2)
        assert [event.facts for event in tail.read_new()] == [{"urls": 2}]
        assert tail.read_new() == []
    line = json.dumps({"ts": "t", "run": "r", "stage": "s", "event": "e", "facts": {}}) + "\n"
    with dataset.event_log.open("a") as file:
        file.write(line[:10])
        file.flush()
        assert tail.read_new() == []
        file.write(line[10:])
    assert [event.stage for event in tail.read_new()] == ["s"]


def test_a_traceback_is_kept_longer_than_the_detail_of_a_failure() -> None:
    assert len(failure("crawl", "http://x/a", "internal", detail="x" * 9999).detail) == 2000
    assert len(failure("crawl", "http://x/a", "not_found", detail="x" * 9999).detail) == 300
