"""Layers and initial weights that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, dropout
from torch.nn.utils.parametrizations import spectral_norm

from training.options.architectures import GeneratorOptions


class JointBatchNorm(nn.BatchNorm2d):
    """Batch norm for a discriminator that learns from real and fake images in one batch: its
    statistics are theirs together. While its weights do not learn (the generator's step), it uses
    their moving averages, so that fakes are not normalised by themselves.

    Over fakes alone, batch norm takes out what they have in common: pale fakes look like real ones.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if self.training and self.weight.requires_grad:
            return super().forward(maps)
        return batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class MinibatchStddev(nn.Module):
    """Appends maps with the mean standard deviation over groups of samples (Karras 2018, section
    3): sample i is in the group i mod (n / `group`), as published. Where `group` does not divide n,
    the next smaller number that does is taken.

    (n, c, h, w) → (n, c + `channels`, h, w); each added map is about its share of the c.
    """

    def __init__(self, group: int, channels: int = 1) -> None:
        super().__init__()
        self.group, self.channels = group, channels

    def forward(self, maps: Tensor) -> Tensor:
        count, width, *size = maps.shape
        group = next(g for g in range(min(self.group, count), 0, -1) if count % g == 0)
        exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
        parts = exact.reshape(group, -1, self.channels, width // self.channels, *size)
        # the built-in variance takes forty times as long
        variance = (parts - parts.mean(dim=0)).square().mean(dim=0)
        spread = (variance + 1e-8).sqrt().mean(dim=(2, 3, 4))
        added = spread.repeat(group, 1)[:, :, None, None].expand(-1, -1, *size)
        return torch.cat([maps, added.to(maps.dtype)], dim=1)


class Noise(nn.Module):
    """Adds Gaussian noise of standard deviation `scale` while training (Zhao 2017)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, values: Tensor) -> Tensor:
        return values + torch.randn_like(values) * self.scale if self.training else values


class Dropout(nn.Module):
    """Dropout that also works when sampling, where `at_test` (Isola 2017, section 3.1)."""

    def __init__(self, share: float, at_test: bool = False) -> None:
        super().__init__()
        self.share, self.at_test = share, at_test

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.share, self.training or self.at_test)


def noise_and_dropout(options: GeneratorOptions) -> list[nn.Module]:
    """What follows each hidden layer of a generator: noise and dropout, as the table asks."""
    layers: list[nn.Module] = []
    if options.noise:
        layers.append(Noise(options.noise))
    if options.dropout:
        layers.append(Dropout(options.dropout, options.dropout_at_test))
    return layers


def to_image_range(values: Tensor, output: str) -> Tensor:
    """The last layer's values as an image in [-1, 1]; a `sigmoid`'s [0, 1] is scaled to it.

    `linear` leaves them as they are: the data alone teaches the range.
    """
    if output == "linear":
        return values
    return values.sigmoid() * 2 - 1 if output == "sigmoid" else values.tanh()


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide the weight of each convolution and linear layer of `network` by its largest singular
    value (Miyato 2018)."""
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    for layer in list(network.modules()):
        if isinstance(layer, kinds):
            spectral_norm(layer)


def init_weights(network: nn.Module, scheme: str) -> None:
    """Give the convolutions, linear layers and norms of `network` fresh weights.

    `dcgan`: N(0, 0.02), norm weights N(1, 0.02), biases 0 (Radford 2016, section 4); `orthogonal`
    and `xavier` (uniform) for convolutions and linear layers; `default`: PyTorch's own.
    """
    if scheme == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            weight = _bare_weight(layer)
            if scheme == "dcgan":
                nn.init.normal_(weight, 0.0, 0.02)
            elif scheme == "orthogonal":
                nn.init.orthogonal_(weight)
            else:
                nn.init.xavier_uniform_(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.modules.batchnorm._NormBase) and layer.affine:
            if scheme == "dcgan":
                nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def _bare_weight(layer: nn.Module) -> Tensor:
    """The weight itself, also where spectral normalisation stands before it."""
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        original = layer.parametrizations.weight.original  # type: ignore[union-attr]
        assert isinstance(original, Tensor)
        return original
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
