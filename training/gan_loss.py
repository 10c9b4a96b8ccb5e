"""The loss of each network: the discriminator's forward pass (augmentation, noise, packing), the
terms of `loss_terms`, and gradient penalties."""

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
from training.loss_terms import Labels, LossAndStats, LossTerms, Outputs, Stats
from training.machine.distributed import Distributed
from training.networks import DiscriminatorOutput, deinterleave, interleave
from training.optimizer import is_due, loss_scale, steps_of
from training.state import State
from training.techniques import Weights, add_noise, blur_images, pack, unpack, unroll

KINDS = "real", "fake"


class GanLoss(LossTerms):
    """The losses of the networks of `state`, as configured.

    All random numbers come from `random` and from `augmentation`, whose strength `controller`
    adapts.
    """

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Distributed,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__(config, state, device, ranks, random)
        self._packing = config.discriminator.packing
        self._images_per_sample = self._packing * config.method.sets
        self.augmentation = Augmentation(config.augment)
        self.controller = AdaController(config.augment, config.batch, ranks)
        self._critic = self._build_critic()
        self._network = self.compiled(self._critic)
        self._on_pixels = getattr(self._critic, "on_pixels", self._critic)
        is_whole = self._on_pixels is self._critic
        self._pixels_network = self._network if is_whole else self.compiled(self._on_pixels)
        self._generator = self.compiled(state.generator)

    def _build_critic(self) -> Any:
        """Return the network whose logits are trained, a discriminator: called with images and the
        labels (or what a method compares beside images)."""
        return self._state.discriminator

    def compiled(self, network: Any) -> Any:
        """Return the network, compiled if that is configured. It shares the weights, and is never
        saved."""
        return torch.compile(network) if self._config.compile else network

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
        one is in memory. R1 and R2 that reuse the logits of the loss are part of it, and penalties
        of losses on vectors.

        `real` and `fake` are images (n, c, h, w) in [-1, 1]; `latents` (n, z_dim) are of the fakes.
        """
        real, fake, reuse = pack(real, self._packing), pack(fake, self._packing), self._reuses()
        if reuse:
            real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        outputs = self._real_and_fake(real, fake, labels, twice=reuse)
        self._add_distances(outputs, labels)
        loss, stats = self._discriminator_loss(outputs, labels, latents)
        if reuse or self._compares():
            yield self._penalized(loss, stats, (real, fake), labels, outputs, reuse)
            return
        yield loss, stats
        if self._penalties_due():
            yield from self._penalties((real, fake), labels, outputs)

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
        self._add_distances(outputs, pair)
        loss, stats = self._discriminator_loss(outputs, pair, latents)
        images = (real, fake) if reuse else (real, fake.detach())
        on_d = self._penalized(loss, stats, images, pair, outputs, reuse)
        return on_d, self._generator_loss(*outputs, labels, latents)

    def observe(self, stats: Stats, weight: float) -> Stats:
        """Adapt augmentation and numbers of the loss to the stats of the discriminator's step
        (this process's part, with its `weight` in the batch); return further stats."""
        scalars = self._state.scalars
        found = self._loss_numbers.observe(scalars, stats, weight)
        found |= self._spread.observe(scalars)
        if "r_t" in stats:
            found |= self.controller.observe(scalars, stats["r_t"], weight)
        return found

    def _add_distances(self, outputs: Outputs, labels: Labels) -> None:
        """Take the distances of the images for `loss.feature_spread`, if it is on."""
        maps = outputs[0].frozen, outputs[1].frozen
        if self._config.loss.feature_spread and maps[0]:
            self._spread.add(maps, labels)

    def own_step_penalties(self, real: Tensor, labels: Tensor) -> Iterator[LossAndStats]:
        """Yield the penalties on real images alone, weighted, with their stats."""
        real = pack(real, self._packing)
        yield from self._penalties((real, real), (labels, labels))

    def _forward(
        self, samples: Tensor, labels: Tensor, weights: Weights | None = None, twice: bool = False
    ) -> DiscriminatorOutput:
        """Return the discriminator's output (with other `weights`, if given) for packed images.

        `twice`: a double backward pass will follow, which compiled networks do not support, so that
        it is that of the part that penalties limit.
        """
        with self.autocast():
            p = self.controller.p(self._state.scalars)
            noise, _, blur, pixels_alone = self.scheduled()
            images = blur_images(unpack(samples, self._images_per_sample), blur)
            images = add_noise(self.augmentation(images, p, self._random), noise, self._random)
            samples = pack(images, self._images_per_sample)
            # the memory format of the networks; a convolution would convert slowly
            if self._config.channels_last:
                samples = samples.contiguous(memory_format=torch.channels_last)
            output: DiscriminatorOutput
            if weights is None:
                network = self._pixels_network if pixels_alone else self._network
                output = (self._on_pixels if twice else network)(samples, labels)
            else:
                output = functional_call(self._critic, weights, (samples, labels))
        return output

    def _real_and_fake(
        self, real: Tensor, fake: Tensor, labels: Labels, weights: Weights | None = None,
        twice: bool = False, separately: bool = False,
    ) -> Outputs:  # fmt: skip
        """Return the outputs for packed images, from one pass if that is equivalent and allowed."""
        discriminator = self._on_pixels if self.scheduled()[3] else self._critic
        options = self._config.loss
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

    def _score(self, output: DiscriminatorOutput, outputs: Outputs | None, own: str) -> Tensor:
        """Return the number (n,) of each sample whose gradient is penalised: the mean logit, or the
        score of the loss's critic, which compares with the vectors of `outputs`; `own` names the
        kind that the samples are of."""
        if self._adversarial.critic is None or outputs is None:
            return output.mean_logit
        vectors = (one.logits.float() for one in outputs)
        return self._adversarial.critic(output.logits.float(), *vectors, own)

    def _penalties_due(self) -> bool:
        """Return True if penalties are part of this step's loss."""
        options = self._config.loss
        return not options.own_step and is_due(
            steps_of("d", self._config.blocks, self._state.steps), options.interval
        )

    def _reuses(self) -> bool:
        """Return True if this step's R1 and R2 use the logits of the loss: not if those of one kind
        of image depend on the other, or are compared with each other, or are not all limited."""
        some = bool(self._config.loss.r1 or self._config.loss.r2)
        if self._compares() or self._critic.joint_batch or self._on_pixels is not self._critic:
            return False
        return some and self._penalties_due()

    def _compares(self) -> bool:
        """Return True if penalties are those of vectors that are compared with those of the loss,
        so that they share its graph."""
        return self._adversarial.critic is not None

    def _penalized(
        self, loss: Tensor, stats: Stats, images: tuple[Tensor, Tensor], labels: Labels,
        outputs: Outputs, reuse: bool,
    ) -> LossAndStats:  # fmt: skip
        if self._penalties_due():
            for penalty, new in self._penalties(images, labels, outputs, reuse):
                loss, stats = loss + penalty, stats | new
        return loss, stats

    def _penalties(
        self, images: tuple[Tensor, Tensor], labels: Labels,
        outputs: Outputs | None = None, reuse: bool = False,
    ) -> Iterator[LossAndStats]:  # fmt: skip
        """Yield the configured penalties on packed real and fake images, weighted. With `reuse`, R1
        and R2 are those of their `outputs`; losses on vectors need these in any case."""
        options, scale = self._config.loss, loss_scale(self._state.d_scaler, self._device)
        kinds = [kind for kind, name in enumerate(("r1", "r2")) if getattr(options, name)]

        def critic(kind: int, own: str = "") -> Any:
            return lambda samples: self._score(
                self._forward(samples, labels[kind], twice=True), outputs, own
            )

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=self._random, device=self._device)

        def term(name: str, value: Tensor) -> LossAndStats:
            return value * self.penalty_weight(name), {name: value.detach()}

        if outputs and reuse and kinds:
            logits = [outputs[kind].mean_logit for kind in kinds]
            gradients = losses.logit_gradients(logits, [images[kind] for kind in kinds], scale)
            for kind, gradient in zip(kinds, gradients, strict=True):
                yield term(f"r{kind + 1}", losses.squared_norm(gradient))
        else:
            for kind in kinds:
                square = losses.squared_gradient(critic(kind, KINDS[kind]), images[kind], scale)
                yield term(f"r{kind + 1}", square)
        real, fake = (one.detach() for one in images)
        if options.gp:
            share = uniform(len(real), 1, 1, 1)
            yield term("gp", losses.gradient_penalty(critic(0), real, fake, share, scale))
        if options.dragan:
            noise, share = uniform(*real.shape), uniform(len(real), 1, 1, 1)
            yield term("dragan", losses.dragan(critic(0), real, noise, share, scale))

    def _unroll(self, real: Tensor, fake: Tensor, pair: Labels, latents: Tensor) -> Weights:
        """Return the discriminator's weights after unrolled steps, as functions of `fake`."""
        options = self._config.unroll

        def loss(weights: Weights) -> Tensor:
            outputs = self._real_and_fake(real, fake, pair, weights)
            return self._discriminator_loss(outputs, pair, latents)[0]

        rate = options.lr or self._state.d_optimizer.param_groups[0]["lr"]
        return unroll(self._state.discriminator, loss, options.steps, rate)
