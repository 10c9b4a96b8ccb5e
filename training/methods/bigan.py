"""BiGAN (Donahue et al. 2017) and ALI (Dumoulin et al. 2017): a generator and its inverse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from training.gan_loss import GanLoss
from training.loss_terms import Labels, LossAndStats
from training.networks.pairs import PairDiscriminator


class BiganLoss(GanLoss):
    """min over G, E, max over D of E[log D(x, E(x))] + E[log(1 − D(G(z), z))] (Donahue 2017, eq. 3;
    Dumoulin 2017, eq. 2, where E(x) is drawn from q(z | x)).

    In place of labels, the discriminator gets latents: those of the generator, and those of the
    encoder. The encoder learns that its pairs pass for generated ones, by the same adversarial loss
    as the generator (Donahue 2017, section 3.4: the inverse objective).
    """

    def _build_critic(self) -> Any:
        self._encoder = self.compiled(self._state.network("encoder"))
        return PairDiscriminator(self._state.discriminator, self._state.network("pair_head"))

    def encode(self, images: Tensor) -> Tensor:
        """Return latents (n, z_dim) of images."""
        with self.autocast():
            posterior = self._encoder(images)
        latents: Tensor = posterior.sample(self._random)
        return latents

    def discriminator(
        self, real: Tensor, fake: Tensor, _labels: Labels, latents: Tensor
    ) -> Iterator[LossAndStats]:
        """See `GanLoss.discriminator`."""
        yield from super().discriminator(real, fake, (self._encoded(real), latents), latents)

    def generator(
        self, real: Tensor, fake: Tensor, _labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the loss of generator and encoder; see `GanLoss.generator`."""
        encoded = self.encode(real)
        # a joint norm is not trained here, so it needs no pass with both
        outputs = self._real_and_fake(
            real, fake, (encoded, latents), separately=self._critic.joint_batch
        )
        on_real, on_fake = (one.logits.float() for one in outputs)
        stats = {"loss_g": self._adversarial.g(on_real, on_fake)}
        if not self._adversarial.needs_real:
            mirrored = 2 * (self._adversarial.boundary or 0.0) - on_real
            stats["loss_e"] = self._adversarial.g(on_fake, mirrored)
        total = torch.stack(list(stats.values())).sum() * self._config.loss.adversarial
        stats = {name: value.detach() for name, value in stats.items()}
        return total, stats | self._logit_stats("fake_after", on_fake)

    def own_step_penalties(self, real: Tensor, _labels: Tensor) -> Iterator[LossAndStats]:
        """See `GanLoss.own_step_penalties`."""
        yield from super().own_step_penalties(real, self._encoded(real))

    @torch.no_grad()
    def _encoded(self, images: Tensor) -> Tensor:
        return self.encode(images)
