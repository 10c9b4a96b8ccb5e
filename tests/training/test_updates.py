"""The order of updates, and the latents of each: in simultaneous updates each network learns as it
would from the other before the step."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contract import parse_config
from training.config import Config
from training.data import Batch
from training.networks import ImageShape
from training.options.algorithm import OptimizerOptions
from training.state import State, make_optimizer, new_state
from training.step import Step

CPU = torch.device("cpu")
SHAPE = ImageShape(16, 16, 3)
STILL = 1e-30
PLAIN = {"generator": {"width": 4, "z_dim": 8}, "discriminator": {"width": 4, "norm": "none"}}
STYLE = {
    "generator": {"name": "stylegan2", "channel_base": 64, "channel_max": 8, "z_dim": 6},
    "discriminator": {"name": "stylegan2", "channel_base": 64, "channel_max": 8},
}


def after(updates: str, tables: dict[str, Any], d_rate: float = 0.1, **options: Any) -> State:
    """The networks after a step of plain descent, which shows each gradient as it is."""
    rates = {
        "g_optimizer": {"name": "sgd", "lr": 0.1},
        "d_optimizer": {"name": "sgd", "lr": d_rate},
    }
    given = {"batch": 8, "updates": updates, **rates, **tables, **options}
    torch.manual_seed(3)
    config = parse_config(Config, given, "test")
    state = new_state(config, SHAPE, CPU)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    Step(config, state, CPU)([Batch(images, torch.zeros(8, dtype=torch.int64))])
    return state


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters())


@pytest.mark.parametrize("tables", [PLAIN, STYLE], ids=["dcgan", "stylegan2"])
@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"name": "rsgan"},
        {"name": "hinge", "feature_matching": 1.0},
        {"r1": 1.0},
        {"name": "mmd", "r1": 1.0},
    ],
    ids=["plain", "pairs", "features", "penalty", "vectors"],
)
def test_each_learns_from_the_other_before_the_step(
    tables: dict[str, Any], loss: dict[str, Any]
) -> None:
    """The discriminator as in alternating updates, the generator as where it stands still."""
    both = after("simultaneous", tables, loss=loss)
    alternating = after("alternating", tables, loss=loss)
    still = after("alternating", tables, d_rate=STILL, loss=loss)
    close = {"rtol": 1e-4, "atol": 1e-6}
    expected, found = weights(alternating.discriminator), weights(both.discriminator)
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(weights(both.generator), weights(still.generator), **close)
    other = weights(alternating.generator)
    assert any(
        not torch.equal(other[name], weight) for name, weight in weights(both.generator).items()
    )


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"updates": "alternating"}, [True]),
        ({"updates": "alternating", "fresh_latents": True}, [False, True]),
        ({"updates": "generator-first"}, [True, False]),
        ({"updates": "alternating", "fresh_latents": True, "n_critic": 2}, [False, False, True]),
        ({"updates": "generator-first", "n_critic": 2}, [True, False, False]),
    ],
    ids=["reused", "fresh", "first", "fresh-critic", "first-critic"],
)
def test_latents_of_each_update(options: dict[str, Any], passes: list[bool]) -> None:
    """Which passes of the generator keep their graph, each with latents of its own."""
    config = parse_config(Config, {"batch": 8, **PLAIN, **options}, "test")
    state, seen = new_state(config, SHAPE, CPU), []
    state.generator.register_forward_hook(
        lambda network, given, images: seen.append((given[0], images.requires_grad))
    )
    batch = Batch(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    Step(config, state, CPU)([batch] * config.n_critic)
    assert [graph for _, graph in seen] == passes
    assert len(torch.cat([latents for latents, _ in seen]).unique(dim=0)) == 8 * len(passes)


@pytest.mark.parametrize("tables", [PLAIN, STYLE], ids=["dcgan", "stylegan2"])
def test_the_generator_that_goes_first_learns_from_the_old_discriminator(
    tables: dict[str, Any],
) -> None:
    first, both = (after(order, tables) for order in ("generator-first", "simultaneous"))
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(weights(first.generator), weights(both.generator), **close)
    learned, other = weights(first.discriminator), weights(both.discriminator)
    assert any(not torch.equal(other[name], weight) for name, weight in learned.items())


def test_pieces_add_up_to_the_batch() -> None:
    tables = {**PLAIN, "generator": {**PLAIN["generator"], "norm": "none"}}
    whole, pieces = (after("simultaneous", tables, micro_batch=size) for size in (0, 4))
    for name in ("generator", "discriminator"):
        torch.testing.assert_close(
            weights(getattr(pieces, name)), weights(getattr(whole, name)), rtol=1e-4, atol=1e-6
        )


def test_frozen_layers_stay() -> None:
    frozen, free = (after("simultaneous", PLAIN, freeze_d=layers) for layers in (1, 0))
    before = after("simultaneous", PLAIN, d_rate=STILL)
    first = [next(state.discriminator.parameters()) for state in (frozen, before, free)]
    torch.testing.assert_close(first[0], first[1], rtol=0, atol=1e-12)
    assert not torch.equal(first[1], first[2])


@pytest.mark.parametrize(
    "tables", [PLAIN, {**PLAIN, "loss": {"name": "wgan", "weight_clip": 0.01}}],
    ids=["plain", "clipped"],
)  # fmt: skip
def test_a_step_looks_up_no_module_and_formats_no_stack(
    tables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small networks, walks over all layers take as long as these."""
    config = parse_config(Config, {"batch": 8, **tables}, "test")
    state = new_state(config, SHAPE, CPU)
    step = Step(config, state, CPU)
    batches = [Batch(torch.zeros(8, 3, 16, 16).byte(), torch.zeros(8, dtype=torch.int64))]
    step(batches)
    found = []
    for owner, name in (
        (torch.nn.Module, "named_modules"), (torch.nn.Module, "children"),
        (traceback, "format_stack"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, lambda *_, name=name, **__: found.append(name) or [])
    step(batches)
    assert found == []


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_weight_decay_adds_half_its_square_to_the_loss(name: str) -> None:
    """The decayed optimiser takes the step of a plain one whose gradient has λ·weight added."""
    weights, found = torch.tensor([1.0, -2.0, 0.5]), []
    for decay, added in ((0.3, 0.0), (0.0, 0.3)):
        layer = torch.nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(weights)
        options = OptimizerOptions(name=name, lr=0.1, weight_decay=decay)  # type: ignore[arg-type]
        optimizer = make_optimizer(options, [layer], CPU)
        for _ in range(3):
            layer.weight.grad = torch.ones(1, 3) + added * layer.weight.detach()
            optimizer.step()
        found.append(layer.weight.detach())
    torch.testing.assert_close(found[0], found[1])
    assert not torch.equal(found[0], weights[None])
