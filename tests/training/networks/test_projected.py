"""Projected discriminators: what is frozen stays so, what is mixed is the published order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.data import Batch
from training.extractor import load_extractor
from training.networks import ImageShape, build_discriminator
from training.networks.base import interleave
from training.networks.frozen import frozen_features, perceptual_distance
from training.networks.layers import JointBatchNorm
from training.options.validation import check_compatible
from training.state import State, new_state
from training.step import Step

SHAPE = ImageShape(64, 64, 3, 5)
CPU = torch.device("cpu")


def config(**more: Any) -> Config:
    return parse_config(
        Config,
        {
            "batch": 4,
            "generator": {"width": 4, "z_dim": 8, **more.pop("generator", {})},
            "discriminator": {"name": "projected", "width": 8, "size": 64, **more},
            "loss": {"name": "hinge"},
        },
        "test",
    )


def make(shape: ImageShape = SHAPE, **more: Any) -> Any:
    torch.manual_seed(0)
    return build_discriminator(config(**more).discriminator, shape)


def train(state: State, made: Config, steps: int) -> None:
    step = Step(made, state, CPU)
    for _ in range(steps):
        random = torch.Generator().manual_seed(state.seen)
        images = torch.randint(0, 256, (4, 3, 64, 64), generator=random, dtype=torch.uint8)
        step([Batch(images, torch.zeros(4, dtype=torch.int64))])


def test_frozen_weights_are_in_no_optimiser_and_no_checkpoint() -> None:
    made = config()
    state = new_state(made, SHAPE, CPU)
    extractor = load_extractor(CPU)
    frozen = {id(weight) for weight in extractor.parameters()}
    before = {name: w.clone() for name, w in extractor.state_dict().items()}
    fixed = {k: w.clone() for k, w in state.discriminator.state_dict().items() if "mixing" in k}
    trained = [w for group in state.d_optimizer.param_groups for w in group["params"]]
    assert not frozen & {id(weight) for weight in (*trained, *state.discriminator.parameters())}
    saved = sum(w.numel() for w in state.discriminator.state_dict().values())
    assert saved < 0.2 * sum(w.numel() for w in before.values())
    train(state, made, 2)
    assert all(torch.equal(before[name], w) for name, w in extractor.state_dict().items())
    assert all(w.grad is None and not w.requires_grad for w in extractor.parameters())
    after = state.discriminator.state_dict()
    assert len(fixed) == 16
    assert all(torch.equal(weight, after[name]) for name, weight in fixed.items())
    assert {name.split(".")[0] for name, _ in state.discriminator.named_parameters()} == {
        "discriminators"
    }


def test_the_image_gets_a_gradient_from_each_scale() -> None:
    discriminator = make()
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    output = discriminator(images, torch.zeros(2, dtype=torch.int64))
    assert output.logits.shape == (2, 4)  # 2×2 places are left: one patch a scale
    for scale in range(4):
        (slope,) = torch.autograd.grad(
            output.logits[:, scale].sum(), images, retain_graph=True
        )  # fmt: skip
        assert torch.isfinite(slope).all()
        assert slope.abs().sum() > 0


def test_patches_of_the_published_size() -> None:
    discriminator = make(size=224)
    output = discriminator(torch.randn(2, 3, 64, 64), torch.zeros(2, dtype=torch.int64))
    assert output.logits.shape == (2, 4 * 16)
    # published channels of the four discriminators, in units of 64
    widths = [
        [layer.weight.shape[0] // 8 for layer in one.layers if isinstance(layer, torch.nn.Conv2d)]
        for one in discriminator.discriminators
    ]
    assert widths == [[1, 2, 4, 8], [2, 4, 8], [4, 8], [8]]


def test_mixing_is_the_published_order() -> None:
    """1×1 at each scale; from the smallest up: add, double (corners aligned), 1×1."""
    discriminator = make(size=128)
    maps = frozen_features(torch.randn(2, 3, 64, 64), 128)
    mix = discriminator.mixing
    mixed = [conv2d(m, c.weight, c.bias) for m, c in zip(maps, mix.channels, strict=True)]
    expected: list[Tensor] = []
    for number in (3, 2, 1, 0):
        values = mixed[number] + expected[0] if expected else mixed[number]
        values = interpolate(values, scale_factor=2, mode="bilinear", align_corners=True)
        layer = mix.scales[number]
        expected.insert(0, conv2d(values, layer.weight, layer.bias))
    found = mix(maps)
    assert [tuple(m.shape[1:]) for m in found] == [(8, 64, 64), (8, 32, 32), (16, 16, 16),
                                                   (32, 8, 8)]  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_images_come_to_the_network_as_its_own_code_brings_them() -> None:
    images = torch.rand(2, 3, 50, 40) * 2 - 1
    extractor = load_extractor(CPU)
    expected = extractor.stages(extractor.prepare(images))
    for one, other in zip(frozen_features(images, 224), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-3)
    gray = images[:, :1]
    expected = extractor.stages(extractor.prepare(gray))
    assert torch.allclose(frozen_features(gray, 224)[3], expected[3], atol=1e-3)


class WeightCasts(TorchDispatchMode):
    """Counts the conversions of frozen weights."""

    def __init__(self, weights: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.weights, self.count = weights, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cast = func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16
        self.count += cast and args[0].untyped_storage().data_ptr() in self.weights
        return func(*args, **(kwargs or {}))


def test_frozen_weights_are_converted_once_and_give_what_autocast_gives() -> None:
    extractor = load_extractor(CPU)
    frozen = {weight.untyped_storage().data_ptr() for weight in extractor.parameters()}
    found = []
    for stages in (lambda x: frozen_features(x, 64), lambda x: extractor.stages(prepared(x))):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        images.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), WeightCasts(frozen) as casts:
            maps = stages(images)
        torch.autograd.backward([one.float().square().mean() for one in maps])
        found.append((*maps, images.grad, casts.count))
    ours, theirs = found
    assert all(map(torch.equal, ours[:5], theirs[:5]))
    assert ours[5] == 0 < theirs[5]
    assert {weight.dtype for weight in extractor.parameters()} == {torch.float32}


def prepared(images: Tensor) -> Tensor:
    scaled = images * (127.5 / 128) + 0.5 / 128
    return scaled.contiguous(memory_format=torch.channels_last)


def test_the_distance_at_the_network_s_size_is_the_extractor_s() -> None:
    images, others = torch.rand(2, 2, 3, 224, 224) * 2 - 1
    expected = load_extractor(CPU).distance(images, others).mean()
    assert perceptual_distance(images, others).item() == pytest.approx(expected.item(), rel=1e-4)
    assert perceptual_distance(images, images).item() == pytest.approx(0, abs=1e-6)


def test_a_label_is_a_product() -> None:
    discriminator = make(condition="projection", generator={"condition": "embedding"}).eval()
    images = torch.randn(1, 3, 64, 64).expand(2, 3, 64, 64)
    labels = torch.tensor([1, 3])
    output = discriminator(images, labels)
    assert not torch.allclose(*output.logits)
    one = discriminator.discriminators[3]
    maps = discriminator.mixing(frozen_features(images, 64))[3]
    scored = one.output(one.layers(maps))[:, :, 0, 0]
    wanted = torch.nn.functional.leaky_relu(
        one.embed[0].weight[labels] @ one.embed[1].weight.T + one.embed[1].bias, 0.2
    )
    assert torch.allclose(output.logits[:, 3], (scored * wanted).sum(dim=1) / 8, atol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_other_shapes_and_precisions(bf16: bool) -> None:
    for shape in (ImageShape(28, 28, 1), ImageShape(32, 64, 3)):
        discriminator = make(shape, separable=True)
        images = torch.randn(2, shape.channels, shape.height, shape.width, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = discriminator(images, torch.zeros(2, dtype=torch.int64))
        output.logits.float().sum().backward()
        for name, weight in discriminator.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
        assert images.grad is not None
        assert images.grad.any()
    with pytest.raises(UserError, match=r"discriminator\.size: .* 32 px"):
        make(ImageShape(28, 28, 1), size=0)


def test_a_pixel_discriminator_adds_a_logit_that_sees_colours() -> None:
    discriminator = make(
        pixel_width=8, condition="projection", generator={"condition": "embedding"}
    ).eval()
    images, labels = torch.rand(4, 3, 64, 64) * 2 - 1, torch.arange(4)
    output = discriminator(images, labels)
    assert output.logits.shape == (4, 5)
    own = discriminator.pixels(images, labels).logits
    assert torch.allclose(output.logits[:, 4], own, atol=1e-5)
    discriminator.pixel_logits = 3
    assert torch.equal(discriminator(images, labels).logits[:, 4:], output.logits[:, [4, 4, 4]])
    alone = torch.cat(
        [
            discriminator.pixels(one[None], n[None]).logits
            for one, n in zip(images, labels, strict=True)
        ]
    )
    assert not torch.allclose(own, alone, atol=1e-4)  # it sees how much a group's images differ
    (slope,) = torch.autograd.grad(
        own.sum(), discriminator.pixels.hidden[0].parametrizations.weight.original
    )
    assert slope.abs().sum() > 0
    assert not torch.allclose(discriminator.pixels(images * 0.5, labels).logits, own, atol=1e-3)


def test_joint_norm_is_batch_norm_of_both_and_then_remembers() -> None:
    """Against PyTorch's own batch norm, learning and in evaluation mode."""
    joint, plain = JointBatchNorm(3), torch.nn.BatchNorm2d(3)
    both = torch.randn(8, 3, 4, 4) * 2 + 1
    assert torch.equal(joint(both), plain(both))
    fakes = torch.randn(4, 3, 4, 4)
    plain.eval()
    joint.requires_grad_(False)  # the generator's step
    before = joint.running_mean.clone()
    assert torch.allclose(joint(fakes), plain(fakes))
    assert torch.equal(joint.running_mean, before)
    assert not torch.allclose(joint(fakes * 0.5), joint(fakes), atol=0.1)  # pale ones are seen


def test_joint_discriminators_learn_from_both_kinds_in_one_call() -> None:
    made = config(norm="joint")
    state = new_state(made, SHAPE, CPU)
    calls: list[tuple[int, bool]] = []
    state.discriminator.register_forward_pre_hook(
        lambda discriminator, inputs: calls.append(
            (len(inputs[0]), next(discriminator.discriminators.parameters()).requires_grad)
        )
    )
    train(state, made, 2)
    assert calls == [(8, True), (4, False)] * 2
    with pytest.raises(UserError, match=r"discriminator\.norm: .*penalty r1"):
        check_compatible(replace(made, loss=replace(made.loss, r1=1.0)))


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_joint_pixel_discriminators_do_not_mix_real_and_fake_images(count: int) -> None:
    """Their minibatch standard deviation is that of separate passes."""
    discriminator = make(**PIXELS)
    kinds = torch.rand(count, 3, 64, 64) * 2 - 1, torch.zeros(count, 3, 64, 64)
    labels = torch.zeros(2 * count, dtype=torch.int64)
    logits = discriminator(interleave(*kinds), labels).logits[:, -1]
    for start, images in enumerate(kinds):
        separate = discriminator.pixels(images, labels[:count]).logits
        torch.testing.assert_close(logits[start::2], separate)
    discriminator.requires_grad_(False)  # the generator's step has fake images alone
    fakes = discriminator(kinds[0], labels[:count]).logits[:, -1]
    torch.testing.assert_close(fakes, discriminator.pixels(kinds[0], labels[:count]).logits)


PIXELS = {"norm": "joint", "pixel_width": 4, "pixel_spectral": False}


def test_features_join_the_discriminator_of_pixels_later() -> None:
    made = config(**PIXELS, features_kimg=0.008)  # two steps of four images
    state = new_state(made, SHAPE, CPU)
    heads, pixels = state.discriminator.discriminators, state.discriminator.pixels

    def weights(network: torch.nn.Module) -> list[Tensor]:
        return [weight.detach().clone() for weight in network.parameters()]

    before = weights(heads), weights(pixels)
    train(state, made, 2)
    assert all(map(torch.equal, weights(heads), before[0]))
    assert not all(map(torch.equal, weights(pixels), before[1]))
    before = weights(heads), weights(pixels)
    train(state, made, 1)
    assert not all(map(torch.equal, weights(heads), before[0]))
    assert not all(map(torch.equal, weights(pixels), before[1]))


def test_penalties_limit_the_discriminator_of_pixels_alone() -> None:
    """½·E‖∇D(x)‖² of the pixel discriminator, by PyTorch's own derivative."""
    made = config(**PIXELS)
    made = replace(made, loss=replace(made.loss, r1=0.5, interval=1))
    check_compatible(made)
    state = new_state(made, SHAPE, CPU)
    real = torch.rand(4, 3, 64, 64) * 2 - 1
    images, labels = real.clone().requires_grad_(), torch.zeros(4, dtype=torch.int64)
    (slope,) = torch.autograd.grad(state.discriminator.pixels(images, labels).logits.sum(), images)
    loss = Step(made, state, CPU).loss
    loss.augmentation.seed(0)
    ((penalty, stats),) = loss.own_step_penalties(real, labels)
    assert stats["r1"] == pytest.approx(float(slope.square().sum() / 8), rel=1e-4)
    assert penalty.item() == pytest.approx(0.5 * stats["r1"].item())
    penalty.backward()
    assert all(one.grad is None for one in state.discriminator.discriminators.parameters())
    assert any(one.grad.any() for one in state.discriminator.pixels.parameters())


def test_a_step_with_a_penalty_trains_the_scales_too() -> None:
    """With batch norm R1 would reuse the logits of the loss, if it were of all of them."""
    made = config(norm="batch", pixel_width=4, pixel_spectral=False)
    made = replace(made, loss=replace(made.loss, r1=0.5, interval=1))
    state = new_state(made, SHAPE, CPU)
    before = [one.detach().clone() for one in state.discriminator.discriminators.parameters()]
    train(state, made, 1)
    after = state.discriminator.discriminators.parameters()
    assert not all(map(torch.equal, after, before))


def test_labels_may_enter_the_discriminator_of_pixels_alone() -> None:
    more = {"pixel_width": 4, "generator": {"condition": "embedding"}}
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    for condition, expected in (("projection", [True] * 5), ("pixels", [False] * 4 + [True])):
        discriminator = make(condition=condition, **more).eval()
        first, other = (
            discriminator(images, torch.full((4,), label, dtype=torch.int64)).logits
            for label in (0, 1)
        )
        assert ((first - other).abs().amax(dim=0) > 1e-6).tolist() == expected


def test_the_discriminator_of_pixels_may_have_no_spectral_norm() -> None:
    for spectral in (True, False):
        names = make(pixel_width=4, pixel_spectral=spectral).state_dict()
        assert any("original" in name for name in names if "pixels" in name) == spectral
        assert any("original" in name for name in names if "discriminators" in name)


def test_other_frozen_weights_are_refused() -> None:
    discriminator = make()
    values = dict(discriminator.state_dict())
    discriminator.load_state_dict(values)
    values["frozen_digest"] = values["frozen_digest"].roll(1)
    with pytest.raises(UserError, match="trained with other frozen weights"):
        discriminator.load_state_dict(values)
