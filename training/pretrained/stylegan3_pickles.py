"""The options of StyleGAN3's generators in pickles of NVlabs' stylegan3.

The discriminator beside them is StyleGAN2's. Weights are stored in fp32 also if layers computed in
fp16.
"""

from __future__ import annotations

from typing import Any

import torch

from training.image_shape import ImageShape
from training.networks.stylegan3 import StyleGan3G
from training.options.styled import StyleGan3Generator
from training.pretrained import stylegan2_pickles as stylegan2
from training.pretrained.nvlabs import Weights, submodule
from training.pretrained.pickles import PickledObject

Table = dict[str, Any]
_GIVEN = {
    "channel_base": ("channel_base", 32768),
    "channel_max": ("channel_max", 512),
    "first_cutoff": ("first_cutoff", 2.0),
    "first_stopband": ("first_stopband", 2**2.1),
    "last_stopband_rel": ("last_stopband", 2**0.3),
    "filter_size": ("filter_size", 6),
}
"""Arguments that no attribute keeps: the published name, this project's, and the default."""


def is_generator(weights: Weights) -> bool:
    """Return True if the weights have the names of StyleGAN3's generator."""
    return "synthesis.input.freqs" in weights


def describe_generator(record: PickledObject, weights: Weights) -> tuple[Table, ImageShape]:
    """Return the keys of `StyleGan3Generator` that the file determines, and the image shape.

    Raises:
        Exception: of any kind, if the network has another structure, or filters other than those
            that the keys give.
    """
    synthesis = submodule(record, "synthesis")
    state, arguments = synthesis.state, synthesis.state.get("_init_kwargs") or {}
    if arguments.get("lrelu_upsampling", 2) != 2:
        raise ValueError("lrelu_upsampling")
    first = next(name for name in weights if name.startswith("synthesis.L0_")).split(".")[1]
    rotates = weights[f"synthesis.{first}.weight"].shape[2] == 1
    table: Table = {
        "name": "stylegan3",
        "equivariance": "rotation" if rotates else "translation",
        **stylegan2.mapping_table(record, weights),
        **{ours: arguments.get(name, usual) for name, (ours, usual) in _GIVEN.items()},
        "layers": state["num_layers"],
        "critical": state["num_critical"],
        "margin": state["margin_size"],
        "output_scale": float(state["output_scale"]),
        "conv_clamp": float(submodule(synthesis, first).state.get("conv_clamp") or 0),
    }
    if rotates:  # the configuration has twice the channels
        table |= {key: _half(table[key]) for key in ("channel_base", "channel_max")}
    side, classes = int(state["img_resolution"]), stylegan2.count_classes(weights)
    shape = ImageShape(side, side, int(state["img_channels"]), classes)
    _require_filters(table, shape, weights)
    return table, shape


def discriminator_like(generator: Table) -> Table:
    """Return the keys of the discriminator that was trained with a generator, as published."""
    return {
        "name": "stylegan2",
        "resample": "filter",
        "condition": "none" if generator["condition"] == "none" else "projection",
        "channel_base": generator["channel_base"],
        "channel_max": generator["channel_max"],
        "conv_clamp": generator["conv_clamp"],
    }


def _half(number: int) -> int:
    if number % 2:
        raise ValueError(f"an odd number of channels, {number}, with 1×1 convolutions")
    return number // 2


def _require_filters(table: Table, shape: ImageShape, weights: Weights) -> None:
    """Raise if the layers or filters of the table are not those of the file: arguments that the
    table does not have would change the images."""
    with torch.device("meta"):
        sketch = StyleGan3G(StyleGan3Generator(**table), shape)
    for name, wanted in sketch.named_buffers():
        if name.endswith("_filter") and not torch.allclose(wanted, weights[name], atol=1e-5):
            raise ValueError(f"{name} is another filter")
    filters = {name for name in sketch.state_dict() if name.endswith("_filter")}
    if others := {name for name in weights if name.endswith("_filter")} - filters:
        raise ValueError(f"filters {sorted(others)}")
