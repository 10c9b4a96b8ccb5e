"""Learning rates that fall."""

from __future__ import annotations

import torch

from training.config import Optimizer


def set_rate(optimizer: torch.optim.Optimizer, table: Optimizer, seen: int) -> None:
    """The rate after `seen` images: it falls linearly to 0 at `decay_kimg` thousand."""
    if table.decay_kimg:
        rate = table.lr * max(0.0, 1 - seen / (table.decay_kimg * 1000))
        for group in optimizer.param_groups:
            group["lr"] = rate
