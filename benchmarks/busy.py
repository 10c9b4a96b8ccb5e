"""Training speed on a busy machine, with a fixed and an automatic number of threads.

Each run is `training.fit` in a separate process on shards of noise; the busy programs are loops in
Python that end by themselves. Speeds are those of the steps in the last part of each run, after the
number of threads was chosen again. The table shows images per second and the fraction of the speed
on an idle machine; `--json` prints a JSON object as the last line. Exit status 1 if the automatic
number keeps less than `--least` of the idle speed beside one program.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from noise_shards import write_shards

from training.catalogue import image_shape
from training.options.resolve import resolve

_LOOP = "import sys, time\nend = time.time() + float(sys.argv[1])\nwhile time.time() < end: pass"


def run(folder: Path, preset: str, threads: int, busy: int, seconds: float) -> dict[str, Any]:
    """Return images per second of a run beside `busy` programs, and its changes of the number of
    threads."""
    others = [
        subprocess.Popen([sys.executable, "-c", _LOOP, str(3 * seconds + 60)]) for _ in range(busy)
    ]
    arguments = [
        sys.executable, "-m", "training.fit", "--shards", str(folder / "noise"), "--preset", preset,
        "--run", str(folder / f"{threads}-{busy}"), "--device", "cpu", "--json",
        "--threads", str(threads), "--total-kimg", "100000", "--evaluate.kimg", "0",
        "--record.log_kimg", "0.05", "--record.sample_kimg", "100000",
        "--record.checkpoint_minutes", "1000", "--record.checkpoint_kimg", "100000",
        "--max-hours", str(seconds / 3600),
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parent.parent)
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": root},
        )  # fmt: skip
    finally:
        for other in others:
            other.kill()
            other.wait()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    text = (folder / f"{threads}-{busy}" / "metrics.jsonl").read_text()
    rates = [json.loads(row)["images_per_second"] for row in text.splitlines()]
    messages = [line["text"] for line in lines if line["event"] == "message"]
    return {
        "images_per_second": round(statistics.median(rates[len(rates) // 2 :]), 1),
        "changes": [said for said in messages if "CPU threads:" in said],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="shells64")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument(
        "--busy", type=int, nargs="*", default=[0, 1, 2], help="numbers of programs"
    )
    parser.add_argument("--least", type=float, default=0.65)
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    known = parser.parse_args(arguments)
    most, shape = torch.get_num_threads(), image_shape(resolve(known.preset, {}))
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    print(f"{known.preset}, {most} threads at most, load before it began {found['load']:.2f}")
    print(f"{'busy programs':>14}{'threads':>12}{'images/s':>10}{'of quiet':>10}")
    quiet = 0.0
    with tempfile.TemporaryDirectory(prefix="busy-") as place:
        folder = Path(place)
        write_shards(folder / "noise", shape.height, shape.width, shape.channels)
        for busy in known.busy:
            for threads in [*sorted({most, 1}, reverse=True), 0]:
                one = run(folder, known.preset, threads, busy, known.seconds)
                quiet = quiet or one["images_per_second"]
                one["share"] = round(one["images_per_second"] / quiet, 3)
                found[f"{busy} busy, {threads or 'automatic'} threads"] = one
                print(
                    f"{busy:14}{threads or 'automatic':>12}{one['images_per_second']:10.1f}"
                    f"{one['share']:10.2f}",
                    flush=True,
                )
                for said in one["changes"]:
                    print(f"{'':16}{said}")
    if known.json:
        print(json.dumps(found))
    kept = found.get("1 busy, automatic threads", {}).get("share", 1.0)
    return int(kept < known.least)


if __name__ == "__main__":
    sys.exit(main())
