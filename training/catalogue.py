"""`python -m training.catalogue`: print `docs/presets.md`, the tables of presets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.contract import exit_status
from training.config import Config
from training.networks import ImageShape, build_discriminator, build_generator
from training.networks.further import build_further
from training.options.architectures import code_count, features_kimg
from training.options.methods import CycleganMethod, GanMethod
from training.options.resolve import preset_names, replace_known, resolve
from training.planning.forecast import count_parameters

HEAD = """# Presets

## Choosing a preset

```sh
python -m training.fit --shards manifests/NAME --preset PRESET
python -m training.fit --shards manifests/NAME --preset PRESET --generator.width 32   # change a key
python -m training.fit --shards manifests/NAME --preset auto --hours 2   # chosen for your data
```

Presets are named after their source. Presets in *italics* need labelled shards. `--dry-run` prints
the time and memory that a preset needs on your machine.

## How cost is counted

"GFLOP per image" is the cost of training on one image (10⁹ additions and multiplications), counted
from the layers of generator and discriminator, without further networks: three forward passes of
the generator and eight of the discriminator, five more of the discriminator for a gradient penalty,
six of the generator for path length. CycleGAN's cost is that of a pair of images and of all its
networks. "Total" is this cost times the number of images of the preset
("kimg": thousands). A machine that sustains 1 TFLOP/s needs 0.28 hours per PFLOP.

"Expected result" is what the source reports, unless it says otherwise.

## First results on a CPU

`shells64` gives a first result within minutes. `projected64` and `r3gan-64-small` are small enough
to train in an hour, `fastgan64` is narrow as well. `dcgan64-ada` is for a few hundred images.

## The pictures

Below most tables are 16 samples per preset, of its averaged generator, after a very short training
of one CPU thread from the first step (`benchmarks/preset_pictures.py`). They show the first images
of a preset and no more: **no picture shows the quality that a preset reaches**, and none was
chosen. Plain gray and coloured patterns mean that the time was too short to learn anything visible.
"Width / 8" and the like state how a preset was reduced so that some hundred steps fit into the
time. The images are drawn shells of ten families; presets for MNIST were given the same in gray.
The presets that `--preset auto` takes on a CPU trained for 45 minutes, `projected64` on photographs
of garments.
"""
TAIL = """
## Writing a preset

A preset is a TOML file with the keys of the configuration; pass its path to `--preset`, or put it
into `training/presets/`. A preset that differs from another one in a few keys sets
`extends = "NAME"` and lists only those keys:

```toml
extends = "dcgan64"
total_kimg = 500

[about]
source = "where it comes from"
summary = "what it is"
expect = "the expected result"

[generator]
width = 64
```

This page is generated: run `make docs` after you change a preset.
"""
COLUMNS = (
    "preset", "source", "resolution", "summary", "parameters G / D (M)", "GFLOP per image", "kimg",
    "total (PFLOP)", "expected result",
)  # fmt: skip
_CLASSES = 10
PICTURES = Path(__file__).parents[1] / "docs/pictures/presets"
PER_ROW = 4


def section(config: Config) -> str:
    """Return the heading under which a preset is listed."""
    generator, discriminator = config.generator.name, config.discriminator.name
    if not isinstance(config.method, GanMethod):
        return "Methods with further networks"
    if generator in ("stylegan2", "stylegan3"):
        return "StyleGAN2 and StyleGAN3"
    if generator == "r3gan" or (config.loss.name == "rsgan" and config.loss.r2):
        return "R3GAN"
    if generator == "fastgan" or discriminator == "projected":
        return "FastGAN and Projected GAN"
    if code_count(config.generator) or (
        config.generator.condition != "none" and config.labels == "required"
    ):
        return "Conditional models"
    return "DCGAN and classic losses"


SECTIONS = (
    "DCGAN and classic losses", "Conditional models", "FastGAN and Projected GAN",
    "StyleGAN2 and StyleGAN3", "R3GAN", "Methods with further networks",
)  # fmt: skip


@dataclass(frozen=True)
class NetworkCost:
    """Parameters of a preset's networks (`further` are those of its method, by name), and GFLOP of
    a forward pass of one image."""

    g_parameters: int
    d_parameters: int
    g_gflop: float
    d_gflop: float
    further: dict[str, int] = field(default_factory=dict)


def image_shape(config: Config) -> ImageShape:
    """Return the image shape of a preset: gray at 28 px, else colour; ten classes."""
    channels = 1 if config.resolution == 28 else 3
    return ImageShape(config.resolution or 64, config.resolution or 64, channels, _CLASSES)


def network_cost(config: Config) -> NetworkCost:
    """Count parameters and operations on the meta device, without computing anything."""
    # spectral normalisation adds no parameters and few operations, but takes seconds to build
    options = (
        replace_known(config.generator, spectral=False),
        replace_known(config.discriminator, spectral=False),
    )
    with torch.device("meta"):
        shape = image_shape(config)
        generator = build_generator(options[0], shape)
        discriminator = build_discriminator(options[1], shape, code_count(config.generator))
        count = config.discriminator.packing * 2
        labels = torch.zeros(count, dtype=torch.int64)
        latents = torch.zeros(count, generator.z_dim)
        if config.method.sets > 1:  # images are translated
            latents = torch.zeros(count, shape.channels, shape.height, shape.width)
        packed = torch.zeros(2, shape.channels * count // 2, shape.height, shape.width)
        g_flop = _count_flop(generator, latents, labels)
        # the mean over all images: at first the pixel discriminator may train alone
        alone = min(1.0, features_kimg(config.discriminator) / config.total_kimg)
        d_flop = sum(
            share * _count_flop(part, packed, labels[:2])
            for part, share in ((discriminator, 1 - alone), (discriminator.on_pixels, alone))
            if share
        )
        further = build_further(config, shape, generator, discriminator)
    parameters = [count_parameters(network) for network in (generator, discriminator)]
    counted = {name: count_parameters(one.network) for name, one in further.items()}
    return NetworkCost(
        parameters[0], parameters[1], g_flop / count / 1e9, d_flop / count / 1e9, counted
    )


def _count_flop(network: nn.Module, *inputs: Tensor) -> int:
    network.requires_grad_(False)  # otherwise the counter would include gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return int(counter.get_total_flops())


def gflop_per_image(config: Config, size: NetworkCost) -> float:
    """Return the GFLOP of training on one real image.

    An update of D generates images and runs D forward and backward (twice the cost) on real and
    generated images. One in `n_critic` of them is followed by an update of G: backward through G,
    forward (unless both networks learn from one pass) and backward (only to the images) through D.
    """
    loss, blocks, d_updates = config.loss, config.blocks, float(config.n_critic)
    if isinstance(config.method, CycleganMethod):  # to the other set, back, and to its own set
        passes = 3 if config.method.identity else 2
        return 2 * (3 * passes * size.g_gflop + 8 * size.d_gflop)
    gflop = size.g_gflop + 6 * size.d_gflop
    penalties = sum(bool(weight) for weight in (loss.gp, loss.dragan, loss.r1, loss.r2))
    gflop += 5 * size.d_gflop * penalties / loss.interval
    if loss.path_length:  # forward, backward to w, and a double backward pass: six times
        gflop += 6 * size.g_gflop / (loss.path_interval * loss.path_batch_shrink)
    # an unrolled step is another update of D with a double backward pass
    gflop += 12 * size.d_gflop * config.unroll.steps / d_updates
    d_passes = 2 if config.updates == "alternating" else 1
    if blocks.cycle:  # an image serves one network; the generator's step draws images of its own
        g_step = 3 * size.g_gflop + d_passes * size.d_gflop
        return (gflop * blocks.d_steps + g_step * blocks.g_steps) / blocks.cycle
    return gflop + (2 * size.g_gflop + d_passes * size.d_gflop) / d_updates


def row(name: str, config: Config) -> str:
    """Return the table row of a preset."""
    size = network_cost(config)
    gflop = gflop_per_image(config, size)
    labelled = config.generator.condition != "none" and config.labels == "required"
    cells = [
        f"*{name}*" if labelled else name,
        config.about.source or "–",
        f"{config.resolution} px" if config.resolution else "any",
        config.about.summary or "–",
        f"{size.g_parameters / 1e6:.2f} / {size.d_parameters / 1e6:.2f}"
        + "".join(
            f", {name.replace('_', ' ')} {one / 1e6:.2f}" for name, one in size.further.items()
        ),
        _rounded(gflop, 3),
        f"{config.total_kimg:g}",
        _rounded(gflop * config.total_kimg / 1e3, 2),
        config.about.expect or "–",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _rounded(value: float, digits: int) -> str:
    return f"{float(f'{value:.{digits}g}'):,g}"


def picture_facts() -> dict[str, Any]:
    """Return what the picture of each preset shows; empty outside of the repository."""
    facts = PICTURES / "presets.json"
    return dict(json.loads(facts.read_text(encoding="utf-8"))) if facts.exists() else {}


def picture_table(facts: Mapping[str, Any]) -> str:
    """Return a table of the presets' pictures, `PER_ROW` in a row, with their captions."""
    cells = [
        f"![samples of {name}](pictures/presets/{name}.jpg)<br>**{name}**: {one['kimg']:g} kimg, "
        f"{one['seconds']} CPU seconds, {one['reduction']}"
        + (", gray" if one["dataset"].endswith("gray") else "")
        for name, one in facts.items()
    ]
    if not cells:
        return ""
    cells += [""] * (-len(cells) % PER_ROW)
    rows = [cells[start : start + PER_ROW] for start in range(0, len(cells), PER_ROW)]
    lines = [["&nbsp;"] * PER_ROW, ["---"] * PER_ROW, *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def document() -> str:
    """Return the text of `docs/presets.md`."""
    presets = {name: resolve(name, {}) for name in preset_names()}
    parts, facts = [HEAD], picture_facts()
    for heading in SECTIONS:
        names = [name for name, config in presets.items() if section(config) == heading]
        parts.append(f"\n## {heading}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n")
        parts += [row(name, presets[name]) for name in names]
        parts.append(picture_table({name: facts[name] for name in names if name in facts}))
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    sys.exit(exit_status(lambda: print(document(), end="")))
