"""A StyleGAN2 generator with the structure of rosinality/stylegan2-pytorch, written from its
description: modules with that project's names, scales and constructor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class EqualLinear(nn.Module):
    def __init__(self, inside: int, outside: int, bias: float, rate: float, active: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outside, inside))
        self.bias = nn.Parameter(torch.full((outside,), bias))
        self.scale, self.rate, self.active = rate / math.sqrt(inside), rate, active

    def forward(self, values: Tensor) -> Tensor:
        values = functional.linear(values, self.weight * self.scale, self.bias * self.rate)
        return functional.leaky_relu(values, 0.2) * 2**0.5 if self.active else values


class PixelNorm(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values / (values.pow(2).mean(1, keepdim=True) + 1e-8).sqrt()


class Filter(nn.Module):
    """A low-pass filter in `kernel`, whose sum is 4; with `up`, zeros between pixels first."""

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("kernel", torch.empty(4, 4))

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        around = (1, 1, 1, 1)
        if self.up:
            spread = images.new_zeros(count, channels, 2 * height, 2 * width)
            spread[:, :, ::2, ::2] = images
            images, around = spread, (2, 1, 2, 1)
        weight = self.kernel.flip(0, 1).expand(channels, 1, 4, 4)
        return functional.conv2d(functional.pad(images, around), weight, groups=channels)


class ModulatedConv2d(nn.Module):
    def __init__(self, inside: int, outside: int, k: int, style: int, up: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outside, inside, k, k))
        self.modulation = EqualLinear(style, inside, 1.0, 1.0, False)
        self.scale, self.k, self.up = 1 / math.sqrt(inside * k * k), k, up
        if up:
            self.blur = Filter(False)

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        drawn = []
        for image, row in zip(images, self.modulation(style), strict=True):
            weight = self.scale * self.weight[0] * row[None, :, None, None]
            if self.k > 1:
                weight = weight * (weight.pow(2).sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
            if self.up:
                one = functional.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
                drawn.append(self.blur(one))
            else:
                drawn.append(functional.conv2d(image[None], weight, padding=self.k // 2))
        return torch.cat(drawn)


class NoiseInjection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))


class FusedLeakyReLU(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels))


class StyledConv(nn.Module):
    def __init__(self, inside: int, outside: int, style: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inside, outside, 3, style, up)
        self.noise, self.activate = NoiseInjection(), FusedLeakyReLU(outside)

    def forward(self, images: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        images = self.conv(images, style) + self.noise.weight * noise
        return functional.leaky_relu(images + self.activate.bias[:, None, None], 0.2) * 2**0.5


class ToRGB(nn.Module):
    def __init__(self, inside: int, style: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inside, 3, 1, style, False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))
        if up:
            self.upsample = Filter(True)

    def forward(self, maps: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
        drawn: Tensor = self.conv(maps, style) + self.bias
        return drawn if image is None else drawn + self.upsample(image)


class Generator(nn.Module):
    def __init__(self, size: int, style: int, layers: int, channel_multiplier: int = 2) -> None:
        super().__init__()
        widths = {4: 512, 8: 512, 16: 512, 32: 512}
        widths |= {side: 16384 * channel_multiplier // side for side in (64, 128, 256, 512, 1024)}
        fully = [EqualLinear(style, style, 0.0, 0.01, True) for _ in range(layers)]
        self.style = nn.Sequential(PixelNorm(), *fully)
        self.input = nn.Module()
        self.input.input = nn.Parameter(torch.empty(1, widths[4], 4, 4))
        self.conv1 = StyledConv(widths[4], widths[4], style, False)
        self.to_rgb1 = ToRGB(widths[4], style, False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise_0", torch.empty(1, 1, 4, 4))
        side = 8
        while side <= size:
            for up in (True, False):
                inside = widths[side // 2] if up else widths[side]
                self.convs.append(StyledConv(inside, widths[side], style, up))
                name = f"noise_{len(self.convs)}"
                self.noises.register_buffer(name, torch.empty(1, 1, side, side))
            self.to_rgbs.append(ToRGB(widths[side], style, True))
            side *= 2

    def forward(self, z: Tensor, truncation: float, truncation_latent: Tensor) -> Tensor:
        """Images with the stored noise, as with `randomize_noise=False`."""
        w = truncation_latent + truncation * (self.style(z) - truncation_latent)
        noise = [getattr(self.noises, f"noise_{n}") for n in range(len(self.convs) + 1)]
        maps = self.conv1(self.input.input.expand(len(z), -1, -1, -1), w, noise[0])
        image = self.to_rgb1(maps, w, None)
        for number, to_rgb in enumerate(self.to_rgbs):
            maps = self.convs[2 * number](maps, w, noise[2 * number + 1])
            maps = self.convs[2 * number + 1](maps, w, noise[2 * number + 2])
            image = to_rgb(maps, w, image)
        return image
