"""Triple-GAN (Li et al. 2017): a classifier is the third player, and needs few labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, softplus

from training.gan_loss import GanLoss
from training.loss_terms import Labels, LossAndStats
from training.losses import labelled_loss
from training.networks.base import mean_per_sample
from training.techniques import Target


class TripleGanLoss(GanLoss):
    """min over C, G, max over D of E_p[log D(x, y)] + α E_c[log(1 − D(x, y))]
    + (1 − α) E_g[log(1 − D(x, y))] (Li 2017, eq. 4), where y is a label in E_p, drawn from the
    classifier's p_c(y | x) in E_c, and that of the generated image in E_g. The classifier also
    learns R_L = E_p[−log p_c(y | x)] and R_P = E_g[−log p_c(y | x)], weighted by `pseudo`
    (algorithm 1), and R_U = E‖p_c(y | x, ε) − p_c(y | x, ε′)‖², weighted by `consistency`, for two
    draws of its dropout, ε and ε′ (Laine & Aila 2017, as in the paper's code, where it is the mean
    over the classes).
    """

    _positives: Tensor
    """The weights (n,) of the real images of the pass: 1 with a label, else `positives`."""

    def _build_critic(self) -> Any:
        self._options: Any = self._config.method
        self._classifier = self.compiled(self._state.network("classifier"))
        return super()._build_critic()

    def classify(self, images: Tensor) -> Tensor:
        """Return the classifier's logits float32 (n, classes)."""
        with self.autocast():
            logits: Tensor = self._classifier(images)
        return logits

    def labels(self, labels: Tensor) -> Labels:
        """See `GanLoss.labels`: images are generated of the same labels; of random ones, all
        equally likely, in place of missing ones (-1)."""
        classes = self._state.network("classifier").mean.out_channels
        drawn = torch.randint(
            classes, labels.shape, generator=self._random, device=labels.device
        )  # fmt: skip
        return labels, torch.where(labels >= 0, labels, drawn)

    def discriminator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> Iterator[LossAndStats]:
        """See `GanLoss.discriminator`; the last term is that of the classifier's pairs."""
        with torch.no_grad():
            logits = self.classify(real)
        known = self._complete(labels[0], logits), labels[1]
        self._positives = torch.where(labels[0] >= 0, 1.0, self._options.positives)
        yield from super().discriminator(real, fake, known, latents)
        named = sample_labels(logits, self._random)
        loss = softplus(self._forward(real, named).logits.float()).mean()
        yield loss * self._options.alpha, {"loss_d_named": loss.detach()}

    def generator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the losses of generator and classifier; see `GanLoss.generator`."""
        options = self._options
        adversarial, stats = super().generator(real, fake, labels, latents)
        logits = self.classify(real)
        named = sample_labels(logits.detach(), self._random)
        with torch.no_grad():
            on_named = self._forward(real, named).logits.float()
        chance = logits.softmax(dim=1).gather(1, named[:, None])[:, 0]
        game = -(chance * mean_per_sample(softplus(on_named))).mean()
        known = labelled_loss(logits, labels[0])
        pseudo = cross_entropy(self.classify(fake.detach()), labels[1])
        loss = (1 - options.alpha) * adversarial + options.alpha * game
        loss = loss + self._config.loss.classifier * known + options.pseudo * pseudo
        found = {"class_c": known, "class_fake": pseudo, "game_c": game}
        if options.consistency:
            again = self.classify(real).softmax(dim=1)
            found["consistency_c"] = mse_loss(logits.softmax(dim=1), again)
            loss = loss + options.consistency * found["consistency_c"]
        return loss, stats | {name: value.detach() for name, value in found.items()}

    def own_step_penalties(self, real: Tensor, labels: Tensor) -> Iterator[LossAndStats]:
        """See `GanLoss.own_step_penalties`."""
        with torch.no_grad():
            known = self._complete(labels, self.classify(real))
        yield from super().own_step_penalties(real, known)

    def _complete(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Return the labels, with the classifier's choice in place of missing ones (-1)."""
        return torch.where(labels >= 0, labels, logits.argmax(dim=1))

    def _compare(self, real: Tensor, fake: Tensor, on_real: Target, on_fake: Target) -> Tensor:
        """See `GanLoss._compare`: cross-entropy, with weights for real images."""
        weights = self._positives
        on_reals = weights * mean_per_sample(softplus(real) - on_real * real)
        on_fakes: Tensor = softplus(fake) - on_fake * fake
        share = 1 - float(self._options.alpha)
        return on_reals.sum() / weights.sum().clamp_min(1) + share * on_fakes.mean()


def sample_labels(logits: Tensor, random: torch.Generator) -> Tensor:
    """Draw a label int64 (n,) from each softmax of the logits (n, classes): the largest logit
    after adding Gumbel noise, which does not wait for the device."""
    noise = torch.empty_like(logits).exponential_(generator=random)
    return (logits - noise.log()).argmax(dim=1)
