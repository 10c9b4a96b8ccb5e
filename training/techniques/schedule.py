"""Values that change as a run goes on: functions of images seen alone."""

from __future__ import annotations

import math

import torch

from training.config import BurnInOptions, OptimizerOptions

NO_BURN_IN = BurnInOptions()


def burn_in_value(options: BurnInOptions, start: float, end: float, seen: int) -> float:
    """From `start` to `end` along half a cosine in the burn-in's `kimg`; `end` from then on.
    Without a burn-in it stays at `start`."""
    if not options.kimg:
        return start
    share = min(1.0, seen / (options.kimg * 1000))
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rate(
    optimizer: torch.optim.Optimizer,
    options: OptimizerOptions,
    seen: int,
    burn_in: BurnInOptions = NO_BURN_IN,
) -> None:
    """The rate after `seen` images: it falls linearly to 0 at `decay_kimg` thousand, or as the
    burn-in says, which may change Adam's second moment too."""
    if not (options.decay_kimg or burn_in.kimg):
        return
    rate = options.lr * burn_in_value(burn_in, 1.0, burn_in.lr, seen)
    if options.decay_kimg:
        rate *= max(0.0, 1 - seen / (options.decay_kimg * 1000))
    for group in optimizer.param_groups:
        group["lr"] = rate
        if burn_in.beta2:
            beta2 = burn_in_value(burn_in, options.beta2, burn_in.beta2, seen)
            group["betas"] = (group["betas"][0], beta2)
