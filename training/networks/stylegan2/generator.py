"""The complete generator with styles: what StyleGAN2 and StyleGAN3 have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.base import Generator
from training.networks.conditioning import require_labels
from training.networks.stylegan2.mapping import StyleMapping
from training.options.styled import StyledGeneratorOptions


class StyledGenerator(Generator):
    """A generator of two parts: `mapping`, then `synthesis`, whose `num_ws` layers have a w each.

    While training, `forward` updates the mean w and mixes styles: with probability
    `style_mixing_prob`, the layers from a random one on get the w of other latents (Karras 2019,
    section 3.1). In evaluation it uses `truncation_psi`.
    """

    def __init__(
        self, options: StyledGeneratorOptions, shape: ImageShape, synthesis: nn.Module, num_ws: int
    ) -> None:
        super().__init__()
        classes = 0
        if options.condition != "none":
            require_labels("generator.condition", shape)
            classes = shape.classes
        self.z_dim, self.w_dim, self.style_mixing_prob = (
            options.z_dim, options.w_dim, options.style_mixing_prob
        )  # fmt: skip
        self.synthesis, self.num_ws = synthesis, num_ws
        self.mapping = StyleMapping(
            options.z_dim,
            classes,
            options.w_dim,
            options.mapping_layers,
            options.mapping_lr_multiplier,
            self.num_ws,
            options.w_avg_beta,
        )

    @property
    def w_avg(self) -> Tensor:
        """The mean w, float32 (w_dim,)."""
        return self.mapping.w_avg

    def forward(
        self, latents: Tensor, labels: Tensor, truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:  # fmt: skip
        if self.training:
            return self.synthesis(self.styles(latents, labels))  # type: ignore[no-any-return]
        ws = self.mapping(latents, labels, truncation_psi, truncation_cutoff)
        images: Tensor = self.synthesis(ws)
        return images

    def styles(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the ws (n, num_ws, w_dim) for training: with style mixing, drawn from PyTorch's
        global random state.

        As in the published code, one mixing is drawn per batch.
        """
        ws: Tensor = self.mapping(latents, labels)
        if self.style_mixing_prob == 0 or not self.training:
            return ws
        # all random numbers are drawn on the CPU, so no step waits for a GPU
        start = (
            int(torch.randint(1, self.num_ws, (), device="cpu")) if self.num_ws > 1 else self.num_ws
        )
        if float(torch.rand((), device="cpu")) >= self.style_mixing_prob:
            return ws
        others = torch.randn_like(latents)
        mixed: Tensor = self.mapping.mix(others, labels)
        return torch.cat([ws[:, :start], mixed[:, start:]], dim=1)
