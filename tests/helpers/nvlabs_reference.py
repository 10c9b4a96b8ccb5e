"""StyleGAN2 in plain functions of its weights, written from the papers (Karras 2020a, b) with the
published names: one weight per sample, zeros between pixels, scipy's filters, float64.

Nothing of `training` is used, so equal images mean that a pickle was understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.signal import upfirdn
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu

HALF = 0.5**0.5


@dataclass(frozen=True)
class Spec:
    """The arguments of the published constructors; `group` 0 means None."""

    architecture: str = "skip"
    size: int = 16
    z_dim: int = 5
    w_dim: int = 6
    classes: int = 0
    channels: int = 3
    base: int = 96
    most: int = 12
    layers: int = 3
    clamp: float = 0.0
    noise: bool = True
    d_architecture: str = "resnet"
    d_layers: int = 2
    group: int = 4
    group_channels: int = 1
    lr_multiplier: float = 0.02

    @property
    def sizes(self) -> list[int]:
        return [size for size in (4, 8, 16, 32) if size <= self.size]

    def width(self, size: int) -> int:
        return min(self.base // size, self.most)


Shapes = dict[str, list[Any]]
Weights = dict[str, Tensor]


def _linear(shapes: Shapes, name: str, inside: int, outside: int) -> None:
    shapes[f"{name}.weight"] = [[outside, inside], "parameter"]
    shapes[f"{name}.bias"] = [[outside], "parameter"]


def _convolution(
    shapes: Shapes, name: str, inside: int, outside: int, kernel: int, role: str = "parameter",
    bias: bool = True, filtered: bool = True,
) -> None:  # fmt: skip
    shapes[f"{name}.weight"] = [[outside, inside, kernel, kernel], role]
    if bias:
        shapes[f"{name}.bias"] = [[outside], role]
    if filtered:
        shapes[f"{name}.resample_filter"] = [[4, 4], "buffer"]


def _mapping_shapes(shapes: Shapes, spec: Spec, z_dim: int, w_dim: int, layers: int) -> None:
    inside = z_dim
    if spec.classes:
        _linear(shapes, "mapping.embed", spec.classes, w_dim)
        inside += w_dim
    for number in range(layers):
        _linear(shapes, f"mapping.fc{number}", inside, w_dim)
        inside = w_dim


def generator_shapes(spec: Spec) -> Shapes:
    """Shapes and roles of all tensors of the generator by name."""
    shapes: Shapes = {"mapping.w_avg": [[spec.w_dim], "buffer"]}
    _mapping_shapes(shapes, spec, spec.z_dim, spec.w_dim, spec.layers)
    for size in spec.sizes:
        block, width = f"synthesis.b{size}", spec.width(size)
        shapes[f"{block}.resample_filter"] = [[4, 4], "buffer"]
        if size == 4:
            shapes[f"{block}.const"] = [[width, 4, 4], "parameter"]
        for layer in ("conv0", "conv1") if size > 4 else ("conv1",):
            inside = spec.width(size // 2) if layer == "conv0" else width
            _convolution(shapes, f"{block}.{layer}", inside, width, 3)
            _linear(shapes, f"{block}.{layer}.affine", spec.w_dim, inside)
            if spec.noise:
                shapes[f"{block}.{layer}.noise_const"] = [[size, size], "buffer"]
                shapes[f"{block}.{layer}.noise_strength"] = [[], "parameter"]
        if spec.architecture == "skip" or size == spec.size:
            _convolution(shapes, f"{block}.torgb", width, spec.channels, 1, filtered=False)
            _linear(shapes, f"{block}.torgb.affine", spec.w_dim, width)
        if spec.architecture == "resnet" and size > 4:
            _convolution(shapes, f"{block}.skip", spec.width(size // 2), width, 1, bias=False)
    return shapes


def discriminator_shapes(spec: Spec, frozen: bool = False) -> Shapes:
    """Those of the discriminator; `frozen` layers have buffers in place of parameters."""
    shapes: Shapes = {}
    smallest, role = spec.width(4), "buffer" if frozen else "parameter"
    if spec.classes:
        _mapping_shapes(shapes, spec, 0, smallest, spec.d_layers)
    for size in spec.sizes[:0:-1]:
        block, width = f"b{size}", spec.width(size)
        shapes[f"{block}.resample_filter"] = [[4, 4], "buffer"]
        if size == spec.size or spec.d_architecture == "skip":
            _convolution(shapes, f"{block}.fromrgb", spec.channels, width, 1, role)
        _convolution(shapes, f"{block}.conv0", width, width, 3, role)
        _convolution(shapes, f"{block}.conv1", width, spec.width(size // 2), 3)
        if spec.d_architecture == "resnet":
            _convolution(shapes, f"{block}.skip", width, spec.width(size // 2), 1, bias=False)
    if spec.d_architecture == "skip":
        _convolution(shapes, "b4.fromrgb", spec.channels, smallest, 1)
    _convolution(shapes, "b4.conv", smallest + spec.group_channels, smallest, 3)
    _linear(shapes, "b4.fc", smallest * 16, smallest)
    _linear(shapes, "b4.out", smallest, smallest if spec.classes else 1)
    return shapes


def attributes(spec: Spec) -> dict[str, dict[str, Any]]:
    """Attributes of the published modules that tell what no weight tells."""
    common = {"conv_clamp": spec.clamp or None, "bias_gain": spec.lr_multiplier}
    return {"": common, "b4.mbstd": {"group_size": spec.group or None}}


def _by_scipy(image: Tensor, up: int) -> Tensor:
    row = np.array([1.0, 3.0, 3.0, 1.0]) / 8
    wide = upfirdn(row, image.numpy(), up, axis=3)
    return torch.from_numpy(np.ascontiguousarray(upfirdn(row, wide, up, axis=2)))


def upsampled(image: Tensor) -> Tensor:
    """Twice the size: zeros between pixels, then the filter."""
    height, width = image.shape[2:]
    return 4 * _by_scipy(image, 2)[:, :, 1 : 1 + 2 * height, 1 : 1 + 2 * width]


def halved(image: Tensor) -> Tensor:
    height, width = image.shape[2:]
    return _by_scipy(image, 1)[:, :, 2::2, 2::2][:, :, : height // 2, : width // 2]


def _up_convolution(image: Tensor, weight: Tensor) -> Tensor:
    count, inside, height, width = image.shape
    spread = torch.zeros(count, inside, 2 * height, 2 * width, dtype=image.dtype)
    spread[:, :, ::2, ::2] = image
    convolved = conv2d(spread, weight.flip((2, 3)), padding=2)
    return 4 * _by_scipy(convolved, 1)[:, :, 2 : 2 + 2 * height, 2 : 2 + 2 * width]


def _activated(values: Tensor, spec: Spec, gain: float, linear: bool = False) -> Tensor:
    values = values * gain if linear else leaky_relu(values, 0.2) * 2**0.5 * gain
    return values.clamp(-spec.clamp * gain, spec.clamp * gain) if spec.clamp else values


def _dense(weights: Weights, name: str, values: Tensor, multiplier: float = 1.0) -> Tensor:
    weight = weights[f"{name}.weight"]
    return values @ (weight.T * multiplier / weight.shape[1] ** 0.5) + (
        weights[f"{name}.bias"] * multiplier
    )


def _unit(values: Tensor) -> Tensor:
    return values / (values.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()


def _mapped(weights: Weights, spec: Spec, latents: Tensor | None, labels: Tensor) -> Tensor:
    parts = [] if latents is None else [_unit(latents)]
    if spec.classes:
        known = torch.eye(spec.classes, dtype=torch.float64)[labels]
        parts.append(_unit(_dense(weights, "mapping.embed", known)))
    values = torch.cat(parts, dim=1)
    for number in range(spec.layers if latents is not None else spec.d_layers):
        values = _dense(weights, f"mapping.fc{number}", values, spec.lr_multiplier)
        values = leaky_relu(values, 0.2) * 2**0.5
    return values


def _styled(
    weights: Weights, spec: Spec, name: str, maps: Tensor, w: Tensor, up: bool, gain: float
) -> Tensor:
    styles, found = _dense(weights, f"{name}.affine", w), []
    for image, style in zip(maps, styles, strict=True):
        weight = weights[f"{name}.weight"] * style[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        image = image[None]
        found.append(_up_convolution(image, weight) if up else conv2d(image, weight, padding=1))
    values = torch.cat(found)
    if spec.noise:
        values = values + weights[f"{name}.noise_const"] * weights[f"{name}.noise_strength"]
    return _activated(values + weights[f"{name}.bias"][:, None, None], spec, gain)


def generate(
    weights: Weights, spec: Spec, latents: Tensor, labels: Tensor, psi: float = 1.0
) -> Tensor:
    """Return images float64 with constant noise, truncated towards the mean w by `psi`."""
    weights = {name: value.double() for name, value in weights.items()}
    w = _mapped(weights, spec, latents.double(), labels)
    w = weights["mapping.w_avg"] + psi * (w - weights["mapping.w_avg"])
    maps = weights["synthesis.b4.const"].expand(len(w), -1, -1, -1)
    image: Tensor | None = None
    for size in spec.sizes:
        block, shortcut, gain = f"synthesis.b{size}", None, 1.0
        if spec.architecture == "resnet" and size > 4:
            weight = weights[f"{block}.skip.weight"]
            shortcut = upsampled(conv2d(maps, weight / weight.shape[1] ** 0.5))
            shortcut, gain = _activated(shortcut, spec, HALF, linear=True), HALF
        if size > 4:
            maps = _styled(weights, spec, f"{block}.conv0", maps, w, True, 1.0)
        maps = _styled(weights, spec, f"{block}.conv1", maps, w, False, gain)
        maps = maps if shortcut is None else maps + shortcut
        image = None if image is None else upsampled(image)
        if f"{block}.torgb.weight" in weights:
            weight = weights[f"{block}.torgb.weight"][:, :, 0, 0]
            styles = _dense(weights, f"{block}.torgb.affine", w) / weight.shape[1] ** 0.5
            added = torch.einsum("nchw,nc,oc->nohw", maps, styles, weight)
            added = added + weights[f"{block}.torgb.bias"][:, None, None]
            added = _activated(added, spec, 1.0, linear=True)
            image = added if image is None else image + added
    assert image is not None
    return image


def _layer(
    weights: Weights, spec: Spec, name: str, maps: Tensor, down: bool = False, gain: float = 1.0,
    linear: bool = False,
) -> Tensor:  # fmt: skip
    weight = weights[f"{name}.weight"]
    kernel = weight.shape[2]
    weight = weight / (weight.shape[1] * kernel**2) ** 0.5
    if down and kernel == 1:
        values = conv2d(halved(maps), weight)
    elif down:
        values = conv2d(_by_scipy(maps, 1)[:, :, 1:-1, 1:-1], weight, stride=2)
    else:
        values = conv2d(maps, weight, padding=kernel // 2)
    bias = weights.get(f"{name}.bias")
    values = values if bias is None else values + bias[:, None, None]
    return _activated(values, spec, gain, linear)


def _with_spread(maps: Tensor, spec: Spec) -> Tensor:
    count, width, height, _ = maps.shape
    group, parts = spec.group or count, spec.group_channels
    added = torch.zeros(count, parts, height, height, dtype=maps.dtype)
    for sample in range(count):
        others = maps[sample % (count // group) :: count // group]
        for part in range(parts):
            some = others[:, part * width // parts : (part + 1) * width // parts]
            added[sample, part] = (some.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([maps, added], dim=1)


def logits(weights: Weights, spec: Spec, images: Tensor, labels: Tensor) -> Tensor:
    """Return the discriminator's logits (n,), float64."""
    weights = {name: value.double() for name, value in weights.items()}
    image, maps = images.double(), None
    for size in spec.sizes[:0:-1]:
        block = f"b{size}"
        if f"{block}.fromrgb.weight" in weights:
            seen = _layer(weights, spec, f"{block}.fromrgb", image)
            maps = seen if maps is None else maps + seen
            image = halved(image)
        assert maps is not None
        inner = _layer(weights, spec, f"{block}.conv0", maps)
        if spec.d_architecture == "resnet":
            shortcut = _layer(weights, spec, f"{block}.skip", maps, True, HALF, linear=True)
            maps = shortcut + _layer(weights, spec, f"{block}.conv1", inner, True, HALF)
        else:
            maps = _layer(weights, spec, f"{block}.conv1", inner, True)
    assert maps is not None
    if spec.d_architecture == "skip":
        maps = maps + _layer(weights, spec, "b4.fromrgb", image)
    if spec.group_channels:
        maps = _with_spread(maps, spec)
    maps = _layer(weights, spec, "b4.conv", maps)
    values = leaky_relu(_dense(weights, "b4.fc", maps.flatten(1)), 0.2) * 2**0.5
    values = _dense(weights, "b4.out", values)
    if spec.classes:
        mapped = _mapped(weights, spec, None, labels)
        return (values * mapped).sum(dim=1) / mapped.shape[1] ** 0.5
    return values[:, 0]
