"""The terms of both networks' losses that depend on the discriminator's outputs alone: adversarial
and auxiliary losses."""

from __future__ import annotations

import torch
from torch import Tensor

from training import losses
from training.config import Config
from training.machine.distributed import Distributed
from training.networks import DiscriminatorOutput, latent_codes
from training.optimizer import burn_in_value
from training.options.architectures import features_kimg, is_semi_supervised
from training.state import State
from training.techniques import Target, draw_targets, fading, for_each_logit

Stats = dict[str, Tensor]
"""Scalars of a step by name."""
LossAndStats = tuple[Tensor, Stats]
Labels = tuple[Tensor, Tensor]
"""Classes (n,) of the real and of the fake images."""
Outputs = tuple[DiscriminatorOutput, DiscriminatorOutput]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LossTerms:
    """The losses of outputs of the discriminator of `state`, as configured."""

    def __init__(
        self, config: Config, state: State, device: torch.device, ranks: Distributed,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        self._config, self._state, self._device, self._random = config, state, device, random
        self._semi_supervised = is_semi_supervised(config.discriminator)
        self._adversarial = losses.LOSSES[config.loss.name]
        self._loss_numbers = losses.LossNumbers(config.loss, config.batch, ranks)
        has_labels = config.generator.condition != "none"
        self._spread = losses.FeatureSpread(has_labels, ranks)

    def autocast(self) -> torch.autocast:
        """Return the autocast context of the networks."""
        kind = _AUTOCAST.get(self._config.precision)
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)

    def scheduled(self) -> tuple[float, float, float, bool]:
        """Return what follows from images seen: the standard deviation of the instance noise, the
        factor of the penalties, the width of the blur, and whether a projected discriminator's
        part on pixels trains alone."""
        options, burn_in, seen = self._config.augment, self._config.burn_in, self._state.seen
        noise = fading(options.noise, options.noise_kimg, seen)
        blur = 0.0 if self._config.init_from else fading(options.blur, options.blur_kimg, seen)
        alone = seen < 1000 * features_kimg(self._config.discriminator)
        return noise, burn_in_value(burn_in, 1.0, burn_in.penalty, seen), blur, alone

    def penalty_weight(self, name: str) -> float:
        """Return the weight of a penalty in the steps in which it is applied."""
        options = self._config.loss
        weight: float = getattr(options, name) * options.interval
        return weight * self.scheduled()[1]

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
        stats = {"loss_d": loss.detach(), **self._comparison_stats(*logits)}
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
        return self._adversarial.d(real, fake, on_real, on_fake, *self._numbers())

    def _numbers(self) -> tuple[dict[str, Tensor | float], ...]:
        """Return the last argument of losses that have numbers beside their logits."""
        return self._loss_numbers.given(self._state.scalars, self._device)

    @torch.no_grad()
    def _comparison_stats(self, real: Tensor, fake: Tensor) -> Stats:
        """Return what the logits say about the comparison of real and fake images.

        r_t and separation are not recorded for autoencoders: their losses keep both errors at a
        margin or ratio, so it says nothing which of them is larger.
        """
        loss = self._adversarial
        scores = loss.scores(real, fake)
        stats = self._logit_stats("real", scores[0]) | self._logit_stats("fake_before", scores[1])
        if loss.constraint is not None:
            stats["constraint"] = loss.constraint(real, fake)
        if not loss.energy:
            stats["r_t"] = loss.overfitting(*scores)
            stats["separation"] = losses.separation(*scores)
        return stats

    def _generator_loss(
        self, real: DiscriminatorOutput | None, fake: DiscriminatorOutput, labels: Tensor,
        latents: Tensor,
    ) -> LossAndStats:  # fmt: skip
        options = self._config.loss
        on_fake = fake.logits.float()
        on_real = on_fake if real is None else real.logits.float()
        adversarial = self._adversarial.g(on_real, on_fake, *self._numbers())
        with torch.no_grad():
            scores = self._adversarial.scores(on_real, on_fake)[1]
        stats = {"loss_g": adversarial.detach(), **self._logit_stats("fake_after", scores)}
        loss = adversarial * options.adversarial
        if options.feature_matching:
            assert real is not None
            distance = losses.feature_matching(real.features, fake.features)
            stats["feature_matching"] = distance.detach()
            loss = loss + distance * options.feature_matching
        if options.pulling_away:
            alike = losses.pulling_away(fake.features)
            stats["pulling_away"] = alike.detach()
            loss = loss + alike * options.pulling_away
        if options.feature_spread and fake.frozen:
            too_close = self._spread.loss(self._state.scalars, fake.frozen, labels)
            stats["feature_spread"] = too_close.detach()
            loss = loss + too_close * options.feature_spread
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
