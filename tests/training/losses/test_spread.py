"""The term that keeps generated images as far apart as real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.losses.spread import FeatureSpread, pair_distances
from training.machine.distributed import SINGLE_PROCESS


def maps_of(count: int, seed: int, scale: float = 1.0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    shapes = (3, 4, 4), (5, 2, 2)
    return tuple(torch.randn(count, *one, generator=random) * scale + 7 for one in shapes)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, 2, 1, 0])])
def test_distances_of_pairs_of_one_label(labels: Tensor | None) -> None:
    maps = maps_of(6, 0)
    sums, count = pair_distances(maps, labels)
    pairs = [
        (i, j) for i in range(6) for j in range(6)
        if i != j and (labels is None or labels[i] == labels[j])
    ]  # fmt: skip
    assert count == len(pairs)
    for found, some in zip(sums, maps, strict=True):
        rows = some.flatten(1).double().numpy()
        expected = sum(np.square(rows[i] - rows[j]).sum() for i, j in pairs)
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_term_is_0_for_images_as_far_apart_as_real_ones_and_grows_with_what_is_lacking() -> (
    None
):
    spread, labels = FeatureSpread(has_labels=False, ranks=SINGLE_PROCESS), torch.zeros(64).long()
    scalars: dict[str, Tensor] = {}
    term, ratio = spread.lacking(scalars, maps_of(64, 0), labels)
    assert (term, ratio) == (0, 1)  # no real image was seen
    for seed in range(1000):
        spread.follow(scalars, maps_of(64, seed), labels)
    for scale, expected in ((1.0, 0.0), (1.5, 0.0), (0.5, (1 - 0.25) ** 2)):
        term, ratio = spread.lacking(scalars, maps_of(64, 1001, scale), labels)
        assert ratio.item() == pytest.approx(scale**2, rel=0.05)
        assert term.item() == pytest.approx(expected, abs=0.03)


def test_its_gradient_moves_images_of_a_label_apart() -> None:
    spread, labels = FeatureSpread(has_labels=True, ranks=SINGLE_PROCESS), torch.tensor([0, 0, 1])
    scalars: dict[str, Tensor] = {}
    spread.follow(scalars, [torch.tensor([[0.0], [20.0], [50.0]])], labels)
    fakes = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    spread.lacking(scalars, [fakes], labels)[0].backward()  # type: ignore[no-untyped-call]
    assert fakes.grad is not None
    # (1 − (a − b)²/w)² at a = 1 and b = 2, where w is a hundredth of 20²
    slope = -2 * (1 - 1 / 4) * 2 * (1 - 2) / 4
    assert fakes.grad.flatten().tolist() == pytest.approx([slope, -slope, 0])


def test_without_a_pair_nothing_is_followed() -> None:
    spread, labels = FeatureSpread(has_labels=True, ranks=SINGLE_PROCESS), torch.arange(3)
    scalars: dict[str, Tensor] = {}
    spread.follow(scalars, maps_of(3, 0), torch.zeros(3).long())
    before = {name: value.clone() for name, value in scalars.items()}
    spread.follow(scalars, maps_of(3, 1), labels)
    spread.follow(scalars, [one * torch.inf for one in maps_of(3, 1)], torch.zeros(3).long())
    assert all(torch.equal(before[name], value) for name, value in scalars.items())
    assert spread.lacking(scalars, maps_of(3, 2), labels)[0] == 0
