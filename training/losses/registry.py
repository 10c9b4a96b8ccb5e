"""The adversarial losses by their names in the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from training.losses import adversarial, energies, vectors
from training.options.losses import LOSS_PROPERTIES, LossProperties


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss(LossProperties):
    """The two losses of a GAN: `d(real, fake, real_target, fake_target)` and `g(real, fake)` take
    logits, and as the last argument the numbers of the loss, if it has any (`LossNumbers`).

    `critic` gives the score of each vector, see `losses.vectors`, `constraint` the Ω of logits that
    the loss keeps at 1.
    """

    d: Callable[..., Tensor]
    g: Callable[..., Tensor]
    critic: Callable[..., Tensor] | None = None
    constraint: Callable[[Tensor, Tensor], Tensor] | None = None

    def scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what the discriminator tells real from fake images: the logits themselves, or
        those (n,) of the critic."""
        if self.critic is None:
            return real, fake
        return self.critic(real, real, fake, "real"), self.critic(fake, real, fake, "fake")

    def overfitting(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return r_t of adaptive augmentation: the mean sign of the scores of real images, 1 if all
        are recognised (Karras 2020a, eq. 1); without a boundary, of differences to fake images."""
        return (real - (fake if self.boundary is None else self.boundary)).sign().mean()


def separation(real: Tensor, fake: Tensor) -> Tensor:
    """Return the probability that a real image has a higher logit than a fake (the area under the
    ROC curve): 1 if all are told apart, 0.5 by chance. Logits (n,), or (n, k), which are averaged.
    It has the same meaning for every loss, also for those without a boundary."""
    first, second = (
        logits.flatten(1).mean(dim=1) if logits.ndim > 1 else logits for logits in (real, fake)
    )
    return (first[:, None] - second).sign().mean() / 2 + 0.5


_FUNCTIONS: dict[str, Any] = {**vars(adversarial), **vars(energies), **vars(vectors)}


def _loss(name: str, properties: LossProperties) -> AdversarialLoss:
    prefix = name.replace("-", "_")
    return AdversarialLoss(
        d=_FUNCTIONS[f"{prefix}_d"],
        g=_FUNCTIONS[f"{prefix}_g"],
        critic=_FUNCTIONS[f"{prefix}_critic"] if properties.vector else None,
        constraint=_FUNCTIONS.get(f"{prefix}_constraint"),
        **asdict(properties),
    )


LOSSES = {name: _loss(name, properties) for name, properties in LOSS_PROPERTIES.items()}
"""`NAME_d`, `NAME_g` and `NAME_critic` of the modules of this package."""
