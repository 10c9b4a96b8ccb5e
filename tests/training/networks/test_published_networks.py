"""Our networks against the published ones, written out: the same weights give the same answers.

The order of weights is the order of layers, so a published network's weights are copied into ours
one after the other; that fails if a count or a shape differs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.networks import ImageShape, build_discriminator, build_generator
from training.options.resolve import resolve


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# "Journey With GANs": 64 px, and 128 px with a layer more


def journey_generator(ngf: int, layers: int, z: int = 100) -> nn.Module:
    maps = [ngf * 2**power for power in reversed(range(layers))]
    found: list[nn.Module] = [
        nn.ConvTranspose2d(z, maps[0], 4, 1, 0, bias=False), nn.BatchNorm2d(maps[0]),
        nn.ReLU(inplace=True),
    ]  # fmt: skip
    for below, above in pairwise(maps):
        found += [
            nn.ConvTranspose2d(below, above, 4, 2, 1, bias=False), nn.BatchNorm2d(above),
            nn.ReLU(inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*found, nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Tanh())


def journey_discriminator(ndf: int, layers: int) -> nn.Module:
    maps = [3, *(ndf * 2**power for power in range(layers))]
    found: list[nn.Module] = []
    for below, above in pairwise(maps):
        found += [
            nn.Conv2d(below, above, 4, 2, 1), nn.BatchNorm2d(above),
            nn.LeakyReLU(0.2, inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*found, nn.Conv2d(maps[-1], 1, 4, 1, 0), nn.Sigmoid(), nn.Flatten())


# The woodblock post: multipliers 1-2-4-8-16, 128 latents, Sigmoid


def woodblock_generator() -> nn.Module:
    maps = [64 * multiplier for multiplier in (16, 8, 4, 2, 1)]
    found: list[nn.Module] = []
    for number, (below, above) in enumerate(zip([128, *maps[:-1]], maps, strict=True)):
        stride, pad = (1, 0) if number == 0 else (2, 1)
        found += [
            nn.ConvTranspose2d(below, above, 4, stride, pad, bias=False), nn.BatchNorm2d(above),
            nn.ReLU(True),
        ]  # fmt: skip
    return nn.Sequential(*found, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Sigmoid())


def woodblock_discriminator() -> nn.Module:
    maps = [64 * multiplier for multiplier in (1, 2, 4, 8, 16)]
    found = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for below, above in pairwise(maps):
        found += [
            nn.Conv2d(below, above, 4, 2, 1, bias=False), nn.BatchNorm2d(above),
            nn.LeakyReLU(0.2, inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*found, nn.Conv2d(1024, 1, 4, 1, 0, bias=False), nn.Sigmoid())


# The lecture: 32-64-128-256, and a 3×3 convolution at the generator's end


def lecture_generator() -> nn.Module:
    maps = [1024, 512, 256, 128, 64]
    found: list[nn.Module] = []
    for number, (below, above) in enumerate(zip([128, *maps[:-1]], maps, strict=True)):
        stride, pad = (1, 0) if number == 0 else (2, 1)
        found += [
            nn.ConvTranspose2d(below, above, 4, stride, pad, bias=False), nn.BatchNorm2d(above),
            nn.ReLU(inplace=True),
        ]  # fmt: skip
    return nn.Sequential(*found, nn.ConvTranspose2d(64, 3, 3, 1, 1), nn.Tanh())


def lecture_discriminator() -> nn.Module:
    found: list[nn.Module] = []
    for below, above, norm in ((3, 32, False), (32, 64, False), (64, 128, True), (128, 256, True)):
        found.append(nn.Conv2d(below, above, 4, 2, 1, bias=False))
        found += [nn.BatchNorm2d(above)] if norm else []
        found.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*found, nn.Conv2d(256, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Weight by weight, in order. A stride-1 transposed convolution is a convolution with the
    kernel turned round."""
    theirs, ours = list(source.state_dict().items()), list(target.state_dict().items())
    assert len(theirs) == len(ours)
    modules = dict(source.named_modules())
    with torch.no_grad():
        for (name, weight), (_, place) in zip(theirs, ours, strict=True):
            layer = modules[name.rpartition(".")[0]]
            turned = isinstance(layer, nn.ConvTranspose2d) and layer.padding == layer.stride == (
                1,
                1,
            )
            given = weight.transpose(0, 1).flip(2, 3) if turned and weight.ndim == 4 else weight
            assert place.shape == given.shape, name
            place.copy_(given)


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


SEEDS: dict[str, tuple[Any, Any, int, bool]] = {
    "dcgan64": (
        lambda: journey_generator(100, 4), lambda: journey_discriminator(100, 4), 64, False
    ),
    "dcgan128": (
        lambda: journey_generator(160, 5), lambda: journey_discriminator(40, 5), 128, False
    ),
    "woodblock128": (woodblock_generator, woodblock_discriminator, 128, True),
    "lecture64": (lecture_generator, lecture_discriminator, 64, False),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_seed_networks_are_the_published_code(name: str) -> None:
    make_generator, make_discriminator, size, sigmoid = SEEDS[name]
    config, shape = resolve(name, {}), ImageShape(size, size, 3)
    labels = torch.zeros(2, dtype=torch.int64)
    theirs, ours = make_generator(), build_generator(config.generator, shape)
    assert count(theirs) == count(ours)
    copy_weights(theirs, ours)
    latents = torch.randn(2, ours.z_dim)
    expected = theirs(latents[:, :, None, None])
    images = ours(latents, labels)
    # theirs is in [0, 1] with a Sigmoid, ours always in [-1, 1]
    assert torch.allclose(images, expected * 2 - 1 if sigmoid else expected, atol=1e-5)
    assert images.shape == (2, 3, size, size)

    discriminator, our_discriminator = (
        make_discriminator(),
        build_discriminator(config.discriminator, shape),
    )
    assert count(discriminator) == count(our_discriminator)
    copy_weights(discriminator, our_discriminator)
    answer: Tensor = discriminator(expected.detach())
    ours_said = our_discriminator(expected.detach(), labels).logits.sigmoid()
    assert torch.allclose(ours_said, answer.flatten(), atol=1e-6)


def test_radford_s_generator() -> None:
    """Figure 1 of Radford 2016: 100 → 4×4×1024 → 512 → 256 → 128 → 64×64×3, 5×5, Tanh."""
    config, shape = resolve("dcgan-paper", {}), ImageShape(64, 64, 3)
    network = build_generator(config.generator, shape)
    weights = [w for k, w in network.named_parameters() if w.ndim == 4]
    assert [tuple(w.shape[:2]) for w in weights] == [
        (100, 1024), (1024, 512), (512, 256), (256, 128), (128, 3)
    ]  # fmt: skip
    assert [w.shape[2] for w in weights] == [4, 5, 5, 5, 5]
    assert network(torch.rand(2, 100), torch.zeros(2)).shape == (2, 3, 64, 64)


def test_mnist_networks() -> None:
    shape = ImageShape(28, 28, 1)
    config = resolve("dcgan-mnist", {})
    network = build_generator(config.generator, shape)
    sizes: list[int] = []
    for layer in network.layers:  # type: ignore[union-attr]
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[2]))
    images = network(torch.randn(2, 100), torch.zeros(2))
    assert sizes == [7, 14, 28]
    assert images.shape == (2, 1, 28, 28)
    discriminator = build_discriminator(config.discriminator, shape)
    maps = [w.shape[0] for w in discriminator.parameters() if w.ndim == 4]
    assert maps == [128, 128, 1]  # the same depth throughout
    assert discriminator(images, torch.zeros(2)).logits.shape == (2,)


def test_goodfellow_s_networks() -> None:
    shape = ImageShape(28, 28, 1)
    config = resolve("gan-mnist", {})
    shapes = [
        [tuple(w.shape) for w in network.parameters() if w.ndim == 2]
        for network in (
            build_generator(config.generator, shape),
            build_discriminator(config.discriminator, shape),
        )
    ]
    assert shapes[0] == [(1200, 100), (1200, 1200), (784, 1200)]
    assert shapes[1] == [(1200, 784), (1200, 240)]  # 240 units of 5 pieces each


def test_sngan_s_networks_for_cifar() -> None:
    """Table 4 of Miyato 2018: three blocks of 256 up; 128 down twice, twice plain."""
    config, shape = resolve("sngan", {}), ImageShape(32, 32, 3)
    generator = build_generator(config.generator, shape)
    assert count(generator) == (
        (128 * 4 * 4 * 256 + 4 * 4 * 256)  # dense
        + 3 * (2 * (256 * 256 * 9 + 256) + (256 * 256 + 256) + 2 * 2 * 256)  # blocks
        + 2 * 256 + (256 * 3 * 9 + 3)  # norm, last convolution
    )  # fmt: skip
    discriminator = build_discriminator(config.discriminator, shape)
    block = 2 * (128 * 128 * 9 + 128)
    assert count(discriminator) == (
        (3 * 128 * 9 + 128) + (128 * 128 * 9 + 128) + (3 * 128 + 128)  # sees the image
        + block + (128 * 128 + 128)  # halves
        + 2 * block  # plain
        + 128 + 1
    )  # fmt: skip
    heights: list[int] = []
    for block_ in discriminator.hidden:  # type: ignore[union-attr]
        block_.register_forward_hook(lambda _, __, out: heights.append(out.shape[2]))
    discriminator(torch.randn(2, 3, 32, 32), torch.zeros(2))
    assert heights == [16, 8, 8, 8, 8]


def test_sagan_s_networks() -> None:
    """Zhang 2019: 128 px, 1024-…-64 maps, attention where maps are 32 px high, in both."""
    config = resolve("sagan", {"generator.width": "4", "discriminator.width": "4"})
    assert (resolve("sagan", {}).generator.width, resolve("sagan", {}).discriminator.width) == (
        64, 64
    )  # fmt: skip
    shape = ImageShape(128, 128, 3, 5)
    heights: list[int] = []
    for network, given in (
        (build_generator(config.generator, shape), torch.randn(2, 128)),
        (build_discriminator(config.discriminator, shape), torch.randn(2, 3, 128, 128)),
    ):
        layer = next(m for m in network.modules() if type(m).__name__ == "SelfAttention")
        layer.register_forward_hook(lambda _, __, out: heights.append(out.shape[2]))
        network(given, torch.zeros(2, dtype=torch.int64))
        wrapped = [m for m in network.modules() if nn.utils.parametrize.is_parametrized(m)]
        assert len(wrapped) > 10
    assert heights == [32, 32]
