"""Schedules: pure functions of the number of images seen."""

from __future__ import annotations

import math

import torch

from training.options.algorithm import BurnInOptions, OptimizerOptions

NO_BURN_IN = BurnInOptions()


def burn_in_value(options: BurnInOptions, start: float, end: float, seen: int) -> float:
    """Return a value from `start` to `end` along half a cosine over the burn-in's `kimg`, then
    `end`. Without a burn-in, `start`."""
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
    """Set the learning rate for `seen` images: it decays linearly to 0 at `decay_kimg` thousand,
    or follows the burn-in, which may also change Adam's beta2."""
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
