"""Trains every preset for two minutes of CPU time and writes a picture of its samples.

The pictures and `presets.json`, with what each shows, are written to `--pictures`; docs/presets.md
shows them (`python docs/generate.py`). A preset that takes more than `--gflop` per image is reduced
to a half, a quarter or an eighth of the width with one block per stage. All are reduced to 64 px if
their layers allow it. Batches are at most 16, unless larger ones cost no more than that of a preset
at the limit, so that some hundred steps fit into the time. The caption states all of it. Presets
with a picture after `--seconds` are skipped; other trainings are continued.
    python benchmarks/preset_pictures.py --shards manifests/shells-64 --out /tmp/presets dcgan64
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from cpu_time import train

from pipeline.contract import UserError, write_atomic
from training.catalogue import gflop_per_image, image_shape, network_cost
from training.config import Config
from training.grid import encode, enlarge, make_grid, shown
from training.latent.sampling import sample_ws
from training.machine.device import is_bf16_fast
from training.options.architectures import features_kimg
from training.options.resolve import preset_names, resolve
from training.pretrained.inference import load_generator
from training.streaming.dataset import open_shard_dataset, open_training_sets
from training.translation import STEPS, first_images, translation_grid

PICTURES = Path(__file__).parents[1] / "docs/pictures/presets"
BATCH, SIDE, DIVISORS = 16, 64, (1, 2, 4, 8)
FACTS = "presets.json"
WIDTHS = ("width", "widths", "channel_base", "channel_max")
SIDE_ROWS = 4
MAX_BYTES = 22_000


def scaled(full: Config, divisor: int, side: int) -> dict[str, str]:
    """Return the keys that make the networks narrower by `divisor`, with one block per stage and
    without the stages of maps larger than `side`."""
    found: dict[str, str] = {}
    for network in ("generator", "discriminator"):
        options = getattr(full, network)
        stages = not isinstance(getattr(options, "blocks", 0), int)
        if stages and divisor > 1:
            found[f"{network}.blocks"] = "[1]"
        for key in WIDTHS:
            value, least = getattr(options, key, None), 64 if key == "channel_base" else 16
            if isinstance(value, int):
                found[f"{network}.{key}"] = str(min(value, max(least, value // divisor)))
            elif value:
                first = (full.resolution // side).bit_length() - 1 if stages else 0
                some = [min(one, max(least, one // divisor)) for one in value[first:]]
                found[f"{network}.{key}"] = str(some)
    return found


def reduce(name: str, gflop: float) -> tuple[dict[str, str], str]:
    """Return the changes with which a preset costs at most `gflop` per image, or the smallest ones
    tried, and the same in words."""
    full = resolve(name, {})
    small = {"batch": str(min(full.batch, BATCH))}
    if full.replay.size:
        small["replay.size"] = str(min(full.replay.size, 4 * BATCH))
    for side in (min(full.resolution or SIDE, SIDE), full.resolution):
        tries = [
            {**small, **scaled(full, divisor, side), "resolution": str(side)}
            for divisor in DIVISORS
        ]
        try:
            configs = [resolve(name, changes) for changes in tries]
            costs = [gflop_per_image(config, network_cost(config)) for config in configs]
            break
        except UserError as error:  # networks whose number of layers is fixed
            failure = error
    else:
        raise failure
    chosen = next(n for n, cost in enumerate(costs) if cost <= max(gflop, 1.05 * costs[-1]))
    changes, divisor = tries[chosen], DIVISORS[chosen]
    if full.batch * costs[chosen] <= BATCH * gflop:
        changes |= {"batch": str(full.batch)}
    words = [f"{side} px instead of {full.resolution}"] * (side < full.resolution)
    words += [f"width / {divisor}"] * (divisor > 1)
    batch = changes["batch"]
    words += [f"batch {batch} instead of {full.batch}"] * (int(batch) < full.batch)
    return changes, ", ".join(words) or "full size"


def picture(run: Path) -> bytes:
    """Return 4 × 4 samples of the run's averaged generator as a JPEG of at most `MAX_BYTES`, or
    four rows of translations."""
    trained = load_generator(str(run), torch.device("cpu"))
    if trained.is_translator:
        source = open_training_sets(trained.dataset["location"], trained.config)
        images = first_images(source, 2 * STEPS * SIDE_ROWS, trained.config)
        pixels = translation_grid(
            trained.translator("a-to-b"), trained.translator("b-to-a"), *images
        )
    else:
        ws, labels = sample_ws(trained, SIDE_ROWS**2, [], None, 0)
        pixels = shown(make_grid(trained.space.generate(ws, labels), SIDE_ROWS))
    scale = max(1, SIDE // trained.shape.height)
    for quality in (90, 85, 80, 70, 60, 50):
        data = encode(enlarge(pixels, scale), "JPEG", quality=quality, optimize=1)
        if len(data) <= MAX_BYTES:
            break
    return data


def paint(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train a preset and write its picture; return the facts for its caption."""
    changes, reduction = reduce(name, args.gflop)
    config, source = resolve(name, changes), open_shard_dataset(args.shards, 0)
    gray = image_shape(resolve(name, {})).channels == 1
    own = changes | {"total_kimg": "1e9", "evaluate.kimg": "0", "data.fit": "crop"}
    precision = "bf16" if is_bf16_fast(torch.device("cpu")) else "fp32"
    own |= {"precision": precision, "ema.half_life_kimg": str(min(config.ema.half_life_kimg, 1.0))}
    own |= {"data.channels": "1"} if gray else {}
    own |= {"data.shards_b": str(args.shards_b)} if config.method.sets > 1 else {}
    folder = args.out / name
    command = [
        "--shards", str(args.shards), "--preset", name,
        "--run", str(folder / "run"), "--threads", "1",
    ]  # fmt: skip
    for key, value in own.items():
        command += [f"--{key}", value]
    seconds = train(command, folder, args.seconds)
    write_atomic(args.pictures / f"{name}.jpg", picture(folder / "run"))
    seen = load_generator(str(folder / "run"), torch.device("cpu")).seen
    if seen < 1000 * features_kimg(config.discriminator):
        reduction += ", before frozen features join"
    data = str(source.index.name) + (" in gray" if gray else "")
    if config.method.sets > 1:
        data += f" and {Path(args.shards_b).name}"
    return {
        "seconds": round(seconds), "kimg": round(seen / 1000, 1), "reduction": reduction,
        "dataset": data,
    }  # fmt: skip


def main() -> int:
    """Make the pictures that do not exist; exit status 1 if a training failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", help="some of them (default: all)")
    parser.add_argument("--shards", required=True)
    parser.add_argument("--shards-b", help="the second set, for presets that translate")
    parser.add_argument("--out", type=Path, required=True, help="the runs are kept there")
    parser.add_argument(
        "--seconds", type=float, default=120, help="CPU time of each (default: 120)"
    )
    parser.add_argument("--gflop", type=float, default=0.6, help="per image (default: 0.6)")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.pictures.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in args.presets or preset_names():
        facts = args.pictures / FACTS
        known = json.loads(facts.read_text()) if facts.exists() else {}
        if resolve(name, {}).method.sets > 1 and not args.shards_b:
            print(f"{name}: needs --shards-b", file=sys.stderr)
            continue
        if known.get(name, {}).get("seconds", 0) >= args.seconds:
            continue
        try:
            known[name] = paint(name, args)
        except (SystemExit, Exception) as error:  # noqa: BLE001 (the next preset is another one)
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
            continue
        write_atomic(facts, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(name, known[name], flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
