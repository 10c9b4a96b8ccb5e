"""The synthesis network of StyleGAN3, and the complete generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.stylegan2.generator import StyledGenerator
from training.networks.stylegan3.input import SynthesisInput
from training.networks.stylegan3.layer import Layer, SynthesisLayer, ToRgbLayer
from training.networks.stylegan3.schedule import layer_maps
from training.options.styled import StyleGan3Generator


class SynthesisNetwork(nn.Module):
    """Styles float (n, num_ws, w_dim) → images float32 (n, channels, side, side): the first w is
    for the input, the last for the image layer."""

    input: SynthesisInput

    def __init__(self, options: StyleGan3Generator, shape: ImageShape) -> None:
        super().__init__()
        self.output_scale = options.output_scale
        maps = layer_maps(options, shape)
        self.input = SynthesisInput(options.w_dim, maps[0])
        self.layer_names: list[str] = []
        for number, after in enumerate(maps):
            before = maps[max(number - 1, 0)]
            kind = ToRgbLayer if number == len(maps) - 1 else SynthesisLayer
            self.layer_names.append(f"L{number}_{after.size}_{after.channels}")
            setattr(self, self.layer_names[-1], kind(options, before, after))
        self.num_ws = len(maps) + 1

    def forward(self, ws: Tensor) -> Tensor:
        each = ws.unbind(dim=1)
        images: Tensor = self.input(each[0])
        kind = images.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            images = images.to(torch.get_autocast_dtype(kind))
        for name, w in zip(self.layer_names, each[1:], strict=True):
            layer: Layer = getattr(self, name)
            images = layer(images, w)
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        return exact * self.output_scale


class StyleGan3G(StyledGenerator):
    """The generator: `mapping`, then `synthesis`."""

    synthesis: SynthesisNetwork

    def __init__(self, options: StyleGan3Generator, shape: ImageShape) -> None:
        synthesis = SynthesisNetwork(options, shape)
        super().__init__(options, shape, synthesis, synthesis.num_ws)
