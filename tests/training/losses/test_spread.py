"""The term that keeps generated images as far apart as real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.image_shape import ImageShape
from training.losses.spread import FeatureSpread, pair_distances
from training.machine.distributed import SINGLE_PROCESS
from training.state import State, new_state
from training.step import Step

SAME = torch.zeros(64, dtype=torch.int64)


def maps_of(count: int, seed: int, scale: float = 1.0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    shapes = (3, 4, 4), (5, 2, 2)
    return tuple(torch.randn(count, *one, generator=random) * scale + 7 for one in shapes)


def maps_from(*values: float) -> Tensor:
    """One map of one position with these values."""
    return torch.tensor(values)[:, None, None, None]


def observed(
    spread: FeatureSpread, scalars: dict[str, Tensor], real: Tensor, fake: Tensor
) -> float:
    """The ratio after a step with one map of each kind, of one label."""
    labels = torch.zeros(len(real), dtype=torch.int64)
    spread.add(([real], [fake]), (labels, labels))
    return float(spread.observe(scalars)["feature_distance_ratio"])


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, 2, 1, 0])])
def test_distances_of_pairs_of_one_label(labels: Tensor | None) -> None:
    maps = maps_of(6, 0)
    *sums, count = pair_distances(maps, labels)
    pairs = [
        (i, j) for i in range(6) for j in range(6)
        if i != j and (labels is None or labels[i] == labels[j])
    ]  # fmt: skip
    assert count == len(pairs)
    for found, some in zip(sums, maps, strict=True):
        rows = some.flatten(1).double().numpy()
        expected = sum(np.square(rows[i] - rows[j]).sum() for i, j in pairs)
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_large_maps_are_averaged() -> None:
    fine = torch.randn(4, 2, 8, 12, generator=torch.Generator().manual_seed(0))
    coarse = fine.view(4, 2, 4, 2, 6, 2).mean(dim=(3, 5))
    assert torch.allclose(pair_distances([fine], None), pair_distances([coarse], None))


def test_it_grows_with_what_is_lacking_from_the_first_step_on() -> None:
    spread = FeatureSpread(has_labels=False, ranks=SINGLE_PROCESS)
    scalars: dict[str, Tensor] = {}
    assert spread.loss(scalars, maps_of(64, 0), SAME) == 0  # no real image was seen
    for _ in range(2):  # micro-batches
        spread.add((maps_of(64, 1), maps_of(64, 1, 0.5)), (SAME, SAME))
    ratio = spread.observe(scalars)["feature_distance_ratio"]
    assert ratio.item() == pytest.approx(0.25)
    for scale, expected in ((1.2, 0.0), (0.5, (1 - 0.25) ** 2)):
        term = spread.loss(scalars, maps_of(64, 2, scale), SAME)
        assert term.item() == pytest.approx(expected, abs=0.05)


def test_the_averages_are_those_of_pairs() -> None:
    spread = FeatureSpread(has_labels=True, ranks=SINGLE_PROCESS)
    scalars: dict[str, Tensor] = {}
    one, two = maps_from(0.0, 1.0), maps_from(0.0, 3.0)
    assert observed(spread, scalars, one, two) == pytest.approx(9)
    assert observed(spread, scalars, two, one) == pytest.approx((9 * 0.99 + 1) / (0.99 + 9))
    before = {name: value.clone() for name, value in scalars.items()}
    assert torch.isfinite(torch.tensor(observed(spread, scalars, one * torch.inf, two)))
    assert torch.equal(before["real_distances"], scalars["real_distances"])
    apart = torch.arange(2)  # no pair of one label
    spread.add(([one], [two]), (apart, apart))
    ratio = spread.observe(scalars)["feature_distance_ratio"].item()
    assert ratio == pytest.approx(observed(spread, scalars, one[:1], two[:1]))
    assert spread.loss(scalars, [one], apart) == 0
    assert spread.observe(scalars) == {}


def test_its_gradient_moves_images_of_a_label_apart() -> None:
    spread, labels = FeatureSpread(has_labels=True, ranks=SINGLE_PROCESS), torch.tensor([0, 0, 1])
    scalars: dict[str, Tensor] = {}
    real = maps_from(0.0, 2.0, 50.0)
    spread.add(([real], [real]), (labels, labels))
    spread.observe(scalars)
    fakes = maps_from(1.0, 2.0, 3.0).requires_grad_()
    spread.loss(scalars, [fakes], labels).backward()  # type: ignore[no-untyped-call]
    assert fakes.grad is not None
    # (1 − (a − b)²/w)² at a = 1 and b = 2, w = 2²
    slope = -2 * (1 - 1 / 4) * 2 * (1 - 2) / 4
    assert fakes.grad.flatten().tolist() == pytest.approx([slope, -slope, 0])


def trained(weight: float, updates: str, micro_batch: int = 0, unroll: int = 0) -> State:
    tables = {
        "batch": 4, "updates": updates, "micro_batch": micro_batch, "unroll": {"steps": unroll},
        "generator": {"width": 4, "z_dim": 8},
        "discriminator": {"name": "projected", "width": 8, "size": 64},
        "loss": {"feature_spread": weight},
    }  # fmt: skip
    config = parse_config(Config, tables, "test")
    state = new_state(config, ImageShape(32, 32, 3, 1), torch.device("cpu"))
    step = Step(config, state, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    for _ in range(2):
        images = torch.randint(0, 256, (4, 3, 32, 32), generator=random, dtype=torch.uint8)
        stats = step([Batch(images, SAME[:4])])
    assert ("feature_distance_ratio" in stats) == (weight > 0)
    return state


@pytest.mark.parametrize("updates", ["alternating", "generator-first", "simultaneous"])
def test_it_changes_the_generator(updates: str) -> None:
    without, some = trained(0.0, updates), trained(1000.0, updates)
    pairs = zip(without.generator.parameters(), some.generator.parameters(), strict=True)
    assert any(not torch.equal(*pair) for pair in pairs)


def test_the_average_moves_once_per_batch() -> None:
    """The number of pairs shows how much of each batch is in the average."""
    whole = trained(5.0, "alternating").scalars["real_distances"][-1]
    assert whole == pytest.approx(12 * (1 - 0.99**2))  # 4·3 pairs in each of two batches
    parts = trained(5.0, "alternating", micro_batch=2).scalars["real_distances"][-1]
    assert parts == pytest.approx(4 * (1 - 0.99**2))  # 2·2·1 pairs
    unrolled = trained(5.0, "alternating", unroll=2).scalars["real_distances"][-1]
    assert unrolled == whole
