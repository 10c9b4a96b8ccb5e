"""VAE/GAN (Larsen et al. 2016): a variational autoencoder with a discriminator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from training.gan_loss import GanLoss
from training.loss_terms import Labels, LossAndStats
from training.losses.adversarial import cross_entropy
from training.losses.variational import half_squared_distance, kl_divergence, scale_gradient
from training.networks.encoder import Posterior
from training.techniques import draw_targets, for_each_logit


class VaeGanLoss(GanLoss):
    """L = L_prior + L_llike + L_GAN (Larsen 2016, eq. 5 to 8), by algorithm 1:

    - discriminator: log D(x) + log(1 − D(G(z))) + log(1 − D(G(E(x)))),
    - generator: gamma · L_llike − L_GAN,
    - encoder: L_prior + L_llike, without the adversarial loss,

    where L_prior = KL(q(z | x) ‖ N(0, I)), and L_llike = ½‖f(x) − f(G(E(x)))‖² up to a constant,
    for the features f of the discriminator, or for pixels.
    """

    def _build_critic(self) -> Any:
        self._options: Any = self._config.method
        self._encoder = self.compiled(self._state.network("encoder"))
        return super()._build_critic()

    def encode(self, images: Tensor) -> Posterior:
        """Return q(z | x) of images."""
        with self.autocast():
            posterior: Posterior = self._encoder(images)
        return posterior

    def discriminator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> Iterator[LossAndStats]:
        """See `GanLoss.discriminator`; the last term is that of reconstructions."""
        yield from super().discriminator(real, fake, labels, latents)
        with torch.no_grad():
            rebuilt = self.generate(self.encode(real).sample(self._random), labels[0])
        logits = self._forward(rebuilt, labels[0]).logits.float()
        config = self._config
        target = draw_targets(
            config.label_real, config.label_fake, config.label_flip, len(logits), self._random
        )[1]
        loss = cross_entropy(logits, for_each_logit(target, logits))
        yield loss, {"loss_d_rebuilt": loss.detach()}

    def generator(
        self, real: Tensor, fake: Tensor, labels: Labels, latents: Tensor
    ) -> LossAndStats:
        """Return the losses of generator and encoder; see `GanLoss.generator`."""
        loss, stats = super().generator(real, fake, labels, latents)
        options, posterior = self._options, self.encode(real)
        assert posterior.log_variance is not None
        sampled = posterior.sample(self._random)
        # the encoder has the derivative of the distance itself, not of gamma times it
        rebuilt = self.generate(scale_gradient(sampled, 1 / options.gamma), labels[0])
        distance = self._distance(real, rebuilt, labels[0])
        divergence = kl_divergence(posterior.mean, posterior.log_variance).mean()
        drawn = self.generate(sampled.detach(), labels[0])
        logits = self._forward(drawn, labels[0]).logits.float()
        adversarial = self._adversarial.g(logits, logits)
        loss = loss + adversarial * self._config.loss.adversarial
        loss = loss + distance * options.gamma + divergence * options.kl
        found = {"distance": distance, "kl": divergence, "loss_g_rebuilt": adversarial}
        return loss, stats | {name: value.detach() for name, value in found.items()}

    def _distance(self, real: Tensor, rebuilt: Tensor, labels: Tensor) -> Tensor:
        """Return L_llike, the mean over the batch. Neither image is augmented."""
        if self._options.similarity == "pixels":
            return half_squared_distance(real, rebuilt)
        with self.autocast():
            with torch.no_grad():
                wanted = self._network(real, labels).features
            found = self._network(rebuilt, labels).features
        return half_squared_distance(wanted, found)
