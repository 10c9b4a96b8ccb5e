"""Speed of a training step, compared with the code of tutorials.

A DCGAN for 64 px (ngf = ndf = 64, batch 32) on this machine's CPU: the usual step (fp32, NCHW,
sigmoid and BCELoss, default Adam, three discriminator passes) and this project's (bf16,
channels_last, with a moving average, which the usual step lacks), alternating. On one thread CPU
time is measured; with `--threads`, wall-clock time. `--json` prints as the last line:

- `ratio_dcgan64`: seconds of the usual step divided by this project's, median;
- `peak_fraction`: fraction of the machine's bf16 matmul peak, measured in the same rounds, that
  this project's step reaches, counting the operations of the usual step's convolutions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.data import Batch
from training.networks import ImageShape
from training.options.resolve import resolve
from training.state import new_state
from training.step import Step

BATCH, Z_DIM, WIDTH, SIZE = 32, 100, 64, 64
MATMUL = 2048


def usual_generator() -> nn.Module:
    layers: list[nn.Module] = []
    below = Z_DIM
    for number, above in enumerate((WIDTH * 8, WIDTH * 4, WIDTH * 2, WIDTH)):
        stride, pad = (1, 0) if number == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(below, above, 4, stride, pad, bias=False),
            nn.BatchNorm2d(above), nn.ReLU(True),
        ]  # fmt: skip
        below = above
    return nn.Sequential(*layers, nn.ConvTranspose2d(below, 3, 4, 2, 1, bias=False), nn.Tanh())


def usual_discriminator() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for times in (1, 2, 4):
        layers += [
            nn.Conv2d(WIDTH * times, WIDTH * times * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH * times * 2), nn.LeakyReLU(0.2, True),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.Conv2d(WIDTH * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def usual_step() -> Callable[[Tensor], None]:
    """The step as in the DCGAN tutorial."""
    generator, discriminator = usual_generator(), usual_discriminator()
    criterion = nn.BCELoss()
    adam: Any = torch.optim.Adam
    g_optimizer = adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    d_optimizer = adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)

    def step(images: Tensor) -> None:
        real = images.float() / 127.5 - 1
        discriminator.zero_grad()
        criterion(discriminator(real).view(-1), ones).backward()
        fake = generator(torch.randn(BATCH, Z_DIM, 1, 1))
        criterion(discriminator(fake.detach()).view(-1), zeros).backward()
        d_optimizer.step()
        generator.zero_grad()
        criterion(discriminator(fake).view(-1), ones).backward()
        g_optimizer.step()

    return step


def our_step() -> Callable[[Tensor], None]:
    """The trainer's own step with the same networks."""
    config = resolve("dcgan64", {
        "batch": str(BATCH), "precision": "bf16", "generator.width": str(WIDTH),
        "generator.z_dim": str(Z_DIM), "discriminator.width": str(WIDTH),
        "discriminator.norm_from": "1", "discriminator.bias": "false", "augment.policy": "[]",
    })  # fmt: skip
    device = torch.device("cpu")
    state = new_state(config, ImageShape(SIZE, SIZE, 3), device)
    step = Step(config, state, device)
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def run(images: Tensor) -> None:
        step([Batch(images, labels)])

    return run


def seconds(action: Callable[[], object], times: int) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(times):
        action()
    return (clock() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="of each kind a turn")
    parser.add_argument("--threads", type=int, default=1)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    torch.manual_seed(0)
    pixels = torch.randint(256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2)
    usual, ours = usual_step(), our_step()
    with FlopCounterMode(display=False) as counter:
        usual(images)
    flops = counter.get_total_flops()
    ours(images)
    left, right = (torch.randn(MATMUL, MATMUL, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(left, right)
    turns = []
    for _ in range(known.turns):
        before = seconds(lambda: usual(images), known.steps)
        after = seconds(lambda: ours(images), known.steps)
        matmul = seconds(lambda: torch.mm(left, right), 8)
        turns.append((before, after, 2 * MATMUL**3 / matmul))
    before, after, _ = (statistics.median(column) for column in zip(*turns, strict=True))
    peak = max(turn[2] for turn in turns)
    ratio = statistics.median(turn[0] / turn[1] for turn in turns)
    fraction = statistics.median(flops / turn[1] / turn[2] for turn in turns)
    print(f"DCGAN-64, batch {BATCH}, {torch.get_num_threads()} threads, medians of {known.turns}")
    print(f"  usual step {before * 1e3:8.1f} ms  {before / BATCH * 1e3:6.1f} s/kimg")
    print(
        f"  our step   {after * 1e3:8.1f} ms  {after / BATCH * 1e3:6.1f} s/kimg  {ratio:.2f} times"
    )
    print(
        f"  {flops / BATCH / 1e9:.2f} GFLOP an image; bf16 matmul at most {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"  our step reaches {fraction:.1%} of the matmul of the same turn")
    if known.json:
        found = {
            "ratio_dcgan64": round(ratio, 3), "peak_fraction": round(fraction, 4),
            "usual_s_kimg": round(before / BATCH * 1e3, 3),
            "ours_s_kimg": round(after / BATCH * 1e3, 3),
            "peak_gflops": round(peak / 1e9, 1), "gflop_an_image": round(flops / BATCH / 1e9, 3),
        }  # fmt: skip
        print(json.dumps(found))


if __name__ == "__main__":
    main()
