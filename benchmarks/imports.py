"""Import of the same images in each format, compared with the shard stage, in images per second.

Photographs of about 200 kB as a folder, a zip, WebDataset tars and Parquet, and 28 × 28 images as
MNIST's files. Shards of `--resolution` are built by `--workers` processes from the images that were
imported. Rounds alternate; the ratios are those of the medians. On a busy machine the ratio of CPU
times is more reliable than that of speeds.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from photographs import write_photographs
from pyarrow import parquet

from pipeline.config_io import parse_config
from pipeline.contract import DatasetPaths
from pipeline.events import EventLog
from pipeline.importers.stage import import_dataset
from pipeline.recipe import Recipe
from pipeline.select.stage import select
from pipeline.shards.stage import shard

_LIMITS = {"min_side": 8, "near_duplicate_bits": "off", "min_sharpness": 0, "min_contrast": 0}


def write_zip(path: Path, files: list[Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"shells/{file.name}")


def write_tars(folder: Path, files: list[Path]) -> None:
    folder.mkdir()
    for number in range(0, len(files), 500):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for file in files[number : number + 500]:
                archive.add(file, file.name)
                text = json.dumps({"caption": file.stem, "label": "a"}).encode()
                info = tarfile.TarInfo(f"{file.stem}.json")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))


def write_parquet(path: Path, files: list[Path]) -> None:
    rows = [{"image": {"bytes": file.read_bytes(), "path": file.name}} for file in files]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)


def write_mnist(folder: Path, count: int) -> None:
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    head = b"\0\0\x08\3" + b"".join(size.to_bytes(4) for size in values.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(head + values.tobytes())
    labels = bytes(number % 10 for number in range(count))
    head = b"\0\0\x08\1" + count.to_bytes(4)
    (folder / "train-labels-idx1-ubyte").write_bytes(head + labels)


def write_formats(work: Path, images: int) -> dict[str, tuple[Path, int]]:
    """Return the path and number of images of each format."""
    files = write_photographs(work / "folder/shells", images)
    write_zip(work / "photographs.zip", files)
    write_tars(work / "tars", files)
    write_parquet(work / "photographs.parquet", files)
    write_mnist(work / "mnist", 10 * images)
    return {
        "folder": (work / "folder", images), "zip": (work / "photographs.zip", images),
        "webdataset": (work / "tars", images), "parquet": (work / "photographs.parquet", images),
        "mnist": (work / "mnist", 10 * images),
    }  # fmt: skip


def measure(path: Path, root: Path, workers: int, resolution: int) -> dict[str, float]:
    """Return the seconds of import and of shard, and the CPU seconds of both."""
    shutil.rmtree(root, ignore_errors=True)
    dataset = DatasetPaths("photographs", root)
    source = {"kind": "folder", "start": [str(path)]}
    values = {"source": source, "select": _LIMITS, "shards": {"resolution": resolution}}
    recipe = parse_config(Recipe, values, "benchmark")
    with EventLog(dataset, "benchmark") as log:

        def timed(run: Callable[[], Any]) -> tuple[float, float]:
            start, cpu = time.perf_counter(), os.times()
            run()
            now = os.times()
            used = sum(now[:4]) - sum(cpu[:4])
            return time.perf_counter() - start, used

        imported, import_cpu = timed(lambda: import_dataset(path, dataset, log, recipe=recipe))
        select(recipe, dataset, log)
        built, shard_cpu = timed(lambda: shard(recipe, dataset, log, workers=workers))
    return {"import": imported, "import_cpu": import_cpu, "shard": built, "shard_cpu": shard_cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--formats", nargs="+", help="only these formats")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imports-") as name:
        formats = write_formats(Path(name), args.images)
        chosen = args.formats or list(formats)
        taken: dict[str, list[dict[str, float]]] = {form: [] for form in chosen}
        for _ in range(args.rounds):
            for form, runs in taken.items():
                path, root = formats[form][0], Path(name) / "project"
                runs.append(measure(path, root, args.workers, args.resolution))
    result = {form: summary(runs, formats[form][1]) for form, runs in taken.items()}
    for form, row in result.items():
        print(f"{form:11}" + "".join(f"  {key} {value:8}" for key, value in row.items()))
    if args.json:
        print(json.dumps(result))


def summary(runs: list[dict[str, float]], count: int) -> dict[str, float]:
    """Return images per second, CPU milliseconds per image, and the ratio import / shard."""
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {
        "import_per_s": round(count / median["import"], 1),
        "shard_per_s": round(count / median["shard"], 1),
        "ratio": round(median["shard"] / median["import"], 2),
        "ratio_cpu": round(median["shard_cpu"] / median["import_cpu"], 2),
        "import_cpu_ms": round(1e3 * median["import_cpu"] / count, 2),
        "shard_cpu_ms": round(1e3 * median["shard_cpu"] / count, 2),
    }


if __name__ == "__main__":
    main()
