"""The input of the synthesis: Fourier features that w rotates and shifts (Karras 2021, section 3.2
and appendix F)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.networks.layers import full_precision
from training.networks.stylegan2.equalized import FullyConnectedLayer
from training.networks.stylegan3.schedule import LayerMaps


class SynthesisInput(nn.Module):
    """w (n, w_dim) → float32 (n, channels, size, size): random waves below the cutoff of the first
    layer, mixed by a learned matrix.

    `transform` (3, 3) is applied to the image's coordinates before the learned rotation and
    translation: a point p of the image shows what is at `transform`·p, with (0, 0) in the middle
    and sides of length 1. Waves that it takes above the cutoff fade.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, maps: LayerMaps) -> None:
        super().__init__()
        self.maps = maps
        # uniform in the disc: a Gaussian's direction, and the square root of a uniform area
        waves = torch.randn(maps.channels, 2)
        squares = waves.square().sum(dim=1, keepdim=True)
        areas = 1 - (-squares / 2).exp()
        waves = waves * (areas / squares).sqrt() * maps.cutoff
        self.weight = nn.Parameter(torch.randn(maps.channels, maps.channels))
        self.affine = FullyConnectedLayer(w_dim, 4)
        with torch.no_grad():  # starts as the identity
            self.affine.weight.zero_()
            self.affine.bias[0] = 1
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", waves)
        self.register_buffer("phases", torch.rand(maps.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        maps = self.maps
        with full_precision(w):
            waves, phases = self._waves(self.affine(w.to(self.affine.weight.dtype)))
            # a wave at or above half the sampling rate cannot be represented
            band = maps.rate / 2 - maps.cutoff
            fading = (1 - (waves.norm(dim=2) - maps.cutoff) / band).clamp(0, 1)
            steps = torch.arange(maps.size, device=w.device, dtype=waves.dtype)
            place = (steps + (1 - maps.size) / 2) / maps.rate
            angles = place[None, None, :, None] * waves[:, None, None, :, 0]
            angles = angles + place[None, :, None, None] * waves[:, None, None, :, 1]
            values = ((angles + phases[:, None, None]) * (2 * math.pi)).sin()
            values = values * fading[:, None, None]
            mixed: Tensor = values @ (self.weight / math.sqrt(maps.channels)).t()
        return mixed.permute(0, 3, 1, 2)

    def _waves(self, learned: Tensor) -> tuple[Tensor, Tensor]:
        """Return frequencies (n, channels, 2) and phases (n, channels) after the transforms, the
        first of which are given by `learned` (n, 4): cosine, sine, and a shift, in units of the
        length of the first two."""
        cosine, sine, right, down = (learned / learned[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        given, shift = self.transform[:2, :2], self.transform[:2, 2]
        # the row vectors f·R for each wave, where R is the rotation
        first = self.freqs[:, 0] * cosine[:, None] + self.freqs[:, 1] * sine[:, None]
        second = self.freqs[:, 1] * cosine[:, None] - self.freqs[:, 0] * sine[:, None]
        turned = torch.stack([first, second], dim=2)
        moved = shift - torch.stack([right, down], dim=1)
        phases = self.phases + (turned * moved[:, None]).sum(dim=2)
        return turned @ given, phases
