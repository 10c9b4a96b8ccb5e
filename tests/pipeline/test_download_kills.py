"""kill -9 at random moments, many times: in the end exactly the good images, none twice.

Takes some seconds, since it kills real processes in the middle of real work.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from pipeline.contract import DatasetPaths, JsonlAppender, image_key, read_jsonl
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import PartFiles, planned_parts, read_journal, read_records
from tests.helpers.faulty_site import (
    ATTEMPTS,
    BIG,
    Behaviour,
    FaultySite,
    Row,
    first,
    page,
    picture,
    serve,
    status,
)

KILLS = 25
IMAGES = 1100
CONCURRENCY = 6

# Imports once, then forks a process a line: each a real one, started in no time.
ZYGOTE = f"""
import os, sys
from pathlib import Path
from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource
from pipeline.originals.download import download
recipe = Recipe(source=HtmlSource(start=("http://127.0.0.1/",)), politeness=Politeness(
    rate=400, concurrency={CONCURRENCY}, allow_private=True, attempts={ATTEMPTS}, backoff=0.02,
    max_backoff=0.05, max_bytes=1 << 20, max_pixels=10_000_000, rest_after=99))
dataset = DatasetPaths("kills", Path(sys.argv[1]))
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        with EventLog(dataset, line.strip()) as log:
            download(recipe, dataset, log)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def _break_off(request) -> None:
    request.answer(BIG[:4000], length=len(BIG))
    request.hang_up()


BAD: tuple[tuple[str, Behaviour], ...] = (
    ("not_found", status("404 Not Found")),
    ("gone", status("410 Gone")),
    ("forbidden", status("403 Forbidden")),
    ("server_error", status("500 Internal Server Error")),
    ("truncated", _break_off),
    ("html_page", serve(page("Nothing here"))),
    ("quota_page", serve(page("Quota exceeded"))),
    ("wrong_type", serve(b"{}")),
    ("undecodable", serve(BIG[: len(BIG) // 2])),
    ("empty", serve(b"")),
    ("opt_out", serve(BIG, X_Robots_Tag="noai")),
)


def faulty_rows(chance: random.Random) -> dict[str, Row]:
    """By seeded chance: four of five pictures are good, some of those after a 500 or a break."""
    rows = {}
    for number in range(IMAGES):
        path, data = f"/{number}.jpg", picture(1000 + number)
        draw = chance.random()
        if draw < 0.2:
            kind, behave = chance.choice(BAD)
            rows[path] = Row(path, behave, kind)
        elif draw < 0.3:
            bad = chance.choice((status("500 Oops"), _break_off))
            flaky = frozenset(("flaky",))
            rows[path] = Row(path, first(1, bad, serve(data)), None, data=data, tags=flaky)
        else:
            rows[path] = Row(path, serve(data), None, data=data)
    return rows


def test_kills_lose_nothing_and_fetch_nothing_twice(tmp_path: Path):
    chance = random.Random(7)
    dataset = DatasetPaths("kills", tmp_path)
    rows = faulty_rows(chance)
    with FaultySite(rows=rows) as site:
        urls = {site.url(path): row for path, row in rows.items()}
        with JsonlAppender(dataset.url_manifest) as manifest:
            manifest.append(*({"key": image_key(url), "url": url} for url in urls))
        killed = _kill_and_restart(tmp_path, chance)
    assert killed >= KILLS

    records = list(read_records(dataset))
    for part in planned_parts(dataset):
        files = PartFiles(dataset, part)
        record = json.loads(files.summary.read_text())
        assert record["sha256"] == hashlib.sha256(files.tar.read_bytes()).hexdigest()
    assert max(Counter(record.key for record in records).values()) == 1
    got = {record.key: read_original(dataset, record) for record in records}
    assert got == {image_key(url): row.data for url, row in urls.items() if row.kind is None}

    journaled = Counter(
        row["key"] for part in planned_parts(dataset) for row in read_journal(dataset, part)
    )
    assert journaled == Counter(image_key(url) for url in urls)

    bad = {url: row.kind for url, row in urls.items() if row.kind is not None}
    lines = list(read_jsonl(dataset.failure_log))
    assert {line["url"]: line["kind"] for line in lines} == bad
    # A kill between the log and the journal may log the same failure again.
    assert len(lines) <= len(bad) + killed

    # What was fetched twice is at most what was in flight at a kill.
    plain = {path for path, row in rows.items() if row.kind is None and not row.tags}
    asked = Counter(path for _, path, _ in site.log if path in plain)
    again = sum(count - 1 for count in asked.values())
    assert again <= killed * 2 * CONCURRENCY


def _kill_and_restart(root: Path, chance: random.Random) -> int:
    """Run until it ends well, with kills at random moments first; how many kills there were."""
    killed = 0
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, str(root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as zygote:  # fmt: skip
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        while True:
            print("run", file=zygote.stdin, flush=True)
            pid = int(zygote.stdout.readline())
            if killed < KILLS:
                time.sleep(chance.uniform(0.01, 0.15))
                os.kill(pid, signal.SIGKILL)
            status_ = int(zygote.stdout.readline())
            if status_ == 0:
                break
            assert status_ == -signal.SIGKILL, status_
            killed += 1
        zygote.stdin.close()
    return killed
