"""Augmentation of real and fake images before the discriminator sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation import diffaugment
from training.augmentation.adaptive import AdaController
from training.augmentation.transforms import transform, transforms_of
from training.options.algorithm import AugmentOptions

__all__ = ["AdaController", "Augmentation"]


class Augmentation:
    """The transforms of DiffAugment or adaptive augmentation, as configured.

    Parameters of adaptive augmentation come from a CPU generator of this object; see `seed`.
    """

    def __init__(self, options: AugmentOptions) -> None:
        self._policy, self._chosen = options.policy, transforms_of(options.ada)
        self._parameters = torch.Generator()

    def seed(self, seed: int) -> None:
        """Seed the generator of all further parameters."""
        self._parameters.manual_seed(seed)

    def __call__(self, images: Tensor, p: float, random: torch.Generator) -> Tensor:
        """Augment `images` float (n, c, h, w) in [-1, 1], with `random` of their device; in
        adaptive augmentation, each transform with probability `p`. Differentiable."""
        images = diffaugment.augment(images, self._policy, random)
        return transform(images, self._chosen, p, random, self._parameters)
