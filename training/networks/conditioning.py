"""How latents, codes and labels enter the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.options.architectures import Codes, code_count, is_semi_supervised
from training.options.base import DiscriminatorOptions, GeneratorOptions  # fmt: skip


def latent_codes(latents: Tensor, options: Codes) -> Tensor:
    """Decode InfoGAN's codes (n, k) from the latents (n, z_dim + k): one-hot groups, then
    continuous codes.

    The largest latent of a group is its category, so all categories are equally likely; a
    continuous code is the latent itself. Latents stay plain points: grids and walks do not need to
    know about codes.
    """
    count = code_count(options)
    rest, parts = latents[:, latents.shape[1] - count :], []
    for size in options.categorical:
        parts.append(one_hot(rest[:, :size].argmax(dim=1), size).to(latents.dtype))
        rest = rest[:, size:]
    return torch.cat([*parts, rest], dim=1)


class LatentInput(nn.Module):
    """Latents (n, z_dim) and labels (n,) → the first layer's input (n, `size`).

    Raises:
        UserError: labels are required and the dataset has none.
    """

    def __init__(self, options: GeneratorOptions, shape: ImageShape) -> None:
        super().__init__()
        self.options = options
        self.z_dim = self.size = options.z_dim + code_count(options)
        self.embed: nn.Embedding | None = None
        if options.condition != "none":
            require_labels("generator.condition", shape)
        if options.condition == "embedding":
            self.embed = nn.Embedding(shape.classes, options.embedding)
            self.size += options.embedding

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        if code_count(self.options):
            noise = latents[:, : self.options.z_dim]
            latents = torch.cat([noise, latent_codes(latents, self.options)], dim=1)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        return latents


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with learned gains and offsets per label (Dumoulin 2017)."""

    def __init__(self, maps: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gain, self.offset = nn.Embedding(classes, maps), nn.Embedding(classes, maps)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.offset.weight)

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        gain, offset = (
            layer(labels)[:, :, None, None].to(maps.dtype) for layer in (self.gain, self.offset)
        )
        changed: Tensor = self.norm(maps) * gain + offset
        return changed


class ConditionalSequential(nn.ModuleList):
    """A sequence of layers; conditional layers also get the labels."""

    def forward(self, values: Tensor, labels: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, ConditionalBatchNorm | ConditionalLayer):
                values = layer(values, labels)
            else:
                values = layer(values)
        return values


class ConditionalLayer(nn.Module):
    """A layer that is called with (values, labels)."""


def generator_norm(kind: str, condition: str, maps: int, shape: ImageShape) -> list[nn.Module]:
    """Return the normalisation of a generator, with gains per label if it is conditioned in this
    way.

    Raises:
        UserError: the norm depends on labels and there is no norm.
    """
    if condition == "norm":
        if kind != "batch":
            raise UserError('generator.condition: "norm" needs generator.norm = "batch"')
        return [ConditionalBatchNorm(maps, shape.classes)]
    return [nn.BatchNorm2d(maps)] if kind == "batch" else []


class LabelChannel(nn.Module):
    """Append one channel, learned per label (Mirza & Osindero 2014), to the images."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.classes, shape.height * shape.width)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        count, _, height, width = images.shape
        channel = self.embed(labels).view(count, 1, height, width).to(images.dtype)
        return torch.cat([images, channel], dim=1)


class DiscriminatorInput(nn.Module):
    """The input of a discriminator: images (n, `channels` before, h, w) and labels → `channels`.

    Raises:
        UserError: labels are required and the dataset has none.
    """

    def __init__(self, options: DiscriminatorOptions, shape: ImageShape) -> None:
        super().__init__()
        for key, wanted in (
            ("condition", options.condition != "none"), ("classifier", options.classifier),
            ("semi_supervised", is_semi_supervised(options)),
        ):  # fmt: skip
            if wanted:
                require_labels(f"discriminator.{key}", shape)
        self.channels = shape.channels * options.packing
        self.label: LabelChannel | None = None
        if options.condition == "embedding":
            self.label, self.channels = LabelChannel(shape), self.channels + 1

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return images if self.label is None else self.label(images, labels)


def require_labels(key: str, shape: ImageShape) -> None:
    """Raise UserError if the dataset has no labels; `key` is the option that requires them."""
    if not shape.classes:
        raise UserError(
            f"{key}: the shards have no labels; name their source with --data.label (cls, txt, "
            "json:KEY), or use a preset without labels"
        )
