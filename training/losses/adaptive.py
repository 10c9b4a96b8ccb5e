"""Numbers that a loss adapts while it trains: λ of Fisher GAN, k of BEGAN, the margin of MAGAN.

They are in the state's `scalars`, so in checkpoints. They follow means over the whole batch, of all
processes and micro-batches, which therefore have the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from training.machine.distributed import Distributed
from training.options.algorithm import LossOptions
from training.options.losses import LOSS_PROPERTIES

Scalars = dict[str, Tensor]
Follow = Callable[[Mapping[str, Tensor], Scalars, LossOptions, int], Scalars]


@dataclass(frozen=True)
class Adaptive:
    """`start` are the first values by name, the first of which is recorded in each step; `means`
    the stats that they follow; `follow(values, means, options, images)` returns the next values
    after a batch of `images`."""

    start: dict[str, float]
    means: tuple[str, ...]
    follow: Follow


def follow_constraint(
    values: Mapping[str, Tensor], means: Scalars, options: LossOptions, _images: int
) -> Scalars:
    """λ ← λ + ρ·(Ω − 1) (Mroueh & Sercu 2017, algorithm 1)."""
    return {"lambda": values["lambda"] + options.constraint_rate * (means["constraint"] - 1)}


def follow_balance(
    values: Mapping[str, Tensor], means: Scalars, options: LossOptions, _images: int
) -> Scalars:
    """k ← k + λ_k·(γ·E(x) − E(G(z))) within [0, 1] (Berthelot 2017, section 3.4)."""
    away = options.diversity * -means["logit_real"] + means["logit_fake_before"]
    return {"balance_k": (values["balance_k"] + options.balance_rate * away).clamp(0, 1)}


def follow_margin(
    values: Mapping[str, Tensor], means: Scalars, options: LossOptions, images: int
) -> Scalars:
    """m ← E(x) if E(x) < m, E(x) < E(G(z)), and E(G(z)) has not fallen (Wang 2017, algorithm 1).

    Energies are means over `margin_kimg` thousand images, an epoch in the paper; the first margin
    is that of the first ones.
    """
    count = values["margin_images"] + images
    real = values["margin_real"] - means["logit_real"] * images
    fake = values["margin_fake"] - means["logit_fake_before"] * images
    ended = count >= options.margin_kimg * 1000
    on_real, on_fake, margin = real / count, fake / count, values["margin"]
    lower = (on_real < margin) & (on_real < on_fake) & (values["margin_fake_before"] <= on_fake)
    change = ended & ((margin == 0) | lower)
    return {
        "margin": torch.where(change, on_real, margin),
        "margin_fake_before": torch.where(ended, on_fake, values["margin_fake_before"]),
        "margin_images": torch.where(ended, 0, count),
        "margin_real": torch.where(ended, 0, real),
        "margin_fake": torch.where(ended, 0, fake),
    }


_ENERGIES = ("logit_real", "logit_fake_before")
ADAPTIVE = {
    "fisher": Adaptive({"lambda": 0.0}, ("constraint",), follow_constraint),
    "began": Adaptive({"balance_k": 0.0}, _ENERGIES, follow_balance),
    "magan": Adaptive(
        dict.fromkeys(
            ("margin", "margin_fake_before", "margin_images", "margin_real", "margin_fake"), 0.0
        ),
        _ENERGIES,
        follow_margin,
    ),
}
"""The losses that adapt numbers."""


class LossNumbers:
    """The numbers of a loss beside its logits: its own options, and those that it adapts."""

    def __init__(self, options: LossOptions, batch: int, ranks: Distributed) -> None:
        self._options, self._batch, self._ranks = options, batch, ranks
        self._adaptive = ADAPTIVE.get(options.name)
        self._own = {
            name: float(getattr(options, name)) for name in LOSS_PROPERTIES[options.name].options
        }

    def given(
        self, scalars: Scalars, device: torch.device
    ) -> tuple[dict[str, Tensor | float], ...]:
        """Return the numbers by name as the last argument of the loss; nothing if it has none."""
        adapted = dict[str, Tensor]()
        for name, start in self._adaptive.start.items() if self._adaptive else ():
            if name not in scalars:
                scalars[name] = torch.full((), start, device=device)
            adapted[name] = scalars[name]
        return ({**self._own, **adapted},) if self._own or adapted else ()

    def observe(self, scalars: Scalars, stats: Scalars, weight: float) -> Scalars:
        """Adapt the numbers to the `stats` of a batch (this process's part, with its `weight` in
        the whole). Returns stats: the number that the step had, and for BEGAN the measure of
        convergence E(x) + |γ·E(x) − E(G(z))| (section 3.4.1)."""
        if self._adaptive is None:
            return {}
        names, options = self._adaptive.means, self._options
        summed = torch.stack([stats[name].float() for name in names]) * weight
        self._ranks.all_reduce_sum([summed])
        means = dict(zip(names, summed.unbind(), strict=True))
        values = {name: scalars[name] for name in self._adaptive.start}
        recorded = next(iter(values))
        found = {recorded: values[recorded].clone()}
        if recorded == "balance_k":
            real, fake = -means["logit_real"], -means["logit_fake_before"]
            found["convergence"] = real + (options.diversity * real - fake).abs()
        for name, new in self._adaptive.follow(values, means, options, self._batch).items():
            # the logits of an fp16 step that overflows are not finite
            scalars[name].copy_(torch.where(new.isfinite(), new, values[name]))
        return found
