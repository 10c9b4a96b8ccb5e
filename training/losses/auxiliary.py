"""Auxiliary losses on other outputs of the discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, normalize

from training.losses.vectors import mean_of_pairs


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """‖E f(x) − E f(G(z))‖² (Salimans 2016, eq. 3), divided by the number of features.

    `real` and `fake` are the discriminator's last hidden layer, (n, …). The division makes the
    weight of the loss independent of the network's size. No gradient flows to `real`.
    """
    return mse_loss(fake.float().mean(dim=0), real.detach().float().mean(dim=0))


def pulling_away(features: Tensor) -> Tensor:
    """1/(N(N−1)) Σᵢ Σⱼ≠ᵢ (sᵢᵀsⱼ / ‖sᵢ‖‖sⱼ‖)² of the discriminator's features s of N generated
    images, (n, …): the pulling-away term (Zhao 2017, eq. 4). 0 if all are orthogonal, 1 if equal;
    of each micro-batch by itself."""
    units = normalize(features.float().flatten(1), dim=1)
    return mean_of_pairs((units @ units.T).square())


def class_loss(guesses: Tensor, labels: Tensor) -> Tensor:
    """−E log P(class | image) (Odena 2017, eq. 3): `guesses` logits (n, classes), int64 (n,)."""
    return cross_entropy(guesses.float(), labels)


def labelled_loss(guesses: Tensor, labels: Tensor) -> Tensor:
    """−E log P(label | image, it is real) over the images that have a label (Salimans 2016,
    section 5: L_supervised); `labels` int64 (n,), -1 without a label. 0 if no image has one."""
    total = cross_entropy(guesses.float(), labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp_min(1)


def code_loss(guesses: Tensor, codes: Tensor, categorical: Sequence[int]) -> Tensor:
    """−E log Q(c | G(z, c)) up to a constant (Chen 2016, eq. 5): the bound on −I(c; G(z, c)).

    `codes` (n, k) are one-hot groups of the sizes in `categorical`, then continuous codes;
    `guesses` (n, k) logits of each group, then means of Gaussians of unit variance.
    """
    sizes = [*categorical, codes.shape[1] - sum(categorical)]
    total = torch.zeros((), device=guesses.device)
    groups = zip(torch.split(guesses.float(), sizes, 1), torch.split(codes, sizes, 1), strict=True)
    for position, (guess, code) in enumerate(groups):
        if position < len(categorical):
            total = total + cross_entropy(guess, code.argmax(dim=1))
        elif code.shape[1]:
            total = total + (guess - code).square().sum(dim=1).mean() / 2
    return total
