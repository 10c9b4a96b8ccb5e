"""Lazy regularisation (Karras 2020a, appendix B): penalties every so many steps.

A penalty that takes an optimiser step of its own makes k + 1 steps of k: the rate and the decays
of Adam are corrected for it.
"""

from __future__ import annotations

from dataclasses import replace

from training.config import Config, Optimizer


def is_due(steps: int, interval: int) -> bool:
    """Whether what happens every `interval` steps happens after `steps` of them."""
    return steps % interval == 0


def corrected(table: Optimizer, interval: int) -> Optimizer:
    """λ·c, β₁ᶜ, β₂ᶜ with c = k/(k + 1)."""
    share = interval / (interval + 1)
    return replace(
        table, lr=table.lr * share, beta1=table.beta1**share, beta2=table.beta2**share
    )  # fmt: skip


def optimizers(config: Config) -> tuple[Optimizer, Optimizer]:
    """The tables of the generator's and of the discriminator's optimiser, corrected where a
    penalty has steps of its own."""
    generator, judge, loss = config.g_optimizer, config.d_optimizer, config.loss
    if loss.path_length:
        generator = corrected(generator, loss.path_interval)
    if loss.own_step and (loss.r1 or loss.dragan):
        judge = corrected(judge, loss.interval)
    return generator, judge
