"""Losses on energies: the error E(x) ≥ 0 with which an autoencoder, the discriminator, reconstructs
an image. Logits float (n,) are −E. `numbers` are options and adapted numbers by name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu

Target = Tensor | float
Numbers = Mapping[str, Tensor | float]


def ebgan_d(
    real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target, numbers: Numbers
) -> Tensor:
    """E(x) + max(0, m − E(G(z))) with the `margin` m (Zhao 2017, eq. 1)."""
    return relu(numbers["margin"] + fake).mean() - real.mean()


def ebgan_g(_real: Tensor, fake: Tensor, _numbers: Numbers) -> Tensor:
    """E(G(z)) (Zhao 2017, eq. 2)."""
    return -fake.mean()


def began_d(
    real: Tensor, fake: Tensor, _real_target: Target, _fake_target: Target, numbers: Numbers
) -> Tensor:
    """E(x) − k·E(G(z)) with k = `balance_k` (Berthelot 2017, section 3.4)."""
    return numbers["balance_k"] * fake.mean() - real.mean()


def magan_g(_real: Tensor, fake: Tensor, numbers: Numbers) -> Tensor:
    """E(G(z)) (Wang 2017, section 3). 0 before the first margin: until then, the autoencoder learns
    real images alone (algorithm 1)."""
    return -fake.mean() * (torch.as_tensor(numbers["margin"]) > 0)


began_g = ebgan_g
magan_d = ebgan_d  # Wang 2017, section 3: the margin is adapted
