"""From latents and labels to w (Karras 2019, section 2; Karras 2020b, appendix C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from training.networks.layers import full_precision
from training.networks.stylegan2.equalized import FullyConnectedLayer


def normalize_2nd_moment(values: Tensor) -> Tensor:
    """Scale rows (n, k) to a mean square of 1."""
    return values * (values.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """Latents (n, z_dim) and labels int64 (n,) → float32 (n, w_dim).

    `z_dim` or `classes` may be 0. Always in float32, as published.
    """

    embed: FullyConnectedLayer
    fc0: FullyConnectedLayer

    def __init__(
        self, z_dim: int, classes: int, w_dim: int, layers: int, lr_multiplier: float
    ) -> None:
        super().__init__()
        self.z_dim, self.classes, self.layers = z_dim, classes, layers
        inside = z_dim
        if classes:
            self.embed = FullyConnectedLayer(classes, w_dim)
            inside += w_dim
        for number in range(layers):
            layer = FullyConnectedLayer(inside, w_dim, True, lr_multiplier)
            setattr(self, f"fc{number}", layer)
            inside = w_dim

    def forward(self, latents: Tensor | None, labels: Tensor) -> Tensor:
        with full_precision(self.fc0.weight):
            parts = []
            if latents is not None:
                parts.append(normalize_2nd_moment(latents.to(self.fc0.weight.dtype)))
            if self.classes:
                known = one_hot(labels, self.classes).to(self.embed.weight.dtype)
                parts.append(normalize_2nd_moment(self.embed(known)))
            values = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            for number in range(self.layers):
                values = getattr(self, f"fc{number}")(values)
        return values


class StyleMapping(MappingNetwork):
    """The generator's mapping network: (n, z_dim) → (n, num_ws, w_dim), one w per layer.

    `w_avg` (w_dim,) is the running mean of w, updated while training.
    """

    w_avg: Tensor

    def __init__(
        self, z_dim: int, classes: int, w_dim: int, layers: int, lr_multiplier: float,
        num_ws: int, w_avg_beta: float,
    ) -> None:  # fmt: skip
        super().__init__(z_dim, classes, w_dim, layers, lr_multiplier)
        self.num_ws, self.w_avg_beta = num_ws, w_avg_beta
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, latents: Tensor | None, labels: Tensor, truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:  # fmt: skip
        """`truncation_psi` moves w towards `w_avg` (Karras 2019, appendix B) in the first
        `truncation_cutoff` layers (None: in all)."""
        values = super().forward(latents, labels)
        if self.training:
            mean = values.detach().mean(dim=0)
            self.w_avg.copy_(mean.lerp(self.w_avg, self.w_avg_beta))
        ws = self.broadcast(values)
        if truncation_psi != 1:
            cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
            drawn = self.w_avg.lerp(ws[:, :cut], truncation_psi)
            ws = torch.cat([drawn, ws[:, cut:]], dim=1)
        return ws

    def mix(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the ws of the second latents in style mixing; they do not update `w_avg`."""
        return self.broadcast(super().forward(latents, labels))

    def broadcast(self, values: Tensor) -> Tensor:
        """(n, w_dim) → (n, num_ws, w_dim)."""
        return values[:, None].expand(-1, self.num_ws, -1)
