"""StyleGAN3 against SciPy's filters, a slow reference in NumPy, the paper's table, and exact shifts
and rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
from torch import Tensor

from pipeline.contract import UserError
from tests.helpers.stylegan3_reference import nonlinearity, reference_image
from training.networks import ImageShape, build_generator
from training.networks.stylegan3 import StyleGan3G
from training.networks.stylegan3.filters import radial_lowpass, separable_lowpass
from training.networks.stylegan3.input import SynthesisInput
from training.networks.stylegan3.layer import SynthesisLayer
from training.networks.stylegan3.resampling import downsample, filtered_rectify, upsample
from training.networks.stylegan3.schedule import LayerMaps, layer_maps
from training.options.styled import StyleGan3Generator

SMALL: dict[str, Any] = {
    "z_dim": 6, "w_dim": 5, "channel_base": 24, "channel_max": 5, "layers": 5, "margin": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def made(shape: ImageShape, **options: Any) -> StyleGan3G:
    """A generator in float64 with weights that are not those of the start."""
    generator = build_generator(StyleGan3Generator(**(SMALL | options)), shape)
    assert isinstance(generator, StyleGan3G)
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith("bias") or "input.affine" in name:
                value += torch.randn_like(value) * 0.3
        for name, value in generator.named_buffers():
            if name.endswith("magnitude_ema"):
                value.copy_(torch.rand(()) + 0.5)
        generator.w_avg.normal_()
    return generator.double().eval()


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), [
    (12, 2.0, 12.0, 32.0), (24, 8.0, 4.5, 64.0), (12, 15.0, 2.3, 64.0), (5, 1.0, 0.2, 8.0),
    (40, 4.0, 8.0, 32.0),
])  # fmt: skip
def test_filters_are_scipys(taps: int, cutoff: float, width: float, rate: float) -> None:
    """Attenuations below 21 dB, up to 50 dB and above, which have different formulas."""
    row = separable_lowpass(taps, cutoff, width, rate)
    assert row is not None
    wanted = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    np.testing.assert_allclose(row.numpy(), wanted, atol=1e-7)
    both = radial_lowpass(taps, cutoff, width, rate)
    assert both is not None
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.maximum(np.hypot(place[:, None], place[None]), 1e-12)
    disc = scipy.special.j1(2 * np.pi * cutoff * radius) / radius
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    disc = disc * np.outer(*[scipy.signal.windows.kaiser(taps, beta)] * 2)
    np.testing.assert_allclose(both.numpy(), disc / disc.sum(), atol=1e-7)


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(("up", "down", "padding"), [
    (2, 2, (9, 8)), (4, 2, (-6, -9)), (2, 2, (11, 10)), (4, 2, (22, 23)), (2, 4, (3, -2)),
])  # fmt: skip
def test_filtered_nonlinearity_is_its_definition(
    up: int, down: int, padding: tuple[int, int], radial: bool
) -> None:
    images = torch.randn(1, 2, 20, 20, dtype=torch.float64) * 3
    first = separable_lowpass(6 * up, 3, 4, 8 * up)
    design = radial_lowpass if radial else separable_lowpass
    second = design(6 * down, 3, 4, 8 * down)
    assert first is not None
    assert second is not None
    found = filtered_rectify(
        images, first.double(), up, padding, second.double(), down, 1.7, 4.0
    )  # fmt: skip
    filters = [np.outer(one, one) if one.ndim == 1 else one.numpy() for one in (first, second)]
    wanted = nonlinearity(
        images[0].numpy(), (filters[0], filters[1]), up, down, padding, 1.7, 0.2, 4.0
    )
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("up", [2, 4])
def test_filters_have_two_derivatives(up: int) -> None:
    row = separable_lowpass(2 * up, 3, 4, 8 * up)
    both = radial_lowpass(2 * up, 3, 4, 8 * up)
    assert row is not None
    assert both is not None
    images = torch.randn(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    large = torch.randn(1, 1, 9, 8, dtype=torch.float64, requires_grad=True)

    def larger(values: Tensor) -> Tensor:
        return upsample(values, row.double(), up, 2, 1)  # type: ignore[union-attr]

    assert torch.autograd.gradcheck(larger, images)
    assert torch.autograd.gradgradcheck(larger, images)
    for taps in (row.double(), both.double()):

        def smaller(values: Tensor, taps: Tensor = taps) -> Tensor:
            return downsample(values, taps, 2)

        assert torch.autograd.gradcheck(smaller, large)
        assert torch.autograd.gradgradcheck(smaller, large)


def test_filters_in_bfloat16_round_each_pass_once() -> None:
    row = separable_lowpass(12, 3, 4, 16)
    assert row is not None
    images = torch.randn(2, 3, 10, 10).bfloat16().requires_grad_(True)
    exact = images.detach().float().requires_grad_(True)
    found, wanted = upsample(images, row, 2, 9, 8), upsample(exact, row, 2, 9, 8)
    assert found.dtype == torch.bfloat16
    found.square().sum().backward()
    wanted.square().sum().backward()
    for mine, other in ((found, wanted), (images.grad, exact.grad)):
        assert mine is not None
        assert other is not None
        assert (mine.float() - other).abs().max() < other.abs().max() / 64


@pytest.mark.parametrize("equivariance", ["translation", "rotation"])
@pytest.mark.parametrize("classes", [0, 3])
def test_images_are_those_of_the_reference(equivariance: str, classes: int) -> None:
    shape = ImageShape(16, 16, 2, classes)
    condition = "embedding" if classes else "none"
    generator = made(shape, equivariance=equivariance, condition=condition)
    turn = torch.tensor([[0.8, -0.5, 0.1], [0.5, 0.9, -0.2], [0, 0, 1]])
    generator.synthesis.input.transform.copy_(turn)
    rotates = equivariance == "rotation"
    arguments = {
        "img_resolution": 16, "num_layers": 5, "margin_size": 4,
        "use_radial_filters": rotates,
    }  # fmt: skip
    weights = {name: value.numpy() for name, value in generator.state_dict().items()}
    latents, labels = torch.randn(2, 6, dtype=torch.float64), torch.tensor([2, 1])
    with torch.no_grad():
        found = generator(latents, labels, truncation_psi=0.6, truncation_cutoff=4)
    for number in range(2):
        label = np.eye(3)[int(labels[number])] if classes else None
        wanted = reference_image(weights, arguments, latents[number].numpy(), label, 0.6, 4)
        assert wanted.std() > 0.02
        np.testing.assert_allclose(found[number].numpy(), wanted, atol=2e-6)


NAMES = {
    ("translation", 1024): "36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 "
    "532_128 1044_81 1044_51 1044_32 1024_32 1024_3",
    ("rotation", 1024): "36_1024 36_1024 52_1024 52_1024 84_1024 148_1024 148_1024 276_645 276_406 "
    "532_256 1044_161 1044_102 1044_64 1024_64 1024_3",
}  # fmt: skip


@pytest.mark.parametrize(
    ("equivariance", "kernel", "millions"), [("translation", 3, 22.3), ("rotation", 1, 15.1)]
)
def test_layers_are_those_of_the_paper(equivariance: Any, kernel: int, millions: float) -> None:
    """Names of the published weights at 1024 px, and the parameters of layers with these names."""
    with torch.device("meta"):
        generator = build_generator(
            StyleGan3Generator(equivariance=equivariance), ImageShape(1024, 1024, 3)
        )
    assert isinstance(generator, StyleGan3G)
    wanted = [f"L{number}_{name}" for number, name in enumerate(NAMES[equivariance, 1024].split())]
    assert generator.synthesis.layer_names == wanted
    widths = [int(name.rpartition("_")[2]) for name in wanted]
    count = 2 * (512 * 512 + 512) + widths[0] ** 2 + 4 * 512 + 4
    for number, outside in enumerate(widths):
        inside, size = widths[max(number - 1, 0)], kernel if number < len(widths) - 1 else 1
        count += 512 * inside + inside + outside * inside * size**2 + outside
    assert sum(weight.numel() for weight in generator.parameters()) == count
    assert round(count / 1e6, 1) == millions


def test_frequencies_are_those_of_figure_5() -> None:
    """Cutoffs and stopbands grow geometrically; the last layers are sampled critically."""
    maps = layer_maps(StyleGan3Generator(), ImageShape(1024, 1024, 3))
    cutoffs = [one.cutoff for one in maps]
    assert cutoffs[0] == 2
    assert cutoffs[12:] == [512, 512, 512]
    np.testing.assert_allclose(np.diff(np.log2(cutoffs[:13])), 8 / 12)
    assert [one.critical for one in maps] == [False] * 12 + [True] * 3
    for one in maps[:12]:
        stopband = one.cutoff + one.half_width
        assert stopband >= 1.2 * one.cutoff
        assert one.rate >= 2 * stopband - 1e-9  # no aliasing


def rotation(angle: float) -> Tensor:
    cosine, sine = np.cos(angle), np.sin(angle)
    return torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def test_a_quarter_turn_of_the_features_turns_the_image() -> None:
    """Exactly, because all pixel grids turn into themselves; 3×3 convolutions do not."""
    shape, ws = ImageShape(32, 32, 3), torch.randn(2, 7, 5, dtype=torch.float64)
    for equivariance, turns in (("rotation", True), ("translation", False)):
        generator = made(shape, equivariance=equivariance)
        with torch.no_grad():
            before = generator.synthesis(ws)
            generator.synthesis.input.transform.copy_(rotation(np.pi / 2))
            after = generator.synthesis(ws)
        # a point (x, y) shows what was at (−y, x); y points downwards
        wanted = torch.rot90(before, 1, (2, 3))
        apart = float((after - wanted).abs().max() / wanted.abs().max())
        assert (apart < 1e-6) == turns, apart


@pytest.mark.parametrize("equivariance", ["translation", "rotation"])
def test_a_shift_of_the_features_shifts_the_image(equivariance: str) -> None:
    """Exactly, by a pixel of the coarsest layer, except where padding with zeros is seen."""
    generator = made(ImageShape(64, 64, 3), equivariance=equivariance, margin=10)
    step = 64 // layer_maps(StyleGan3Generator(**SMALL), ImageShape(64, 64, 3))[0].rate
    ws = torch.randn(1, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        before = generator.synthesis(ws)
        generator.synthesis.input.transform[:2, 2] = torch.tensor([-step / 64, 2 * step / 64])
        after = generator.synthesis(ws)
    wanted = before.roll((-2 * step, step), (2, 3))
    inner = slice(16, -16)
    error = (after - wanted)[..., inner, inner].abs().max() / before.abs().max()
    assert error < 1e-4
    assert (after - before)[..., inner, inner].abs().max() / before.abs().max() > 0.1


def test_training_tracks_the_mean_square_of_each_input() -> None:
    before = LayerMaps(2.0, 6.0, 16, 24, 3, False)
    layer = SynthesisLayer(StyleGan3Generator(w_dim=5, magnitude_beta=0.9), before, before)
    images, w = torch.randn(2, 3, 24, 24) * 4, torch.randn(2, 5)
    layer.eval()(images, w)
    assert layer.magnitude_ema == 1
    one = layer.train()(images, w)
    mean = 0.9 + 0.1 * images.square().mean()
    torch.testing.assert_close(layer.magnitude_ema, mean)
    layer.eval()
    layer.bias.data.zero_()
    # the layer divides by the root of it
    torch.testing.assert_close(layer(images, w), one)
    layer.magnitude_ema *= 4
    torch.testing.assert_close(layer(images, w) * 2, one)


def test_waves_are_uniform_in_a_disc() -> None:
    lengths = SynthesisInput(2, LayerMaps(2.0, 6.0, 16, 24, 2000, False)).freqs.norm(dim=1)
    assert lengths.max() <= 2
    areas = np.sort((lengths.numpy() / 2) ** 2)
    assert np.abs(areas - np.linspace(0, 1, len(areas))).max() < 0.03


@pytest.mark.parametrize(("shape", "options", "message"), [
    (ImageShape(32, 64, 3), {}, r"^resolution: 64×32 px .* square"),
    (ImageShape(48, 48, 3), {}, r"^resolution: 48×48 px .* square"),
    (ImageShape(32, 32, 3), {"critical": 5}, r"^generator\.critical: 5 of 5 layers"),
    (ImageShape(32, 32, 3), {"first_stopband": 0.5, "last_stopband": 0.1}, r"^generator\.first_st"),
])  # fmt: skip
def test_what_has_no_layers_is_refused(
    shape: ImageShape, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_generator(StyleGan3Generator(**(SMALL | options)), shape)
