"""Adaptive augmentation probability: p follows the overfitting of the discriminator (Karras et al.
2020a).

r_t, the mean sign of its logits on real images, is near 1 if it has memorised them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.machine.distributed import Distributed
from training.options.algorithm import AugmentOptions


def adjust_p(p: float, overfitting: float, options: AugmentOptions, images: int) -> float:
    """Return p after `images` more with r_t = `overfitting`: a step of fixed size towards the
    target, within [0, 1]; `ada_kimg` thousand images from 0 to 1."""
    away = overfitting - options.ada_target
    step = images / (options.ada_kimg * 1000)
    return min(1.0, max(0.0, p + step * ((away > 0) - (away < 0))))


class AdaController:
    """The probability p, kept in the state's `scalars`, so that it is part of checkpoints.

    Unlike in the paper, p follows the r_t of the interval before the last one: that value has
    reached the CPU meanwhile, so no step waits for the device. The delay, `ada_interval` batches,
    is short: p takes `ada_kimg` to move from 0 to 1.

    The scalars are `augment_p`, `augment_earlier` (the sum of r_t over the last interval) and,
    since that interval ended, `augment_signs` (a sum of r_t) and `augment_steps`.
    """

    def __init__(self, options: AugmentOptions, batch: int, ranks: Distributed) -> None:
        self._options, self._batch, self._ranks = options, batch, ranks
        self._sent: tuple[Tensor, Tensor, torch.cuda.Event] | None = None

    def p(self, scalars: dict[str, Tensor]) -> float:
        """Return the current probability."""
        if not isinstance(self._options.p, str):
            return self._options.p
        return float(scalars["augment_p"]) if "augment_p" in scalars else 0.0

    def observe(
        self, scalars: dict[str, Tensor], overfitting: Tensor, weight: float
    ) -> dict[str, Tensor]:
        """Add the r_t of one batch (this process's part, with its `weight` in the whole), and
        adjust p every `ada_interval` batches. Returns the stats of the step, with p before the
        adjustment."""
        options = self._options
        if not options.ada:
            return {}
        p = self.p(scalars)
        facts = {"augment_p": torch.full((), p, device=overfitting.device)}
        if not isinstance(options.p, str):
            return facts
        signs = overfitting.float() * weight
        self._ranks.all_reduce_sum(
            [signs]
        )  # in each step, because a checkpoint contains the sum over all processes
        if "augment_signs" in scalars:
            signs = signs + scalars["augment_signs"]
        steps = int(scalars["augment_steps"]) + 1 if "augment_steps" in scalars else 1
        if steps >= options.ada_interval:
            if "augment_earlier" in scalars:
                overall = self._read(scalars["augment_earlier"]) / steps
                p = adjust_p(p, overall, options, steps * self._batch)
            scalars["augment_p"] = torch.tensor(p, dtype=torch.float64)
            scalars["augment_earlier"] = signs
            self._send(signs)
            signs, steps = torch.zeros_like(signs), 0
        scalars["augment_signs"], scalars["augment_steps"] = signs, torch.tensor(float(steps))
        return facts

    def _send(self, value: Tensor) -> None:
        """Start to copy a value from a GPU to the CPU."""
        if value.is_cuda:
            there, done = value.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(value.device))
            self._sent = value, there, done

    def _read(self, value: Tensor) -> float:
        """Return a value that was sent an interval ago; of a state that was loaded, the value
        itself."""
        if self._sent is not None and self._sent[0] is value:
            self._sent[2].synchronize()
            return float(self._sent[1])
        return float(value)
