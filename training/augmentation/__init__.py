"""What is done to real and fake images alike before the discriminator sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augmentation import diffaugment
from training.augmentation.adaptive import AdaController
from training.augmentation.transforms import transform, transforms_of
from training.config import AugmentOptions

__all__ = ["AdaController", "Augmentation"]


class Augmentation:
    """DiffAugment's or adaptive augmentation's transforms, as a configuration's table says.

    Parameters of adaptive augmentation come from a CPU generator of this object; see `seed`.
    """

    def __init__(self, options: AugmentOptions) -> None:
        self._policy, self._chosen = options.policy, transforms_of(options.ada)
        self._parameters = torch.Generator()

    def seed(self, seed: int) -> None:
        """What is drawn from now on follows from `seed`."""
        self._parameters.manual_seed(seed)

    def __call__(self, images: Tensor, p: float, random: torch.Generator) -> Tensor:
        """`images` float (n, c, h, w) in [-1, 1] augmented, with `random` of their device;
        adaptive augmentation's transforms each with probability `p`. Gradients pass."""
        images = diffaugment.augment(images, self._policy, random)
        return transform(images, self._chosen, p, random, self._parameters)
