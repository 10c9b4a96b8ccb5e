"""What the discriminator says of images, and how steeply it says it: augmented, noisy, packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from training.augmentation import Augmentation, Controller
from training.config import Config
from training.losses import dragan, gradient_penalty, squared_gradient
from training.machine.ranks import Ranks
from training.networks import Verdict, interleave, separate
from training.objective import Facts
from training.state import State
from training.techniques.noise import add_noise, noise_scale
from training.techniques.packing import pack, unpack
from training.techniques.schedule import burnt_in
from training.techniques.unroll import Weights

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Judging:
    """The discriminator of `state` as the configuration has it look.

    All draws are from `random` and from `augmentation`, whose strength `controller` adapts.
    """

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Ranks,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        self._config, self._state, self._device, self._random = config, state, device, random
        self.packing = config.discriminator.packing
        self.augmentation = Augmentation(config.augment)
        self.controller = Controller(config.augment, config.batch, ranks)
        self._look: Any = state.discriminator
        if config.compile:  # it shares the weights; what is saved is never the compiled one
            self._look = torch.compile(self._look)

    def autocast(self) -> torch.autocast:
        """The precision of the networks' arithmetic."""
        kind = _AUTOCAST.get(self._config.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def __call__(
        self, samples: Tensor, labels: Tensor, weights: Weights | None = None, twice: bool = False
    ) -> Verdict:
        """What the discriminator (with other `weights`, if given) says of packed images.

        `twice`: it will be differentiated twice, which compiled networks cannot be.
        """
        table, judge = self._config.augment, self._state.discriminator
        with self.autocast():
            p = self.controller.p(self._state.scalars)
            images = self.augmentation(unpack(samples, self.packing), p, self._random)
            scale = noise_scale(table.noise, table.noise_kimg, self._state.seen)
            samples = pack(add_noise(images, scale, self._random), self.packing)
            if self._config.channels_last:  # as the networks are; a convolution converts slowly
                samples = samples.contiguous(memory_format=torch.channels_last)
            verdict: Verdict
            if weights is None:
                verdict = (judge if twice else self._look)(samples, labels)
            else:
                verdict = functional_call(judge, weights, (samples, labels))
        return verdict

    def both(
        self,
        real: Tensor,
        fake: Tensor,
        labels: tuple[Tensor, Tensor],
        weights: Weights | None = None,
    ) -> tuple[Verdict, Verdict]:
        """The verdicts on real and on fake packed images, from one pass where that is the same."""
        judge = self._state.discriminator
        with self.autocast():  # around both: the weights are cast once
            if judge.together or (weights is None and judge.judges_pairs(len(real))):
                pairs = interleave(real, fake), interleave(*labels)
                return separate(self(*pairs, weights))
            return self.apart(real, fake, labels, weights)

    def apart(
        self,
        real: Tensor,
        fake: Tensor,
        labels: tuple[Tensor, Tensor],
        weights: Weights | None = None,
    ) -> tuple[Verdict, Verdict]:
        """As `both`, from a pass each, so that a derivative by the fakes costs theirs alone."""
        with self.autocast():
            return self(real, labels[0], weights), self(fake, labels[1], weights)

    def penalty_weight(self, name: str) -> float:
        """What a penalty counts in the steps that it is applied in."""
        table, burn_in = self._config.loss, self._config.burn_in
        weight: float = getattr(table, name) * table.interval
        return weight * burnt_in(burn_in, 1.0, burn_in.penalty, self._state.seen)

    def penalties(self, real: Tensor, fake: Tensor, labels: tuple[Tensor, Tensor]) -> Facts:
        """Those that the configuration asks for, on packed images."""
        table = self._config.loss

        def on_real(images: Tensor) -> Tensor:
            return self(images, labels[0], twice=True).score

        def on_fake(images: Tensor) -> Tensor:
            return self(images, labels[1], twice=True).score

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self._random, device=self._device)

        found: Facts = {}
        scale = self._state.d_scaler.get_scale()
        if table.r1:
            found["r1"] = squared_gradient(on_real, real, scale)
        if table.r2:
            found["r2"] = squared_gradient(on_fake, fake, scale)
        if table.gp:
            share = uniform(len(real), 1, 1, 1)
            found["gp"] = gradient_penalty(on_real, real, fake, share, scale)
        if table.dragan:
            noise, share = uniform(*real.shape), uniform(len(real), 1, 1, 1)
            found["dragan"] = dragan(on_real, real, noise, share, scale)
        return found
