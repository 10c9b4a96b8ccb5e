"""The discriminator's forward pass (augmentation, noise, packing) and its gradient penalties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from training.augmentation import AdaController, Augmentation
from training.config import Config
from training.losses import dragan, gradient_penalty, squared_gradient
from training.machine.distributed import Distributed
from training.networks import DiscriminatorOutput, deinterleave, interleave
from training.objective import Stats
from training.state import State
from training.techniques.noise import add_noise, noise_scale
from training.techniques.packing import pack, unpack
from training.techniques.schedule import burn_in_value
from training.techniques.unroll import Weights

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DiscriminatorPass:
    """The forward pass of the discriminator of `state`, as configured.

    All random numbers come from `random` and from `augmentation`, whose strength `controller`
    adapts.
    """

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Distributed,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        self._config, self._state, self._device, self._random = config, state, device, random
        self.packing = config.discriminator.packing
        self.augmentation = Augmentation(config.augment)
        self.controller = AdaController(config.augment, config.batch, ranks)
        self._network: Any = state.discriminator
        if config.compile:  # it shares the weights; the compiled network is never saved
            self._network = torch.compile(self._network)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the networks."""
        kind = _AUTOCAST.get(self._config.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def __call__(
        self, samples: Tensor, labels: Tensor, weights: Weights | None = None, twice: bool = False
    ) -> DiscriminatorOutput:
        """Return the discriminator's output (with other `weights`, if given) for packed images.

        `twice`: a double backward pass will follow, which compiled networks do not support.
        """
        options, discriminator = self._config.augment, self._state.discriminator
        with self.autocast():
            p = self.controller.p(self._state.scalars)
            images = self.augmentation(unpack(samples, self.packing), p, self._random)
            scale = noise_scale(options.noise, options.noise_kimg, self._state.seen)
            samples = pack(add_noise(images, scale, self._random), self.packing)
            # the memory format of the networks; a convolution would convert slowly
            if self._config.channels_last:
                samples = samples.contiguous(memory_format=torch.channels_last)
            verdict: DiscriminatorOutput
            if weights is None:
                verdict = (discriminator if twice else self._network)(samples, labels)
            else:
                verdict = functional_call(discriminator, weights, (samples, labels))
        return verdict

    def real_and_fake(
        self,
        real: Tensor,
        fake: Tensor,
        labels: tuple[Tensor, Tensor],
        weights: Weights | None = None,
    ) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Return the outputs for real and for fake packed images, from one pass if that is
        equivalent."""
        discriminator = self._state.discriminator
        with self.autocast():  # around both, so that the weights are cast once
            if discriminator.joint_batch or (
                weights is None and discriminator.accepts_interleaved(len(real))
            ):
                pairs = interleave(real, fake), interleave(*labels)
                return deinterleave(self(*pairs, weights))
            return self.real_and_fake_separately(real, fake, labels, weights)

    def real_and_fake_separately(
        self,
        real: Tensor,
        fake: Tensor,
        labels: tuple[Tensor, Tensor],
        weights: Weights | None = None,
    ) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
        """Like `real_and_fake`, with separate passes, so that a derivative with respect to the
        fakes costs only theirs."""
        with self.autocast():
            return self(real, labels[0], weights), self(fake, labels[1], weights)

    def penalty_weight(self, name: str) -> float:
        """Return the weight of a penalty in the steps in which it is applied."""
        options, burn_in = self._config.loss, self._config.burn_in
        weight: float = getattr(options, name) * options.interval
        return weight * burn_in_value(burn_in, 1.0, burn_in.penalty, self._state.seen)

    def penalties(self, real: Tensor, fake: Tensor, labels: tuple[Tensor, Tensor]) -> Stats:
        """Return the configured penalties on packed images."""
        options = self._config.loss

        def on_real(images: Tensor) -> Tensor:
            return self(images, labels[0], twice=True).mean_logit

        def on_fake(images: Tensor) -> Tensor:
            return self(images, labels[1], twice=True).mean_logit

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self._random, device=self._device)

        found: Stats = {}
        scale = self._state.d_scaler.get_scale()
        if options.r1:
            found["r1"] = squared_gradient(on_real, real, scale)
        if options.r2:
            found["r2"] = squared_gradient(on_fake, fake, scale)
        if options.gp:
            share = uniform(len(real), 1, 1, 1)
            found["gp"] = gradient_penalty(on_real, real, fake, share, scale)
        if options.dragan:
            noise, share = uniform(*real.shape), uniform(len(real), 1, 1, 1)
            found["dragan"] = dragan(on_real, real, noise, share, scale)
        return found
