"""Cost of the manifest stage as the number of URLs grows.

    python benchmarks/manifest.py --rows 10000000 [--json]

Crawls a list of simulated URLs in a separate process and records, after each tenth, that process's
memory, the time and its CPU time (which other processes do not change); then runs the finished
crawl again. Rows are appended to the manifest and looked up as for any other source.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import shutil
import tempfile
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths
from pipeline.crawl.stage import crawl
from pipeline.events import EventLog, Progress
from pipeline.recipe import Recipe
from pipeline.sources.list_options import ListSource

PARTS = 10


def write_list(path: Path, rows: int) -> None:
    """Write a list of `rows` distinct URLs of typical length, in LAION's columns."""
    with path.open("w") as file:
        file.write("URL,TEXT,LICENSE\n")
        for n in range(rows):
            name = hashlib.sha256(n.to_bytes(8, "big")).hexdigest()[:24]
            file.write(f"https://images{n % 97}.example.org/{name}/{n}.jpg,shell number {n},CC0\n")


def memory_mb() -> float:
    """Return the resident memory of this process in MB."""
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def work(root: Path, rows: int, pipe: Connection) -> None:
    """Crawl the list; send (seconds, CPU seconds, MB) at each tenth, and the result."""
    recipe = Recipe(source=ListSource(start=(str(root / "urls.csv"),), max_pages=10**9))
    dataset = DatasetPaths("simulated", root)
    samples: list[tuple[float, float, float]] = []
    began = time.monotonic()

    def on_progress(report: Progress) -> None:
        while len(samples) < PARTS and report.done * 10_000 >= rows * (len(samples) + 1) / PARTS:
            samples.append((time.monotonic() - began, time.process_time(), memory_mb()))

    with EventLog(dataset, "benchmark", on_progress=[on_progress]) as log:
        result = crawl(recipe, dataset, log)
    pipe.send({"seconds": time.monotonic() - began, "samples": samples, **asdict(result)})


def in_process(root: Path, rows: int) -> dict[str, Any]:
    """Return what `work` sends, from a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(root, rows, theirs))
    process.start()
    theirs.close()
    result: dict[str, Any] = ours.recv()
    process.join()
    return result


def per_part(times: list[float]) -> list[float]:
    """Return differences between consecutive times, starting from zero."""
    return [after - before for before, after in itertools.pairwise([0.0, *times])]


def measure(rows: int, folder: Path | None) -> dict[str, Any]:
    root = Path(tempfile.mkdtemp(prefix="manifest-", dir=folder))
    try:
        write_list(root / "urls.csv", rows)
        first, again = in_process(root, rows), in_process(root, rows)
        files = {path.name: path.stat().st_size / 1e6 for path in root.rglob("*") if path.is_file()}
    finally:
        shutil.rmtree(root)
    wall = per_part([sample[0] for sample in first["samples"]])
    cpu = per_part([sample[1] for sample in first["samples"]])
    memory = [sample[2] for sample in first["samples"]]
    assert first["urls"] == rows
    assert again["new"] == 0
    return {
        "rows": rows,
        "seconds": round(first["seconds"], 1),
        "rows_per_second": [round(rows / PARTS / seconds) for seconds in wall],
        "cpu_us_per_row": [round(seconds * PARTS / rows * 1e6, 1) for seconds in cpu],
        "memory_mb": [round(mb) for mb in memory],
        "memory_growth_mb": round(memory[-1] - memory[0], 1),
        "again_seconds": round(again["seconds"], 2),
        "manifest_mb": round(files["urls.jsonl"]),
        "journal_mb": round(sum(mb for name, mb in files.items() if "crawl.sqlite" in name)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="URLs to simulate")
    parser.add_argument("--folder", type=Path, help="where to work (0.5 GB a million rows)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    result = measure(args.rows, args.folder)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{'part':>4} {'rows/s':>8} {'CPU us':>7} {'MB':>6}")
    columns = (result[name] for name in ("rows_per_second", "cpu_us_per_row", "memory_mb"))
    for part, (rate, cpu, mb) in enumerate(zip(*columns, strict=True), 1):
        print(f"{part:>4} {rate:>8} {cpu:>7} {mb:>6}")
    print({key: value for key, value in result.items() if not isinstance(value, list)})


if __name__ == "__main__":
    main()
