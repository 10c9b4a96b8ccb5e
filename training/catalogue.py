"""`python -m training.catalogue`: the table of presets, as `docs/presets.md` shows it.

Run it again after a preset changed: `python -m training.catalogue > docs/presets.md`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.contract import exit_status
from training.config import Config
from training.networks import ImageShape, build_discriminator, build_generator
from training.options.architectures import code_count
from training.options.resolve import preset_names, replace_known, resolve

HEAD = """# Presets

`python -m training.fit --shards manifests/NAME --preset PRESET`; every key can be changed on the
command line, as in `--generator.width 32`. Presets named in *italics* need labelled shards.

Work is the arithmetic of training on one image in GFLOP (10⁹ additions and multiplications),
counted from the networks' layers: a generator's forward pass three times, a discriminator's eight
times, a gradient penalty's five times more, a path length's six times the generator's. Total is
that times the preset's images. A machine that keeps up 1 TFLOP/s takes 0.28 hours for a PFLOP. What
to expect is what the source reports, unless it says otherwise.

| preset | source | resolution | what it is | parameters G / D (M) | work an image (GFLOP) | images (thousand) | total (PFLOP) | what to expect |
|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501 (a table's row is one line)
_CLASSES = 10


@dataclass(frozen=True)
class NetworkCost:
    """Of a preset's networks: parameters, and GFLOP of a forward pass of one image."""

    g_parameters: int
    d_parameters: int
    g_gflop: float
    d_gflop: float


def image_shape(config: Config) -> ImageShape:
    """The images a preset is meant for: gray at 28 px, else colour; ten labels."""
    channels = 1 if config.resolution == 28 else 3
    return ImageShape(config.resolution or 64, config.resolution or 64, channels, _CLASSES)


def network_cost(config: Config) -> NetworkCost:
    """Counted on networks without memory: nothing is computed."""
    # spectral normalisation adds no parameters and next to no work, but takes seconds to build
    tables = (
        replace_known(config.generator, spectral=False),
        replace_known(config.discriminator, spectral=False),
    )
    with torch.device("meta"):
        shape = image_shape(config)
        generator = build_generator(tables[0], shape)
        discriminator = build_discriminator(tables[1], shape, code_count(config.generator))
        count = config.discriminator.packing * 2
        labels = torch.zeros(count, dtype=torch.int64)
        latents = torch.zeros(count, generator.z_dim)
        packed = torch.zeros(2, shape.channels * count // 2, shape.height, shape.width)
        works = _work(generator, latents, labels), _work(discriminator, packed, labels[:2])
    parameters = [
        sum(w.numel() for w in network.parameters()) for network in (generator, discriminator)
    ]
    return NetworkCost(parameters[0], parameters[1], works[0] / count / 1e9, works[1] / count / 1e9)


def _work(network: nn.Module, *given: Tensor) -> int:
    network.requires_grad_(False)  # else the counter would follow gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*given)
    return int(counter.get_total_flops())


def gflop_per_image(config: Config, size: NetworkCost) -> float:
    """GFLOP of training on one real image.

    The discriminator's phase: fakes are drawn, D goes forward and backward (twice the work) on
    real and fake; of `n_critic` such phases one is followed by the generator's: backward through
    G, forward (unless both networks learn from one pass) and backward (to the images alone)
    through D.
    """
    loss, phases = config.loss, config.n_critic
    work = size.g_gflop + 6 * size.d_gflop
    penalties = sum(bool(weight) for weight in (loss.gp, loss.dragan, loss.r1, loss.r2))
    work += 5 * size.d_gflop * penalties / loss.interval
    if loss.path_length:  # forward, backward to w, and both differentiated: six times
        work += 6 * size.g_gflop / (loss.path_interval * loss.path_batch_shrink)
    # a step of unrolling is D's phase again, differentiated twice
    work += 12 * size.d_gflop * config.unroll.steps / phases
    judged = 2 if config.updates == "alternating" else 1
    return work + (2 * size.g_gflop + judged * size.d_gflop) / phases


def row(name: str) -> str:
    """The preset's line of the table."""
    config = resolve(name, {})
    size = network_cost(config)
    work = gflop_per_image(config, size)
    labelled = config.generator.condition != "none" and config.labels == "required"
    cells = [
        f"*{name}*" if labelled else name,
        config.about.source or "–",
        f"{config.resolution} px" if config.resolution else "any",
        config.about.summary or "–",
        f"{size.g_parameters / 1e6:.2f} / {size.d_parameters / 1e6:.2f}",
        f"{work:.3g}",
        f"{config.total_kimg:g}",
        f"{work * config.total_kimg / 1e3:.2g}",
        config.about.expect or "–",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def document() -> str:
    """The whole of `docs/presets.md`."""
    return HEAD + "".join(row(name) for name in preset_names())


if __name__ == "__main__":
    sys.exit(exit_status(lambda: print(document(), end="")))
