"""StyleGAN2's weights with the names of other projects: NVlabs' StyleGAN2-ADA, and
rosinality/stylegan2-pytorch. docs/sharing.md has the table of names."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.contract import UserError, write_atomic
from training.latent.image_numbers import latents_of
from training.networks.stylegan2.modulation import SynthesisLayer, ToRGBLayer
from training.options.architectures import StyleGan2Generator
from training.pretrained.inference import TrainedGenerator

FILES = {"nvlabs": "nvlabs.safetensors", "rosinality": "rosinality.pt"}
"""The file of each layout."""
PROJECTS = {"nvlabs": "NVlabs/stylegan2-ada-pytorch", "rosinality": "rosinality/stylegan2-pytorch"}
_LR_MULTIPLIER = 0.01
"""That of rosinality's mapping layers, which its file does not contain."""
_WIDE = 512
_IMAGES = range(1, 5)


def write_layout(trained: TrainedGenerator, layout: str, folder: Path) -> str:
    """Write the file of a layout into the folder; return how it is loaded, as Python code.

    Raises:
        UserError: the generator does not exist in that project; the message names the reason.
    """
    options = _fitting_options(trained, layout)
    path = folder / FILES[layout]
    if layout == "nvlabs":
        from safetensors.torch import save

        arguments = nvlabs_arguments(trained, options)
        weights = {name: value.contiguous() for name, value in _weights(trained).items()}
        write_atomic(path, save(weights, {"format": "pt", "arguments": json.dumps(arguments)}))
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return (
            f"generator = training.networks.Generator({given})\n"
            f'generator.load_state_dict(safetensors.torch.load_file("{path.name}"))'
        )
    buffer = io.BytesIO()
    state = rosinality_weights(trained, options)
    torch.save(
        {"g_ema": state, "latent_avg": trained.generator.get_buffer("mapping.w_avg")}, buffer
    )
    write_atomic(path, buffer.getvalue())
    size, multiplier = trained.shape.height, _channel_multiplier(trained)
    return (
        f"generator = model.Generator({size}, {options.w_dim}, {options.mapping_layers}, "
        f"channel_multiplier={multiplier})\n"
        f'saved = torch.load("{path.name}")\n'
        'generator.load_state_dict(saved["g_ema"])\n'
        'image, _ = generator([z], truncation=0.7, truncation_latent=saved["latent_avg"], '
        "randomize_noise=False)"
    )


def _fitting_options(trained: TrainedGenerator, layout: str) -> StyleGan2Generator:
    options = trained.config.generator
    if not isinstance(options, StyleGan2Generator):
        raise UserError(f"--format {layout}: the generator is {options.name}, not stylegan2")
    reasons = _nvlabs_reasons(trained, options)
    if layout == "rosinality":
        reasons = (*reasons, *_rosinality_reasons(trained, options))
    for unfit, reason in reasons:
        if unfit:
            raise UserError(f"--format {layout}: {reason}, which that project does not have")
    return options


def _nvlabs_reasons(
    trained: TrainedGenerator, options: StyleGan2Generator
) -> tuple[tuple[bool, str], ...]:
    height, width = trained.shape.height, trained.shape.width
    return (
        (options.style != "demodulation", f"generator.style is {options.style}"),
        (options.resample != "filter", f"generator.resample is {options.resample}"),
        (
            height != width or height < 4 or height & (height - 1) != 0,
            f"images have {width} × {height} px, not a square of 4, 8, 16, … px",
        ),
        (trained.latent == "uniform", f"latents are {trained.latent}"),
    )


def _rosinality_reasons(
    trained: TrainedGenerator, options: StyleGan2Generator
) -> Iterator[tuple[bool, str]]:
    yield options.condition != "none", "the generator has labels"
    yield trained.shape.channels != 3, f"images have {trained.shape.channels} channels, not 3"
    yield (
        options.z_dim != options.w_dim,
        f"z has {options.z_dim} dimensions and w {options.w_dim}",
    )
    yield (
        options.architecture != "skip",
        f"generator.architecture is {options.architecture}",
    )
    yield len(options.resample_filter) != 4, "the low-pass filter does not have 4 taps"
    yield (
        _channel_multiplier(trained) == 0,
        f"generator.channel_base {options.channel_base} with channel_max {options.channel_max} "
        "gives widths other than 512 up to 32 px and a multiple of 16384 / size above",
    )
    yield _clamp_matters(trained), "activations are limited by generator.conv_clamp"


def _channel_multiplier(trained: TrainedGenerator) -> int:
    """Return rosinality's `channel_multiplier` for these widths; 0 if there is none."""
    weights = _weights(trained)
    found = set()
    for size in _sizes(trained):
        width = weights[f"synthesis.b{size}.conv1.bias"].numel()
        if size <= 32 and width != _WIDE:
            return 0
        if size > 32:
            found.add(width * size / 16384)
    multiplier = found.pop() if found else 2.0
    return int(multiplier) if not found and multiplier.is_integer() else 0


def _clamp_matters(trained: TrainedGenerator) -> bool:
    """Return True if images change without the limit of activations."""
    if not trained.config.generator.conv_clamp:  # type: ignore[union-attr]
        return False
    free = copy.deepcopy(trained.generator)
    for module in free.modules():
        if isinstance(module, SynthesisLayer | ToRGBLayer):
            module.clamp = 0.0
    latents = latents_of(list(_IMAGES), trained.latent, trained.generator.z_dim)
    labels = torch.zeros(len(latents), dtype=torch.int64)
    with torch.no_grad():
        return not torch.equal(free(latents, labels), trained.generator(latents, labels))


def _sizes(trained: TrainedGenerator) -> list[int]:
    return [4 << n for n in range(trained.shape.height.bit_length() - 2)]


def _weights(trained: TrainedGenerator) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in trained.generator.state_dict().items()}


def nvlabs_arguments(trained: TrainedGenerator, options: StyleGan2Generator) -> dict[str, Any]:
    """Return the arguments of NVlabs' `training.networks.Generator`, whose names ours are."""
    return {
        "z_dim": options.z_dim,
        "c_dim": trained.classes if options.condition != "none" else 0,
        "w_dim": options.w_dim,
        "img_resolution": trained.shape.height,
        "img_channels": trained.shape.channels,
        "mapping_kwargs": {
            "num_layers": options.mapping_layers,
            "lr_multiplier": options.mapping_lr_multiplier,
        },
        "synthesis_kwargs": {
            "channel_base": options.channel_base,
            "channel_max": options.channel_max,
            "num_fp16_res": 0,
            "conv_clamp": options.conv_clamp or None,
            "architecture": options.architecture,
            "resample_filter": list(options.resample_filter),
            "use_noise": options.noise_mode != "none",
        },
    }


def rosinality_weights(trained: TrainedGenerator, options: StyleGan2Generator) -> dict[str, Tensor]:
    """Return the weights with rosinality's names, shapes and scales."""
    ours = _weights(trained)
    scale = options.mapping_lr_multiplier / _LR_MULTIPLIER
    state = {
        f"style.{number + 1}.{part}": ours[f"mapping.fc{number}.{part}"] * scale
        for number in range(options.mapping_layers)
        for part in ("weight", "bias")
    }
    state["input.input"] = ours["synthesis.b4.const"][None]
    count = 0
    for number, size in enumerate(_sizes(trained)):
        block = f"synthesis.b{size}"
        kernel = ours[f"{block}.resample_filter"] * 4
        for layer in ("conv0", "conv1") if number else ("conv1",):
            theirs = f"convs.{count - 1}" if count else "conv1"
            state |= _modulated(ours, f"{block}.{layer}", f"{theirs}.conv")
            if layer == "conv0":
                state[f"{theirs}.conv.blur.kernel"] = kernel
            state[f"{theirs}.activate.bias"] = ours[f"{block}.{layer}.bias"]
            strength = ours.get(f"{block}.{layer}.noise_strength", torch.zeros(()))
            noise = ours.get(f"{block}.{layer}.noise_const", torch.zeros(size, size))
            state[f"{theirs}.noise.weight"] = strength.reshape(1)
            state[f"noises.noise_{count}"] = noise[None, None]
            count += 1
        theirs = f"to_rgbs.{number - 1}" if number else "to_rgb1"
        state |= _modulated(ours, f"{block}.torgb", f"{theirs}.conv")
        state[f"{theirs}.bias"] = ours[f"{block}.torgb.bias"].reshape(1, -1, 1, 1)
        if number:
            state[f"{theirs}.upsample.kernel"] = kernel
    return {name: value.contiguous() for name, value in state.items()}


def _modulated(ours: dict[str, Tensor], layer: str, theirs: str) -> dict[str, Tensor]:
    return {
        f"{theirs}.weight": ours[f"{layer}.weight"][None],
        f"{theirs}.modulation.weight": ours[f"{layer}.affine.weight"],
        f"{theirs}.modulation.bias": ours[f"{layer}.affine.bias"],
    }
