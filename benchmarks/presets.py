"""Every preset at its own width and resolution: two training steps and a grid of samples.

The tests train narrow copies; this builds each preset unchanged, with a batch of about `--batch`
images of noise. The table shows seconds, memory, whether all values are finite, and the speed: real
images per second of training relative to dcgan64 on this machine, where penalties count as often as
they are due. `--json` prints a JSON object by preset as the last line. Exit status 1 if one failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from training.catalogue import image_shape
from training.config import Config
from training.data import Batch
from training.grid import generate_images
from training.loss_terms import Stats
from training.optimizer import is_due
from training.options.algorithm import BlockOptions
from training.options.resolve import preset_names, resolve
from training.planning.forecast import lazy_cycle
from training.state import State, new_state
from training.step import Step
from training.techniques import fixed_latents

STEPS = 2
REFERENCE = "dcgan64"
CPU = torch.device("cpu")


def small(name: str, batch: int) -> Config:
    """Return the preset with a batch of about `batch` and a small replay memory, without blocks."""
    config = resolve(name, {})
    packing = config.discriminator.packing
    count = -(-min(batch, config.batch) // packing) * packing
    if config.replay.size:
        config = replace(config, replay=replace(config.replay, size=count))
    return replace(config, batch=count, micro_batch=0, blocks=BlockOptions())


def tried(name: str, batch: int) -> dict[str, Any]:
    """Return time and stats of the preset's steps.

    Raises:
        AssertionError: a value or pixel is not finite, or all pixels are equal.
    """
    config = small(name, batch)
    shape, start = image_shape(config), time.perf_counter()
    state = new_state(config, shape, CPU)
    step = Step(config, state, CPU)
    size = (config.batch, shape.height, shape.width, shape.channels * config.method.sets)

    def run() -> Stats:
        images = torch.randint(256, size, dtype=torch.uint8).permute(0, 3, 1, 2)
        labels = torch.randint(max(1, shape.classes), (config.batch,))
        return step([Batch(images, labels)] * config.n_critic)

    for _ in range(STEPS):
        facts = run()
    wrong = [key for key, value in facts.items() if not torch.isfinite(value)]
    assert not wrong, f"not finite: {', '.join(wrong)}"
    seconds = time.perf_counter() - start
    per_image = _step_seconds(config, state, run) / (config.batch * config.n_critic)
    state.g_ema.eval()
    latents = fixed_latents(config.latent, 4, state.generator.z_dim, 0, CPU)
    if config.method.sets > 1:  # images are translated
        latents = torch.rand(4, shape.channels, shape.height, shape.width) * 2 - 1
    pixels = generate_images(state.g_ema, latents, torch.zeros(4, dtype=torch.int64))
    assert pixels.shape == (4, shape.height, shape.width, shape.channels)
    assert pixels.std() > 0, "all pixels are alike"
    return {
        "seconds": round(seconds, 1), "ms_per_image": round(per_image * 1000, 2),
        "height": shape.height, "memory_mb": _memory(),
        "loss_d": round(float(facts["loss_d"]), 3), "loss_g": round(float(facts["loss_g"]), 3),
    }  # fmt: skip


def _step_seconds(config: Config, state: State, run: Callable[[], object]) -> float:
    """Return the mean seconds of a step over a cycle of lazy penalties, each kind timed once."""
    loss = config.loss
    kinds = Counter[tuple[bool, bool]]()
    seconds: dict[tuple[bool, bool], float] = {}
    for number in range(lazy_cycle(config)):
        kind = is_due(number, loss.interval), is_due(number, loss.path_interval)
        kinds[kind] += 1
        if kind not in seconds:
            state.steps, start = number, time.perf_counter()
            run()
            seconds[kind] = time.perf_counter() - start
    return sum(seconds[kind] * count for kind, count in kinds.items()) / kinds.total()


def _memory() -> int:
    """Return the current memory of the process in MB; 0 if the system does not report it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("presets", nargs="*", help="some of them (default: all)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    known = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    reference = tried(REFERENCE, known.batch)["ms_per_image"]
    for name in known.presets or preset_names():
        try:
            found[name] = tried(name, known.batch)
            found[name]["speed"] = float(f"{reference / found[name]['ms_per_image']:.2g}")
        except Exception as error:  # noqa: BLE001 (one that fails must not hide the others)
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        gc.collect()
        told = "  ".join(f"{key} {value}" for key, value in found[name].items())
        print(f"{name:24}{told}", flush=True)
    if known.json:
        print(json.dumps(found))
    return int(any("failed" in one for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
