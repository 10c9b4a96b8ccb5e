"""Memory forecast and measured peak of training runs on the CPU.

Each preset trains a few steps on images of noise in a separate process, generates samples and
writes checkpoints. The forecast of `--dry-run` is compared with the maximum resident memory of the
real run. The table shows both and their ratio; `--json` prints a JSON object by preset as the last
line. Exit status 1 if a forecast is off by more than `--tolerance`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noise_shards import write_shards

from training.catalogue import image_shape
from training.options.resolve import resolve

PRESETS = (
    "dcgan64", "shells64", "stylegan2-64-economical", "projected64", "r3gan-64-small", "fastgan64",
    "dcgan128",
)  # fmt: skip


def command(folder: Path, name: str, *options: str) -> tuple[list[dict[str, Any]], int]:
    """Return the JSON lines of a training command in `folder`, and its maximum resident memory.

    Raises:
        RuntimeError: it failed.
    """
    arguments = [
        sys.executable, "-m", "training.fit", "--shards", str(folder / "noise"), "--preset", name,
        "--run", str(folder / "run"), "--device", "cpu", "--json", *options,
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parent.parent)
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        child = subprocess.Popen(
            arguments, stdout=out, stderr=err, env=os.environ | {"PYTHONPATH": root}
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            err.seek(0)
            raise RuntimeError(err.read()[-500:])
        out.seek(0)
        return [json.loads(line) for line in out], usage.ru_maxrss * 1024


def compared(name: str, batch: int, steps: int, options: Sequence[str]) -> dict[str, Any]:
    """Return forecast and peak of a preset in MB."""
    config = resolve(name, {})
    size = batch or config.batch
    shape = image_shape(config)
    kimg = steps * size * config.n_critic / 1000
    with tempfile.TemporaryDirectory(prefix="memory-") as place:
        folder = Path(place)
        write_shards(folder / "noise", shape.height, shape.width, shape.channels)
        run = ("--batch", str(size), "--total-kimg", f"{kimg:g}", "--record.checkpoint_kimg",
               f"{kimg / 2:g}", "--evaluate.kimg", "0", *options)  # fmt: skip
        forecast, _ = command(folder, name, "--dry-run", *run)
        _, peak = command(folder, name, *run)
    end = forecast[-1]
    told = end["memory_bytes"] + end["image_bytes"]
    return {
        "batch": size, "height": shape.height, "forecast_mb": round(told / 1e6),
        "measured_mb": round(peak / 1e6), "ratio": round(told / peak, 3),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("presets", nargs="*", help=f"(default: {', '.join(PRESETS)})")
    parser.add_argument("--batch", type=int, default=0, help="(default: the preset's)")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tolerance", type=float, default=0.15)
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of training.fit"
    )
    known = parser.parse_args(arguments)
    options = [f"--{one}" for one in known.set]
    found: dict[str, Any] = {}
    print(f"{'preset':26}{'batch':>6}{'px':>6}{'forecast MB':>13}{'measured MB':>13}{'ratio':>8}")
    for name in known.presets or PRESETS:
        one = found[name] = compared(name, known.batch, known.steps, options)
        print(
            f"{name:26}{one['batch']:6}{one['height']:6}{one['forecast_mb']:13}"
            f"{one['measured_mb']:13}{one['ratio']:8.2f}",
            flush=True,
        )
    if known.json:
        print(json.dumps(found))
    return int(any(abs(one["ratio"] - 1) > known.tolerance for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
