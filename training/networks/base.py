"""What every network offers the trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageShape:
    """The images a network makes or judges: size in pixels, 1 or 3 channels, label count."""

    height: int
    width: int
    channels: int
    classes: int = 0


class DiscriminatorOutput(NamedTuple):
    """What a discriminator says of n images.

    `logits` float (n,): higher is more real; (n, k) where k patches or scales are judged, all by
    the same loss. `features` (n, …): its last hidden layer. `classes` logits (n, classes) of the
    label and `codes` (n, k) guesses of InfoGAN's codes, where it has such an output. `seen` is what
    `Discriminator.reconstruct` needs: the images first.
    """

    logits: Tensor
    features: Tensor
    classes: Tensor | None = None
    codes: Tensor | None = None
    decoder_inputs: tuple[Tensor, ...] = ()

    @property
    def mean_logit(self) -> Tensor:
        """One number a sample, (n,): the mean of its logits. Its slope is what penalties bound."""
        return self.logits if self.logits.ndim == 1 else self.logits.mean(dim=1)


class Generator(nn.Module):
    """Latents float (n, z_dim) and labels int64 (n,) → images (n, channels, height, width) in
    [-1, 1]. `z_dim` counts InfoGAN's codes too."""

    z_dim: int

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


class Discriminator(nn.Module):
    """Images in [-1, 1] and labels int64 (n,) → a `Verdict`.

    Images are (n, channels, height, width); with packing p (n, p·channels, height, width).
    `hidden` are its layers from the image to the features.
    """

    hidden: nn.Sequential
    joint_batch: bool = False
    """While it learns, real and fake images (alternating) are to be judged in one call: what it
    says of one kind depends on the other."""

    def accepts_interleaved(self, count: int) -> bool:  # noqa: ARG002 (for those that group samples)
        """Whether `count` real and `count` fake images, alternating, get the same answers in one
        call as in two."""
        return False

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        raise NotImplementedError

    def reconstruct(self, verdict: DiscriminatorOutput) -> Tensor:
        """How far what is decoded from the verdict's maps is from the images that it is about, a
        scalar to be minimised; only for verdicts with `seen`."""
        raise NotImplementedError


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Rows of both, alternating: (n, …) and (n, …) → (2n, …)."""
    return torch.stack([first, second], dim=1).flatten(0, 1)


def deinterleave(verdict: DiscriminatorOutput) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
    """The verdicts on the first and on the second of alternating images."""
    logits, features, classes, codes, _ = verdict

    def half(start: int) -> DiscriminatorOutput:
        return DiscriminatorOutput(
            logits[start::2],
            features[start::2],
            None if classes is None else classes[start::2],
            None if codes is None else codes[start::2],
        )

    return half(0), half(1)
