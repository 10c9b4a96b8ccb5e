"""Quality of generators after a given training time: presets of this project and GANs from PyPI.

Every contender trains on the same images for the same CPU time of its processes, so that other work
on the machine does not matter. At each mark, `--samples` images are generated without truncation
and compared with all images of the dataset (FD, KID, precision and recall over a network that no
contender learned from, see quality_metrics.py; copies of training images). `--reference` compares
with other images than those of the training, and the line `real` shows what real images score.

A contender is a preset, optionally with changes (`shells64@batch=64@ema.half_life_kimg=5`), `real`,
or `lightweight_gan` or `stylegan2_pytorch` (`--peer-python` is a Python with these packages). Runs
and results that exist in `--out` are continued and not measured again: long tables grow over
several calls. `--table` prints all results below `--out` as Markdown.
    python benchmarks/quality.py --shards manifests/garments-64 --out /tmp/quality auto shells64
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from cpu_time import train
from quality_metrics import Pixels, References, load_references, read_images

from pipeline.contract import format_duration
from training.grid import generate_images, make_grid, save_image
from training.latent.neighbours import open_training_shards
from training.metrics.fake import draw_inputs
from training.planning.auto import NAME, choose_measured, resolve_first
from training.pretrained.inference import load_generator
from training.streaming.dataset import open_shard_dataset

PEERS = ("lightweight_gan", "stylegan2_pytorch")
REAL = "real"
CPU = torch.device("cpu")
GRID = 48
Row = dict[str, Any]


class Comparison:
    """The contenders' results on one dataset, in `args.out` / its name."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.source = args, open_shard_dataset(args.shards, 0)
        self.out: Path = args.out / str(self.source.index.name)

    @cached_property
    def images(self) -> tuple[Pixels, Any]:
        """The training images and their labels."""
        return read_images(self.source)

    @cached_property
    def references(self) -> References:
        other = self.args.reference
        reference = read_images(open_shard_dataset(other, 0))[0] if other else None
        cache = self.args.out / "features"
        cache.mkdir(parents=True, exist_ok=True)
        return load_references(self.images[0], cache, reference)

    def measure(self, contender: str, seed: int) -> Iterator[Row]:
        """Yield one row per mark; existing results are reused."""
        if contender == REAL:
            yield {"contender": REAL, "seed": 0, "minutes": 0.0, **self.references.real}
            return
        args = self.args
        folder = self.out / contender.replace("/", "_") / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for minutes in args.minutes:
            result = folder / f"result-{minutes:g}x{args.threads}.json"
            if not result.exists():
                _refuse_trained_longer(folder, minutes * args.threads)
                wanted = minutes * 60 * args.threads
                found = (
                    self._peer(contender, seed, folder, wanted)
                    if contender in PEERS
                    else self._own(contender, seed, folder, wanted)
                )
                rows = []
                for kind, (pixels, more) in found.items():
                    rows.append(self.references.score(pixels) | more)
                    name = f"{minutes:g}x{args.threads}{kind}.png"
                    save_image(folder / name, make_grid(pixels[:GRID]))
                row = {
                    "dataset": self.source.index.name, "contender": contender, "seed": seed,
                    "minutes": minutes, "threads": args.threads, "n": args.samples,
                    "reference": args.reference or "",
                    "real": self.references.real, **min(rows, key=lambda row: float(row["fd"])),
                }  # fmt: skip
                result.write_text(json.dumps(row) + "\n")
            found = json.loads(result.read_text())
            if (found["n"], found.get("reference", "")) != (args.samples, args.reference or ""):
                raise SystemExit(
                    f"{result}: is of {found['n']} samples and the reference "
                    f"{found.get('reference') or 'of the training'}; give another --out"
                )
            yield found

    def _own(self, contender: str, seed: int, folder: Path, wanted: float) -> dict[str, Any]:
        """Train a preset up to this many CPU seconds; return images of the averaged generator."""
        train(self._command(contender, seed, folder), folder, wanted)
        trained = load_generator(str(folder / "run"), CPU)
        z_dim, count = trained.generator.z_dim, self.args.samples
        known = read_images(open_training_shards(trained))[1]
        latents, labels = draw_inputs(trained.latent, z_dim, known, count, 0, CPU)
        torch.manual_seed(0)
        pixels = np.asarray(generate_images(trained.generator, latents, labels, 32))
        return {"": (pixels, {"kimg": round(trained.seen / 1000, 1)})}

    def _command(self, contender: str, seed: int, folder: Path) -> list[str]:
        """Return the arguments that train a preset, with its changes."""
        preset, *pairs = contender.split("@")
        changes = dict(pair.split("=", 1) for pair in pairs)
        args, own = self.args, {"total_kimg": "1e9"}
        if preset == "auto":  # chosen explicitly: --hours would count wall-clock time, not CPU time
            limits = {"max_hours": f"{args.minutes[-1] / 60:g}", "threads": str(args.threads)}
            asked = resolve_first(NAME, limits)
            kept = folder / "choice.json"  # a later mark continues the run; the speed may differ
            if not kept.exists():
                choice = choose_measured(self.source, asked, changes)
                kept.write_text(json.dumps([choice.preset, dict(choice.options)]) + "\n")
            preset, options = json.loads(kept.read_text())
            own = {**options, **own}
        own |= changes
        command = [
            "--shards", args.shards, "--preset", preset,
            "--run", str(folder / "run"), "--threads", str(args.threads), "--seed", str(seed),
            "--eval-kimg", "0",
        ]  # fmt: skip
        for name, value in own.items():
            command += [f"--{name}", value]
        return command

    def _peer(self, package: str, seed: int, folder: Path, wanted: float) -> dict[str, Any]:
        """Train another package, which writes its images at each mark; return those of its plain
        and its averaged generator."""
        args, mark = self.args, f"{wanted:g}"
        if not (folder / f"average-{mark}.npy").exists():
            marks = [str(minutes * 60 * args.threads) for minutes in args.minutes]
            script, images = Path(__file__).with_name("peer_gans.py"), self._write_images()
            command = [
                args.peer_python, str(script), package, str(images), str(folder), "--threads",
                str(args.threads), "--samples", str(args.samples), "--seed", str(seed),
                "--size", str(self.source.width), "--cpu-seconds", *marks,
            ]  # fmt: skip
            with (folder / "log.txt").open("w") as log:
                subprocess.run(command, check=True, stdout=log, stderr=log)
        return {
            f"-{kind}": (np.load(folder / f"{kind}-{mark}.npy"), {"weights": kind})
            for kind in ("plain", "average")
        }

    def _write_images(self) -> Path:
        """Write the dataset's images as PNG files for the other packages."""
        folder = self.out / "png"
        if not folder.exists():
            part = folder.with_name("png.part")
            part.mkdir(parents=True, exist_ok=True)
            for number, pixels in enumerate(self.images[0]):
                save_image(part / f"{number:06d}.png", pixels)
            part.rename(folder)
        return folder


def _refuse_trained_longer(folder: Path, minutes: float) -> None:
    """Raise SystemExit if the run in `folder` has a result after more CPU minutes: its networks
    have learned for longer than these."""
    for path in folder.glob("result-*.json"):
        row = json.loads(path.read_text())
        if row["minutes"] * row["threads"] > minutes:
            raise SystemExit(
                f"{folder}: was trained for longer, see {path.name}; give another --out"
            )


def print_row(row: Row) -> None:
    """Print a row."""
    print(
        f"{row['contender']:40} seed {row['seed']} {row['minutes']:5g} min "
        f"{row.get('kimg', float('nan')):7.1f} kimg  FD {row['fd']:7.2f}  KID {row['kid']:.5f}  "
        f"precision {row['precision']:.2f} recall {row['recall']:.2f}  with noise: "
        f"FD {row['fd_noise']:7.2f} recall {row['recall_noise']:.2f}  copies {row['copies']:.3f}",
        flush=True,
    )


def compare(args: argparse.Namespace) -> list[Row]:
    """Measure every contender with every seed, and say how much CPU time remains."""
    comparison, rows = Comparison(args), []
    todo = [(one, seed) for seed in args.seeds for one in args.contenders]
    for number, (contender, seed) in enumerate(todo):
        left = (len(todo) - number) * args.minutes[-1] * 60
        print(
            f"{number} of {len(todo)} runs done; at most {format_duration(left)} left", flush=True
        )
        for row in comparison.measure(contender, seed):
            rows.append(row)
            print_row(row)
    return rows


def table(out: Path) -> str:
    """Return all results below `out` as Markdown: per dataset, contender and time the mean and, of
    several seeds, the standard deviation; FD also relative to the score of real images."""
    groups: dict[str, dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(out.glob("*/*/seed-*/result-*.json")):
        row = json.loads(path.read_text())
        key = row["contender"], f"{row['minutes']:g} × {row['threads']}"
        groups[row["dataset"]][key].append(row)
    columns = ("kimg", "fd", "fd_noise", "kid", "precision", "recall", "recall_noise", "copies")
    lines = []
    for dataset, contenders in groups.items():
        real = next(iter(contenders.values()))[0]["real"]
        lines += [
            f"## {dataset}", "",
            "| contender | minutes × cores | seeds | FD / real | FD noise / real | "
            + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 5),
            "| real | | | 1 | 1 | " + " | ".join(_cell([real], name) for name in columns) + " |",
        ]  # fmt: skip
        best = sorted(contenders.items(), key=lambda item: fmean(row["fd"] for row in item[1]))
        for (contender, minutes), rows in best:
            ratios = [
                f"{fmean(row[name] for row in rows) / real[name]:.2f}"
                for name in ("fd", "fd_noise")
            ]
            cells = [f"`{contender}`", minutes, str(len(rows)), *ratios]
            cells += [_cell(rows, name) for name in columns]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(rows: list[Row], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    if not values:
        return ""
    places = {"kimg": 0, "fd": 1, "fd_noise": 1, "kid": 4, "copies": 3}.get(name, 2)
    spread = f" ± {stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{places}f}{spread}"


def main() -> int:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contenders", nargs="*")
    parser.add_argument("--shards")
    parser.add_argument("--reference", help="a manifest of other images to compare with")
    parser.add_argument("--out", type=Path, required=True, help="runs and results are kept there")
    parser.add_argument("--minutes", type=float, nargs="+", default=[15, 45])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--table", action="store_true", help="print all results and stop")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    if args.table:
        print(table(args.out))
        return 0
    if not args.shards or not args.contenders:
        parser.error("give --shards and contenders, or --table")
    torch.set_num_threads(args.threads)
    args.minutes.sort()
    rows = compare(args)
    if args.json:
        print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
