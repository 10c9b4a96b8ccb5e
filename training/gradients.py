"""From gradients to new weights: all-reduce, unscaling, clipping, optimiser step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.options.algorithm import OptimizerOptions

MIN_LOSS_SCALE = 2.0**-10
"""Below this loss scale, infinite gradients are not caused by the scale."""


def apply_gradients(
    optimizer: torch.optim.Optimizer,
    options: OptimizerOptions,
    ranks: Distributed = SINGLE_PROCESS,
    scaler: GradScaler | None = None,
) -> Tensor:
    """Sum the gradients of all processes, clip and apply them; return their norm before clipping.

    If `scaler` is enabled, the gradients are those of a scaled loss; infinite ones are not applied,
    and the scale is halved (Micikevicius 2018). All processes see the sum, so they agree.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    ranks.all_reduce_sum(gradients)
    scaling = scaler if scaler is not None and scaler.is_enabled() else None
    if scaling is not None:
        scaling.unscale_(optimizer)
    norm = torch.nn.utils.get_total_norm(gradients)
    if options.clip:
        torch.nn.utils.clip_grads_with_norm_(weights, options.clip, norm)
    if scaling is None:
        optimizer.step()
    else:
        scaling.step(optimizer)
        scaling.update()
    return norm


def step_was_skipped(norm: Tensor, scaler: GradScaler) -> bool:
    """True if fp16 overflow made the optimiser skip this step. False if smaller scales did not
    help: then the run has diverged."""
    if not scaler.is_enabled() or bool(norm.isfinite()):
        return False
    return scaler.get_scale() >= MIN_LOSS_SCALE
