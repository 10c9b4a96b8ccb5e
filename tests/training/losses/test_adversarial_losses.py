"""Each adversarial loss against its formula in the papers, written out number by number."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from training.losses import LOSSES, separation

SINGLE = [name for name, one in LOSSES.items() if not (one.vector or one.energy)]
"""The losses of one logit per image; files beside this one test the others."""
NUMBERS = {"fisher": ({"lambda": 0.3, "constraint_rate": 0.5},)}
REAL, FAKE = [1.5, -0.3, 0.2], [-2.0, 0.7, 0.1]


@pytest.fixture(autouse=True)
def half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn between 0 and 1 is 0.5."""
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.full_like(like, 0.5))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def d_by_formula(name: str, real: list[float], fake: list[float]) -> float:
    mr, mf = mean(real), mean(fake)
    match name:
        case "minimax" | "non-saturating" | "kl":
            return mean([-math.log(sigmoid(r)) for r in real]) + mean(
                [-math.log(1 - sigmoid(f)) for f in fake]
            )
        case "lsgan":
            return mean([(r - 1) ** 2 for r in real]) / 2 + mean([f**2 for f in fake]) / 2
        case "hinge":
            return mean([max(0, 1 - r) for r in real]) + mean([max(0, 1 + f) for f in fake])
        case "random-hinge":  # the margins are drawn: here half-way between 0.8 and 1
            return mean([max(0, 0.9 - r) for r in real]) + mean([max(0, 0.9 + f) for f in fake])
        case "wgan":
            return mf - mr
        case "rsgan":
            return mean([-math.log(sigmoid(r - f)) for r, f in zip(real, fake, strict=True)])
        case "rasgan":
            return mean([-math.log(sigmoid(r - mf)) for r in real]) + mean(
                [-math.log(1 - sigmoid(f - mr)) for f in fake]
            )
        case "ralsgan":
            return mean([(r - mf - 1) ** 2 for r in real]) + mean([(f - mr + 1) ** 2 for f in fake])
        case "rahinge":
            return mean([max(0, 1 - (r - mf)) for r in real]) + mean(
                [max(0, 1 + (f - mr)) for f in fake]
            )
        case "fisher":
            omega = mean([r**2 for r in real]) / 2 + mean([f**2 for f in fake]) / 2
            return -(mr - mf + 0.3 * (1 - omega) - 0.5 / 2 * (omega - 1) ** 2)
    raise KeyError(name)


def g_by_formula(name: str, real: list[float], fake: list[float]) -> float:
    mr, mf = mean(real), mean(fake)
    match name:
        case "minimax":
            return mean([math.log(1 - sigmoid(f)) for f in fake])
        case "non-saturating":
            return mean([-math.log(sigmoid(f)) for f in fake])
        case "lsgan":
            return mean([(f - 1) ** 2 for f in fake]) / 2
        case "hinge" | "random-hinge" | "wgan" | "kl" | "fisher":
            return -mf
        case "rsgan":
            return mean([-math.log(sigmoid(f - r)) for r, f in zip(real, fake, strict=True)])
        case "rasgan":
            return mean([-math.log(sigmoid(f - mr)) for f in fake]) + mean(
                [-math.log(1 - sigmoid(r - mf)) for r in real]
            )
        case "ralsgan":
            return mean([(f - mr - 1) ** 2 for f in fake]) + mean([(r - mf + 1) ** 2 for r in real])
        case "rahinge":
            return mean([max(0, 1 - (f - mr)) for f in fake]) + mean(
                [max(0, 1 + (r - mf)) for r in real]
            )
    raise KeyError(name)


@pytest.mark.parametrize("name", SINGLE)
def test_discriminator_loss_is_the_formula(name: str) -> None:
    loss = LOSSES[name].d(torch.tensor(REAL), torch.tensor(FAKE), 1.0, 0.0, *NUMBERS.get(name, ()))
    assert loss.item() == pytest.approx(d_by_formula(name, REAL, FAKE), rel=1e-5)


@pytest.mark.parametrize("name", SINGLE)
def test_generator_loss_is_the_formula(name: str) -> None:
    loss = LOSSES[name].g(torch.tensor(REAL), torch.tensor(FAKE), *NUMBERS.get(name, ()))
    assert loss.item() == pytest.approx(g_by_formula(name, REAL, FAKE), rel=1e-5)


@pytest.mark.parametrize("name", SINGLE)
def test_only_losses_that_say_so_need_the_real_logits(name: str) -> None:
    fake = torch.tensor(FAKE)
    one, other = (
        LOSSES[name].g(torch.tensor(real), fake, *NUMBERS.get(name, ()))
        for real in (REAL, [5.0, 4.0, 2.0])
    )
    assert torch.equal(one, other) != LOSSES[name].needs_real


@pytest.mark.parametrize("name", SINGLE)
def test_only_losses_that_say_so_have_labels(name: str) -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    plain = LOSSES[name].d(real, fake, 1.0, 0.0, *NUMBERS.get(name, ()))
    smooth = LOSSES[name].d(real, fake, 0.9, 0.0, *NUMBERS.get(name, ()))
    soft = LOSSES[name].d(real, fake, 1.0, torch.tensor([0.1, 0.2, 0.3]), *NUMBERS.get(name, ()))
    assert torch.equal(plain, smooth) != LOSSES[name].targets
    assert torch.equal(plain, soft) != LOSSES[name].targets


@pytest.mark.parametrize("name", SINGLE)
def test_extreme_logits_give_finite_losses_and_gradients(name: str) -> None:
    real = torch.tensor([1e4, -1e4], requires_grad=True)
    fake = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = LOSSES[name]
    total = loss.d(real, fake, 1.0, 0.0, *NUMBERS.get(name, ())) + loss.g(
        real, fake, *NUMBERS.get(name, ())
    )
    gradients = torch.autograd.grad(total, [real, fake])
    assert all(torch.isfinite(value).all() for value in (total, *gradients))


@pytest.mark.parametrize("name", SINGLE)
def test_both_sides_learn_in_the_right_direction(name: str) -> None:
    """A step down D's loss widens the gap of the logits, one down G's loss narrows it."""
    real = torch.tensor([0.1, 0.2], requires_grad=True)
    fake = torch.tensor([0.3, -0.1], requires_grad=True)
    to_real, to_fake = torch.autograd.grad(
        LOSSES[name].d(real, fake, 1.0, 0.0, *NUMBERS.get(name, ())), [real, fake]
    )
    assert to_real.sum() < 0 < to_fake.sum()
    (to_fake,) = torch.autograd.grad(LOSSES[name].g(real, fake, *NUMBERS.get(name, ())), [fake])
    assert to_fake.sum() < 0


def test_smoothed_labels_move_the_optimum_to_the_label() -> None:
    """With labels t the cross-entropy is least where σ(logit) = t, label by label."""
    targets = torch.tensor([0.7, 0.9])
    logits = torch.logit(targets).requires_grad_(True)
    fake = torch.logit(torch.tensor([0.1, 0.3])).requires_grad_(True)
    loss = LOSSES["non-saturating"].d(logits, fake, targets, torch.tensor([0.1, 0.3]))
    for gradient in torch.autograd.grad(loss, [logits, fake]):
        assert torch.allclose(gradient, torch.zeros(2), atol=1e-6)


def test_kl_is_the_divergence_of_two_gaussians_once_the_discriminator_is_trained() -> None:
    """KL(N(m, s²) ‖ N(0, 1)) = ½(m² + s² − 1) − log s; a quadratic logit is enough for both."""
    center, deviation = 0.8, 0.6
    random, loss = torch.Generator().manual_seed(0), LOSSES["kl"]
    real, normal = torch.randn(2, 50_000, generator=random, dtype=torch.float64)
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def logits(x: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(x), x, x.square()], dim=1) @ weights

    def closure() -> Tensor:
        total = loss.d(logits(real), logits(center + deviation * normal), 1.0, 0.0)
        (weights.grad,) = torch.autograd.grad(total, [weights])
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = loss.g(logits(real), logits(center + deviation * normal))
    closed = (center**2 + deviation**2 - 1) / 2 - math.log(deviation)
    assert found.item() == pytest.approx(closed, abs=0.02)


def test_saturation_is_what_separates_minimax_from_non_saturating() -> None:
    fake = torch.tensor([-10.0], requires_grad=True)  # the discriminator is sure
    gradients = [
        torch.autograd.grad(LOSSES[name].g(fake, fake, *NUMBERS.get(name, ())), fake)[0]
        .abs()
        .item()
        for name in ("minimax", "non-saturating")
    ]
    assert gradients[0] < 1e-4
    assert gradients[1] > 0.99


def test_random_margins_are_uniform_between_08_and_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    zeros = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    losses = [LOSSES["random-hinge"].d(*zeros, 1.0, 0.0).item() for _ in range(4000)]
    assert 1.6 <= min(losses) < 1.63
    assert 1.97 < max(losses) <= 2
    assert mean(losses) == pytest.approx(1.8, abs=0.006)  # 4.6 standard errors


def test_each_patch_has_its_own_mean_of_the_other_side() -> None:
    """Relativistic averages compare a patch with the same patch of the other side."""
    torch.manual_seed(0)
    real, fake = torch.randn(2, 4, 3)
    for name in ("rasgan", "ralsgan", "rahinge"):
        parts = [
            LOSSES[name].d(real[:, k], fake[:, k], 1.0, 0.0, *NUMBERS.get(name, ()))
            for k in range(3)
        ]
        whole = LOSSES[name].d(real, fake, 1.0, 0.0, *NUMBERS.get(name, ()))
        assert whole.item() == pytest.approx(sum(parts).item() / 3, rel=1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize("patches", [0, 3])
def test_separation_is_the_area_under_the_roc_curve(patches: int) -> None:
    random = torch.Generator().manual_seed(0)
    shape = (20, patches) if patches else (20,)
    real = torch.randn(shape, generator=random).round(decimals=1) + 0.5
    fake = torch.randn(shape, generator=random).round(decimals=1)
    first, second = (one.mean(dim=1) if patches else one for one in (real, fake))
    statistic = mannwhitneyu(first.numpy(), second.numpy()).statistic
    assert float(separation(real, fake)) == pytest.approx(statistic / 400, abs=1e-6)
    assert float(separation(real, real)) == 0.5
    assert float(separation(real + 100, fake)) == 1.0
