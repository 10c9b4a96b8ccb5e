"""Lazy regularisation (Karras 2020a, appendix B): penalties every few steps.

A penalty with its own optimiser step makes k + 1 steps out of k; the learning rate and the decays
of Adam are corrected for this.
"""

from __future__ import annotations

from dataclasses import replace

from training.config import Config
from training.options.algorithm import OptimizerOptions


def is_due(steps: int, interval: int) -> bool:
    """Return True if an action with this `interval` is due after `steps` steps."""
    return steps % interval == 0


def lazy_adam_settings(options: OptimizerOptions, interval: int) -> OptimizerOptions:
    """λ·c, β₁ᶜ, β₂ᶜ with c = k/(k + 1)."""
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
