"""The options of StyleGAN2's networks in pickles of NVlabs' projects, derived from their weights.

stylegan2-ada-pytorch and stylegan3 (for its StyleGAN2, and for the discriminator of StyleGAN3) have
the same classes and names. Weights are stored in fp32 also if layers computed in fp16.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from training.image_shape import ImageShape
from training.pretrained.nvlabs import Weights, submodule, submodules
from training.pretrained.pickles import PickledObject

Table = dict[str, Any]
_WHOLE_BATCH = 1 << 16
"""A group size of None means the whole batch."""


def is_generator(weights: Weights) -> bool:
    """Return True if the weights have the names of StyleGAN2's generator."""
    return "synthesis.b4.const" in weights


def describe_generator(record: PickledObject, weights: Weights) -> tuple[Table, ImageShape]:
    """Return the keys of `StyleGan2Generator` that the weights determine, and the image shape.

    Raises:
        Exception: of any kind, if the network has another structure.
    """
    _require_leaky_relu(record)
    blocks = _numbers(weights, r"synthesis\.b(\d+)\.conv1\.bias")
    first, last = blocks[0], blocks[-1]
    widths = [len(weights[f"synthesis.b{block}.conv1.bias"]) for block in blocks]
    const = weights[f"synthesis.b{first}.const"]
    state = submodule(record, "synthesis", f"b{first}", "conv1").state
    table = {
        "name": "stylegan2",
        "style": "demodulation",
        "resample": "filter",
        **mapping_table(record, weights),
        **_widths(blocks, widths),
        "architecture": _architecture(
            blocks, f"synthesis.b{first}.torgb.bias" in weights,
            any(f"synthesis.b{block}.skip.weight" in weights for block in blocks),
        ),
        **_filter_and_clamp(weights[f"synthesis.b{first}.conv1.resample_filter"], state),
        "noise_mode": "random" if f"synthesis.b{first}.conv1.noise_const" in weights else "none",
    }  # fmt: skip
    height, width = (size * last // first for size in const.shape[1:])
    channels = len(weights[f"synthesis.b{last}.torgb.bias"])
    return table, ImageShape(height, width, channels, count_classes(weights))


def count_classes(weights: Weights) -> int:
    """Return the number of classes that a network's mapping embeds."""
    embedded = weights.get("mapping.embed.weight")
    return 0 if embedded is None else embedded.shape[1]


def mapping_table(record: PickledObject, weights: Weights) -> Table:
    """Return the keys of `StyledGeneratorOptions` that a generator's mapping determines."""
    w_dim, classes = len(weights["mapping.w_avg"]), count_classes(weights)
    beta = submodule(record, "mapping").state.get("w_avg_beta")
    return {
        "z_dim": weights["mapping.fc0.weight"].shape[1] - (w_dim if classes else 0),
        "w_dim": w_dim,
        "condition": "embedding" if classes else "none",
        **_mapping(record, weights),
        **({} if beta is None else {"w_avg_beta": float(beta)}),
    }


def describe_discriminator(record: PickledObject, weights: Weights) -> Table:
    """Return the keys of `StyleGan2Discriminator` that the weights determine.

    Raises:
        Exception: of any kind, if the network has another structure.
    """
    _require_leaky_relu(record)
    blocks = _numbers(weights, r"b(\d+)\.conv1\.weight")
    last = blocks[-1]
    smallest = weights["b4.conv.weight"]
    widths = [weights[f"b{block}.conv0.weight"].shape[0] for block in blocks]
    more = smallest.shape[1] - smallest.shape[0]
    group = submodule(record, "b4", "mbstd").state.get("group_size") if more else 4
    is_conditional = "mapping.embed.weight" in weights
    state = submodule(record, f"b{last}", "conv0").state
    return {
        "name": "stylegan2",
        "resample": "filter",
        "condition": "projection" if is_conditional else "none",
        **(_mapping(record, weights) if is_conditional else {}),
        **_widths([4, *blocks], [smallest.shape[0], *widths]),
        "architecture": _architecture(
            [4, *blocks], "b4.fromrgb.weight" in weights, f"b{last}.skip.weight" in weights
        ),
        **_filter_and_clamp(weights[f"b{last}.conv0.resample_filter"], state),
        "mbstd_channels": more,
        "mbstd_group_size": _WHOLE_BATCH if group is None else int(group),
    }


def discriminator_like(generator: Table) -> Table:
    """Return the keys of the discriminator that was trained with a generator, as published."""
    shared = ("channel_base", "channel_max", "resample_filter", "conv_clamp")
    return {
        "name": "stylegan2",
        "resample": "filter",
        "condition": "none" if generator["condition"] == "none" else "projection",
        **{key: generator[key] for key in shared},
    }


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(pattern, name)))


def _mapping(record: PickledObject, weights: Weights) -> Table:
    layers = _numbers(weights, r"mapping\.fc(\d+)\.weight")
    gain = submodule(record, "mapping", "fc0").state.get("bias_gain", 0.01)
    return {"mapping_layers": layers[-1] + 1, "mapping_lr_multiplier": float(gain)}


def _widths(blocks: list[int], widths: list[int]) -> Table:
    products = (block * width for block, width in zip(blocks, widths, strict=True))
    return {"channel_base": max(products), "channel_max": max(widths)}


def _architecture(blocks: list[int], has_image_layers: bool, has_shortcuts: bool) -> str:
    if len(blocks) == 1 or has_image_layers:
        return "skip"
    return "resnet" if has_shortcuts else "orig"


def _filter_and_clamp(taps: Tensor, state: Table) -> Table:
    line = taps.sum(dim=0) if taps.ndim == 2 else taps
    return {
        "resample_filter": tuple((line / line.min()).tolist()),
        "conv_clamp": float(state.get("conv_clamp") or 0),
    }


def _require_leaky_relu(record: PickledObject) -> None:
    found = {module.state.get("activation", "lrelu") for module in submodules(record)}
    if other := found - {"lrelu", "linear"}:
        raise ValueError(f"activation {other}")
