"""Trains a GAN package from PyPI on a folder of images and writes its samples.

Runs in a Python with that package (`benchmarks/quality.py --peer-python`), and imports nothing of
this project. Both packages refuse to start without CUDA; here `.cuda()` has no effect, and the rest
is their code with the defaults of their command lines. Their moving averages start late: images of
both the averaged and the plain generator are written, and the better result counts.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class _CpuTorch(types.ModuleType):
    """`torch` with the CPU as the only device."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(*_: object) -> torch.device:
        return torch.device("cpu")


def load(name: str) -> Any:
    """Return the package's main module, patched to run on the CPU."""
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    asked, torch.cuda.is_available = torch.cuda.is_available, lambda: True
    module = importlib.import_module(f"{name}.{name}")
    torch.cuda.is_available = asked
    vars(module)["torch"] = _CpuTorch("torch")
    return module


def trainer(name: str, module: Any, out: Path, size: int) -> Any:
    """Return the package's trainer for `size` px, configured as by its command line."""
    common = {
        "base_dir": str(out), "image_size": size, "num_workers": 0,
        "save_every": 10**9, "evaluate_every": 10**9,
    }  # fmt: skip
    if name == "lightweight_gan":
        made = module.Trainer(
            batch_size=10, gradient_accumulate_every=4, attn_res_layers=[32], disc_output_size=1,
            lr=2e-4, aug_prob=None, use_aim=False, **common,
        )  # fmt: skip
    else:
        made = module.Trainer(
            batch_size=5, gradient_accumulate_every=6, network_capacity=16, ttur_mult=1.5,
            lr_mlp=0.1, lr=2e-4, aug_prob=0.25, mixed_prob=0.9, **common,
        )  # fmt: skip
    made.evaluate = lambda *_, **__: None  # sample grids, which take time
    made.save = lambda *_: None
    return made


@torch.no_grad()
def draw(name: str, made: Any, module: Any, count: int, average: bool) -> np.ndarray:
    """Return `count` images uint8 (n, size, size, 3) without truncation."""
    gan = made.GAN.eval()
    some = []
    for start in range(0, count, 50):
        n = min(50, count - start)
        if name == "lightweight_gan":
            network = gan.GE if average else gan.G
            images: Tensor = network(torch.randn(n, gan.latent_dim))
        else:
            mapping, network = (gan.SE, gan.GE) if average else (gan.S, gan.G)
            styles = module.noise_list(n, network.num_layers, network.latent_dim, device=0)
            styles = module.styles_def_to_tensor(module.latent_to_w(mapping, styles))
            images = network(styles, module.image_noise(n, gan.G.image_size, device=0))
        pixels = images.clamp(0, 1).mul(255).round().to(torch.uint8)
        some.append(pixels.permute(0, 2, 3, 1).numpy())
    return np.concatenate(some)


def main() -> int:
    """Train, and write `plain-MARK.npy` and `average-MARK.npy` at each mark of CPU time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=["lightweight_gan", "stylegan2_pytorch"])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cpu-seconds", type=float, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    module = load(args.package)
    made = trainer(args.package, module, args.out, args.size)
    made.set_data_src(str(args.images))
    shown, drawing = 0, 0.0
    for mark in args.cpu_seconds:
        while time.process_time() - drawing < mark:
            made.train()
            shown += made.batch_size * made.gradient_accumulate_every
        before = time.process_time()
        for kind in ("plain", "average"):
            pixels = draw(args.package, made, module, args.samples, kind == "average")
            np.save(args.out / f"{kind}-{mark:g}.npy", pixels)
        drawing += time.process_time() - before
        print(f"{mark:g} CPU-s: {shown / 1000:.2f} kimg", flush=True)
    print(f"kimg {shown / 1000:.2f} steps {made.steps}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
