"""Time of the low-pass filters of StyleGAN2 and R3GAN as two passes, relative to convolutions.

Interleaved rounds on one thread of the CPU, in CPU time; medians. `--json` prints as the last line:
the ratio of each filter as `UPxDOWN_CHANNELS`, with `_compiled` if the passes are compiled (which
`--compile` measures too), and of a whole step of each preset by its name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gpu_steps import new_training
from torch import Tensor

from training.networks.resampling import setup_filter, upfirdn2d
from training.networks.separable import FirPath, compiled, use_fir

BATCH = 8
CASES = {
    "1x1_64": (1, 1, (1, 2, 1, 2), 64, 64),
    "2x1_64": (2, 1, (2, 1, 2, 1), 64, 32),
    "1x2_64": (1, 2, (1, 1, 1, 1), 64, 64),
    "2x1_3": (2, 1, (2, 1, 2, 1), 3, 32),
}
"""Factors up and down, padding, channels and size of each filter."""
SMALL = {
    "stylegan2-64": {
        "batch": "8", "generator.channel_base": "4096", "generator.channel_max": "128",
        "discriminator.channel_base": "4096", "discriminator.channel_max": "128",
    },
    "r3gan64": {
        "batch": "8", "micro_batch": "0", "generator.widths": "[64, 64, 64, 64, 64]",
        "discriminator.widths": "[64, 64, 64, 64, 64]",
    },
}  # fmt: skip


def ratio(other: Callable[[], object], plain: Callable[[], object], rounds: int) -> float:
    """Return the time of `other` divided by that of `plain`."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(rounds):
        for first, call in ((True, other), (False, plain)):
            start = time.process_time()
            call()
            found[first].append(time.process_time() - start)
    return round(statistics.median(found[True]) / statistics.median(found[False]), 2)


def filter_ratios(rounds: int, compile_too: bool) -> dict[str, float]:
    taps, ratios = setup_filter((1.0, 3.0, 3.0, 1.0)), {}
    for name, (up, down, padding, channels, size) in CASES.items():
        images = torch.randn(BATCH, channels, size, size).contiguous(
            memory_format=torch.channels_last
        )

        def run(fir: FirPath, given: Tensor = images, how: Any = (up, down, padding)) -> object:
            with use_fir(fir):
                return upfirdn2d(given, taps, *how)

        plain = partial(run, "conv")
        ratios[name] = ratio(partial(run, "separable"), plain, rounds)
        if compile_too:
            fused = partial(compiled(up, down, padding, 1.0), images, taps)
            fused()
            ratios[f"{name}_compiled"] = ratio(fused, plain, rounds)
    return ratios


def step_ratio(preset: str, rounds: int) -> float:
    calls = []
    for fir in ("separable", "conv"):
        training = new_training(preset, {**SMALL[preset], "fir": fir}, "cpu")
        calls.append(partial(training.step, [training.batch]))
        calls[-1]()
    separable, plain = calls
    return ratio(separable, plain, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="compiled passes too (minutes)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratios = filter_ratios(args.rounds, args.compile)
    ratios |= {preset: step_ratio(preset, args.rounds) for preset in SMALL}
    for name, value in ratios.items():
        print(f"{name:>20}: {value:.2f} × the time of a convolution")
    if args.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
