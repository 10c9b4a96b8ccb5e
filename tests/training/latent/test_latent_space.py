"""W seen alike for every kind of generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from training.latent.grids import mix, style_mixing_grid, truncation_grid
from training.latent.route import find_route
from training.latent.sefa import coordinate_std, directions, move
from training.latent.space import LatentSpace, build_latent_space, style_weights
from training.networks import GENERATORS, ImageShape, build_generator
from training.options.architectures import (
    DcganGenerator,
    MlpGenerator,
    R3ganGenerator,
    ResnetGenerator,
    StyleGan2Generator,
)
from training.options.efficient import FastganGenerator
from training.options.styled import StyleGan3Generator

TABLES: dict[str, Any] = {
    "dcgan": DcganGenerator(width=4, z_dim=8),
    "dcgan-labels": DcganGenerator(width=4, z_dim=8, condition="embedding", embedding=3),
    "dcgan-spectral": DcganGenerator(width=4, z_dim=8, spectral=True),
    "mlp": MlpGenerator(widths=(16,), z_dim=8),
    "resnet": ResnetGenerator(width=4, z_dim=8),
    "fastgan": FastganGenerator(width=4, z_dim=8),
    "r3gan": R3ganGenerator(widths=(16,), blocks=(1,), z_dim=8),
    "stylegan2": StyleGan2Generator(
        channel_base=256, channel_max=16, w_dim=12, z_dim=8, mapping_layers=2
    ),
    "stylegan3": StyleGan3Generator(
        channel_base=64, channel_max=16, w_dim=12, z_dim=8, layers=4, margin=4
    ),
}
SHAPE = ImageShape(16, 16, 3, 3)


def made(table: Any) -> LatentSpace:
    torch.manual_seed(0)
    generator = build_generator(table, SHAPE).eval().requires_grad_(False)
    return build_latent_space(generator, "gaussian", SHAPE.classes)


@pytest.fixture(params=TABLES)
def space(request: pytest.FixtureRequest) -> LatentSpace:
    return made(TABLES[request.param])


def some(space: LatentSpace, count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    z_dim = space.generator.z_dim
    return torch.randn(count, z_dim, generator=random), torch.arange(count) % SHAPE.classes


def test_every_generator_is_here() -> None:
    without_latents = {"translator"}
    assert {table.name for table in TABLES.values()} == set(GENERATORS) - without_latents


def test_the_two_halves_are_the_whole(space: LatentSpace) -> None:
    latents, labels = some(space)
    ws = space.map(latents, labels)
    assert ws.shape == (5, space.num_ws, space.w_dim)
    whole = space.generator(latents, labels)
    torch.testing.assert_close(space.synthesize(ws, labels), whole, atol=1e-5, rtol=1e-4)
    assert space.generate(ws, labels, batch=2).shape == (5, 16, 16, 3)


def test_truncation_goes_to_the_mean(space: LatentSpace) -> None:
    latents, labels = some(space)
    ws = space.map(latents, labels)
    assert torch.equal(space.truncate(ws, 1), ws)
    assert torch.equal(space.truncate(ws, 0), space.w_avg.expand_as(ws))
    half = space.truncate(ws, 0.5)
    torch.testing.assert_close((half - space.w_avg) * 2, ws - space.w_avg)
    sheet = truncation_grid(space, ws, labels[:1].expand(5), [0.0, 1.0])
    assert sheet.shape == (32, 80, 3)
    first = sheet[:16].reshape(16, 5, 16, 3).swapaxes(0, 1)
    assert (first == first[0]).all()  # at 0 all are the mean picture
    assert (sheet[16:] == truncation_grid(space, ws, labels[:1].expand(5), [1.0])).all()


def test_directions_are_numpys_eigenvectors(space: LatentSpace) -> None:
    import numpy as np

    stacked = np.concatenate([weight.numpy() for weight in style_weights(space)]).astype(float)
    assert stacked.shape[1] == space.w_dim
    values, vectors = np.linalg.eigh(stacked.T @ stacked)
    found = directions(space, 3)
    for number in range(3):
        along = abs(found.vectors[number].numpy() @ vectors[:, -1 - number])
        assert along == pytest.approx(1, abs=1e-3)
        assert found.eigenvalues[number] == pytest.approx(values[-1 - number], rel=1e-4)
    lengths = np.linalg.norm(stacked @ found.vectors.numpy().T, axis=0) ** 2
    np.testing.assert_allclose(lengths, found.eigenvalues.numpy(), rtol=1e-3)


def test_the_first_direction_changes_pictures_most(space: LatentSpace) -> None:
    latents, labels = some(space, 16)
    ws, step = space.map(latents, labels), coordinate_std(space, labels[:1]) / 2
    before = space.synthesize(ws, labels)

    def change(vector: torch.Tensor) -> float:
        found = replace(directions(space, 1), vectors=vector[None])
        moved = space.synthesize(move(ws, found, 0, step), labels)
        return float((moved - before).square().mean())

    random = torch.randn(20, space.w_dim, generator=torch.Generator().manual_seed(2))
    others = [change(vector / vector.norm()) for vector in random]
    strongest = directions(space, 1).vectors[0]
    weakest = directions(space, space.w_dim).vectors[-1]
    assert change(strongest) > 1.2 * sum(others) / 20
    assert change(weakest) < change(strongest)


def test_walks_go_through_their_pictures(space: LatentSpace) -> None:
    latents, labels = some(space, 3)
    label = labels[:1].expand(3)
    pictures = space.generate(space.map(latents, label), label)
    for where in ("z", "w"):
        route = find_route(space, latents, label, where, "lerp", closed=True)
        frames = route.images(np.arange(12) / 4)
        assert len(frames) == 12
        assert abs(frames[::4].astype(int) - pictures).max() <= 1


def test_mixtures_take_from_both(space: LatentSpace) -> None:
    latents, labels = some(space, 4)
    ws, label = space.map(latents, labels[:1].expand(4)), labels[:1]
    one, other = ws[:1], ws[1:2]
    if space.has_mapping:
        mixed = mix(space, one, other, 2)
        assert torch.equal(mixed[:, :2], one[:, :2])
        assert torch.equal(mixed[:, 2:], other[:, 2:])
        assert torch.equal(mix(space, one, other, 0), other)
        assert torch.equal(mix(space, one, other, space.num_ws), one)
    else:
        assert torch.equal(mix(space, one, other, 0, 0.0), one)
        assert torch.equal(mix(space, one, other, 0, 1.0), other)
    sheet = style_mixing_grid(space, ws[:2], ws[2:], label, space.num_ws // 2)
    assert sheet.shape == (48, 48, 3)
    assert not sheet[:16, :16].any()
    row = space.generate(ws[:1], label)[0]
    assert abs(sheet[16:32, :16].astype(int) - row).max() <= 1
