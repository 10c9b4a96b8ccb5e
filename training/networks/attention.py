"""Self-attention over feature maps (Zhang et al. 2019, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from pipeline.contract import UserError


class SelfAttention(nn.Module):
    """x + γ·o(x) with γ learned from 0: every position attends to all others.

    Queries and keys have an eighth, values half of the channels; keys and values are max-pooled
    2×2, as in the authors' code. (n, c, h, w) → the same.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        inner = max(1, maps // 8)
        self.query = nn.Conv2d(maps, inner, 1, bias=False)
        self.key = nn.Conv2d(maps, inner, 1, bias=False)
        self.value = nn.Conv2d(maps, max(1, maps // 2), 1, bias=False)
        self.out = nn.Conv2d(max(1, maps // 2), maps, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        query = self.query(maps).flatten(2)
        key = max_pool2d(self.key(maps), 2).flatten(2)
        value = max_pool2d(self.value(maps), 2).flatten(2)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=2).to(value.dtype)
        count, _, height, width = maps.shape
        seen = (value @ weights.transpose(1, 2)).view(count, -1, height, width)
        attended: Tensor = maps + self.gamma.to(maps.dtype) * self.out(seen)
        return attended


def require_attention(key: str, height: int, network: nn.Module) -> None:
    """Raise UserError if the network has no attention at a `height` above 0, the value of `key`.

    A DCGAN generator has none after its smallest maps. It is built all the same, so that weights
    trained with that value still load.
    """
    if height and not any(isinstance(layer, SelfAttention) for layer in network.modules()):
        raise UserError(
            f"{key}: {height}: there is no attention after the smallest maps; choose "
            f"{2 * height}, {4 * height}, …, or 0 for none"
        )
