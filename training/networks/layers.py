"""Layers and weight initialisation shared by several networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, dropout, normalize
from torch.nn.utils import parametrize

from training.options.base import GeneratorOptions


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of `values` (the meta device has none)."""
    kind = values.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def convolution_dtype(values: Tensor) -> torch.dtype:
    """Return the precision in which convolutions of `values` are computed: that of autocast, if it
    is enabled, else their own."""
    kind = values.device.type
    cast = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if cast else values.dtype


def computes_in_fp16(values: Tensor) -> bool:
    """True if a convolution of `values` is computed in fp16, also by autocast."""
    return convolution_dtype(values) == torch.float16


class JointBatchNorm(nn.BatchNorm2d):
    """Batch norm for a discriminator that is trained on real and fake images in one batch, with
    joint statistics. While its weights are not trained (in G's step), it uses their moving
    averages, so that fake images are not normalised by themselves.

    Batch norm over fake images alone removes what they have in common: pale fakes look like real
    images.
    """

    def forward(self, maps: Tensor) -> Tensor:
        if self.training and self.weight.requires_grad:
            return super().forward(maps)
        return batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class MinibatchStddev(nn.Module):
    """Append maps with the mean standard deviation over groups of samples (Karras 2018, section 3):
    sample i is in group i mod (n / `group`), as published. If `group` does not divide n, the next
    smaller number that does is used.

    (n, c, h, w) → (n, c + `channels`, h, w); each added map covers its share of the c channels.
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
    """Add Gaussian noise of standard deviation `scale` while training (Zhao 2017)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, values: Tensor) -> Tensor:
        return values + torch.randn_like(values) * self.scale if self.training else values


class Dropout(nn.Module):
    """Dropout that is also active when sampling if `at_test` is set (Isola 2017, section 3.1)."""

    def __init__(self, share: float, at_test: bool = False) -> None:
        super().__init__()
        self.share, self.at_test = share, at_test

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.share, self.training or self.at_test)


def noise_and_dropout(options: GeneratorOptions) -> list[nn.Module]:
    """Return the layers after each hidden layer of a generator: noise and dropout, if set."""
    layers: list[nn.Module] = []
    if options.noise:
        layers.append(Noise(options.noise))
    if options.dropout:
        layers.append(Dropout(options.dropout, options.dropout_at_test))
    return layers


def to_image_range(values: Tensor, output: str) -> Tensor:
    """Return the last layer's values as an image in [-1, 1]; the [0, 1] of `sigmoid` is scaled to
    it.

    `linear` returns them unchanged: the range is learned from the data.
    """
    if output == "linear":
        return values
    return values.sigmoid() * 2 - 1 if output == "sigmoid" else values.tanh()


_LEAST_LENGTH = 1e-24
"""Of a vector that is divided by its length: that of a weight of zeros stays zero."""


@torch.library.custom_op("shellgan::copy", mutates_args=())
def _opaque_copy(values: Tensor) -> Tensor:
    return values.clone()


@_opaque_copy.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values)


def copy_for_backward(values: Tensor) -> Tensor:
    """Return the new values of a buffer as the backward pass needs them.

    A compiled network would save the buffer instead, and find the values of a later pass there. The
    compiler would leave out a `clone`.
    """
    trains = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    return _opaque_copy(values) if trains else values


class SpectralNorm(nn.Module):
    """A weight (`outputs` is its dimension of outputs) → the weight divided by an estimate of its
    largest singular value, which each training pass improves by one power iteration (Miyato 2018,
    algorithm 1).

    Like PyTorch's, and with its names in checkpoints, but in full precision: autocast would round
    the products of matrix and vector.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        matrix = self._matrix(weight.detach())
        for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
            self.register_buffer(name, normalize(matrix.new_empty(size).normal_(), dim=0))
        for _ in range(15):
            self._improved(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            matrix = self._matrix(weight)
            # the next pass changes the buffers, before the backward pass of this one
            if self.training:
                left, right = self._improved(matrix)
            else:
                left, right = self._u.clone(), self._v.clone()
            return weight / torch.vdot(left, torch.mv(matrix, right))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight to store if `weight` is assigned to the layer."""
        return weight

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.outputs, 0).flatten(1)

    @torch.no_grad()
    def _improved(self, matrix: Tensor) -> list[Tensor]:
        """Take a power iteration; return the new vectors. Both are scaled in one call: the
        direction of the second does not depend on the length of the first."""
        left = torch.mv(matrix, self._v)
        vectors = [left, torch.mv(matrix.t(), left)]
        lengths = torch._foreach_norm(vectors)
        torch._foreach_clamp_min_(lengths, _LEAST_LENGTH)
        torch._foreach_div_(vectors, lengths)
        torch._foreach_copy_([self._u, self._v], vectors)
        return [copy_for_backward(one) for one in vectors]


def spectral_norm(layer: nn.Module) -> None:
    """Divide the weight of `layer` by its largest singular value: see `SpectralNorm`."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    parametrize.register_parametrization(layer, "weight", SpectralNorm(weight, outputs))


def apply_spectral_norm(network: nn.Module) -> None:
    """Call `spectral_norm` with each convolution and linear layer of `network`."""
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    for layer in list(network.modules()):
        if isinstance(layer, kinds):
            spectral_norm(layer)


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)


def init_weights(network: nn.Module, scheme: str) -> None:
    """Initialise the convolutions, linear layers and norms of `network`.

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
        elif isinstance(layer, NORMS) and layer.affine:
            if scheme == "dcgan":
                nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def _bare_weight(layer: nn.Module) -> Tensor:
    """Return the weight itself, also under spectral normalisation."""
    if nn.utils.parametrize.is_parametrized(layer, "weight"):
        original = layer.parametrizations.weight.original  # type: ignore[union-attr]
        assert isinstance(original, Tensor)
        return original
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
