"""The loss of each network: the discriminator's forward pass (augmentation, noise, packing), the
adversarial loss, auxiliary losses and gradient penalties."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from training import losses
from training.augmentation import AdaController, Augmentation
from training.config import Config
from training.double_backward import double_backward
from training.machine.distributed import Distributed
from training.networks import DiscriminatorOutput, deinterleave, interleave, latent_codes
from training.optimizer import burn_in_value, is_due, loss_scale, steps_of
from training.options.architectures import is_semi_supervised
from training.state import State
from training.techniques import (
    Target,
    Weights,
    add_noise,
    blur_images,
    draw_targets,
    fading,
    for_each_logit,
    pack,
    unpack,
    unroll,
)  # fmt: skip

Stats = dict[str, Tensor]
"""Scalars of a step by name."""
LossAndStats = tuple[Tensor, Stats]
Labels = tuple[Tensor, Tensor]
"""Classes (n,) of the real and of the fake images."""
Outputs = tuple[DiscriminatorOutput, DiscriminatorOutput]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class GanLoss:
    """The losses of the networks of `state`, as configured.

    All random numbers come from `random` and from `augmentation`, whose strength `controller`
    adapts.
    """

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Distributed,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        self._config, self._state, self._device, self._random = config, state, device, random
        self._packing = config.discriminator.packing
        self._images_per_sample = self._packing * config.method.sets
        self._semi_supervised = is_semi_supervised(config.discriminator)
        self._adversarial = losses.LOSSES[config.loss.name]
        self.augmentation = Augmentation(config.augment)
        self.controller = AdaController(config.augment, config.batch, ranks)
        self._critic = self._build_critic()
        self._network = self.compiled(self._critic)
        self._generator = self.compiled(state.generator)

    def _build_critic(self) -> Any:
        """Return the network whose logits are trained, a discriminator: called with images and the
        labels (or what a method compares beside images)."""
        return self._state.discriminator

    def compiled(self, network: Any) -> Any:
        """Return the network, compiled if that is configured. It shares the weights, and is never
        saved."""
        return torch.compile(network) if self._config.compile else network

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the networks."""
        kind = _AUTOCAST.get(self._config.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return generated images (n, c, h, w) of latents (n, z_dim) and labels (n,)."""
        with self.autocast():
            images: Tensor = self._generator(latents, labels)
        return images

    def labels(self, labels: Tensor) -> Labels:
        """Return the labels of real images, and those that images are generated of."""
        return labels, labels

    def discriminator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> Iterator[LossAndStats]:
        """Yield the terms of the discriminator's loss with their stats: the loss, then each penalty
        that is due in the same step, weighted.

        A term is computed when it is asked for. With a backward pass for each, the graph of only
        one is in memory. R1 and R2 that reuse the logits of the loss are part of it.

        `real` and `fake` are images (n, c, h, w) in [-1, 1]; `latents` (n, z_dim) are of the fakes.
        """
        real, fake, reuse = pack(real, self._packing), pack(fake, self._packing), self._reuses()
        if reuse:
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        outputs = self._real_and_fake(real, fake, labels, twice=reuse)
        loss, stats = self._discriminator_loss(outputs, labels, latents)
        if reuse:
            yield self._penalized(loss, stats, (real, fake), labels, outputs)
            return
        yield loss, stats
        if self._penalties_due():
            yield from self._penalties((real, fake), labels)

    def generator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the generator's loss and its stats; the arguments are like `discriminator`'s."""
        real, fake = pack(real, self._packing), pack(fake, self._packing)
        weights = None
        if self._config.unroll.steps:
            weights = self._unroll(real, fake, labels, latents)
        on_fake, on_real = self._forward(fake, labels[1], weights), None
        if self._adversarial.needs_real or self._config.loss.feature_matching:
            on_real = self._forward(real, labels[0], weights)
        return self._generator_loss(on_real, on_fake, labels[1], latents)

    def both(
        self, real: Tensor, fake: Tensor, labels: Tensor, latents: Tensor
    ) -> tuple[LossAndStats, LossAndStats]:
        """Return the losses of both networks from the same forward pass.

        Real and fake images pass separately, so that the generator's derivative costs only the
        fakes.
        """
        real, fake, reuse = pack(real, self._packing), pack(fake, self._packing), self._reuses()
        if reuse:
            real = real.detach().requires_grad_()
        pair = labels, labels
        outputs = self._real_and_fake(real, fake, pair, twice=reuse, separately=True)
        loss, stats = self._discriminator_loss(outputs, pair, latents)
        images = (real, fake) if reuse else (real, fake.detach())
        on_d = self._penalized(loss, stats, images, pair, outputs if reuse else None)
        return on_d, self._generator_loss(*outputs, labels, latents)

    def own_step_penalties(self, real: Tensor, labels: Tensor) -> Iterator[LossAndStats]:
        """Yield the penalties on real images alone, weighted, with their stats."""
        real = pack(real, self._packing)
        yield from self._penalties((real, real), (labels, labels))

    def scheduled(self) -> tuple[float, float, float]:
        """Return the numbers that follow from images seen: the standard deviation of the instance
        noise, the factor of the penalties, and the width of the blur."""
        options, burn_in, seen = self._config.augment, self._config.burn_in, self._state.seen
        noise = fading(options.noise, options.noise_kimg, seen)
        blur = 0.0 if self._config.init_from else fading(options.blur, options.blur_kimg, seen)
        return noise, burn_in_value(burn_in, 1.0, burn_in.penalty, seen), blur

    def penalty_weight(self, name: str) -> float:
        """Return the weight of a penalty in the steps in which it is applied."""
        options = self._config.loss
        weight: float = getattr(options, name) * options.interval
        return weight * self.scheduled()[1]

    def _forward(
        self, samples: Tensor, labels: Tensor, weights: Weights | None = None, twice: bool = False
    ) -> DiscriminatorOutput:
        """Return the discriminator's output (with other `weights`, if given) for packed images.

        `twice`: a double backward pass will follow, which compiled networks do not support.
        """
        with self.autocast():
            p = self.controller.p(self._state.scalars)
            noise, _, blur = self.scheduled()
            images = blur_images(unpack(samples, self._images_per_sample), blur)
            images = add_noise(self.augmentation(images, p, self._random), noise, self._random)
            samples = pack(images, self._images_per_sample)
            # the memory format of the networks; a convolution would convert slowly
            if self._config.channels_last:
                samples = samples.contiguous(memory_format=torch.channels_last)
            output: DiscriminatorOutput
            if weights is None:
                output = (self._critic if twice else self._network)(samples, labels)
            else:
                output = functional_call(self._critic, weights, (samples, labels))
        return output

    def _real_and_fake(
        self, real: Tensor, fake: Tensor, labels: Labels, weights: Weights | None = None,
        twice: bool = False, separately: bool = False,
    ) -> Outputs:  # fmt: skip
        """Return the outputs for packed images, from one pass if that is equivalent and allowed."""
        discriminator, options = self._critic, self._config.loss
        # a derivative with respect to one kind would cost both
        separately = separately or (twice and not (options.r1 and options.r2))
        # the autocast is around both, so that the weights are cast once
        with self.autocast(), double_backward() if twice else nullcontext():
            if not separately and (
                discriminator.joint_batch
                or (weights is None and discriminator.accepts_interleaved(len(real)))
            ):
                pairs = interleave(real, fake), interleave(*labels)
                return deinterleave(self._forward(*pairs, weights, twice))
            on_real = self._forward(real, labels[0], weights, twice)
            return on_real, self._forward(fake, labels[1], weights, twice)

    def _penalties_due(self) -> bool:
        """Return True if penalties are part of this step's loss."""
        options = self._config.loss
        return not options.own_step and is_due(
            steps_of("d", self._config.blocks, self._state.steps), options.interval
        )

    def _reuses(self) -> bool:
        """Return True if this step's R1 and R2 use the logits of the loss: not if those of one kind
        of image depend on the other."""
        some = bool(self._config.loss.r1 or self._config.loss.r2)
        return some and self._penalties_due() and not self._state.discriminator.joint_batch

    def _penalized(
        self, loss: Tensor, stats: Stats, images: tuple[Tensor, Tensor], labels: Labels,
        outputs: Outputs | None,
    ) -> LossAndStats:  # fmt: skip
        if self._penalties_due():
            for penalty, new in self._penalties(images, labels, outputs):
                loss, stats = loss + penalty, stats | new
        return loss, stats

    def _penalties(
        self, images: tuple[Tensor, Tensor], labels: Labels,
        outputs: Outputs | None = None,
    ) -> Iterator[LossAndStats]:  # fmt: skip
        """Yield the configured penalties on packed real and fake images, weighted, R1 and R2 from
        their `outputs`, if given."""
        options, scale = self._config.loss, loss_scale(self._state.d_scaler, self._device)
        kinds = [kind for kind, name in enumerate(("r1", "r2")) if getattr(options, name)]

        def critic(kind: int) -> Any:
            return lambda samples: self._forward(samples, labels[kind], twice=True).mean_logit

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self._random, device=self._device)

        def term(name: str, value: Tensor) -> LossAndStats:
            return value * self.penalty_weight(name), {name: value.detach()}

        if outputs and kinds:
            logits = [outputs[kind].mean_logit for kind in kinds]
            gradients = losses.logit_gradients(logits, [images[kind] for kind in kinds], scale)
            for kind, gradient in zip(kinds, gradients, strict=True):
                yield term(f"r{kind + 1}", losses.squared_norm(gradient))
        else:
            for kind in kinds:
                square = losses.squared_gradient(critic(kind), images[kind], scale)
                yield term(f"r{kind + 1}", square)
        real, fake = (one.detach() for one in images)
        if options.gp:
            share = uniform(len(real), 1, 1, 1)
            yield term("gp", losses.gradient_penalty(critic(0), real, fake, share, scale))
        if options.dragan:
            noise, share = uniform(*real.shape), uniform(len(real), 1, 1, 1)
            yield term("dragan", losses.dragan(critic(0), real, noise, share, scale))

    def _discriminator_loss(
        self, outputs: Outputs, labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the discriminator's loss without penalties, and its stats."""
        (real, fake), options, config = outputs, self._config.loss, self._config
        logits = real.logits.float(), fake.logits.float()
        targets = draw_targets(
            config.label_real, config.label_fake, config.label_flip, len(real.logits), self._random
        )
        on_real, on_fake = (for_each_logit(target, logits[0]) for target in targets)
        loss = self._compare(*logits, on_real, on_fake)
        stats = {"loss_d": loss.detach(), **self._logit_stats("real", logits[0])}
        stats |= self._logit_stats("fake_before", logits[1])
        stats["r_t"] = self._adversarial.overfitting(*logits).detach()
        stats["separation"] = losses.separation(*(one.detach() for one in logits))
        extra: list[tuple[str, Tensor, float]] = []
        if real.classes is not None and self._semi_supervised:
            extra.append(
                ("class_d", losses.labelled_loss(real.classes, labels[0]), options.classifier)
            )
        elif real.classes is not None and fake.classes is not None:
            both = losses.class_loss(real.classes, labels[0]) + losses.class_loss(
                fake.classes, labels[1]
            )
            extra.append(("class_d", both, options.classifier))
        if fake.codes is not None:
            extra.append(("codes", self._code_loss(fake.codes, latents), options.codes))
        if real.decoder_inputs:
            with self.autocast():
                distance = self._state.discriminator.reconstruct(real)
            extra.append(("reconstruction", distance, options.reconstruction))
        for name, value, weight in extra:
            stats[name] = value.detach()
            loss = loss + value * weight
        return loss, stats

    def _compare(self, real: Tensor, fake: Tensor, on_real: Target, on_fake: Target) -> Tensor:
        """Return the adversarial loss of the discriminator for logits and their targets."""
        return self._adversarial.d(real, fake, on_real, on_fake)

    def _generator_loss(
        self, real: DiscriminatorOutput | None, fake: DiscriminatorOutput, labels: Tensor,
        latents: Tensor,
    ) -> LossAndStats:  # fmt: skip
        options = self._config.loss
        on_fake = fake.logits.float()
        on_real = on_fake if real is None else real.logits.float()
        adversarial = self._adversarial.g(on_real, on_fake)
        stats = {"loss_g": adversarial.detach(), **self._logit_stats("fake_after", on_fake)}
        loss = adversarial * options.adversarial
        if options.feature_matching:
            assert real is not None
            distance = losses.feature_matching(real.features, fake.features)
            stats["feature_matching"] = distance.detach()
            loss = loss + distance * options.feature_matching
        if fake.classes is not None and not self._semi_supervised:
            guessed = losses.class_loss(fake.classes, labels)
            stats["class_g"] = guessed.detach()
            loss = loss + guessed * options.classifier
        if fake.codes is not None:
            loss = loss + self._code_loss(fake.codes, latents) * options.codes
        return loss, stats

    def _code_loss(self, guesses: Tensor, latents: Tensor) -> Tensor:
        options = self._config.generator
        return losses.code_loss(guesses, latent_codes(latents, options), options.categorical)

    def _logit_stats(self, name: str, logits: Tensor) -> Stats:
        """Return the mean logit, and the mean of D if D is a probability."""
        logits = logits.detach()
        stats = {f"logit_{name}": logits.mean()}
        if self._adversarial.logistic:
            stats[f"d_{name}"] = logits.sigmoid().mean()
        return stats

    def _unroll(self, real: Tensor, fake: Tensor, pair: Labels, latents: Tensor) -> Weights:
        """Return the discriminator's weights after unrolled steps, as functions of `fake`."""
        options = self._config.unroll

        def loss(weights: Weights) -> Tensor:
            outputs = self._real_and_fake(real, fake, pair, weights)
            return self._discriminator_loss(outputs, pair, latents)[0]

        rate = options.lr or self._config.d_optimizer.lr
        return unroll(self._state.discriminator, loss, options.steps, rate)
