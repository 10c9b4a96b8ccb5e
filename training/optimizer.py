"""Optimiser steps: learning rates, lazy regularisation, gradients to new weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from training.config import Config
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.options.algorithm import BlockOptions, BurnInOptions, OptimizerOptions

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
    """Set the learning rate for `seen` images: it decays linearly from `decay_from_kimg` thousand
    on, to 0 at `decay_kimg`, or follows the burn-in, which may also change Adam's beta2."""
    if not (options.decay_kimg or burn_in.kimg):
        return
    rate = options.lr * burn_in_value(burn_in, 1.0, burn_in.lr, seen)
    if options.decay_kimg:
        start, end = options.decay_from_kimg * 1000, options.decay_kimg * 1000
        rate *= min(1.0, max(0.0, (end - seen) / (end - start)))
    for group in optimizer.param_groups:
        group["lr"] = rate
        if burn_in.beta2:
            beta2 = burn_in_value(burn_in, options.beta2, burn_in.beta2, seen)
            group["betas"] = (group["betas"][0], beta2)


def steps_of(network: Literal["d", "g"], blocks: BlockOptions, steps: int) -> int:
    """Return how many of the first `steps` steps have trained the discriminator or generator."""
    if not blocks.cycle:
        return steps
    whole, rest = divmod(steps, blocks.cycle)
    if network == "d":
        return whole * blocks.d_steps + min(rest, blocks.d_steps)
    return whole * blocks.g_steps + max(0, rest - blocks.d_steps)


def is_due(steps: int, interval: int) -> bool:
    """Return True if an action with this `interval` is due after `steps` steps."""
    return steps % interval == 0


def step_kind(config: Config, steps: int) -> tuple[bool, bool, bool]:
    """Return whether the step after `steps` others is due for penalties, for path lengths, and in
    the discriminator's block. Steps of a kind have the same operations."""
    loss, blocks = config.loss, config.blocks
    d_steps, g_steps = (steps_of(name, blocks, steps) for name in ("d", "g"))
    paths = bool(loss.path_length) and is_due(g_steps, loss.path_interval)
    in_d_block = blocks.cycle > 0 and steps % blocks.cycle < blocks.d_steps
    return is_due(d_steps, loss.interval), paths, in_d_block


def lazy_adam_settings(options: OptimizerOptions, interval: int) -> OptimizerOptions:
    """Correct Adam for a penalty with its own step every k = `interval` steps, which makes k + 1
    steps out of k: λ·c, β₁ᶜ, β₂ᶜ with c = k/(k + 1) (Karras 2020a, appendix B)."""
    share = interval / (interval + 1)
    return replace(
        options, lr=options.lr * share, beta1=options.beta1**share, beta2=options.beta2**share
    )  # fmt: skip


def optimizers(config: Config) -> tuple[OptimizerOptions, OptimizerOptions]:
    """Return the options of both optimisers, corrected if a penalty has steps of its own."""
    generator, discriminator, loss = config.g_optimizer, config.d_optimizer, config.loss
    if loss.path_length:
        generator = lazy_adam_settings(generator, loss.path_interval)
    if loss.own_step and (loss.r1 or loss.dragan):
        discriminator = lazy_adam_settings(discriminator, loss.interval)
    return generator, discriminator


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


def loss_scale(scaler: GradScaler, device: torch.device) -> Tensor | float:
    """Return the loss scale, on the device: reading it would wait for the device. 1.0 without."""
    return scaler.scale(torch.ones((), device=device)) if scaler.is_enabled() else 1.0


def step_was_skipped(norm: Tensor, scaler: GradScaler) -> Tensor:
    """Return 1.0 if fp16 overflow made the optimiser skip the step with this gradient norm, else
    0.0, on the device. 0.0 too if smaller scales did not help: then the run has diverged."""
    if not scaler.is_enabled():
        return torch.zeros_like(norm)
    may_help = torch.as_tensor(loss_scale(scaler, norm.device)) >= MIN_LOSS_SCALE
    return (~norm.isfinite() & may_help).to(norm.dtype)
