"""From gradients to new weights: added up over processes, clipped, applied."""

from __future__ import annotations

import torch
from torch import Tensor

from training.config import Optimizer
from training.ranks import ALONE, Ranks


def apply_gradients(
    optimizer: torch.optim.Optimizer, table: Optimizer, ranks: Ranks = ALONE
) -> Tensor:
    """Add up the gradients of all processes, clip and apply them; their norm before clipping."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    ranks.add_up(gradients)
    norm = torch.nn.utils.get_total_norm(gradients)
    if table.clip:
        torch.nn.utils.clip_grads_with_norm_(weights, table.clip, norm)
    optimizer.step()
    return norm
