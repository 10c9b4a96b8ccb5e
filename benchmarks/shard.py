"""From originals to training shards: this project and img2dataset's resizer and writer, in one run.

Both render the central square of the same photographs as a JPEG of quality 95 in WebDataset tars,
in warm processes (start-up is not timed; nothing is fetched). The pixels are compared with a full
decode and Lanczos by Pillow. At 64 px, sharding is also compared with only decoding the same files
at the same fractions of their size. Rounds alternate; the ratios are those of the medians.

Needs img2dataset 1.47 in a separate Python (`--peer-python`); without it that ratio is null.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
from photographs import write_photographs
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, ManifestRow, image_key
from pipeline.imaging.crops import center_box
from pipeline.imaging.images import decode_image
from pipeline.imaging.pixels import divisor_for, scale_for
from pipeline.imaging.properties import measure_image
from pipeline.options import ShardOptions
from pipeline.originals.part_tars import read_original
from pipeline.originals.part_writer import PartWriter
from pipeline.originals.parts import write_plan
from pipeline.select.selection import SelectedImage, read_selection
from pipeline.shards.builder import build_shard
from pipeline.shards.plan import plan_shards
from pipeline.shards.samples import make_samples
from pipeline.workers import process_pool

PEER = """
import io, json, sys, time
from multiprocessing import Pool
import pyarrow as pa
from img2dataset.resizer import Resizer
from img2dataset.writer import WebDatasetSampleWriter

SCHEMA = pa.schema([("key", pa.string()), ("width", pa.int32()), ("height", pa.int32())])

def warm(_):
    time.sleep(0.2)

def make(job):
    number, paths, folder, side = job
    start = time.process_time()
    resizer = Resizer(side, "center_crop", False, encode_quality=95, encode_format="jpg")
    writer = WebDatasetSampleWriter(number, folder, False, 5, SCHEMA, "jpg")
    for place, path in enumerate(paths):
        with open(path, "rb") as file:
            image, _, _, width, height, error = resizer(io.BytesIO(file.read()))
        assert error is None, error
        writer.write(image, f"{number:05d}{place:04d}", None,
                     {"key": f"{place}", "width": width, "height": height})
    writer.close()
    return time.process_time() - start

if __name__ == "__main__":
    side, workers, size = (int(value) for value in sys.argv[1:4])
    folder, paths = sys.argv[4], json.load(sys.stdin)
    jobs = [(n, paths[i : i + size], folder, side)
            for n, i in enumerate(range(0, len(paths), size))]
    with Pool(workers) as pool:
        pool.map(warm, range(workers), 1)
        start = time.perf_counter()
        cpu = sum(pool.map(make, jobs, 1))
        print(time.perf_counter() - start, cpu)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--peer-python", type=Path, help="a Python that has img2dataset")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, process_pool(args.workers) as pool:
        bench = Bench(Path(folder), args.images, args.workers, pool, args.peer_python)
        taken: dict[str, list[Seconds]] = {name: [] for name in bench.runs}
        for _ in range(args.rounds):
            for name, run in bench.runs.items():
                taken[name].append(run())
        result = summary(bench, taken)
        result["peak_mb"] = round(max(pool.map(idle, range(args.workers))), 1)
    print_table(result)
    if args.json:
        print(json.dumps(result))


@dataclass(frozen=True)
class Seconds:
    """The duration of a run: wall-clock time, and CPU time of all processes."""

    wall: float
    cpu: float


class Bench:
    """The photographs as a dataset's originals and as files, and the timed functions."""

    def __init__(
        self, folder: Path, images: int, workers: int, pool: ProcessPoolExecutor, peer: Path | None
    ) -> None:
        self.folder, self.workers, self.pool, self.peer = folder, workers, pool, peer
        self.dataset = DatasetPaths("photographs", folder)
        self.paths = write_photographs(folder / "files", images)
        self.size = math.ceil(images / workers)
        fill(self.dataset, self.paths)
        self.made = 0
        self.runs: dict[str, Callable[[], Seconds]] = {
            "ours_256": lambda: self.ours(256, "jpg"),
            "ours_64": lambda: self.ours(64, "webp"),
            "decode_64": self.decode,
        }
        if peer:
            self.runs["img2dataset_256"] = lambda: self.img2dataset(256)
        list(pool.map(idle, range(workers)))  # starts the processes

    def options(self, side: int, ending: Literal["jpg", "webp"]) -> ShardOptions:
        return ShardOptions(resolution=side, format=ending, samples_per_shard=self.size)

    def ours(self, side: int, ending: Literal["jpg", "webp"]) -> Seconds:
        options = self.options(side, ending)
        self.made += 1
        target = DatasetPaths(f"made-{self.made}", self.folder)
        plan = plan_shards(options, self.dataset, target.name)
        return self.timed(build_shard, [(options, self.dataset, target, (), one)
                                       for one in plan.shards])  # fmt: skip

    def decode(self) -> Seconds:
        images = list(read_selection(self.dataset.selection))
        parts = [images[i : i + self.size] for i in range(0, len(images), self.size)]
        return self.timed(decode_alone, [(self.dataset, part, 64) for part in parts])

    def timed(self, run: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Seconds:
        start, cpu = time.perf_counter(), 0.0
        for future in [self.pool.submit(metered, run, *call) for call in calls]:
            cpu += future.result()
        return Seconds(time.perf_counter() - start, cpu)

    def img2dataset(self, side: int) -> Seconds:
        self.made += 1
        out = self.folder / f"peer-{self.made}"
        out.mkdir()
        command = [str(self.peer), "-c", PEER, str(side), str(self.workers), str(self.size)]
        said = subprocess.run(
            [*command, str(out)], input=json.dumps([str(path) for path in self.paths]),
            text=True, capture_output=True, check=True,
        )  # fmt: skip
        wall, cpu = map(float, said.stdout.split()[-2:])
        return Seconds(wall, cpu)


def idle(_: int) -> float:
    """Keep one worker busy for a moment; returns its peak memory so far in MB."""
    time.sleep(0.3)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def metered(run: Callable[..., Any], *args: Any) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    run(*args)
    return time.process_time() - start


def fill(dataset: DatasetPaths, paths: list[Path]) -> None:
    """Write the files as one part of originals, and a selection of all of them."""
    rows = [ManifestRow(image_key(path.name), f"https://photographs.example/{path.name}")
            for path in paths]  # fmt: skip
    write_plan(dataset, f"{dataset.name}-000000", [row.to_json() for row in rows])
    writer = PartWriter(dataset, f"{dataset.name}-000000")
    with JsonlAppender(dataset.selection) as kept:
        for row, path in zip(rows, paths, strict=True):
            data = path.read_bytes()
            facts = measure_image(decode_image(data, max_pixels=1 << 30, draft_to=64))
            known = facts.recorded()
            record = writer.add(row, "jpg", data, known, {})
            kept.append(SelectedImage(record, row).to_json())
    writer.finish()


def decode_alone(dataset: DatasetPaths, images: list[SelectedImage], side: int) -> None:
    """Decode as for samples of `side`, and discard the result."""
    for image in images:
        width, height = image.record.width, image.record.height
        divisor = divisor_for(scale_for(center_box(width, height, 1.0), side, side))
        simplejpeg.decode_jpeg(
            read_original(dataset, image.record), "RGB", strict=False,
            min_width=-(-width // divisor), min_height=-(-height // divisor),
        )  # fmt: skip


def fidelity(bench: Bench, side: int, most: int = 120) -> list[float]:
    """Return the PSNR in dB of samples against a full decode and Lanczos by Pillow."""
    found = []
    for image in list(read_selection(bench.dataset.selection))[:most]:
        data = read_original(bench.dataset, image.record)
        (sample,) = make_samples(data, image, replace(ShardOptions(), resolution=side))
        box = center_box(image.record.width, image.record.height, 1.0)
        truth = Image.open(io.BytesIO(data)).convert("RGB").resize(
            (side, side), Image.Resampling.LANCZOS,
            box=(box.left, box.top, box.right, box.bottom),
        )  # fmt: skip
        error = np.square(sample.pixels.astype(float) - np.asarray(truth, float)).mean()
        found.append(10 * math.log10(255**2 / max(error, 1e-9)))
    return found


def summary(bench: Bench, taken: dict[str, list[Seconds]]) -> dict[str, Any]:
    large, small = fidelity(bench, 256), fidelity(bench, 64)
    count = len(bench.paths)
    wall = {name: statistics.median(one.wall for one in runs) for name, runs in taken.items()}
    cpu = {name: statistics.median(one.cpu for one in runs) for name, runs in taken.items()}

    def ratio(seconds: dict[str, float], slow: str, fast: str) -> float | None:
        return round(seconds[slow] / seconds[fast], 2) if slow in seconds else None

    return {
        "images": count,
        "kb_an_image": round(statistics.mean(path.stat().st_size for path in bench.paths) / 1e3, 1),
        "images_per_second": {name: round(count / one, 1) for name, one in wall.items()},
        "cpu_ms_an_image": {name: round(one / count * 1e3, 2) for name, one in cpu.items()},
        "ratio_256": ratio(wall, "img2dataset_256", "ours_256"),
        "ratio_256_cpu": ratio(cpu, "img2dataset_256", "ours_256"),
        "over_decode_limit_64": ratio(wall, "ours_64", "decode_64"),
        "over_decode_limit_64_cpu": ratio(cpu, "ours_64", "decode_64"),
        "psnr_median": round(min(statistics.median(large), statistics.median(small)), 1),
        "psnr_min": round(min(*large, *small), 1),
        "psnr": {
            "256": [round(statistics.median(large), 1), round(min(large), 1)],
            "64": [round(statistics.median(small), 1), round(min(small), 1)],
        },
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{result['images']} photographs of {result['kb_an_image']} kB")
    for name, speed in result["images_per_second"].items():
        print(f"  {name:18} {speed:8} images/s {result['cpu_ms_an_image'][name]:6} CPU-ms an image")
    for name, value in result.items():
        if name.startswith(("ratio", "over", "psnr_", "peak")):
            print(f"  {name:26} {value}")


if __name__ == "__main__":
    main()
