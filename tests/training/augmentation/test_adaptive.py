"""The transforms as a whole, the probability's way, and both within training steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contract import UserError, parse_config
from training.augmentation.adaptive import AdaController, adjust_p
from training.augmentation.transforms import POLICIES, transform, transforms_of
from training.config import Config
from training.data import Batch
from training.losses import LOSSES
from training.machine.distributed import SINGLE_PROCESS, Distributed
from training.networks import ImageShape
from training.options.algorithm import AugmentOptions
from training.options.resolve import nest_dotted
from training.state import new_state
from training.step import Step

CPU = torch.device("cpu")
EVERYTHING = transforms_of("bgcfnc")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 8, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(count, channels, height, width, generator=rng(2))


# Transforms


def test_policies_are_the_papers() -> None:
    assert len(EVERYTHING) == 15
    assert transforms_of("bg") == transforms_of(("blit", "geom"))
    assert transforms_of(("xflip", "color")) == {"xflip", *POLICIES["color"]}
    assert transforms_of(()) == frozenset()


def test_probability_zero_is_the_identity() -> None:
    images, random = noise(), rng()
    assert transform(images, EVERYTHING, 0.0, random, random) is images
    assert torch.equal(random.get_state(), rng().get_state())


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_each_transform_happens_to_about_p_of_the_images(name: str) -> None:
    images = noise(count=2000, height=8, width=8)
    found = transform(images, frozenset({name}), 0.3, rng(), rng(1))
    changed = (found != images).flatten(1).any(dim=1).double().mean()
    # a flip leaves half of those it happens to, a quarter turn a quarter; four bands are drawn
    share = {"xflip": 0.15, "lumaflip": 0.15, "rotate90": 0.225, "filter": 1 - 0.7**4,
             "xint": 0.3 * 8 / 9 + 0.01}  # fmt: skip
    assert float(changed) == pytest.approx(share.get(name, 0.3), abs=0.04)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48)])
def test_everything_together(channels: int, height: int, width: int) -> None:
    images = noise(8, channels, height, width).requires_grad_(True)
    found = transform(images, EVERYTHING, 0.8, rng(), rng(1))
    assert found.shape == images.shape
    (gradient,) = torch.autograd.grad(found.square().sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert bool(second.isfinite().all())
    assert bool((second != 0).any())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_float_arithmetic_rounded_once(kind: torch.dtype) -> None:
    images = noise().to(kind)
    exact = transform(images.float(), EVERYTHING, 0.8, rng(), rng(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = transform(images, EVERYTHING, 0.8, rng(), rng(1))
    assert found.dtype == kind
    assert torch.equal(found, exact.to(kind))


# The probability


def test_p_goes_a_fixed_step_towards_the_target() -> None:
    table = AugmentOptions(ada="bgc", ada_kimg=10, ada_target=0.6)
    assert adjust_p(0.5, 0.7, table, 64) == pytest.approx(0.5064)
    assert adjust_p(0.5, 0.5, table, 64) == pytest.approx(0.4936)
    assert adjust_p(0.5, 0.6, table, 64) == 0.5
    assert adjust_p(0.001, 0.0, table, 64) == 0
    assert adjust_p(0.999, 1.0, table, 64) == 1


def test_controller_averages_over_the_interval_before_the_last() -> None:
    """Against the recurrence, written out."""
    table, scalars = AugmentOptions(ada="bgc", ada_kimg=1, ada_interval=3), dict[str, Tensor]()
    controller = AdaController(table, 10, SINGLE_PROCESS)
    told = torch.rand(60, generator=rng()) * 1.2
    p, shown = 0.0, []
    for number, value in enumerate(told):
        shown.append(float(controller.observe(scalars, value, 1.0)["augment_p"]))
        if number % 3 == 2 and number > 2:
            mean = float(told[number - 5 : number - 2].mean())
            p = min(1.0, max(0.0, p + (0.03 if mean > 0.6 else -0.03)))
        assert controller.p(scalars) == pytest.approx(p)
    assert shown[0] == 0
    assert len(set(shown)) > 2


def test_a_fixed_p_stays() -> None:
    scalars = dict[str, Tensor]()
    controller = AdaController(AugmentOptions(ada="bgc", p=0.2, ada_interval=1), 10, SINGLE_PROCESS)
    assert float(controller.observe(scalars, torch.tensor(1.0), 1.0)["augment_p"]) == pytest.approx(0.2)  # fmt: skip # noqa: E501
    assert controller.p(scalars) == 0.2
    assert not scalars


class TwoRanks(Distributed):
    """The second of two processes, in one: what the other one would add is `other`."""

    other: float = 0.0

    def all_reduce_sum(self, tensors: Any) -> None:
        for tensor in tensors:
            tensor += self.other


def test_processes_decide_together() -> None:
    table = AugmentOptions(ada="bgc", ada_kimg=1, ada_interval=1, ada_target=0.5)
    for other, expected in ((1.0, 0.01), (0.0, 0.0)):
        ranks = TwoRanks(1, 2)
        object.__setattr__(ranks, "other", other * 0.5)
        scalars = {"augment_p": torch.tensor(0.0)}
        controller = AdaController(table, 10, ranks)
        for _ in range(2):
            controller.observe(scalars, torch.tensor(0.4), 0.5)
        assert float(scalars["augment_p"]) == pytest.approx(expected)


def test_processes_keep_the_sum_of_all_for_their_one_checkpoint() -> None:
    ranks, scalars = TwoRanks(1, 2), dict[str, Tensor]()
    object.__setattr__(ranks, "other", 0.3)
    controller = AdaController(AugmentOptions(ada="bgc", ada_interval=4), 10, ranks)
    for _ in range(2):
        controller.observe(scalars, torch.tensor(0.4), 0.5)
    assert float(scalars["augment_signs"]) == pytest.approx(2 * (0.4 * 0.5 + 0.3))


def test_overfitting_is_seen_where_the_loss_has_its_boundary() -> None:
    real, fake = torch.tensor([0.2, 0.7, -0.1, 3.0]), torch.tensor([0.1, 0.9, -2.0, -1.0])
    assert float(LOSSES["non-saturating"].overfitting(real, fake)) == 0.5
    assert float(LOSSES["hinge"].overfitting(real, fake)) == 0.5
    assert float(LOSSES["lsgan"].overfitting(real, fake)) == 0.0
    for name in ("wgan", "rsgan", "rasgan", "ralsgan", "rahinge"):
        assert float(LOSSES[name].overfitting(real, fake)) == 0.5
        assert float(LOSSES[name].overfitting(real + 7, fake + 7)) == 0.5


# Within training


def config_of(augment: dict[str, Any], **options: Any) -> Config:
    tables = {"generator": {"width": 4, "z_dim": 8}, "discriminator": {"width": 4}}
    return parse_config(Config, {"batch": 8, "augment": augment, **tables, **options}, "test")


def trained(config: Config, steps: int) -> tuple[Any, list[dict[str, Tensor]]]:
    state = new_state(config, ImageShape(16, 16, 3, 0), CPU)
    step, told = Step(config, state, CPU), []
    for _ in range(steps):
        images = torch.randint(
            0, 256, (8, 3, 16, 16), generator=rng(state.seen % 32), dtype=torch.uint8
        )
        told.append(step([Batch(images, torch.zeros(8, dtype=torch.int64))]))
    return state, told


@pytest.mark.slow
def test_p_rises_in_a_discriminator_that_knows_its_images() -> None:
    config = config_of({"ada": "bgc", "ada_kimg": 0.3, "ada_interval": 2}, d_optimizer={"lr": 2e-3})
    state, told = trained(config, 36)
    rows = torch.stack([facts["augment_p"] for facts in told])
    assert float(rows[0]) == 0
    assert float(rows.max()) > 0.1
    steps = rows.diff().abs()
    assert float(steps.max()) == pytest.approx(16 / 300, rel=1e-4)
    assert all(-1 <= float(facts["r_t"]) <= 1 for facts in told)
    assert set(state.scalars) == {
        "augment_p", "augment_earlier", "augment_signs", "augment_steps",
    }  # fmt: skip


def test_r1_reaches_the_discriminator_through_the_transforms() -> None:
    table = {"name": "non-saturating", "r1": 10.0}
    plain, _ = trained(config_of({"ada": "bgcfnc", "p": 0.9}, loss=table), 3)
    without, _ = trained(config_of({"ada": "bgcfnc", "p": 0.9}), 3)
    one, other = (state.discriminator.state_dict() for state in (plain, without))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert all(bool(value.isfinite().all()) for value in one.values())


def test_real_and_fake_have_draws_of_their_own_and_steps_others() -> None:
    """Blank fakes and equal reals: what the discriminator sees differs from pass to pass."""
    config = config_of({"ada": "brightness", "p": 1.0})
    state = new_state(config, ImageShape(16, 16, 3, 0), CPU)
    step, saw = Step(config, state, CPU), list[Tensor]()
    state.discriminator.register_forward_pre_hook(lambda _, given: saw.append(given[0].detach()))
    black = Batch(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    for _ in range(2):
        step([black])
    first, second = saw[0][:, 0, 0, 0], saw[3][:, 0, 0, 0]
    assert len(first.unique()) == 8
    assert not torch.equal(first, second)


@pytest.mark.parametrize("given", ["bgc", "xflip", "blit,hue", '["bg", "noise"]'])
def test_command_line_names_transforms(given: str) -> None:
    config = parse_config(
        Config, nest_dotted({"augment.ada": given, "augment.p": "0.2"}), "command line"
    )
    assert transforms_of(config.augment.ada)
    assert config.augment.p == 0.2


@pytest.mark.parametrize(
    "augment", [{"ada": "bgx"}, {"p": 1.5}, {"ada": ["blit", "what"]}, {"ada_target": 2}]
)
def test_mistakes_are_told(augment: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="augment"):
        config_of(augment)
