"""The measures on drawn shells: they rise with every kind of damage, and are low without."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.demo.shells import draw
from training.extractor import embed, load_extractor
from training.metrics.suite import (
    Estimate,
    FeatureSet,
    baseline,
    compute_metrics,
    estimate,
    full_name,
)

pytestmark = pytest.mark.slow

SIDE = 48
REAL, FAKE = 110, 60
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Damage = Callable[[Pixels], Pixels]


def logits(features: Any) -> Any:
    import torch

    return load_extractor().logits(torch.from_numpy(features)).numpy()


def side(features: Any) -> FeatureSet:
    return FeatureSet(features, logits)


@pytest.fixture(scope="module")
def shells() -> list[Pixels]:
    return [np.asarray(draw(7, number, SIDE)) for number in range(REAL + FAKE)]


@pytest.fixture(scope="module")
def features(shells: list[Pixels]) -> Any:
    """A row a shell, in random order, so that both parts hold all families."""
    found = embed(shells)
    return found[np.random.default_rng(0).permutation(len(found))]


@pytest.fixture(scope="module")
def real(features: Any) -> FeatureSet:
    return side(features[:REAL])


@pytest.fixture(scope="module")
def held_out(features: Any, real: FeatureSet) -> dict[str, float]:
    return compute_metrics(real, side(features[REAL:]))


def blurred(sigma: float) -> Damage:
    return lambda x: np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(sigma: float) -> Damage:
    random = np.random.default_rng(0)

    def damage(x: Pixels) -> Pixels:
        return (x + random.normal(0, sigma, x.shape)).clip(0, 255).astype(np.uint8)

    return damage


def compressed(quality: int) -> Damage:
    def damage(x: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(x).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return damage


@pytest.mark.parametrize(
    ("less", "more"),
    [(blurred(0.8), blurred(2)), (noisy(12), noisy(40)), (compressed(40), compressed(6))],
    ids=["blur", "noise", "jpeg"],
)
def test_damage_counts_and_more_counts_more(
    shells: list[Pixels], real: FeatureSet, held_out: dict[str, float], less: Damage, more: Damage
) -> None:
    chosen = np.random.default_rng(0).permutation(len(shells))[REAL:]
    whole, slight, strong = held_out, *(
        compute_metrics(real, side(embed([damage(shells[number]) for number in chosen])))
        for damage in (less, more)
    )  # fmt: skip
    for name in ("fd", "kid", "memorisation"):
        assert whole[name] < slight[name] < strong[name], name
    for name in ("precision", "coverage"):
        assert whole[name] >= slight[name] >= strong[name], name
        assert whole[name] > strong[name] + 0.2, name


def test_collapse_counts(features: Any, real: FeatureSet, held_out: dict[str, float]) -> None:
    fakes = features[REAL:]
    found = [held_out]
    for share in (0.4, 0.9):
        collapsed = fakes.copy()
        count = int(share * len(fakes))
        collapsed[:count] = fakes[np.arange(count) % 3]
        found.append(compute_metrics(real, side(collapsed)))
    whole, slight, strong = found
    assert whole["fd"] < slight["fd"] < strong["fd"]
    assert whole["recall"] >= slight["recall"] > strong["recall"]
    assert whole["coverage"] > slight["coverage"] > strong["coverage"]
    assert whole["is"] > strong["is"]


def test_copies_look_better_than_they_are_and_are_found(
    features: Any, real: FeatureSet, held_out: dict[str, float]
) -> None:
    copied = compute_metrics(real, side(features[:FAKE]))
    assert copied["fd"] < held_out["fd"]  # what a memorisation measure is there for
    assert copied["copies"] == 1
    assert copied["memorisation"] < 1e-6
    assert copied["mifid"] > 1000 * held_out["mifid"]
    assert held_out["copies"] < 0.15


def test_the_baseline_is_what_held_out_images_get(
    real: FeatureSet, held_out: dict[str, float]
) -> None:
    found, count = baseline(real, FAKE)
    assert count == REAL // 2  # of 110 only 55 can be held out
    for name in ("fd", "precision", "coverage", "memorisation"):
        mean, spread = found[name]
        assert mean == pytest.approx(held_out[name], rel=0.25), name
        assert 0 < spread < mean / 3, name
    assert abs(found["kid"][0]) < held_out["kid"] + 4 * found["kid"][1]


def test_an_estimate_says_value_spread_and_bias(
    features: Any, real: FeatureSet, held_out: dict[str, float]
) -> None:
    found = estimate(real, side(features[REAL:]))
    assert list(found) == [
        "fd", "kid", "precision", "recall", "density", "coverage", "is", "memorisation", "copies",
        "mifid",
    ]  # fmt: skip
    fd = found["fd"]
    assert isinstance(fd, Estimate)
    assert fd.value == held_out["fd"]
    assert 0 < fd.sd < fd.value / 3
    assert fd.baseline_n == REAL // 2
    assert found == estimate(real, side(features[REAL:]))  # seeded


def test_the_spread_is_that_of_fresh_samples() -> None:
    random = np.random.default_rng(0)
    mix = random.normal(size=(8, 8))
    real = FeatureSet(random.normal(size=(400, 8)) @ mix, lambda x: x)
    fresh = [
        compute_metrics(real, FeatureSet(random.normal(0.3, 1, (200, 8)) @ mix, lambda x: x))["fd"]
        for _ in range(40)
    ]
    told = [
        estimate(real, FeatureSet(random.normal(0.3, 1, (200, 8)) @ mix, lambda x: x))["fd"].sd
        for _ in range(6)
    ]
    assert np.std(fresh) / 1.6 < np.mean(told) < np.std(fresh) * 1.6


def test_names_say_the_network() -> None:
    assert full_name("fd", "efficientnet_lite0") == "fd_efficientnet_lite0"
    assert full_name("fd", "inception") == "fid"
    assert full_name("kid", "inception") == "kid"
    assert full_name("precision", "inception") == "precision_inception"
