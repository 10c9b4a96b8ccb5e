"""StyleGAN2 against plain definitions: per-sample weights, scipy's filters, autograd, the paper's
table of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu

from pipeline.contract import UserError
from training.networks import ImageShape, build_discriminator, build_generator
from training.networks.layers import MinibatchStddev
from training.networks.resampling import (
    downsample2d,
    halve,
    setup_filter,
    upfirdn2d,
    upsample2d,
)
from training.networks.stylegan2 import StyleGan2D, StyleGan2G
from training.networks.stylegan2.adain import adain
from training.networks.stylegan2.convolution import down_convolution, up_convolution
from training.networks.stylegan2.modulation import SynthesisLayer, ToRGBLayer
from training.options.architectures import StyleGan2Discriminator, StyleGan2Generator

PUBLISHED = (1.0, 3.0, 3.0, 1.0)
LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def table(**options: Any) -> StyleGan2Generator:
    small = {"z_dim": 6, "w_dim": 5, "mapping_layers": 2, "channel_base": 64, "channel_max": 8}
    return StyleGan2Generator(**{**small, **options})


def made(shape: ImageShape, **options: Any) -> StyleGan2G:
    generator = build_generator(table(**options), shape)
    assert isinstance(generator, StyleGan2G)
    return generator


def discriminator(shape: ImageShape, **options: Any) -> StyleGan2D:
    small = {"channel_base": 64, "channel_max": 8, **options}
    network = build_discriminator(StyleGan2Discriminator(**small), shape)
    assert isinstance(network, StyleGan2D)
    return network


def by_scipy(image: Tensor, taps: Tensor, up: int, down: int) -> Tensor:
    """Both axes of (n, c, h, w), full length."""
    row = taps.sum(dim=0).numpy()
    column = taps.sum(dim=1).numpy()
    wide = upfirdn(row, image.numpy(), up, down, axis=3)
    return torch.from_numpy(np.ascontiguousarray(upfirdn(column, wide, up, down, axis=2)))


@pytest.mark.parametrize("taps", [PUBLISHED, (1.0, 2.0, 1.0), (1.0, 4.0, 2.0)], ids=str)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_filtering_is_scipys(taps: tuple[float, ...], up: int, down: int) -> None:
    image, weight = torch.randn(2, 3, 7, 5, dtype=torch.float64), setup_filter(taps).double()
    size = len(taps)
    # scipy's signal has no zeros behind the last pixel; ours has up − 1
    around = (size - 1, size - up, size - 1, size - up)
    found = upfirdn2d(image, weight, up, down, around, gain=2.0)
    torch.testing.assert_close(found, 2 * by_scipy(image, weight, up, down))


def full(image: Tensor, taps: Tensor) -> Tensor:
    return by_scipy(image, taps, 1, 1)


def test_twice_and_half_the_size_are_centred() -> None:
    """Against scipy's full convolution, cut where the filter's middle lies on the pixels."""
    image, taps = torch.randn(1, 2, 6, 8, dtype=torch.float64), setup_filter(PUBLISHED).double()
    large = 4 * by_scipy(image, taps, 2, 1)[:, :, 1:13, 1:17]
    torch.testing.assert_close(upsample2d(image, taps), large)
    small = full(image, taps)[:, :, 2::2, 2::2][:, :, :3, :4]
    torch.testing.assert_close(downsample2d(image, taps), small)
    flat = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(
        upsample2d(flat, taps)[:, :, 3:-3, 3:-3], torch.ones(1, 1, 10, 10).double()
    )


def test_convolution_to_twice_the_size_is_its_definition() -> None:
    """Zeros between the pixels, true convolution with the weight, then with the filter."""
    image, taps = torch.randn(2, 3, 5, 4, dtype=torch.float64), setup_filter(PUBLISHED).double()
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    spread = torch.zeros(2, 3, 10, 8, dtype=torch.float64)
    spread[:, :, ::2, ::2] = image
    convolved = conv2d(spread, weight.flip((2, 3)), padding=2)
    expected = 4 * full(convolved, taps)[:, :, 2:12, 2:10]
    torch.testing.assert_close(up_convolution(image, weight, taps, False), expected)


def test_convolution_to_half_the_size_is_its_definition() -> None:
    """The filter, then the weight at every other pixel."""
    image, taps = torch.randn(2, 3, 8, 6, dtype=torch.float64), setup_filter(PUBLISHED).double()
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    filtered = full(image, taps)[:, :, 1:-1, 1:-1]
    expected = conv2d(filtered, weight, stride=2)
    torch.testing.assert_close(down_convolution(image, weight, taps, False), expected)


@pytest.mark.parametrize("up", [False, True])
def test_modulation_is_a_weight_for_each_sample(up: bool) -> None:
    """Karras 2020a, equations 1 to 3, one sample after the other."""
    layer = SynthesisLayer(table(), 4, 3, (8, 8), up=up).double()
    with torch.no_grad():
        layer.noise_strength.fill_(0.7)
        layer.bias.normal_()
    images, w = torch.randn(3, 4, 8 - 4 * up, 8 - 4 * up).double(), torch.randn(3, 5).double()
    found = layer(images, w, "const", gain=0.5)
    styles = w @ (layer.affine.weight / 5**0.5).t() + layer.affine.bias
    for number in range(3):
        weight = layer.weight * styles[number][None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        image = images[number : number + 1]
        if up:
            convolved = up_convolution(image, weight, layer.resample_filter, False)
        else:
            convolved = conv2d(image, weight, padding=1)
        before = convolved + layer.noise_const * 0.7 + layer.bias[:, None, None]
        expected = leaky_relu(before, 0.2) * 2**0.5 * 0.5
        torch.testing.assert_close(found[number : number + 1], expected)


def test_colours_are_modulated_without_demodulation() -> None:
    layer = ToRGBLayer(table(), 4, 3).double()
    images, w = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 5).double()
    styles = (w @ (layer.affine.weight / 5**0.5).t() + layer.affine.bias) / 4**0.5
    weight = layer.weight[None, :, :, 0, 0] * styles[:, None]
    expected = torch.einsum("nchw,noc->nohw", images, weight)
    torch.testing.assert_close(layer(images, w), expected)


def test_activations_are_clamped_at_their_gain() -> None:
    layer = SynthesisLayer(table(conv_clamp=0.5), 4, 3, (8, 8))
    found = layer(torch.randn(2, 4, 8, 8) * 100, torch.randn(2, 5), "none", gain=0.5)
    assert found.abs().max() == 0.25


def test_fp16_gives_the_images_of_fp32_where_a_plain_sum_would_overflow() -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(table(), 64, 3, (8, 8))
    with torch.no_grad():
        layer.weight.mul_(300)
        layer.affine.weight.mul_(3000)
    images, w = torch.randn(2, 64, 8, 8) * 3, torch.randn(2, 5)
    styles = layer.affine(w)[:, :, None, None]
    assert conv2d(images * styles, layer.weight, padding=1).abs().max() > 65504
    expected = layer(images, w, "none")
    with torch.autocast("cpu", dtype=torch.float16):
        found = layer(images, w, "none")
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=1e-2)


def test_fp16_activations_are_clamped_at_256() -> None:
    layer = SynthesisLayer(table(), 4, 3, (8, 8))
    with torch.autocast("cpu", dtype=torch.float16):
        found = layer(torch.randn(2, 4, 8, 8) * 1000, torch.randn(2, 5), "none", gain=0.5)
    assert found.abs().max() == 128
    assert layer(torch.randn(2, 4, 8, 8) * 1000, torch.randn(2, 5), "none").abs().max() > 256


def test_adain_gives_each_map_its_mean_and_deviation() -> None:
    scale, offset = torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    found = adain(torch.randn(2, 3, 16, 16) * 7 + 4, scale, offset)
    torch.testing.assert_close(found.mean(dim=(2, 3)), offset, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(dim=(2, 3), unbiased=False), scale, atol=1e-4, rtol=0)


def doubly_differentiable(function: Any, *given: Tensor) -> None:
    inputs = tuple(value.double().requires_grad_() for value in given)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_filters_have_two_derivatives(up: int, down: int) -> None:
    taps = setup_filter((1.0, 4.0, 2.0)).double()
    doubly_differentiable(
        lambda image: upfirdn2d(image, taps, up, down, (2, 1, 1, 2)), torch.randn(1, 2, 4, 6)
    )
    doubly_differentiable(halve, torch.randn(1, 2, 4, 6))


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["filter", "economical"])
@pytest.mark.parametrize("up", [False, True])
def test_a_styled_layer_has_two_derivatives(resample: str, up: bool) -> None:
    torch.manual_seed(1)  # no value close to the kink of the leaky ReLU
    layer = SynthesisLayer(table(resample=resample), 2, 2, (4, 4), up=up).double()
    size = 2 if up else 4
    doubly_differentiable(
        lambda images, w: layer(images, w, "const"),
        torch.randn(2, 2, size, size),
        torch.randn(2, 5),
    )


@pytest.mark.slow
@pytest.mark.parametrize("resample", ["filter", "economical"])
def test_the_discriminator_has_two_derivatives(resample: str) -> None:
    network = discriminator(ImageShape(8, 8, 1), channel_max=2, resample=resample).double()
    doubly_differentiable(
        lambda images: network(images, LABELS[:2]).logits, torch.randn(2, 1, 8, 8)
    )


def test_standard_deviation_is_over_the_published_groups() -> None:
    maps = torch.randn(8, 6, 4, 4)
    found = MinibatchStddev(4, 2)(maps)
    assert found.shape == (8, 8, 4, 4)
    for sample in range(8):
        group = maps[sample % 2 :: 2]  # 8 / 4 = 2 groups
        for channel, part in enumerate((group[:, :3], group[:, 3:])):
            spread = (part.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
            torch.testing.assert_close(found[sample, 6 + channel], spread.expand(4, 4))


def test_standard_deviations_need_channels_that_divide_the_width() -> None:
    assert discriminator(ImageShape(8, 8, 3), mbstd_channels=4)(torch.randn(4, 3, 8, 8), LABELS)
    with pytest.raises(UserError, match=r"^discriminator\.mbstd_channels: 5 .* the 8 channels"):
        discriminator(ImageShape(8, 8, 3), mbstd_channels=5)


def test_real_and_fake_in_one_call_get_the_answers_of_two() -> None:
    network = discriminator(ImageShape(16, 16, 3))
    real, fake = torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16) * 2
    labels = torch.zeros(16, dtype=torch.int64)
    assert network.accepts_interleaved(8)
    assert not network.accepts_interleaved(6)
    both = network(torch.stack([real, fake], dim=1).flatten(0, 1), labels).logits
    torch.testing.assert_close(both[0::2], network(real, labels[:8]).logits)
    torch.testing.assert_close(both[1::2], network(fake, labels[:8]).logits)


# Karras 2020a, configuration F: 64·2^… maps, at most 512, by arithmetic of its table


def maps(size: int, base: int = 32768) -> int:
    return min(base // size, 512)


def g_parameters(size: int, base: int = 32768) -> int:
    """8 dense layers, the constant; a layer has its style, weight, bias, noise strength."""

    def styled(inside: int, outside: int) -> int:
        return (512 * inside + inside) + outside * inside * 9 + outside + 1

    def colours(inside: int) -> int:
        return (512 * inside + inside) + 3 * inside + 3

    count = 8 * (512 * 512 + 512) + 512 * 4 * 4 + styled(512, 512) + colours(512)
    res = 8
    while res <= size:
        above, below = maps(res // 2, base), maps(res, base)
        count += styled(above, below) + styled(below, below) + colours(below)
        res *= 2
    return count


def d_parameters(size: int, base: int = 32768) -> int:
    count, res = 3 * maps(size, base) + maps(size, base), size
    while res > 4:
        inside, outside = maps(res, base), maps(res // 2, base)
        count += inside * inside * 9 + inside + inside * outside * 9 + outside + inside * outside
        res //= 2
    return count + 513 * 512 * 9 + 512 + 512 * 16 * 512 + 512 + 512 + 1


@pytest.mark.parametrize(
    ("size", "base", "g_total", "d_total"),
    [
        (256, 16384, 24_767_458, 24_001_089),  # StyleGAN2-ADA's logs of paper256 …
        (1024, 32768, 30_370_060, 29_012_513),  # … and of configuration F
        (512, 32768, None, None),
    ],
)
def test_layers_are_those_of_the_paper(
    size: int, base: int, g_total: int | None, d_total: int | None
) -> None:
    shape = ImageShape(size, size, 3)
    with torch.device("meta"):
        generator = build_generator(StyleGan2Generator(channel_base=base), shape)
        network = build_discriminator(StyleGan2Discriminator(channel_base=base), shape)
    found = [sum(w.numel() for w in net.parameters()) for net in (generator, network)]
    assert found == [g_parameters(size, base), d_parameters(size, base)]
    if g_total is not None:
        assert found == [g_total, d_total]
    names = dict(generator.named_parameters())
    assert names[f"synthesis.b{size}.conv0.weight"].shape == (
        maps(size, base),
        maps(size // 2, base),
        3,
        3,
    )


def test_tensors_have_the_published_names() -> None:
    generator, network = (
        made(ImageShape(8, 8, 3, 2), condition="embedding"),
        discriminator(ImageShape(8, 8, 3, 2), condition="projection", mapping_layers=1),
    )
    assert set(generator.state_dict()) == {
        "mapping.embed.weight", "mapping.embed.bias", "mapping.w_avg",
        *(f"mapping.fc{n}.{part}" for n in range(2) for part in ("weight", "bias")),
        "synthesis.b4.const", "synthesis.b4.resample_filter", "synthesis.b8.resample_filter",
        *(
            f"synthesis.{layer}.{part}"
            for layer in ("b4.conv1", "b8.conv0", "b8.conv1")
            for part in (
                "weight", "bias", "noise_strength", "noise_const", "resample_filter",
                "affine.weight", "affine.bias",
            )
        ),
        *(
            f"synthesis.{layer}.{part}"
            for layer in ("b4.torgb", "b8.torgb")
            for part in ("weight", "bias", "affine.weight", "affine.bias")
        ),
    }  # fmt: skip
    layers = ("b8.fromrgb", "b8.conv0", "b8.conv1", "b4.conv")
    assert set(network.state_dict()) == {
        "mapping.embed.weight", "mapping.embed.bias", "mapping.fc0.weight", "mapping.fc0.bias",
        *(f"{layer}.{part}" for layer in layers for part in ("weight", "bias", "resample_filter")),
        "b8.skip.weight", "b8.skip.resample_filter", "b8.resample_filter",
        "b4.fc.weight", "b4.fc.bias", "b4.out.weight", "b4.out.bias",
    }  # fmt: skip


@pytest.mark.parametrize("resample", ["filter", "economical"])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("style", ["demodulation", "adain"])
def test_every_kind_generates_and_is_scored(resample: str, architecture: str, style: str) -> None:
    """Non-square, gray, conditional; also in bf16."""
    shape = ImageShape(32, 48, 1, 3)
    generator = made(
        shape, resample=resample, architecture=architecture, style=style, condition="embedding"
    )
    network = discriminator(
        shape, resample=resample, architecture=architecture, condition="projection"
    )
    labels = torch.tensor([0, 1, 2, 0])
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            images = generator(torch.randn(4, 6), labels)
            logits = network(images, labels).logits
        assert images.shape == (4, 1, 32, 48)
        assert images.dtype == torch.float32
        logits.float().sum().backward()
    learned = [name for name, weight in generator.named_parameters() if weight.grad is None]
    assert learned == []
    one, other = (network(images, labels + n).logits for n in (0, 0))
    assert torch.equal(one, other)
    assert not torch.equal(one, network(images, 2 - labels).logits)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="72×72"):
        made(ImageShape(72, 72, 3))
    with pytest.raises(UserError, match="no labels"):
        made(ImageShape(16, 16, 3), condition="embedding")


def test_a_label_changes_the_picture() -> None:
    generator = made(ImageShape(16, 16, 3, 2), condition="embedding").eval()
    latents = torch.randn(2, 6)
    assert not torch.equal(generator(latents, LABELS[:2]), generator(latents, LABELS[:2] + 1))


def test_the_mean_w_is_followed_while_training_only() -> None:
    generator = made(ImageShape(16, 16, 3), w_avg_beta=0.75)
    latents = torch.randn(4, 6)
    ws = generator.eval().mapping(latents, LABELS)
    assert generator.w_avg.abs().sum() == 0
    generator.train()(latents, LABELS)
    torch.testing.assert_close(generator.w_avg, 0.25 * ws[:, 0].mean(dim=0))


def test_truncation_draws_towards_the_mean() -> None:
    generator = made(ImageShape(16, 16, 3)).eval()
    generator.w_avg.normal_()
    latents = torch.randn(4, 6)
    whole = generator.mapping(latents, LABELS)
    cut = generator.mapping(latents, LABELS, truncation_psi=0.3, truncation_cutoff=2)
    assert whole.shape == (4, generator.num_ws, 5)
    expected = generator.w_avg + 0.3 * (whole[:, :2] - generator.w_avg)
    torch.testing.assert_close(cut[:, :2], expected)
    assert torch.equal(cut[:, 2:], whole[:, 2:])
    drawn = generator(latents, LABELS, truncation_psi=0.0)
    assert torch.allclose(drawn, drawn[:1], atol=1e-4)
    assert torch.equal(generator(latents, LABELS), generator.synthesis(whole))


def test_styles_are_mixed_from_a_random_layer_on() -> None:
    generator = made(ImageShape(32, 32, 3), style_mixing_prob=1.0)
    latents, starts = torch.randn(4, 6), set()
    plain = generator.mapping(latents, LABELS)
    for _ in range(60):
        mixed = generator.styles(latents, LABELS)
        same = (mixed == plain).all(dim=2).all(dim=0)
        start = int(same.sum())
        assert same.tolist() == [True] * start + [False] * (generator.num_ws - start)
        starts.add(start)
    assert starts == set(range(1, generator.num_ws))
    never = made(ImageShape(32, 32, 3), style_mixing_prob=0.0)
    assert torch.equal(never.styles(latents, LABELS), never.mapping(latents, LABELS))


def test_noise_is_new_while_training_and_fixed_when_drawing() -> None:
    generator = made(ImageShape(16, 16, 3), style_mixing_prob=0.0)
    for name, weight in generator.named_parameters():
        if name.endswith("noise_strength"):
            weight.data.fill_(1.0)
    ws = generator.mapping(torch.randn(2, 6), LABELS[:2])
    assert not torch.equal(generator.synthesis(ws), generator.synthesis(ws))
    assert torch.equal(
        generator.synthesis(ws, noise="const"), generator.synthesis(ws, noise="const")
    )
    generator.eval()
    assert torch.equal(generator.synthesis(ws), generator.synthesis(ws, noise="const"))
    assert not torch.equal(generator.synthesis(ws), generator.synthesis(ws, noise="none"))
    without = made(ImageShape(16, 16, 3), noise_mode="none")
    assert not [name for name in without.state_dict() if "noise" in name]


def test_the_mapping_learns_at_a_hundredth_of_the_rate() -> None:
    """Adam moves a stored weight by its rate; the used one by a hundredth, times 1/√inside."""
    generator = made(ImageShape(16, 16, 3), z_dim=100, w_dim=100, mapping_lr_multiplier=0.01)
    layer = generator.mapping.fc0
    assert layer.weight_gain == pytest.approx(0.01 / 10)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.05)
    used = layer.weight * layer.weight_gain
    assert used.std().item() == pytest.approx(0.1, rel=0.05)
