"""A route through the latent space: points, and the images at positions between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.grid import Pixels
from training.latent.interpolation import Curve, points_along
from training.latent.space import LatentSpace
from training.latent.timing import Floats


@dataclass(frozen=True)
class Route:
    """`points` are (n, z_dim) in z or (n, num_ws, w_dim) in w. All images have the `label` (1,):
    labels cannot be interpolated."""

    space: LatentSpace
    points: Tensor
    label: Tensor
    where: Literal["z", "w"]
    curve: Curve
    closed: bool = False

    @property
    def pairs(self) -> int:
        """The number of pairs of neighbours."""
        return len(self.points) if self.closed else len(self.points) - 1

    def ws(self, positions: Floats) -> Tensor:
        """Return ws (m, num_ws, w_dim) at ascending positions (m,)."""
        device = self.points.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        along = torch.from_numpy(positions).to(device, kind)
        keep_length = self.where == "z"  # as `slerp`, so that normal latents stay typical
        found = points_along(self.points, along, self.curve, self.closed, keep_length)
        return self.space.map(found, self.labels(len(found))) if self.where == "z" else found

    @torch.no_grad()
    def images(
        self, positions: Floats, psi: float = 1.0, change: Callable[[Tensor], Tensor] | None = None
    ) -> Pixels:
        """Return images uint8 (m, height, width, channels) at ascending positions (m,), truncated
        to psi, or after `change` of the ws (m, num_ws, w_dim)."""
        ws = self.ws(positions)
        ws = change(ws) if change else self.space.truncate(ws, psi)
        return self.space.generate(ws, self.labels(len(ws)))

    def labels(self, count: int) -> Tensor:
        """Return the label for `count` images (count,)."""
        return self.label.expand(count)


@torch.no_grad()
def find_route(
    space: LatentSpace, latents: Tensor, labels: Tensor, where: Literal["z", "w"] | None = None,
    curve: Curve | None = None, closed: bool = False,
) -> Route:  # fmt: skip
    """Return the route through latents (n, z_dim), with the first of the labels (n,).

    Default: in w and straight if there is a mapping, otherwise spherical in z.
    """
    label = labels[:1]
    where = where or ("w" if space.has_mapping else "z")
    curve = curve or ("lerp" if where == "w" else "slerp")
    points = latents if where == "z" else space.map(latents, label.expand(len(latents)))
    return Route(space, points, label, where, curve, closed)
