"""What a misbehaving site served and what was recorded, row by row.

The site is that of the tests (`tests/pipeline/faulty_site.py`), on loopback, with one host per row;
the download stage fetches all rows in one run. Exit status 1 if a row has the wrong result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "pipeline"))

from pipeline.contract import DatasetPaths, JsonlAppender, image_key, read_jsonl
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.originals.download import download
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource
from tests.helpers.faulty_site import ATTEMPTS, ROWS, FaultySite

POLITENESS = Politeness(
    rate=500, concurrency=4, allow_private=True, attempts=ATTEMPTS, backoff=0.05, max_backoff=0.1,
    first_byte_timeout=0.5, total_timeout=1.5, min_speed=2000, min_speed_window=0.5,
    max_bytes=1 << 20, max_pixels=10_000_000, max_redirects=5, max_wait=20,
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    recipe = Recipe(source=HtmlSource(start=("http://127.0.0.1/",)), politeness=POLITENESS)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, FaultySite() as site:
        dataset = DatasetPaths("faults", Path(folder))
        urls = [site.url(row.path, host=f"r{n}.localhost") for n, row in enumerate(ROWS)]
        with JsonlAppender(dataset.url_manifest) as manifest:
            manifest.append(*({"key": image_key(url), "url": url} for url in urls))
        with EventLog(dataset, "faults") as log:
            download(recipe, dataset, log)
        made = Counter((host.partition(".")[0], path) for host, path, _ in site.log)
        failed = {line["url"]: line for line in read_jsonl(dataset.failure_log)}
        had = {record.key: read_original(dataset, record) for record in read_records(dataset)}
    rows: list[dict[str, Any]] = []
    for number, (row, url) in enumerate(zip(ROWS, urls, strict=True)):
        line = failed.get(url)
        recorded = line["kind"] if line else "had" if image_key(url) in had else "lost"
        right = recorded == (row.kind or "had")
        right = right and (row.kind is not None or had[image_key(url)] == row.data)
        rows.append({
            "path": row.path, "expected": row.kind or "had", "recorded": recorded,
            "retryable": line["retryable"] if line else None,
            "requests": made[f"r{number}", row.path], "right": right,
        })  # fmt: skip
    print(f"{'served':24} {'expected':20} {'recorded':20} {'retry':6} requests")
    for one in rows:
        again = {True: "yes", False: "no", None: ""}[one["retryable"]]
        mark = "" if one["right"] else "  WRONG"
        print(f"{one['path']:24} {one['expected']:20} {one['recorded']:20} {again:6} "
              f"{one['requests']:8}{mark}")  # fmt: skip
    right = sum(one["right"] for one in rows)
    print(f"{right} of {len(rows)} rows right")
    if args.json:
        print(json.dumps({"rows": rows, "right": right, "total": len(rows)}))
    return 0 if right == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
