"""FastGAN's networks against the paper's formulas and the published sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.data import Batch
from training.losses import squared_gradient
from training.networks import ImageShape, build_discriminator, build_generator
from training.networks.fastgan_layers import Glu, LearnedNoise, SkipLayerExcitation, crop_quarter
from training.networks.frozen import perceptual_distance
from training.options.efficient import FastganDiscriminator, FastganGenerator
from training.state import new_state
from training.step import Step

SHAPE = ImageShape(64, 64, 3, 5)
CPU = torch.device("cpu")


def make(g: dict[str, Any] | None = None, d: dict[str, Any] | None = None) -> tuple[Any, Any]:
    torch.manual_seed(0)
    tables = {
        "generator": {"name": "fastgan", "width": 4, "z_dim": 8, **(g or {})},
        "discriminator": {"name": "fastgan", "width": 8, "reconstruction": "l1", **(d or {})},
    }
    config = parse_config(Config, tables, "test")
    return (
        build_generator(config.generator, SHAPE),
        build_discriminator(config.discriminator, SHAPE),
    )


def test_glu_is_the_formula() -> None:
    maps = torch.randn(2, 6, 3, 3)
    expected = maps[:, :3] / (1 + torch.exp(-maps[:, 3:]))
    assert torch.allclose(Glu()(maps), expected)


def test_excitation_is_the_formula() -> None:
    """y = x_high · σ(W₂ · swish(W₁ * pool(x_low))): Liu et al. 2021, eq. 1."""
    layer = SkipLayerExcitation(3, 5)
    small, large = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 16, 16)
    pooled = small.reshape(2, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    gathered = torch.einsum("ncij,ocij->no", pooled, layer.gather.weight)
    gathered = gathered * torch.sigmoid(gathered)
    shares = torch.sigmoid(gathered @ layer.weigh.weight[:, :, 0, 0].T)
    assert torch.allclose(layer(small, large), large * shares[:, :, None, None], atol=1e-6)


def test_noise_is_learned_and_the_same_for_all_maps() -> None:
    layer, maps = LearnedNoise(64, 64), torch.randn(2, 3, 64, 64)
    assert torch.equal(layer(maps), maps)
    nn.init.constant_(layer.weight, 0.5)
    added = layer(maps) - maps
    assert not torch.equal(added, layer(maps) - maps)
    fixed = layer.eval()(maps) - maps
    assert torch.equal(fixed, layer(maps) - maps)
    assert torch.allclose(fixed[0, 0], fixed[1, 2], atol=1e-6)
    assert torch.allclose(added[:, :1].expand_as(added), added, atol=1e-6)
    assert added.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("size", "lasts"),
    [
        (256, [512, 256, 128, 128, 64, 32]),
        (1024, [512, 256, 128, 128, 64, 32, 16, 8]),
    ],
)
def test_published_generator_s_maps(size: int, lasts: list[int]) -> None:
    """Maps after each doubling with ngf = 64: 1024 at 4 px, then these."""
    with torch.device("meta"):
        table = FastganGenerator(width=64, z_dim=256, spectral=False, init="default")
        generator: Any = build_generator(table, ImageShape(size, size, 3))
        found: list[int] = []
        for block in generator.blocks:
            block.register_forward_hook(lambda _m, _i, out: found.append(out.shape[1]))
        generator(torch.zeros(2, 256), torch.zeros(2, dtype=torch.int64))
    assert generator.first[0].weight.shape == (256, 2048, 4, 4)
    assert found == lasts
    excited = {int(step): layer.weigh.weight.shape[0] for step, layer in
               generator.excitations.items()}  # fmt: skip
    assert excited == {step: lasts[step - 1] for step in range(4, min(7, len(lasts)) + 1)}
    long = [len(block.layers) for block in generator.blocks]
    assert long == [9 if step % 2 else 4 for step in range(1, len(lasts) + 1)]


@pytest.mark.parametrize("size", [64, 256, 512, 1024])
def test_published_discriminator_scores_25_patches(size: int) -> None:
    table = FastganDiscriminator(width=64, spectral=False, init="default", reconstruction="none")
    with torch.device("meta"):
        discriminator: Any = build_discriminator(table, ImageShape(size, size, 3))
        output = discriminator(torch.zeros(2, 3, size, size), torch.zeros(2, dtype=torch.int64))
    assert output.logits.shape == (2, 25)
    assert output.features.shape == (2, 512, 8, 8)
    widths = [block.direct[1].weight.shape[0] for block in list(discriminator.hidden)[1:]]
    assert widths == [32, 64, 128, 256, 512][-len(widths) :]
    assert [part.weight.shape[:2] for part in discriminator.head.output[::3]] == [
        (1024, 512),
        (1, 1024),
    ]
    first = discriminator.hidden[0][0].weight.shape
    assert tuple(first) == {64: (64, 3, 3, 3), 256: (16, 3, 3, 3), 512: (16, 3, 4, 4),
                            1024: (8, 3, 4, 4)}[size]  # fmt: skip


def test_no_larger_than_published() -> None:
    with pytest.raises(UserError, match="at most 1024 px"), torch.device("meta"):
        build_generator(FastganGenerator(spectral=False), ImageShape(2048, 2048, 3))


def test_quarters() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert crop_quarter(maps, 0, 1).flatten().tolist() == [2, 3, 6, 7]
    assert crop_quarter(maps, 1, 0).flatten().tolist() == [8, 9, 12, 13]


def test_what_is_decoded_is_compared_with_what_was_seen() -> None:
    """Whole from the last maps, a quarter from the same quarter of the maps before."""
    _, discriminator = make()
    images = torch.randn(4, 3, 64, 64).clamp(-1, 1)
    output = discriminator.eval()(images, torch.zeros(4, dtype=torch.int64))
    assert output.decoder_inputs[1].shape == (4, 32, 16, 16)
    assert output.decoder_inputs[2].shape == (4, 64, 8, 8)
    expected = set()
    whole = (discriminator.decoders["whole"](output.decoder_inputs[2]) - images).abs().mean()
    for row in range(2):
        for column in range(2):
            maps = output.decoder_inputs[1][:, :, row * 8 :][:, :, :8, column * 8 :][:, :, :, :8]
            seen = images[:, :, row * 32 :][:, :, :32, column * 32 :][:, :, :, :32]
            part = (discriminator.decoders["part"](maps) - seen).abs().mean()
            expected.add(round((whole + part).item(), 5))
    found = {round(discriminator.reconstruct(output).item(), 5) for _ in range(40)}
    assert found == expected
    assert len(expected) == 4


@pytest.mark.parametrize("distance", ["l1", "perceptual"])
def test_only_real_images_are_decoded(distance: str) -> None:
    """In a step the decoders are asked once, about what the discriminator saw of real images."""
    config = parse_config(
        Config,
        {
            "batch": 4,
            "generator": {"name": "fastgan", "width": 4, "z_dim": 8},
            "discriminator": {"name": "fastgan", "width": 4, "reconstruction": distance},
            "loss": {"name": "random-hinge"},
        },
        "test",
    )
    state = new_state(config, SHAPE, CPU)
    discriminator: Any = state.discriminator
    seen: list[Tensor] = []
    inner = discriminator.reconstruct

    def spy(output: Any) -> Tensor:
        seen.append(output.decoder_inputs[0])
        found: Tensor = inner(output)
        return found

    discriminator.reconstruct = spy
    before = {name: w.detach().clone() for name, w in discriminator.decoders.named_parameters()}
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    facts = Step(config, state, CPU)([Batch(images, torch.zeros(4, dtype=torch.int64))])
    assert len(seen) == 1
    assert torch.allclose(seen[0], images / 127.5 - 1, atol=1e-6)
    assert facts["reconstruction"] > 0
    after = dict(discriminator.decoders.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("channels", "packing"), [(1, 3), (1, 4), (3, 2)])
def test_packed_images_are_compared_one_by_one(channels: int, packing: int) -> None:
    table = FastganDiscriminator(width=4, packing=packing)
    network: Any = build_discriminator(table, ImageShape(32, 32, channels))
    decoded, images = torch.rand(2, 2, packing, channels, 32, 32) * 2 - 1
    found = network._distance(decoded.flatten(1, 2), images.flatten(1, 2))
    singles = [
        perceptual_distance(decoded[:, number], images[:, number]) for number in range(packing)
    ]
    torch.testing.assert_close(found, torch.stack(singles).mean())


@pytest.mark.slow
def test_a_decoder_learns_an_image() -> None:
    torch.manual_seed(0)
    _, discriminator = make()
    rows = torch.linspace(-1, 1, 64)[:, None].expand(64, 64)
    images = torch.stack([rows, rows.T, -rows])[None].repeat(4, 1, 1, 1)
    labels = torch.zeros(4, dtype=torch.int64)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-2)
    distances = []
    for _ in range(30):
        optimizer.zero_grad()
        distance = discriminator.reconstruct(discriminator(images, labels))
        distance.backward()
        optimizer.step()
        distances.append(distance.item())
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize("condition", ["embedding", "norm"])
def test_labels(condition: str) -> None:
    generator, _ = make({"condition": condition, "spectral": False})
    discriminator = make(d={"condition": "projection", "classifier": True})[1]
    for name, weight in generator.named_parameters():
        if "gain" in name:
            nn.init.normal_(weight)
    generator.eval()
    first, second = generator(torch.randn(1, 8).expand(2, 8), torch.tensor([0, 1]))
    assert not torch.allclose(first, second)
    images = torch.randn(1, 3, 64, 64).expand(2, 3, 64, 64)
    output = discriminator.eval()(images, torch.tensor([0, 1]))
    assert not torch.allclose(*output.logits)
    assert output.classes.shape == (2, 5)


def test_penalty_is_of_the_mean_patch() -> None:
    _, discriminator = make()
    discriminator.eval()
    images = torch.randn(2, 3, 64, 64)
    labels = torch.zeros(2, dtype=torch.int64)
    found = squared_gradient(lambda x: discriminator(x, labels).mean_logit, images)
    leaf = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(leaf, labels).logits.sum() / 25, leaf)
    assert found.item() == pytest.approx(slope.square().sum().item() / 4, rel=1e-4)
    found.backward()
