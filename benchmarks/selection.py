"""Selection of simulated records: seconds and memory as the number of images grows.

(Not named `select`, because a script of that name would hide the standard library's module.)

The records have the format of journals, plans and manifest; a twentieth are exact duplicates, a
fifth near another one by the first hash (up to three bits): half of these are copies, up to 16 bits
apart in the second hash too, half only look similar. Some fail each limit. Each size runs in a
separate process, so that its peak memory can be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths, image_key
from pipeline.events import EventLog
from pipeline.originals.parts import PART_SIZE, PartFiles, part_name
from pipeline.recipe import Recipe
from pipeline.select.stage import select


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    rows = []
    for size in sorted(args.images):
        with tempfile.TemporaryDirectory() as folder:
            simulate(DatasetPaths("simulated", Path(folder)), size)
            said = subprocess.run(
                [sys.executable, __file__, "--one", folder],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        row = {"images": size, **json.loads(said)}
        rows.append(row)
        print(f"{size:>9,} images {row['seconds']:8.2f} s {row['cpu_seconds']:8.2f} CPU-s"
              f" {row['peak_mb']:7.0f} MB, kept {row['kept']:,}", flush=True)  # fmt: skip
    result = {
        "curve": rows,
        "exponent": round(exponent(rows), 3),
        "bytes_an_image": round(growth(rows)),
    }
    print(f"seconds grow as images to the power of {result['exponent']}; "
          f"memory by {result['bytes_an_image']} bytes an image")  # fmt: skip
    if args.json:
        print(json.dumps(result))


def exponent(rows: list[dict[str, Any]]) -> float:
    """Return the slope of log CPU seconds over log images: 1 is linear, 2 is quadratic."""
    images, seconds = (np.log([row[name] for row in rows]) for name in ("images", "cpu_seconds"))
    return float(np.polyfit(images, seconds, 1)[0])


def growth(rows: list[dict[str, Any]]) -> float:
    """Return the slope of peak memory in bytes over images."""
    return float(np.polyfit([r["images"] for r in rows], [r["peak_mb"] * 1e6 for r in rows], 1)[0])


def measure(root: Path) -> dict[str, Any]:
    """Select once; return seconds, peak memory and the result."""
    dataset = DatasetPaths("simulated", root)
    recipe = parse_config(
        Recipe,
        {
            "source": {"kind": "html", "start": ["https://simulated.example/"]},
            "select": {"min_side": 100, "min_blur": 10.0, "licenses": ["cc"]},
        },
        "simulated",
    )
    start, cpu = time.perf_counter(), time.process_time()
    with EventLog(dataset, "benchmark") as log:
        result = select(recipe, dataset, log)
    status = Path("/proc/self/status").read_text()
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_mb": round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1),
        "kept": result.kept,
        "rejected": result.rejected,
    }


def simulate(dataset: DatasetPaths, count: int) -> None:
    """Write the manifest and complete parts of `count` images, without the image data."""
    rng = np.random.default_rng(count)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = rng.random(count) < 0.2
    source = rng.integers(0, count, near.sum())
    hashes[near] = hashes[source]
    for _ in range(3):
        bit = np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
        hashes = np.where(near & (rng.random(count) < 0.7), hashes ^ bit, hashes)
    details = rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
    copies = rng.random(near.sum()) < 0.5
    changed = rng.integers(0, 256, (copies.sum(), 16))
    flips = np.zeros((copies.sum(), 4), np.uint64)
    for bit in changed.T:
        flips[np.arange(len(flips)), bit // 64] |= np.uint64(1) << (bit % 64).astype(np.uint64)
    details[np.flatnonzero(near)[copies]] = details[source[copies]] ^ flips
    twins = np.where(rng.random(count) < 0.05, rng.integers(0, count, count), np.arange(count))
    sides = rng.integers(60, 3000, (count, 2))
    blur = rng.lognormal(5, 1.2, count)
    dataset.manifest_dir.mkdir(parents=True)
    dataset.originals_dir.mkdir(parents=True)
    with dataset.url_manifest.open("w") as urls:
        for start in range(0, count, PART_SIZE):
            files = PartFiles(dataset, part_name(dataset, start // PART_SIZE))
            plan, journal = [], []
            for i in range(start, min(count, start + PART_SIZE)):
                url = f"https://simulated.example/shells/{i:08d}.jpg"
                key = image_key(url)
                licence = "CC BY 4.0" if i % 50 else "all rights reserved"
                row = {
                    "key": key, "url": url,
                    "page": f"https://simulated.example/page/{i // 40}", "title": f"Shell {i}",
                    "labels": ["Conus", f"species {i % 997}"], "license": licence,
                    "attribution": "A. Person", "found": "2024-05-01T00:00:00Z",
                }  # fmt: skip
                twin = int(twins[i])
                journal.append({
                    "ok": True, "ts": "2024-05-01T00:00:00Z", "key": key, "part": files.part,
                    "member": f"{key}.jpg", "offset": 512, "bytes": 200_000,
                    "sha256": f"{twin:064x}", "format": "JPEG", "mode": "RGB",
                    "width": int(sides[i, 0]), "height": int(sides[i, 1]),
                    "phash": f"{int(hashes[i]):016x}", "blur": round(float(blur[i]), 3),
                    "spread": 40.0, "detail": details[i].astype(">u8").tobytes().hex(),
                    "end": 200_704,
                })  # fmt: skip
                plan.append(row)
            text = "".join(json.dumps(row) + "\n" for row in plan)
            urls.write(text)
            files.plan.write_text(text)
            files.journal.write_text("".join(json.dumps(row) + "\n" for row in journal))
            files.summary.write_text("{}")


if __name__ == "__main__":
    main()
