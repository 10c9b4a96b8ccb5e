"""CycleGAN (Zhu et al. 2017): translation between two sets of images without pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.gan_loss import GanLoss
from training.loss_terms import Labels, LossAndStats
from training.networks.pairs import TwoDiscriminators, split_pairs
from training.techniques import Target


class CycleganLoss(GanLoss):
    """L(G, F, D_A, D_B) = L_GAN(G, D_B) + L_GAN(F, D_A) + cycle · L_cyc + identity · L_identity
    (Zhu 2017, eq. 3 and section 5.2), with G: A → B, F: B → A, and

    - L_cyc = E‖F(G(a)) − a‖₁ + E‖G(F(b)) − b‖₁ (eq. 2),
    - L_identity = E‖G(b) − b‖₁ + E‖F(a) − a‖₁,

    means over pixels. A sample is a pair (a, b) of images that have nothing to do with each other,
    one beside the other in the channels; the fake one is (F(b), G(a)). In place of latents, the
    generators get the real sample. Adversarial losses are those of both discriminators, added.
    """

    def _build_critic(self) -> Any:
        self._options: Any = self._config.method
        self._back = self.compiled(self._state.network("generator_back"))
        discriminator_of_a = self._state.network("discriminator_back")
        return TwoDiscriminators(discriminator_of_a, self._state.discriminator)

    def generate(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return (F(b), G(a)) for pairs (a, b)."""
        a, b = split_pairs(latents)
        with self.autocast():
            return torch.cat([self._back(b, labels), self._generator(a, labels)], dim=1)

    def generator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the losses of both generators; see `GanLoss.generator`."""
        adversarial, stats = super().generator(real, fake, labels, latents)
        options, loss = self._options, 2 * adversarial  # the mean is over both discriminators
        # a fake sample is a pair of images of A and of B, as a real one
        found = {"cycle": self._distance(self.generate(fake, labels[0]), real)}
        loss = loss + options.cycle * found["cycle"]
        if options.identity:
            swapped = torch.cat(split_pairs(real)[::-1], dim=1)
            found["identity"] = self._distance(self.generate(swapped, labels[0]), real)
            loss = loss + options.identity * found["identity"]
        return loss, stats | {name: value.detach() for name, value in found.items()}

    def _distance(self, translated: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean absolute difference of the first images plus that of the second ones."""
        return 2 * (translated.float() - wanted).abs().mean()

    def _compare(self, real: Tensor, fake: Tensor, on_real: Target, on_fake: Target) -> Tensor:
        """See `GanLoss._compare`: the losses of both discriminators, added."""
        return 2 * super()._compare(real, fake, on_real, on_fake)
