"""The adversarial losses by name, with what the other options must know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator


@dataclass(frozen=True, kw_only=True)
class LossProperties:
    """Properties of an adversarial loss.

    `needs_real`: the generator's loss depends on the real logits. `logistic`: σ(logit) is a
    probability. `targets`: the discriminator's loss has targets that can be smoothed. `boundary` is
    the logit halfway between real and fake; None: only differences of logits have a meaning.

    `vector`: the discriminator's outputs for an image are one vector, and the vectors of a
    micro-batch are compared with each other. `energy`: logits are negative errors of an
    autoencoder's reconstructions. `unbounded`: the discriminator's loss falls without limit as its
    outputs grow. `options` are keys of `LossOptions` that only this loss has.
    """

    needs_real: bool = False
    logistic: bool = False
    targets: bool = False
    boundary: float | None = 0.0
    vector: bool = False
    energy: bool = False
    unbounded: bool = False
    options: tuple[str, ...] = ()


LOSS_PROPERTIES = {
    "minimax": LossProperties(logistic=True, targets=True),
    "non-saturating": LossProperties(logistic=True, targets=True),
    "kl": LossProperties(logistic=True, targets=True),
    "lsgan": LossProperties(targets=True, boundary=0.5),
    "hinge": LossProperties(),
    "random-hinge": LossProperties(),
    "wgan": LossProperties(boundary=None, unbounded=True),
    "rsgan": LossProperties(needs_real=True, boundary=None),
    "rasgan": LossProperties(needs_real=True, targets=True, boundary=None),
    "ralsgan": LossProperties(needs_real=True, boundary=None),
    "rahinge": LossProperties(needs_real=True, boundary=None),
    "fisher": LossProperties(boundary=None, options=("constraint_rate",)),
    "mmd": LossProperties(needs_real=True, boundary=None, vector=True),
    "mmd-repulsive": LossProperties(needs_real=True, boundary=None, vector=True),
    "cramer": LossProperties(needs_real=True, boundary=None, vector=True, unbounded=True),
    "mcgan": LossProperties(needs_real=True, boundary=None, vector=True, unbounded=True),
    "ebgan": LossProperties(boundary=None, energy=True, options=("margin",)),
    "began": LossProperties(boundary=None, energy=True, options=("diversity", "balance_rate")),
    "magan": LossProperties(boundary=None, energy=True, options=("margin_kimg",)),
}
"""A new loss is a line here and the functions NAME_d and NAME_g in a module of
`training/losses/`, see its `registry.py`."""

LOSSES_WITH_TARGETS = frozenset(name for name, one in LOSS_PROPERTIES.items() if one.targets)


def names_with(attribute: str) -> str:
    """Return the names of the losses with a property, for messages."""
    return ", ".join(name for name, one in LOSS_PROPERTIES.items() if getattr(one, attribute))


def _known(name: str) -> str:
    if name not in LOSS_PROPERTIES:
        raise ValueError(f"must be one of {', '.join(LOSS_PROPERTIES)}")
    return name


LossName = Annotated[str, AfterValidator(_known)]
