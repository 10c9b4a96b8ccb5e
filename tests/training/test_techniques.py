"""Each trick changes what it should: the functions, then the same within a training step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.data import Batch
from training.losses import squared_gradient
from training.machine.distributed import Distributed
from training.networks import ImageShape, build_generator
from training.networks.layers import Dropout, MinibatchStddev, Noise
from training.state import State, new_state
from training.step import Step
from training.techniques import (
    add_noise,
    blur_images,
    draw_latents,
    draw_targets,
    fading,
    pack,
    replay,
    unpack,
    unroll,
)

SHAPE = ImageShape(16, 16, 3, 4)
CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_at(seen: int, count: int) -> Batch:
    """Images whose brightness is their label: the same for the same position."""
    random = rng(seen)
    labels = torch.randint(0, 4, (count,), generator=random)
    images = torch.randint(0, 64, (count, 3, 16, 16), generator=random)
    return Batch((images + labels[:, None, None, None] * 60).to(torch.uint8), labels)


class World:
    """A tiny run: `step()` takes one step, `saw` are the images its discriminator was shown."""

    def __init__(self, options: dict[str, Any]) -> None:
        tables = {
            "generator": {"width": 4, "z_dim": 8, **options.get("generator", {})},
            "discriminator": {"width": 4, **options.get("discriminator", {})},
        }
        self.config = parse_config(Config, {"batch": 8, **options, **tables}, "test")
        self.state: State = new_state(self.config, SHAPE, CPU)
        self.step_once = Step(self.config, self.state, CPU)
        self.saw: list[Tensor] = []
        self.state.discriminator.register_forward_pre_hook(
            lambda _, given: self.saw.append(given[0].detach().clone())
        )

    def step(self, count: int = 1) -> dict[str, Tensor]:
        for _ in range(count):
            facts = self.step_once([batch_at(self.state.seen, self.config.batch)])
        return facts

    def targets(self) -> list[tuple[Any, Any]]:
        """Labels of the discriminator's loss in the steps from now on."""
        found: list[tuple[Any, Any]] = []
        inner = self.step_once.loss._adversarial

        def spy(real: Tensor, fake: Tensor, *targets: Any) -> Tensor:
            found.append(targets)
            return inner.d(real, fake, *targets)

        self.step_once.loss._adversarial = replace(inner, d=spy)
        return found


# Labels


def test_plain_labels_draw_nothing() -> None:
    random = rng()
    assert draw_targets(0.9, 0.0, 0.0, 5, random) == (0.9, 0.0)
    assert torch.equal(random.get_state(), rng().get_state())


def test_soft_labels_are_uniform_between_their_bounds() -> None:
    real, fake = draw_targets((0.7, 1.2), (0.0, 0.3), 0.0, 20000, rng())
    for values, low, high in ((real, 0.7, 1.2), (fake, 0.0, 0.3)):
        assert isinstance(values, Tensor)
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.005)
        assert values.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.02)


def test_flips_exchange_labels_with_their_probability() -> None:
    real, fake = draw_targets(0.9, (0.0, 0.3), 0.2, 20000, rng())
    assert isinstance(real, Tensor)
    assert isinstance(fake, Tensor)
    assert (real < 0.5).float().mean().item() == pytest.approx(0.2, abs=0.012)
    assert (fake > 0.5).float().mean().item() == pytest.approx(0.2, abs=0.012)
    assert ((real == 0.9) | (real <= 0.3)).all()
    assert ((fake == 0.9) | (fake <= 0.3)).all()


def test_a_step_uses_the_labels() -> None:
    world = World({"label_real": [0.7, 1.2], "label_fake": [0.0, 0.3]})
    targets = world.targets()
    world.step(2)
    assert all(((real >= 0.7) & (real <= 1.2)).all() for real, _ in targets)
    assert all(((fake >= 0) & (fake <= 0.3)).all() for _, fake in targets)
    assert not torch.equal(targets[0][0], targets[1][0])


def test_one_sided_smoothing_is_the_formula() -> None:
    """−t·log D − (1 − t)·log(1 − D) is larger than −log D by (1 − t)·logit, on real images."""
    plain, smooth = World({}).step(), World({"label_real": 0.9}).step()
    assert plain["logit_real"] == smooth["logit_real"]
    expected = plain["loss_d"] + 0.1 * plain["logit_real"]
    assert smooth["loss_d"].item() == pytest.approx(expected.item(), rel=1e-5)


# Instance noise


def test_noise_falls_linearly_to_nothing() -> None:
    assert [fading(0.4, 10, seen) for seen in (0, 2500, 5000, 10000, 20000)] == (
        pytest.approx([0.4, 0.3, 0.2, 0.0, 0.0])
    )
    assert fading(0.4, 0, 10**9) == 0.4


def test_noise_has_its_scale_in_every_precision() -> None:
    images = torch.zeros(4, 3, 64, 64)
    noisy = add_noise(images, 0.2, rng())
    assert noisy.std().item() == pytest.approx(0.2, rel=0.02)
    assert torch.allclose(add_noise(images.bfloat16(), 0.2, rng()).float(), noisy, atol=5e-3)
    assert add_noise(images, 0.0, rng()) is images


def test_a_step_blurs_real_and_fake_less_and_less() -> None:
    world, plain = World({"augment": {"noise": 0.5, "noise_kimg": 0.016}}), World({})
    for expected in (0.5, 0.25, 0.0):
        world.state.generator.load_state_dict(plain.state.generator.state_dict())
        world.saw.clear()
        plain.saw.clear()
        world.step()
        plain.step()
        for noisy, clean in list(zip(world.saw, plain.saw, strict=True))[:2]:  # real, then fake
            assert (noisy - clean).std().item() == pytest.approx(expected, rel=0.05, abs=1e-6)


def test_blur_is_a_normalised_gaussian_along_both_axes() -> None:
    images = torch.randn(2, 3, 9, 12, dtype=torch.float64)
    row = 2.0 ** -((np.arange(-4, 5) / 1.5) ** 2)
    wanted = images.numpy()
    for axis in (2, 3):
        wanted = correlate1d(wanted, row / row.sum(), axis, mode="constant")
    np.testing.assert_allclose(blur_images(images, 1.5).numpy(), wanted, atol=1e-12)
    assert blur_images(images, 0.3) is images
    transparent = torch.full((1, 4, 8, 8), -1.0)
    assert torch.equal(blur_images(transparent, 1.5), transparent)


@pytest.mark.parametrize("start", ["", "runs/other"])
def test_a_step_blurs_all_images_less_and_less(start: str) -> None:
    """As noise above; not those of a training that starts with weights."""
    options = {"augment": {"blur": 2.0, "blur_kimg": 0.016}, "init_from": start}
    world, plain = World(options), World({})
    for width in (2.0, 1.0, 0.0):
        world.state.generator.load_state_dict(plain.state.generator.state_dict())
        world.saw.clear()
        plain.saw.clear()
        world.step()
        plain.step()
        for found, clean in list(zip(world.saw, plain.saw, strict=True))[:2]:  # real, then fake
            torch.testing.assert_close(found, clean if start else blur_images(clean, width))


# Noise and dropout in the generator


SMALL: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 4}, "mlp": {"widths": [16]}, "resnet": {"width": 4}
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "trains", "samples"),
    [
        ({}, False, False),
        ({"noise": 0.3}, True, False),
        ({"dropout": 0.5}, True, False),
        ({"dropout": 0.5, "dropout_at_test": True}, True, True),
    ],
)
@pytest.mark.parametrize("name", ["dcgan", "mlp", "resnet"])
def test_where_the_generator_is_random(
    name: str, options: dict[str, Any], trains: bool, samples: bool
) -> None:
    table = {"name": name, "z_dim": 8, **SMALL[name], **options}
    network = build_generator(parse_config(Config, {"generator": table}, "test").generator, SHAPE)
    latents, labels = torch.randn(4, 8, generator=rng()), torch.zeros(4, dtype=torch.int64)
    for train, random in ((True, trains), (False, samples)):
        network.train(train)
        first, second = network(latents, labels), network(latents, labels)
        assert torch.equal(first, second) != random


def test_layer_noise_has_its_scale_and_dropout_its_share() -> None:
    values = torch.full((100, 100), 2.0)
    assert (Noise(0.3)(values) - values).std().item() == pytest.approx(0.3, rel=0.05)
    dropped = Dropout(0.4)(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert dropped[dropped > 0].unique().tolist() == pytest.approx([2 / 0.6])


# Experience replay


def test_replay_fills_then_exchanges() -> None:
    memory: dict[str, Tensor] = {}
    random, shown = rng(), 0

    def fakes() -> tuple[Tensor, Tensor]:
        nonlocal shown
        shown += 4
        numbers = torch.arange(shown - 4, shown)
        return numbers.float()[:, None, None, None].expand(4, 1, 2, 2), numbers

    for _ in range(2):
        fake, labels = fakes()
        mixed, mixed_labels = replay(memory, 8, 0.5, fake, labels, random)
        assert torch.equal(mixed, fake)
        assert torch.equal(mixed_labels, labels)
    for _ in range(20):
        before = set(memory["labels"].tolist())
        fake, labels = fakes()
        mixed, mixed_labels = replay(memory, 8, 0.5, fake, labels, random)
        old = set(mixed_labels.tolist()) - set(labels.tolist())
        assert len(old) == 2
        assert old <= before
        kept = set(memory["labels"].tolist())
        assert kept | set(mixed_labels.tolist()) == before | set(labels.tolist())
        assert not kept & set(mixed_labels.tolist())  # changed places: nothing is in both
        assert torch.equal(mixed[:, 0, 0, 0].long(), mixed_labels)  # images with their labels


def test_replay_keeps_no_overflow() -> None:
    memory: dict[str, Tensor] = {}
    fake = torch.tensor([1e9, float("nan"), -float("inf"), 0.5])[:, None, None, None]
    for _ in range(3):
        mixed, _ = replay(memory, 4, 0.5, fake, torch.arange(4), rng())
        assert memory["images"].isfinite().all()
        assert not mixed.isfinite().all()


def test_replay_of_single_images_is_the_image_buffer_of_cyclegan() -> None:
    """Half of the images come back later (Zhu 2017, section 4), each stored one equally likely."""
    memory: dict[str, Tensor] = {}
    random, label, ages = rng(), torch.zeros(1, dtype=torch.int64), []
    for number in range(6000):
        fake = torch.full((1, 1, 1, 1), number % 2000 / 1.0)
        shown, _ = replay(memory, 50, 0.5, fake, label, random)
        if number >= 50:
            ages.append((number - int(shown)) % 2000)
    returned = [age for age in ages if age]
    assert len(returned) / len(ages) == pytest.approx(0.5, abs=0.03)
    # an image leaves with probability 1/2 · 1/50 per step: after 100 steps in the mean
    assert sum(returned) / len(returned) == pytest.approx(100, rel=0.08)


def test_a_step_shows_old_fakes() -> None:
    world = World({"replay": {"size": 16, "share": 0.5}})
    world.step(2)
    kept = world.state.replay["images"].clone()
    world.saw.clear()
    world.step()
    on_fake = world.saw[1].half()
    old = [any(torch.equal(image, other) for other in kept) for image in on_fake]
    assert sum(old) == 4
    assert not any(torch.equal(image, other) for other in kept for image in world.saw[2].half())


PASSES: list[tuple[dict[str, Any], int]] = [
    ({}, 2),
    ({"loss": {"r1": 1.0}}, 2),
    ({"loss": {"r1": 1.0, "r2": 1.0}}, 2),
    ({"loss": {"gp": 1.0}}, 3),
    ({"loss": {"r1": 1.0, "own_step": True}}, 3),
    ({"loss": {"r1": 1.0}, "updates": "simultaneous"}, 2),
]
"""Options, and the passes of 8 images that the discriminator's update needs."""


@pytest.mark.parametrize(("options", "passes"), PASSES)
def test_penalties_reuse_the_pass_of_the_loss(options: dict[str, Any], passes: int) -> None:
    world = World({**options, "discriminator": {"norm": "none"}})
    world.step()
    generator = 0 if "updates" in options else 8
    assert sum(map(len, world.saw)) == passes * 8 + generator


def test_reused_penalties_are_those_of_a_pass_of_their_own() -> None:
    alone = World({"loss": {"r1": 1.0, "r2": 1.0}, "discriminator": {"norm": "none"}})
    discriminator = copy.deepcopy(alone.state.discriminator)
    found, labels = alone.step(), torch.zeros(8, dtype=torch.int64)
    for name, images in zip(("r1", "r2"), alone.saw, strict=False):
        expected = squared_gradient(lambda x: discriminator(x, labels).mean_logit, images)
        torch.testing.assert_close(found[name], expected.detach())


def test_several_processes_refuse_what_they_cannot_share() -> None:
    for options, said in (
        ({"replay": {"size": 16}}, "replay.size"),
        ({"batch": 8, "discriminator": {"packing": 8}}, "discriminator.packing"),
        ({"batch": 7, "micro_batch": 3}, "micro_batch: 3: processes with 3 and 4 images"),
    ):
        world = World({})
        config = parse_config(Config, options, "test")
        with pytest.raises(UserError, match=said):
            Step(config, world.state, CPU, Distributed(rank=0, world_size=2))


# Optimisers


def test_sgd_for_the_discriminator_and_adam_for_the_generator() -> None:
    world = World({"d_optimizer": {"name": "sgd", "lr": 0.1, "beta1": 0.0}})
    assert isinstance(world.state.d_optimizer, torch.optim.SGD)
    assert isinstance(world.state.g_optimizer, torch.optim.Adam)
    weight = next(world.state.discriminator.parameters())
    before = weight.detach().clone()
    gradients: list[Tensor] = []
    world.state.d_optimizer.register_step_pre_hook(
        lambda *_: gradients.append(weight.grad.clone())  # type: ignore[union-attr]
    )
    world.step()
    assert torch.allclose(weight, before - 0.1 * gradients[0])


def test_rmsprop_is_wgan_s() -> None:
    world = World(
        {"loss": {"name": "wgan", "weight_clip": 0.01},
         "d_optimizer": {"name": "rmsprop", "lr": 5e-5, "beta1": 0, "beta2": 0.99}}
    )  # fmt: skip
    assert isinstance(world.state.d_optimizer, torch.optim.RMSprop)
    assert max(w.abs().max().item() for w in world.state.discriminator.parameters()) > 0.01
    world.step()
    assert max(w.abs().max().item() for w in world.state.discriminator.parameters()) <= 0.01
    assert max(w.abs().max().item() for w in world.state.generator.parameters()) > 0.01


def test_rates_fall_to_nothing() -> None:
    world = World({"g_optimizer": {"lr": 0.01, "decay_kimg": 0.016}})
    rates = []
    for _ in range(4):
        world.step()
        rates.append(world.state.g_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.005, 0.0, 0.0])
    assert world.state.d_optimizer.param_groups[0]["lr"] == world.config.d_optimizer.lr


def test_rates_are_constant_and_then_fall() -> None:
    world = World({"g_optimizer": {"lr": 0.01, "decay_from_kimg": 0.008, "decay_kimg": 0.024}})
    rates = []
    for _ in range(5):
        world.step()
        rates.append(world.state.g_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0, 0.0])


# Packing, minibatch statistics, latents


def test_packing_stacks_neighbours() -> None:
    images = torch.randn(6, 3, 4, 4).to(memory_format=torch.channels_last)
    packed = pack(images, 2)
    assert packed.shape == (3, 6, 4, 4)
    assert torch.equal(packed[1], torch.cat([images[2], images[3]]))
    assert packed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(unpack(packed, 2), images)
    assert pack(images, 1) is images


def test_a_step_packs() -> None:
    world = World({"discriminator": {"packing": 2, "norm": "none"}, "loss": {"r1": 1, "gp": 1}})
    targets = world.targets()
    facts = world.step()
    assert {tuple(seen.shape) for seen in world.saw} == {(4, 6, 16, 16)}
    assert len(targets) == 1
    assert all(torch.isfinite(value) for value in facts.values())


def test_minibatch_stddev_is_the_formula() -> None:
    images = torch.randn(6, 2, 3, 3)
    out = MinibatchStddev(3)(images)
    assert torch.equal(out[:, :2], images)
    for group in (slice(0, None, 2), slice(1, None, 2)):
        expected = images[group].std(dim=0, unbiased=False).mean()
        assert torch.allclose(out[group, 2], expected.expand(3, 3, 3))


def test_minibatch_stddev_lets_the_discriminator_see_collapse() -> None:
    world = World({"discriminator": {"minibatch_stddev": 4, "norm": "none"}})
    discriminator = world.state.discriminator
    images, labels = torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)
    alike = discriminator(images[:1].repeat(4, 1, 1, 1), labels).logits[0]
    among_others = discriminator(images, labels).logits[0]
    assert alike != among_others


def test_latents() -> None:
    sphere = draw_latents("sphere", 50, 64, rng(), CPU)
    assert torch.allclose(sphere.norm(dim=1), torch.full((50,), 8.0))
    gaussian = draw_latents("gaussian", 500, 64, rng(), CPU)
    assert gaussian.std().item() == pytest.approx(1, abs=0.02)
    uniform = draw_latents("uniform", 500, 64, rng(), CPU)
    assert uniform.abs().max() <= 1
    assert uniform.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.02)


# The unrolled discriminator


def test_unrolling_is_gradient_descent_that_can_be_differentiated() -> None:
    """On ½a(w − x)²: w_K = x + (1 − ηa)^K (w₀ − x), and so ∂w_K/∂x = 1 − (1 − ηa)^K."""
    network = nn.Linear(1, 1, bias=False)
    start, curve, rate = network.weight.item(), 2.0, 0.1
    goal = torch.tensor(3.0, requires_grad=True)
    for steps in (1, 3, 10):
        moved = unroll(
            network, lambda weights: (weights["weight"] - goal).square().sum() * curve / 2, steps,
            rate,
        )["weight"]  # fmt: skip
        left = (1 - rate * curve) ** steps
        assert moved.item() == pytest.approx(3 + left * (start - 3), rel=1e-5)
        (slope,) = torch.autograd.grad(moved.sum(), goal)
        assert slope.item() == pytest.approx(1 - left, rel=1e-5)
    assert network.weight.item() == start


def test_unrolling_leaves_running_statistics_alone() -> None:
    network = nn.BatchNorm1d(3)
    values = torch.randn(5, 3)
    moved = unroll(
        network,
        lambda weights: functional_call(network, weights, (values,)).square().mean(),
        steps=2,
        rate=0.1,
    )
    assert torch.equal(network.running_mean, torch.zeros(3))  # type: ignore[arg-type]
    assert not torch.equal(moved["running_mean"], torch.zeros(3))
    assert not torch.equal(moved["weight"], network.weight)


def test_a_step_unrolls_without_touching_the_discriminator() -> None:
    options = {"d_optimizer": {"name": "sgd", "lr": 0.05}}
    plain, unrolled = World(options), World({**options, "unroll": {"steps": 3}})
    first, second = plain.step(), unrolled.step()
    weights = [world.state.discriminator.state_dict() for world in (plain, unrolled)]
    assert torch.equal(first["loss_d"], second["loss_d"])
    # the generator meets a discriminator that has learned more: it is told fake more surely
    assert second["d_fake_after"] < first["d_fake_after"]
    for key, value in weights[0].items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(value, weights[1][key]), key
    grads = [next(w.state.generator.parameters()).detach() for w in (plain, unrolled)]
    assert not torch.equal(*grads)


# Losses beside the adversarial one


@pytest.mark.slow
def test_classes_and_codes_are_learned() -> None:
    world = World(
        {"generator": {"condition": "embedding", "categorical": [3], "continuous": 1},
         "discriminator": {"classifier": True, "norm": "none"},
         "d_optimizer": {"lr": 2e-3}, "g_optimizer": {"lr": 2e-3}, "batch": 32}
    )  # fmt: skip
    discriminator = world.state.discriminator.state_dict()
    before = {
        name: discriminator[f"head.{name}.weight"].clone() for name in ("coder", "classifier")
    }
    first = world.step()
    for name, weight in before.items():  # the discriminator's own step trains its guesses
        assert not torch.equal(discriminator[f"head.{name}.weight"], weight)
    assert first["class_d"].item() == pytest.approx(2 * math.log(4), rel=0.05)
    last = world.step(60)
    assert last["class_d"] < 0.7 * first["class_d"]
    assert last["codes"] < first["codes"]
    assert last["class_g"] < first["class_g"]


def test_feature_matching_alone_draws_the_means_together() -> None:
    world = World(
        {"loss": {"adversarial": 0, "feature_matching": 1}, "discriminator": {"norm": "none"},
         "g_optimizer": {"lr": 5e-3}, "d_optimizer": {"lr": 1e-8}}
    )  # fmt: skip
    first, last = world.step(), world.step(40)
    assert last["feature_matching"] < 0.5 * first["feature_matching"]


@pytest.mark.slow
def test_the_average_of_a_spectral_generator_keeps_its_norm() -> None:
    world = World({"generator": {"spectral": True}, "g_optimizer": {"lr": 0.01}})
    world.step(40)
    average = world.state.g_ema
    names = [name for name, _ in average.named_buffers() if name.endswith(("._u", "._v"))]
    assert names
    lengths = [buffer.norm().item() for name, buffer in average.named_buffers() if name in names]
    assert lengths == pytest.approx([1.0] * len(names), abs=1e-5)


# Exact resume

RESUMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "labels": {"label_real": [0.7, 1.2], "label_fake": [0.0, 0.3], "label_flip": 0.1},
    "noise": {"augment": {"noise": 0.3, "noise_kimg": 0.1}},
    "blur": {"augment": {"blur": 2.0, "blur_kimg": 0.1}},
    "disturbed": {"generator": {"noise": 0.1, "dropout": 0.3, "dropout_at_test": True},
                  "discriminator": {"dropout": 0.3}},
    "spectral": {"discriminator": {"spectral": True}, "generator": {"spectral": True}},
    "replay": {"replay": {"size": 12}},
    "packing": {"discriminator": {"packing": 2, "norm": "none"}, "loss": {"gp": 10}},
    "unroll": {"unroll": {"steps": 2, "lr": 1e-3}},
    "sgd": {"d_optimizer": {"name": "sgd"}},
    "rmsprop": {"d_optimizer": {"name": "rmsprop", "decay_kimg": 1}},
    "classes": {"generator": {"condition": "norm", "categorical": [3]},
                "discriminator": {"condition": "projection", "classifier": True}},
    "penalties": {"loss": {"dragan": 10, "r1": 1, "r2": 1, "interval": 2},
                  "discriminator": {"minibatch_stddev": 4}},
    "ada": {"augment": {"ada": "bgcfnc", "ada_kimg": 0.05, "ada_interval": 2}, "loss": {"r1": 1}},
    "matching": {"loss": {"feature_matching": 1}},
    "simultaneous": {"updates": "simultaneous"},
}  # fmt: skip


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED.keys())
def test_a_continued_run_is_the_uninterrupted_one(options: dict[str, Any], tmp_path: Any) -> None:
    whole, first, second = World(options), World(options), World(options)
    told = whole.step(5)
    first.step(3)
    torch.save(first.state.tensors(), tmp_path / "state.pt")
    torch.manual_seed(99)  # another process has other draws behind it
    second.state.load(torch.load(tmp_path / "state.pt", weights_only=True))
    again = second.step(2)
    assert told.keys() == again.keys()
    assert all(torch.equal(told[name], again[name]) for name in told)
    for name in ("generator", "discriminator", "g_ema"):
        one, other = (getattr(w.state, name).state_dict() for w in (whole, second))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    for kept, again in ((whole.state.scalars, second.state.scalars),
                        (whole.state.replay, second.state.replay)):  # fmt: skip
        assert kept.keys() == again.keys()
        assert all(torch.equal(kept[key], again[key]) for key in kept)


@pytest.mark.slow
def test_every_trick_changes_the_result() -> None:
    """No option of the table above does nothing."""

    def after(options: dict[str, Any]) -> list[float]:
        world = World(options)
        world.step(4)
        return [w.double().sum().item() for w in world.state.generator.parameters()]

    results = {name: after(options) for name, options in RESUMED.items()}
    for name, values in results.items():
        if name != "plain":
            assert values != results["plain"], name
