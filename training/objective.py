"""The complete loss of each network, given the discriminator's output."""

from __future__ import annotations

from torch import Tensor

from training.config import Config
from training.losses import LOSSES, class_loss, code_loss, feature_matching, labelled_loss
from training.networks import DiscriminatorOutput
from training.options.architectures import is_semi_supervised
from training.techniques.targets import Target

Stats = dict[str, Tensor]
"""Scalars of a step by name."""


class Objective:
    """The adversarial loss of a configuration, with its auxiliary losses and their weights.

    `needs_real`: the generator's loss depends on the output for real images.
    """

    def __init__(self, config: Config) -> None:
        self.table, self.categorical = config.loss, config.generator.categorical
        self.semi_supervised = is_semi_supervised(config.discriminator)
        self.adversarial = LOSSES[config.loss.name]
        self.needs_real = self.adversarial.needs_real or bool(config.loss.feature_matching)

    def discriminator(
        self,
        real: DiscriminatorOutput,
        fake: DiscriminatorOutput,
        targets: tuple[Target, Target],
        labels: tuple[Tensor, Tensor],
        codes: Tensor,
    ) -> tuple[Tensor, Stats]:
        """Return the discriminator's loss and its parts.

        `targets` are those of real and fake images, `labels` the classes (n,) of both, `codes`
        those of the fake images.
        """
        logits = real.logits.float(), fake.logits.float()
        on_real, on_fake = (_for_each(target, logits[0]) for target in targets)
        loss = self.adversarial.d(*logits, on_real, on_fake)
        facts = {"loss_d": loss.detach(), **self.logit_stats("real", logits[0])}
        facts |= self.logit_stats("fake_before", logits[1])
        facts["r_t"] = self.adversarial.overfitting(*logits).detach()
        if real.classes is not None and self.semi_supervised:
            guessed = labelled_loss(real.classes, labels[0])
            facts["class_d"] = guessed.detach()
            loss = loss + guessed * self.table.classifier
        elif real.classes is not None and fake.classes is not None:
            guessed = class_loss(real.classes, labels[0]) + class_loss(fake.classes, labels[1])
            facts["class_d"] = guessed.detach()
            loss = loss + guessed * self.table.classifier
        if fake.codes is not None:
            guessed = code_loss(fake.codes, codes, self.categorical)
            facts["codes"] = guessed.detach()
            loss = loss + guessed * self.table.codes
        return loss, facts

    def generator(
        self,
        real: DiscriminatorOutput | None,
        fake: DiscriminatorOutput,
        labels: Tensor,
        codes: Tensor,
    ) -> tuple[Tensor, Stats]:
        """Return the generator's loss and its parts; `real` is required if `needs_real`."""
        on_fake = fake.logits.float()
        on_real = on_fake if real is None else real.logits.float()
        adversarial = self.adversarial.g(on_real, on_fake)
        facts = {"loss_g": adversarial.detach(), **self.logit_stats("fake_after", on_fake)}
        loss = adversarial * self.table.adversarial
        if self.table.feature_matching:
            assert real is not None
            distance = feature_matching(real.features, fake.features)
            facts["feature_matching"] = distance.detach()
            loss = loss + distance * self.table.feature_matching
        if fake.classes is not None and not self.semi_supervised:
            guessed = class_loss(fake.classes, labels)
            facts["class_g"] = guessed.detach()
            loss = loss + guessed * self.table.classifier
        if fake.codes is not None:
            loss = loss + code_loss(fake.codes, codes, self.categorical) * self.table.codes
        return loss, facts

    def logit_stats(self, name: str, logits: Tensor) -> Stats:
        """Return the mean logit, and the mean of D if D is a probability."""
        logits = logits.detach()
        facts = {f"logit_{name}": logits.mean()}
        if self.adversarial.logistic:
            facts[f"d_{name}"] = logits.sigmoid().mean()
        return facts


def _for_each(target: Target, logits: Tensor) -> Target:
    """Expand a sample's target to each of its logits."""
    return target[:, None] if isinstance(target, Tensor) and logits.ndim == 2 else target
