"""The interfaces of networks that the trainer uses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class DiscriminatorOutput(NamedTuple):
    """The output of a discriminator for n images.

    `logits` float (n,): higher is more real; (n, k) for k patches or scales, which all get the same
    loss, or for a vector of k outputs. `features` (n, …): its last hidden layer. `classes`: logits
    (n, classes) of the label, and `codes`: predictions (n, k) of InfoGAN's codes, if it has such an
    output. `decoder_inputs` is what `Discriminator.reconstruct` needs, starting with the images.
    `frozen`: the maps (n, c, h, w) of a frozen network that it sees, of several scales.
    """

    logits: Tensor
    features: Tensor
    classes: Tensor | None = None
    codes: Tensor | None = None
    decoder_inputs: tuple[Tensor, ...] = ()
    frozen: tuple[Tensor, ...] = ()

    @property
    def mean_logit(self) -> Tensor:
        """The mean logit of each sample, (n,). Penalties limit its gradient."""
        return mean_per_sample(self.logits)


class Generator(nn.Module):
    """Latents float (n, z_dim) and labels int64 (n,) → images (n, channels, height, width) in
    [-1, 1]. `z_dim` includes InfoGAN's codes.

    A style-based generator is `synthesis(styles(latents, labels))` while it is trained; other
    generators have neither of them.
    """

    z_dim: int
    synthesis: nn.Module
    """Maps ws (n, num_ws, w_dim) to images."""

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def styles(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the ws (n, num_ws, w_dim) of the latents, as they are used in training."""
        raise NotImplementedError


class Discriminator(nn.Module):
    """Images in [-1, 1] and labels int64 (n,) → a `DiscriminatorOutput`.

    Images are (n, channels, height, width); with packing p (n, p·channels, height, width). `hidden`
    are its layers from the image to the features.
    """

    hidden: nn.Sequential
    joint_batch: bool = False
    """While it is trained, real and fake images (interleaved) must pass in one call, because the
    output for one kind depends on the other."""

    def accepts_interleaved(self, count: int) -> bool:  # noqa: ARG002 (for those that group samples)
        """Return True if `count` real and `count` fake images, interleaved, give the same
        outputs in one call as in two."""
        return False

    @property
    def on_pixels(self) -> Discriminator:
        """The part that gradient penalties limit, and that trains before what sees features of a
        frozen network: all of it, if nothing does."""
        return self

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        raise NotImplementedError

    def reconstruct(self, output: DiscriminatorOutput) -> Tensor:
        """Return the distance between the images and their reconstructions from the maps of an
        output, a scalar to minimise; only for outputs with `decoder_inputs`."""
        raise NotImplementedError


def mean_per_sample(values: Tensor) -> Tensor:
    """Return the mean of each sample's values, one per logit: (n,) or (n, k) → (n,)."""
    return values if values.ndim == 1 else values.mean(dim=1)


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Interleave rows: (n, …) and (n, …) → (2n, …)."""
    return torch.stack([first, second], dim=1).flatten(0, 1)


def deinterleave(output: DiscriminatorOutput) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
    """Split the output for interleaved images into the first and the second of each pair."""
    logits, features, classes, codes, _, frozen = output

    def half(start: int) -> DiscriminatorOutput:
        return DiscriminatorOutput(
            logits[start::2],
            features[start::2],
            None if classes is None else classes[start::2],
            None if codes is None else codes[start::2],
            frozen=tuple(some[start::2] for some in frozen),
        )

    return half(0), half(1)
