"""What every training method has in common: its further networks are part of the state of a run."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.contract import UserError, parse_config
from training.checkpoint import Unusable
from training.checkpoint_check import check_resumable
from training.config import Config
from training.data import Batch
from training.machine.distributed import SINGLE_PROCESS
from training.methods import METHODS, triple_gan
from training.networks import ImageShape
from training.networks.encoder import Posterior
from training.networks.further import FURTHER_NETWORKS
from training.options.architectures import DcganDiscriminator
from training.options.methods import GanMethod
from training.options.validation import check_compatible
from training.planning.forecast import checkpoint_bytes
from training.planning.memory import measure_run, state_bytes
from training.state import State, new_state
from training.step import Step

CPU, SHAPE = torch.device("cpu"), ImageShape(16, 16, 3, 4)
PLAIN: dict[str, Any] = {
    "batch": 8,
    "generator": {"width": 4, "z_dim": 8, "norm": "none"},
    "discriminator": {"width": 4, "norm": "none"},
}
ENCODER = {"width": 4, "norm": "none"}
METHOD_TABLES: dict[str, dict[str, Any]] = {
    "gan": {},
    "bigan": {"method": {"name": "bigan", "encoder": ENCODER, "pair_widths": [8, 8]}},
    "cyclegan": {
        "generator": {"name": "translator", "width": 4, "blocks": 1},
        "discriminator": {"name": "patchgan", "width": 4, "layers": 1},
        "method": {"name": "cyclegan"},
        "loss": {"name": "lsgan"},
    },
    "triple-gan": {
        "generator": {**PLAIN["generator"], "condition": "embedding"},
        "discriminator": {**PLAIN["discriminator"], "condition": "projection"},
        "method": {"name": "triple-gan", "classifier": ENCODER},
    },
    "vae-gan": {"method": {"name": "vae-gan", "encoder": ENCODER}},
}
"""A small configuration of each method, without batch norm and random numbers in losses."""
SGD = {"name": "sgd", "lr": 0.01}
TRIPLE = {"generator": {"condition": "norm"}, "discriminator": {"condition": "projection"}}
FURTHER = [name for name in METHOD_TABLES if name != "gan"]


def configuration(name: str, **more: Any) -> Config:
    config = parse_config(Config, PLAIN | METHOD_TABLES[name] | more, "test")
    check_compatible(config)
    return config


def batch_at(seen: int, count: int = 8, sets: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seen)
    images = torch.randint(0, 256, (count, 3 * sets, 16, 16), generator=random, dtype=torch.uint8)
    return Batch(images, torch.randint(0, 4, (count,), generator=random))


def take_steps(config: Config, state: State, count: int) -> dict[str, Tensor]:
    step = Step(config, state, CPU)
    for _ in range(count):
        batch = batch_at(state.seen, config.batch, config.method.sets)
        stats = step([batch] * config.n_critic)
    return stats


def all_tensors(state: State) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, network in state.networks.items()
        for key, value in network.state_dict().items()
    }


def test_every_method_has_networks_and_losses() -> None:
    assert METHODS.keys() == FURTHER_NETWORKS.keys() == METHOD_TABLES.keys()


@pytest.mark.parametrize("name", FURTHER)
def test_every_network_is_trained_and_its_average_follows(name: str) -> None:
    config = configuration(name)
    state = new_state(config, SHAPE, CPU)
    before = {key: value.clone() for key, value in all_tensors(state).items()}
    take_steps(config, state, 2)
    after = all_tensors(state)
    changed = {key.split(".")[0] for key, value in after.items() if not value.equal(before[key])}
    assert changed == state.networks.keys()
    for average, network in state.averaged:
        assert not any(weight.requires_grad for weight in average.parameters())
        assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("name", FURTHER)
def test_resumed_is_uninterrupted(name: str) -> None:
    config = configuration(name)
    whole, first = new_state(config, SHAPE, CPU), new_state(config, SHAPE, CPU)
    expected = take_steps(config, whole, 4)
    take_steps(config, first, 2)
    buffer = io.BytesIO()
    torch.save(first.tensors(), buffer)
    second = new_state(replace(config, seed=1), SHAPE, CPU)
    second.load(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    found = take_steps(config, second, 2)
    assert {key: float(value) for key, value in found.items()} == {
        key: float(value) for key, value in expected.items()
    }
    for key, value in all_tensors(whole).items():
        assert value.equal(all_tensors(second)[key]), key


@pytest.mark.parametrize("name", FURTHER)
def test_micro_batches_add_up_to_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the noise of encoders and labels: its numbers differ between parts. With SGD: biases
    before an instance norm have no gradient, and Adam would enlarge its rounding errors."""
    monkeypatch.setattr(Posterior, "sample", lambda posterior, _random: posterior.mean)
    monkeypatch.setattr(triple_gan, "sample_labels", lambda logits, _random: logits.argmax(dim=1))
    states = []
    for size in (0, 3):
        config = configuration(name, micro_batch=size, g_optimizer=SGD, d_optimizer=SGD)
        states.append(new_state(config, SHAPE, CPU))
        take_steps(config, states[-1], 2)
    whole, parts = states
    for key, value in all_tensors(whole).items():
        torch.testing.assert_close(all_tensors(parts)[key], value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", FURTHER)
def test_half_precision_trains(name: str, precision: str) -> None:
    config = configuration(name, precision=precision)
    state = new_state(config, SHAPE, CPU)
    stats = take_steps(config, state, 3)
    assert all(value.isfinite() for value in stats.values())
    assert state.is_finite()


@pytest.mark.parametrize("name", FURTHER)
def test_a_checkpoint_without_a_further_network_or_with_nan_is_refused(name: str) -> None:
    config = configuration(name)
    state = new_state(config, SHAPE, CPU)
    values = {"state": state.tensors()}
    for one in state.further:
        incomplete = {key: value for key, value in values["state"].items() if key != one}
        with pytest.raises(Unusable, match=f"state.{one}"):
            check_resumable({"state": incomplete}, state)
        weight = next(state.network(one).parameters()).detach()
        kept = weight.clone()
        weight.fill_(float("nan"))
        assert not state.is_finite()
        with pytest.raises(Unusable, match=f"state.{one}.*not finite"):
            check_resumable({"state": state.tensors()}, state)
        weight.copy_(kept)


@pytest.mark.parametrize("name", FURTHER)
def test_forecasts_count_further_networks(name: str) -> None:
    config = configuration(name)
    state = new_state(config, SHAPE, CPU)
    take_steps(config, state, 1)
    buffer = io.BytesIO()
    torch.save({"state": state.tensors()}, buffer)
    assert checkpoint_bytes(state, config, SHAPE) == pytest.approx(buffer.tell(), rel=0.1)
    alone = new_state(replace(config, method=GanMethod()), SHAPE, CPU)
    weights = sum(
        weight.numel() * (4 if one in state.averages else 3)  # and Adam's two moments
        for one in state.further
        for weight in state.network(one).parameters()
    )
    assert state_bytes(state, config) - state_bytes(alone, config) == 4 * weights
    measured = measure_run(config, SHAPE, CPU, SINGLE_PROCESS)
    assert measured.parameters.keys() == {"generator", "discriminator", *state.further}


def test_a_run_without_further_networks_has_the_tensors_of_earlier_versions() -> None:
    state = new_state(configuration("gan"), SHAPE, CPU)
    assert list(state.networks) == ["generator", "discriminator", "average"]
    groups = state.tensors()["g_optimizer"]["param_groups"]
    assert [len(group["params"]) for group in groups] == [
        len(list(state.generator.parameters()))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more", "key"),
    [
        ("bigan", {"updates": "simultaneous"}, "updates"),
        ("bigan", {"unroll": {"steps": 2, "lr": 1e-3}}, "unroll.steps"),
        ("bigan", {"discriminator": {"packing": 2}}, "discriminator.packing"),
        ("bigan", {"discriminator": {"classifier": True}, "generator": {"condition": "norm"}},
         "discriminator.condition"),
        ("bigan", {"generator": {"name": "stylegan2"}}, "generator.style_mixing_prob"),
        ("bigan", {"replay": {"size": 8}}, "replay.size"),
        ("bigan", {"loss": {"gp": 10.0}, "discriminator": {"norm": "none"}}, "loss.gp"),
        ("bigan", {"loss": {"feature_matching": 1.0}}, "loss.feature_matching"),
        ("cyclegan", {"generator": {"width": 4}}, "generator.name"),
        ("cyclegan", {"discriminator": {"name": "resnet"}}, "discriminator.name"),
        ("cyclegan", {"loss": {"r1": 1.0}}, "loss.r1"),
        ("cyclegan", {"loss": {"name": "fisher"}}, "loss.name"),
        ("cyclegan", {"loss": {"pulling_away": 1.0}}, "loss.pulling_away"),
        ("cyclegan", {"data": {"channels": 4}}, "data.channels"),
        ("cyclegan", {"init_from": "a", "freeze_d": 1}, "freeze_d"),
        ("cyclegan", {"cuda_graphs": True}, "cuda_graphs"),
        ("cyclegan", {"updates": "simultaneous"}, "updates"),
        ("gan", {"data": {"shards_b": "b"}}, "data.shards_b"),
        ("gan", {"generator": {"name": "translator"}}, "generator.name"),
        ("gan", {"g_optimizer": {"decay_from_kimg": 2, "decay_kimg": 1}},
         "g_optimizer.decay_from_kimg"),
        ("triple-gan", {"generator": {}, "discriminator": {}}, "generator.condition"),
        ("triple-gan", TRIPLE | {"loss": {"name": "lsgan"}}, "loss.name"),
        ("triple-gan", TRIPLE | {"loss": {"feature_matching": 1.0}}, "loss.feature_matching"),
        ("triple-gan", TRIPLE | {"labels": "if-any"}, "labels"),
        ("triple-gan", {"method": {"name": "triple-gan", "consistency": 1.0}},
         "method.consistency"),
        ("triple-gan", {"generator": {"condition": "norm"},
                        "discriminator": {"condition": "projection", "classifier": True}},
         "discriminator.classifier"),
        ("triple-gan", {"generator": {"condition": "norm", "continuous": 1},
                        "discriminator": {"condition": "projection"}},
         "generator.categorical"),
        ("vae-gan", {"discriminator": {"name": "projected", "norm": "joint"}},
         "discriminator.norm"),
        ("vae-gan", {"generator": {"name": "stylegan2"}}, "generator.style_mixing_prob"),
        ("vae-gan", {"latent": "uniform"}, "latent"),
        ("vae-gan", {"generator": {"continuous": 1}}, "generator.categorical"),
        ("vae-gan", {"loss": {"name": "hinge"}}, "loss.name"),
        ("vae-gan", {"loss": {"adversarial": 0.0, "feature_matching": 1.0}}, "loss.adversarial"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(name: str, more: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}(, [a-z_.]+)*: "):
        configuration(name, **more)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bigan", "method.encoder"),
        ("triple-gan", "method.classifier"),
        ("cyclegan", "discriminator"),
        ("gan", "generator"),
        ("gan", "discriminator"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_named(name: str, key: str) -> None:
    config = configuration(name)
    if name == "cyclegan":
        config = replace(config, discriminator=DcganDiscriminator())
    *path, last = key.split(".")
    owner = getattr(config, path[0]) if path else config
    owner = replace(owner, **{last: replace(getattr(owner, last), multipliers=(1,))})
    with pytest.raises(UserError, match=f"^{key}.multipliers: 1 layers given"):
        new_state(replace(config, **{path[0]: owner}) if path else owner, SHAPE, CPU)
