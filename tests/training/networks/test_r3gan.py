"""R3GAN's networks against the paper's arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.losses import squared_gradient
from training.networks import ImageShape, build_discriminator, build_generator
from training.networks.r3gan import Resample, ResidualBlock
from training.options.architectures import R3ganDiscriminator, R3ganGenerator

SHAPE = ImageShape(32, 32, 3, 5)
NONE = torch.zeros(4, dtype=torch.int64)


def networks(shape: ImageShape = SHAPE, **more: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    tables: dict[str, Any] = {"name": "r3gan", "widths": [16, 32, 32, 48], **more}
    both = {"generator": tables, "discriminator": tables}
    config = parse_config(Config, both, "test")
    return (
        build_generator(config.generator, shape),
        build_discriminator(config.discriminator, shape),
    )


def block_size(width: int, expansion: int, groups: int) -> int:
    """1×1, bias, grouped 3×3, bias, 1×1."""
    inner = width * expansion
    return width * inner + inner + inner * (inner // groups) * 9 + inner + inner * width


@pytest.mark.parametrize(
    ("size", "widths"),
    [(64, [384, 768, 768, 768, 768]), (256, [96, 192, 384, 768, 768, 768, 768])],
)
def test_published_sizes(size: int, widths: list[int]) -> None:
    """FFHQ-64 and FFHQ-256: two blocks a stage, expansion 2, 16 channels a group, z of 64."""
    shape = ImageShape(size, size, 3)
    with torch.device("meta"):
        generator = build_generator(R3ganGenerator(widths=tuple(widths)), shape)
        discriminator = build_discriminator(R3ganDiscriminator(widths=tuple(widths)), shape)
    blocks = sum(2 * block_size(width, 2, width * 2 // 16) for width in widths)
    changes = sum(below * above for below, above in pairwise(widths) if below != above)
    ends = widths[0] * 3
    expected = blocks + changes + ends + widths[-1] * (16 + 64)
    assert sum(w.numel() for w in generator.parameters()) == expected
    expected = blocks + changes + ends + widths[-1] * (16 + 1)
    assert sum(w.numel() for w in discriminator.parameters()) == expected


def test_a_block_is_the_formula() -> None:
    """x + W₃·act(Σ over the group of W₂ * act(W₁x + b₁) + b₂), group by group."""
    torch.manual_seed(1)
    block = ResidualBlock(8, 2, 4, 6).double()
    for weight in block.parameters():
        torch.nn.init.normal_(weight)
    maps = torch.randn(2, 8, 5, 6, dtype=torch.float64)

    def act(values: Tensor) -> Tensor:
        return torch.where(values > 0, values, 0.2 * values)

    first, second, third = block.first, block.second, block.third
    inner = torch.einsum("oi,nihw->nohw", first.weight[:, :, 0, 0], maps)
    inner = act(inner + first.bias[:, None, None])  # type: ignore[index]
    around = torch.nn.functional.pad(inner, (1, 1, 1, 1))
    found = torch.zeros_like(inner)
    for channel in range(16):
        start = channel // 4 * 4  # 16 channels in 4 groups
        for row in range(3):
            for column in range(3):
                window = around[:, start : start + 4, row : row + 5, column : column + 6]
                weight = second.weight[channel, :, row, column]
                found[:, channel] += torch.einsum("i,nihw->nhw", weight, window)
    inner = act(found + second.bias[:, None, None])  # type: ignore[index]
    expected = maps + torch.einsum("oi,nihw->nohw", third.weight[:, :, 0, 0], inner)
    assert torch.allclose(block(maps), expected)


def test_blocks_begin_as_nothing_with_the_variance_of_fix_up() -> None:
    block = ResidualBlock(64, 2, 8, 10)
    maps = torch.randn(2, 64, 4, 4)
    assert torch.equal(block(maps), maps)
    gain = math.sqrt(2 / 1.04) * 10 ** (-1 / 4)
    assert block.first.weight.std().item() == pytest.approx(gain / 8, rel=0.03)
    assert block.second.weight.std().item() == pytest.approx(gain / 12, rel=0.03)
    assert not block.third.weight.any()


def test_a_new_generator_is_linear_in_its_basis() -> None:
    """Until blocks learn, an image is the basis, weighed, resized, its width changed."""
    generator, _ = networks()
    first, second = torch.randn(2, 4, generator.z_dim)
    both = generator(first + second, NONE)
    assert torch.allclose(both, generator(first, NONE) + generator(second, NONE), atol=1e-5)
    many = generator(torch.randn(32, generator.z_dim), NONE.repeat(8))
    assert 0.3 < many.std().item() < 3


@pytest.mark.parametrize("up", [True, False])
def test_the_filter_is_scipy_s(up: bool) -> None:
    torch.manual_seed(2)
    maps = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    layer = Resample(3, 3, up, "filter").double()
    taps = np.array([1.0, 3.0, 3.0, 1.0]) / 8
    expected = maps.numpy()
    for axis in (2, 3):
        expected = upfirdn(taps * (2 if up else 1), expected, 2 if up else 1, 1, axis=axis)
        count = maps.shape[axis]
        places = slice(1, 1 + 2 * count) if up else slice(2, 2 + count, 2)
        expected = np.take(expected, range(*places.indices(expected.shape[axis])), axis=axis)
    assert np.allclose(layer(maps).numpy(), expected)


def test_box_resampling_keeps_means() -> None:
    maps = torch.randn(2, 3, 4, 4)
    small = Resample(3, 3, False, "box")(maps)
    assert torch.allclose(small[0, 0, 0, 1], maps[0, 0, :2, 2:].mean())
    assert torch.equal(Resample(3, 3, True, "box")(maps)[:, :, ::2, 1::2], maps)


def test_a_label_is_projected_without_a_logit_of_its_own() -> None:
    discriminator = projected()
    images = torch.randn(3, 3, 32, 32)
    labels = torch.tensor([4, 0, 2])
    output = discriminator(images, labels)
    weights = dict(discriminator.named_parameters())
    filtered = torch.einsum("nchw,cihw->nc", output.features, weights["head.basis.weight"])
    numbers = filtered @ weights["head.output.weight"].T
    expected = (numbers * weights["head.projection.weight"][labels]).sum(dim=1)
    assert torch.allclose(output.logits, expected, atol=1e-5)


def projected() -> Any:
    tables: dict[str, Any] = {"name": "r3gan", "widths": [16, 32, 32, 48]}
    config = parse_config(
        Config,
        {
            "generator": {**tables, "condition": "embedding"},
            "discriminator": {**tables, "condition": "projection"},
        },
        "test",
    )
    torch.manual_seed(0)
    return build_discriminator(config.discriminator, SHAPE)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("resample", ["filter", "box"])
def test_penalties_reach_every_weight(resample: str, bf16: bool) -> None:
    _, discriminator = networks(resample=resample)
    for name, weight in discriminator.named_parameters():
        if "third" in name:
            torch.nn.init.normal_(weight, 0, 0.1)

    def critic(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            score: Tensor = discriminator(images, NONE).mean_logit
        return score

    squared_gradient(critic, torch.randn(4, 3, 32, 32)).backward()
    for name, weight in discriminator.named_parameters():
        if "bias" not in name:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert weight.grad.any(), name


def test_wrong_stages_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"^generator\.widths: 4 stages given, this resolution has 5"
    ):
        networks(ImageShape(64, 64, 3))
    with pytest.raises(UserError, match=r"^generator\.cardinality: 3 groups do not divide 32"):
        networks(cardinality=[3])
