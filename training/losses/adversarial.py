"""Adversarial losses: pure functions of logits, to be minimised.

Logits are the discriminator's raw outputs, float (n,): in logistic losses σ(logit) is the
probability of being real, in the others the logit is a score. Each function returns the mean over
the batch. `real_target` and `fake_target` (1 and 0 by default) are the targets of label smoothing;
numbers or tensors (n,). `numbers` are options and adapted numbers by name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

Target = Tensor | float
Numbers = Mapping[str, Tensor | float]


def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """−t·log σ(x) − (1−t)·log(1−σ(x)), mean over the batch; t may lie outside [0, 1]."""
    return (softplus(logits) - target * logits).mean()


def logistic_d(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    """−log D(x) − log(1 − D(G(z))) (Goodfellow 2014, eq. 1), with targets."""
    return cross_entropy(real, real_target) + cross_entropy(fake, fake_target)


def minimax_g(_real: Tensor, fake: Tensor) -> Tensor:
    """log(1 − D(G(z))) (Goodfellow 2014, eq. 1)."""
    return -softplus(fake).mean()


def non_saturating_g(_real: Tensor, fake: Tensor) -> Tensor:
    """−log D(G(z)) (Goodfellow 2014, section 3)."""
    return softplus(-fake).mean()


def kl_g(_real: Tensor, fake: Tensor) -> Tensor:
    """log((1 − D(G(z))) / D(G(z))), the sum of the two above: minus the mean logit. Of the best
    discriminator it is KL(p_g ‖ p_data), because its logit is log p_data − log p_g (Sønderby 2017,
    section 2.2)."""
    return -fake.mean()


def lsgan_d(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    """½(D(x) − 1)² + ½D(G(z))² (Mao 2017, eq. 9), with targets."""
    return ((real - real_target).square().mean() + (fake - fake_target).square().mean()) / 2


def lsgan_g(_real: Tensor, fake: Tensor) -> Tensor:
    """½(D(G(z)) − 1)² (Mao 2017, eq. 9)."""
    return (fake - 1).square().mean() / 2


def hinge_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """max(0, 1 − D(x)) + max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato 2018, eq. 16)."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def random_hinge_d(
    real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target
) -> Tensor:
    """max(0, m − D(x)) + max(0, m + D(G(z))) with a margin m per logit, uniform in [0.8, 1] (Liu
    2021). Drawn from PyTorch's global random state."""
    margins = [torch.rand_like(logits) * 0.2 + 0.8 for logits in (real, fake)]
    return relu(margins[0] - real).mean() + relu(margins[1] + fake).mean()


def score_g(_real: Tensor, fake: Tensor) -> Tensor:
    """−D(G(z)): the generator's part of the hinge and Wasserstein losses."""
    return -fake.mean()


def wgan_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """D(G(z)) − D(x) (Arjovsky 2017, eq. 3)."""
    return fake.mean() - real.mean()


def rsgan_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """−log σ(C(x) − C(G(z))), pair by pair (Jolicoeur-Martineau 2019; R3GAN's pairing)."""
    return softplus(fake - real).mean()


def rsgan_g(real: Tensor, fake: Tensor) -> Tensor:
    """−log σ(C(G(z)) − C(x)), pair by pair."""
    return softplus(real - fake).mean()


def _relative(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return each logit minus the mean of the other kind: the "average" in relativistic average."""
    return real - fake.mean(dim=0), fake - real.mean(dim=0)


def rasgan_d(real: Tensor, fake: Tensor, real_target: Target, fake_target: Target) -> Tensor:
    """Cross-entropy of the relative logits (Jolicoeur-Martineau 2019, eq. 9), with targets."""
    return logistic_d(*_relative(real, fake), real_target, fake_target)


def rasgan_g(real: Tensor, fake: Tensor) -> Tensor:
    """Return `rasgan_d` with the targets exchanged (eq. 10)."""
    relative_real, relative_fake = _relative(real, fake)
    return softplus(-relative_fake).mean() + softplus(relative_real).mean()


def ralsgan_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """(C̃(x) − 1)² + (C̃(G(z)) + 1)² (Jolicoeur-Martineau 2019, appendix)."""
    relative_real, relative_fake = _relative(real, fake)
    return (relative_real - 1).square().mean() + (relative_fake + 1).square().mean()


def ralsgan_g(real: Tensor, fake: Tensor) -> Tensor:
    """Return the same with real and fake exchanged."""
    return ralsgan_d(fake, real, 1.0, 0.0)


def rahinge_d(real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target) -> Tensor:
    """max(0, 1 − C̃(x)) + max(0, 1 + C̃(G(z))) (Jolicoeur-Martineau 2019, appendix)."""
    relative_real, relative_fake = _relative(real, fake)
    return relu(1 - relative_real).mean() + relu(1 + relative_fake).mean()


def rahinge_g(real: Tensor, fake: Tensor) -> Tensor:
    """Return the same with real and fake exchanged."""
    return rahinge_d(fake, real, 1.0, 0.0)


def fisher_constraint(real: Tensor, fake: Tensor) -> Tensor:
    """Ω = ½E D(x)² + ½E D(G(z))² (Mroueh & Sercu 2017: the constraint on second moments)."""
    return (real.square().mean() + fake.square().mean()) / 2


def fisher_d(
    real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target, numbers: Numbers
) -> Tensor:
    """−(E D(x) − E D(G(z)) + λ·(1 − Ω) − ρ/2·(Ω − 1)²): the augmented Lagrangian of Ω = 1 (Mroueh &
    Sercu 2017, algorithm 1), ρ being `constraint_rate`."""
    excess = fisher_constraint(real, fake) - 1
    penalty = numbers["lambda"] * excess + numbers["constraint_rate"] / 2 * excess.square()
    return fake.mean() - real.mean() + penalty


def fisher_g(_real: Tensor, fake: Tensor, _numbers: Numbers) -> Tensor:
    """−E D(G(z)): what of E D(x) − E D(G(z)) depends on the generator."""
    return -fake.mean()


minimax_d = non_saturating_d = kl_d = logistic_d
hinge_g = random_hinge_g = wgan_g = score_g
