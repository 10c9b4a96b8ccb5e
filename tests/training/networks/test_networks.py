"""Every network of the registry, in every way the trainer uses it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.losses import squared_gradient
from training.networks import (
    DISCRIMINATORS,
    GENERATORS,
    DiscriminatorOutput,
    ImageShape,
    build_discriminator,
    build_generator,
    latent_codes,
)  # fmt: skip
from training.networks.layers import spectral_norm

SMALL: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 8},
    "mlp": {"widths": [16, 16]},
    "resnet": {"width": 8},
}
GRAY = ImageShape(28, 28, 1, 3)
COLOUR = ImageShape(32, 32, 3, 3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def tables(g: dict[str, Any], d: dict[str, Any]) -> tuple[Any, Any]:
    """A generator's and a discriminator's table, small unless said otherwise."""
    config = parse_config(
        Config,
        {
            "generator": {"z_dim": 6, **SMALL[g.get("name", "dcgan")], **g},
            "discriminator": {**SMALL[d.get("name", "dcgan")], **d},
        },
        "test",
    )
    return config.generator, config.discriminator


def test_every_entry_is_tested() -> None:
    apart = {
        "autoencoder",
        "fastgan",
        "patchgan",
        "projected",
        "r3gan",
        "stylegan2",
        "stylegan3",
        "translator",
    }  # files of their own beside this one
    assert SMALL.keys() | apart == GENERATORS.keys() | DISCRIMINATORS.keys()


@pytest.mark.parametrize("shape", [GRAY, COLOUR, ImageShape(32, 64, 3, 3)])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", SMALL)
def test_forward_and_backward(
    name: str, form: torch.memory_format, bf16: bool, shape: ImageShape
) -> None:
    g_table, d_table = tables({"name": name}, {"name": name})
    generator = build_generator(g_table, shape).to(memory_format=form)  # type: ignore[call-overload]
    discriminator = build_discriminator(d_table, shape).to(memory_format=form)  # type: ignore[call-overload]
    labels = torch.arange(4) % 3
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = generator(torch.randn(4, generator.z_dim), labels)
        output: DiscriminatorOutput = discriminator(images, labels)
    assert images.shape == (4, shape.channels, shape.height, shape.width)
    assert images.abs().max() <= 1
    assert output.logits.shape == (4,)
    assert len(output.features) == 4
    output.logits.float().sum().backward()
    for network in (generator, discriminator):
        for key, weight in network.named_parameters():
            assert weight.grad is not None, key
            assert torch.isfinite(weight.grad).all(), key
        assert any(weight.grad.abs().sum() > 0 for weight in network.parameters())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"name": "dcgan", "norm": "none"},
        {"name": "dcgan", "norm": "instance", "attention": 16, "minibatch_stddev": 2},
        {"name": "dcgan", "norm": "none", "spectral": True, "condition": "projection"},
        {"name": "mlp"},
        {"name": "resnet", "norm": "layer", "attention": 16},
        {"name": "resnet", "spectral": True, "condition": "embedding"},
    ],
)
def test_penalty_reaches_every_weight_of_the_body(options: dict[str, Any], bf16: bool) -> None:
    """R1 differentiates twice: every weight before the last layer gets a finite gradient."""
    discriminator = build_discriminator(tables({}, options)[1], COLOUR)
    discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.nn.init.ones_(
        next((w for k, w in discriminator.named_parameters() if "gamma" in k), torch.ones(1))
    )
    labels = torch.arange(4) % 3

    def critic(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return discriminator(images, labels).logits

    penalty = squared_gradient(critic, torch.randn(4, 3, 32, 32))
    penalty.backward()
    assert penalty > 0
    weights = {k: w for k, w in discriminator.named_parameters() if w.ndim > 1 and "embed" not in k}
    for key, weight in weights.items():
        assert weight.grad is not None, key
        assert torch.isfinite(weight.grad).all(), key
    for key in weights:
        if "output" in key or "second" in key:
            assert weights[key].grad.abs().sum() > 0, key  # type: ignore[union-attr]


def test_double_backward_is_the_finite_difference() -> None:
    """d R1 / d w by autograd against a central difference, through every kind of layer."""
    options = {"name": "resnet", "width": 4, "norm": "layer", "attention": 16}
    discriminator = build_discriminator(tables({}, options)[1], COLOUR).double()
    torch.nn.init.constant_(dict(discriminator.named_parameters())["hidden.1.gamma"], 0.5)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weight = dict(discriminator.named_parameters())["hidden.1.query.weight"]
    torch.nn.init.normal_(weight)

    labels = torch.zeros(2, dtype=torch.int64)

    def penalty() -> Tensor:
        gradient = torch.autograd.grad(
            discriminator(x := images.clone().requires_grad_(True), labels).logits.sum(), x,
            create_graph=True,
        )[0]  # fmt: skip
        return gradient.square().sum()

    (slope,) = torch.autograd.grad(penalty(), weight)
    with torch.no_grad():
        step = 1e-4
        weight[0, 0] += step
    above = penalty().item()
    with torch.no_grad():
        weight[0, 0] -= 2 * step
    numeric = (above - penalty().item()) / (2 * step)
    assert slope[0, 0].item() == pytest.approx(numeric, rel=1e-3)


@pytest.mark.parametrize("size", [28, 32, 64, 128, 256])
@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_one_implementation_for_every_resolution(name: str, size: int) -> None:
    shape = ImageShape(size, size, 3)
    small = {"name": name, "width": 2, "max_width": 8}
    g_table, d_table = tables({**small, "init": "default"}, small)
    generator, discriminator = build_generator(g_table, shape), build_discriminator(d_table, shape)
    images = generator(torch.randn(2, 6), torch.zeros(2, dtype=torch.int64))
    assert images.shape == (2, 3, size, size)
    assert discriminator(images, torch.zeros(2, dtype=torch.int64)).logits.shape == (2,)


@pytest.mark.parametrize("size", [30, 100, 8 * 11])
def test_sizes_that_do_not_fit_are_refused(size: int) -> None:
    g_table, d_table = tables({}, {})
    shape = ImageShape(size, size, 3)
    with pytest.raises(UserError, match="resolution"):
        build_generator(g_table, shape)
    with pytest.raises(UserError, match="resolution"):
        build_discriminator(d_table, shape)


def test_mistakes_name_the_key() -> None:
    with pytest.raises(
        UserError, match=r"^generator.multipliers: 2 layers given, this resolution has 3"
    ):
        build_generator(tables({"multipliers": [1, 2]}, {})[0], COLOUR)
    with pytest.raises(UserError, match=r"^generator.attention: no maps are 5 .* from 0, 8, 16 "):
        build_generator(tables({"attention": 5}, {})[0], COLOUR)
    with pytest.raises(UserError, match=r"^discriminator.attention: no .* from 0, 4, 8, 16 "):
        build_discriminator(tables({}, {"attention": 5})[1], COLOUR)
    with pytest.raises(UserError, match=r"^test: generator.width: unknown key"):
        tables({"name": "mlp", "width": 3}, {})
    with pytest.raises(
        UserError, match=r"^test: discriminator: must be a section whose name is one of"
    ):
        parse_config(Config, {"discriminator": {"name": "best"}}, "test")
    with pytest.raises(UserError, match=r"^test: generator: must be a section"):
        parse_config(Config, {"generator": "dcgan"}, "test")
    with pytest.raises(UserError, match=r"^test: label_real"):
        parse_config(Config, {"label_real": [0.7, 1.2, 3]}, "test")


@pytest.mark.parametrize("name", SMALL)
def test_labels_need_labels(name: str) -> None:
    bare = replace(COLOUR, classes=0)
    with pytest.raises(UserError, match=r"generator\.condition: the shards have no labels"):
        build_generator(tables({"name": name, "condition": "embedding"}, {})[0], bare)
    for key, value in (("condition", "projection"), ("classifier", True)):
        with pytest.raises(UserError, match=rf"discriminator\.{key}: the shards have no labels"):
            build_discriminator(tables({}, {"name": name, key: value})[1], bare)


@pytest.mark.parametrize(
    ("name", "condition"),
    [("dcgan", "embedding"), ("dcgan", "norm"), ("mlp", "embedding"), ("resnet", "embedding"),
     ("resnet", "norm")],
)  # fmt: skip
def test_generator_draws_by_label(name: str, condition: str) -> None:
    generator = build_generator(tables({"name": name, "condition": condition}, {})[0], COLOUR)
    if condition == "norm":  # gains begin alike for all labels; training parts them
        for key, weight in generator.named_parameters():
            if "gain" in key:
                torch.nn.init.normal_(weight)
    generator.eval()
    latents = torch.randn(1, 6).expand(2, 6)
    first, second = generator(latents, torch.tensor([0, 1]))
    assert not torch.allclose(first, second)
    generator(latents, torch.tensor([0, 1])).square().sum().backward()
    grads = [w.grad for k, w in generator.named_parameters() if "embed" in k or "gain" in k]
    assert all(grad is not None and grad[:2].abs().sum() > 0 for grad in grads)
    assert all(grad is not None and grad[2].abs().sum() == 0 for grad in grads)


@pytest.mark.parametrize("condition", ["embedding", "projection"])
@pytest.mark.parametrize("name", SMALL)
def test_discriminator_scores_by_label(name: str, condition: str) -> None:
    discriminator = build_discriminator(
        tables({}, {"name": name, "condition": condition})[1], COLOUR
    )
    discriminator.eval()
    images = torch.randn(1, 3, 32, 32).expand(2, 3, 32, 32)
    first, second = discriminator(images, torch.tensor([0, 1])).logits
    assert first != second


def test_projection_is_the_formula() -> None:
    """logit = ψ(h) + ⟨embedding of the label, Σ h⟩ (Miyato & Koyama 2018, eq. 3)."""
    discriminator = build_discriminator(
        tables({}, {"name": "resnet", "condition": "projection"})[1], COLOUR
    ).eval()
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 1])
    output = discriminator(images, labels)
    features = output.features.flatten(1)
    weights = dict(discriminator.named_parameters())
    plain = features @ weights["head.output.weight"].flatten() + weights["head.output.bias"]
    projected = (weights["head.projection.weight"][labels] * features).sum(dim=1)
    assert torch.allclose(output.logits, plain + projected, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_classifier_and_codes(name: str) -> None:
    options = {"name": name, "classifier": True}
    discriminator = build_discriminator(tables({}, options)[1], COLOUR, codes=5)
    output = discriminator(torch.randn(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    assert output.classes is not None
    assert output.codes is not None
    assert output.classes.shape == (4, 3)
    assert output.codes.shape == (4, 5)


def test_codes_in_the_latents() -> None:
    table = tables({"categorical": [10, 4], "continuous": 2}, {})[0]
    generator = build_generator(table, COLOUR)
    assert generator.z_dim == 6 + 10 + 4 + 2
    latents = torch.randn(20000, generator.z_dim)
    codes = latent_codes(latents, table)
    assert codes.shape == (20000, 16)
    assert torch.equal(codes[:, :10].argmax(1), latents[:, 6:16].argmax(1))
    assert torch.equal(codes[:, 14:], latents[:, 20:])
    share = codes[:, :10].mean(dim=0)
    assert torch.allclose(share, torch.full((10,), 0.1), atol=0.01)  # 4.7 standard errors
    assert torch.equal(codes[:, 10:14].sum(dim=1), torch.ones(20000))
    generator.eval()
    one = latents[:1].repeat(2, 1)
    one[1, 6:16] = torch.roll(one[1, 6:16], 1)  # another choice of the first group
    first, second = generator(one, torch.zeros(2, dtype=torch.int64))
    assert not torch.allclose(first, second)
    one[1] = one[0]
    one[1, 6:16] *= 0.5  # the same choice, said less loudly
    first, second = generator(one, torch.zeros(2, dtype=torch.int64))
    assert torch.allclose(first, second)


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_attention_begins_as_nothing_and_looks_everywhere(name: str) -> None:
    options = {"name": name, "attention": 16, "norm": "none"}
    discriminator = build_discriminator(tables({}, options)[1], COLOUR).eval()
    gamma = next(w for k, w in discriminator.named_parameters() if "gamma" in k)
    assert gamma.item() == 0
    attention = next(m for m in discriminator.modules() if type(m).__name__ == "SelfAttention")
    maps = torch.randn(1, 8, 16, 16)
    assert torch.equal(attention(maps), maps)
    torch.nn.init.ones_(gamma)
    for weight in attention.parameters():
        torch.nn.init.normal_(weight) if weight.ndim else None
    changed = maps.clone()
    changed[0, :, 15, 15] += 5.0  # the far corner
    assert not torch.allclose(attention(maps)[0, :, 0, 0], attention(changed)[0, :, 0, 0])


def test_attention_is_the_formula() -> None:
    """Row by row: softmax of ⟨query, keys⟩ over the pooled places, applied to the values."""
    from training.networks.attention import SelfAttention

    layer = SelfAttention(8)
    torch.nn.init.constant_(layer.gamma, 0.7)
    maps = torch.randn(1, 8, 4, 6)
    query, key, value, out = (
        getattr(layer, name).weight.flatten(1) for name in ("query", "key", "value", "out")
    )

    def pooled(weight: Tensor) -> Tensor:
        values = torch.einsum("oc,chw->ohw", weight, maps[0])
        return values.reshape(-1, 2, 2, 3, 2).amax(dim=(2, 4)).flatten(1)

    keys, values = pooled(key), pooled(value)
    for row, column in ((0, 0), (2, 5), (3, 1)):
        place = maps[0, :, row, column]
        weights = torch.softmax((query @ place) @ keys, dim=0)
        expected = place + 0.7 * (out @ (values @ weights))
        assert torch.allclose(layer(maps)[0, :, row, column], expected, atol=1e-5)


def largest_singular_values(network: torch.nn.Module) -> list[float]:
    values = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.ConvTranspose2d):
            weight = module.weight.detach()
            if isinstance(module, torch.nn.ConvTranspose2d):
                weight = weight.transpose(0, 1)
            values.append(torch.linalg.matrix_norm(weight.flatten(1), 2).item())
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_spectral_norm_of_every_weight_is_one(name: str) -> None:
    g_table, d_table = tables({"name": name, "spectral": True}, {"name": name, "spectral": True})
    generator, discriminator = (
        build_generator(g_table, COLOUR),
        build_discriminator(d_table, COLOUR),
    )
    labels = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(60):  # power iterations
            discriminator(generator(torch.randn(2, 6), labels), labels)
    for network in (generator.eval(), discriminator.eval()):
        values = largest_singular_values(network)
        assert values == pytest.approx([1.0] * len(values), abs=0.03)


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_spectral_norm_is_that_of_pytorch(kind: Any) -> None:
    """The same draws, weights, gradients and names in a checkpoint, also after training passes."""
    layers = []
    for normalised in (spectral_norm, torch.nn.utils.parametrizations.spectral_norm):
        torch.manual_seed(0)
        layer = kind(3, 4, 3)
        normalised(layer)
        torch.manual_seed(1)
        for _ in range(3):
            layer(torch.randn(2, 3, 5, 5)).sum().backward()
        layers.append(layer)
    mine, theirs = (layer.state_dict() for layer in layers)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name])
    for one, other in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_spectral_norm_is_one_for_weights_of_any_size(size: float) -> None:
    layer = torch.nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        layer.weight.mul_(size)
    spectral_norm(layer)
    for _ in range(40):
        weight = layer.weight
    assert float(torch.linalg.matrix_norm(weight.detach(), 2)) == pytest.approx(1, abs=1e-3)


def test_autocast_does_not_round_spectral_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    discriminator = build_discriminator(tables({}, {"spectral": True})[1], COLOUR)
    product, seen = torch.mv, []

    def mv(matrix: Tensor, vector: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return product(matrix, vector)

    monkeypatch.setattr(torch, "mv", mv)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        discriminator(torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))
    assert seen
    assert not any(seen)


def test_spectral_norm_leaves_the_gains_of_labels_alone() -> None:
    """A new offset is zero: dividing by its norm would be NaN."""
    table = tables({"name": "resnet", "spectral": True, "condition": "norm"}, {})[0]
    images = build_generator(table, COLOUR)(torch.randn(3, 6), torch.arange(3))
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("init", ["dcgan", "default", "orthogonal", "xavier"])
def test_initial_weights(init: str) -> None:
    table = tables({"init": init, "width": 16}, {})[0]
    weights = dict(build_generator(table, COLOUR).named_parameters())
    weight, gain = weights["layers.3.weight"].detach(), weights["layers.4.weight"].detach()
    assert weight.shape == (64, 32, 4, 4)
    match init:
        case "dcgan":
            assert weight.std().item() == pytest.approx(0.02, rel=0.03)
            assert gain.std().item() == pytest.approx(0.02, rel=0.4)
            assert gain.mean().item() == pytest.approx(1, abs=0.02)
        case "orthogonal":
            flat = weight.flatten(1)
            assert torch.allclose(flat @ flat.T, torch.eye(64), atol=1e-4)
        case "xavier":
            bound = (6 / ((64 + 32) * 16)) ** 0.5
            assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        case "default":
            assert weight.abs().max().item() == pytest.approx((1 / (32 * 16)) ** 0.5, rel=0.01)
            assert torch.equal(gain, torch.ones(32))
