"""Every preset loads, builds, trains; the table in the documentation is what they are."""

from __future__ import annotations

import re
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from inspect import stack
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.contract import parse_config
from training.catalogue import (
    PICTURES,
    document,
    gflop_per_image,
    image_shape,
    network_cost,
    picture_facts,
    picture_table,
)
from training.config import Config
from training.data import Batch
from training.networks import ImageShape, build_discriminator, build_generator
from training.options.resolve import flatten, nest_dotted, preset_names, resolve, unflatten
from training.options.validation import check_compatible
from training.state import new_state
from training.step import Step

CPU, aten = torch.device("cpu"), torch.ops.aten
NARROW = {
    "autoencoder": [("width", "2"), ("code", "4")],
    "dcgan": [("width", "2")],
    "mlp": [("widths", "[8, 8]")],
    "resnet": [("width", "2")],
    "stylegan2": [("channel_max", "4")],
    "stylegan3": [("channel_max", "4")],
    "r3gan": [("widths", "[4]"), ("blocks", "[1]")],
    "fastgan": [("width", "2")],
    "projected": [("width", "8"), ("size", "64")],
    "translator": [("width", "2"), ("blocks", "1")],
    "patchgan": [("width", "2")],
}
"""What makes a network of each kind small."""


def tiny(name: str) -> Config:
    """The preset with narrow layers, small batches and at most 128 px; all else is its own."""
    config = resolve(name, {})
    options = {"batch": "8", "replay.size": "8"} if config.replay.size else {"batch": "8"}
    if config.loss.name == "magan":  # whose generator learns after the first margin
        options["loss.margin_kimg"] = "0.008"
    options["resolution"] = str(min(config.resolution, 128))
    for network in ("generator", "discriminator"):
        options |= {
            f"{network}.{key}": value for key, value in NARROW[getattr(config, network).name]
        }
    return resolve(name, options)


class HostReads(TorchDispatchMode):
    """Where the program read a value of a tensor: on a GPU it would wait there for all work.

    Not counted: values that are drawn or kept on the CPU (`CPU_VALUES`), and the checks of
    `one_hot`, which it makes only on CPUs.
    """

    CPU_VALUES = (
        "training/augmentation/", "training/networks/stylegan2/generator.py", "torch/_tensor.py",
        "training/networks/fastgan.py", "training/techniques.py",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default):
            frames = [one for one in stack()[1:] if "training/" in one.filename]
            caller = next(one for one in frames if "double_backward.py" not in one.filename)
            one_hot = "one_hot(" in "".join(caller.code_context or [])
            if not one_hot and not any(path in caller.filename for path in self.CPU_VALUES):
                self.places.append(f"{caller.filename}:{caller.lineno}")
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_preset_trains_and_a_plain_step_never_waits_for_the_device(name: str) -> None:
    config = tiny(name)
    shape = image_shape(config)
    state = new_state(config, shape, CPU)
    step = Step(config, state, CPU)
    before = [weight.detach().clone() for weight in state.generator.parameters()]
    for mode in (nullcontext(), reads := HostReads()):
        random = torch.Generator().manual_seed(state.seen)
        size = (8, shape.channels * config.method.sets, shape.height, shape.width)
        images = torch.randint(0, 256, size, generator=random, dtype=torch.uint8)
        labels = torch.randint(0, shape.classes, (8,), generator=random)
        with mode:
            facts = step([Batch(images, labels)] * config.n_critic)
        assert {name for name, value in facts.items() if not torch.isfinite(value)} == set()
    assert state.seen == 16 * config.n_critic
    assert reads.places == []
    changed = [
        not torch.equal(old, new)
        for old, new in zip(before, state.generator.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize("name", ["dcgan64", "wgan-gp", "stylegan2-64", "r3gan64"])
def test_a_plain_step_in_fp16_never_waits_for_the_device(name: str) -> None:
    """Only the device knows whether it skips a step."""
    config = replace(tiny(name), precision="fp16", micro_batch=0)
    shape = image_shape(config)
    state = new_state(config, shape, CPU)
    step, images = Step(config, state, CPU), torch.zeros(8, 3, shape.height, shape.width).byte()
    batches = [Batch(images, torch.zeros(8, dtype=torch.int64))] * config.n_critic
    step(batches)
    with HostReads() as reads:
        facts = step(batches)
    assert {"skipped_d", "skipped_g"} <= facts.keys()
    assert reads.places == []


@pytest.mark.parametrize("name", preset_names())
def test_preset_names_its_source_and_survives_config_json(name: str) -> None:
    config = resolve(name, {})
    check_compatible(config)
    assert config.about.source
    assert config.about.summary
    assert unflatten(flatten(config), "config.json") == config


@pytest.mark.slow
def test_table_in_the_documentation_is_current() -> None:
    path = Path(__file__).parents[2] / "docs" / "presets.md"
    assert path.read_text() == document(), "run python -m training.catalogue > docs/presets.md"


def test_every_picture_of_a_preset_is_small_and_has_a_caption() -> None:
    facts = picture_facts()
    files = {path.stem: path for path in PICTURES.glob("*.jpg")}
    assert facts
    assert set(files) == set(facts) <= set(preset_names())
    assert sum(path.stat().st_size for path in files.values()) < 1_500_000
    for name, one in facts.items():
        with Image.open(files[name]) as picture:
            assert picture.width >= 100
        assert one["kimg"] > 0
        assert one["seconds"] > 0
        assert f"**{name}**: {one['kimg']:g} kimg" in picture_table({name: one})


def test_every_key_in_the_list_of_techniques_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tricks.md").read_text()
    rows = [dict(re.findall(r"`([a-z_.]+) = ([^`]+)`", line)) for line in text.splitlines()]
    assert sum(map(len, rows)) > 40
    for settings in rows:  # the name of a kind is in the row of its keys
        flat = flatten(parse_config(Config, nest_dotted(settings), str(settings)))
        for name, value in settings.items():
            assert flat[name] == tomllib.loads(f"value = {value}")["value"]


def test_sizes_are_those_of_real_networks() -> None:
    config = resolve("dcgan64", {})
    shape, size = image_shape(config), network_cost(config)
    for network, counted in (
        (build_generator(config.generator, shape), size.g_parameters),
        (build_discriminator(config.discriminator, shape), size.d_parameters),
    ):
        assert sum(weight.numel() for weight in network.parameters()) == counted


def test_work_of_what_trains_alone_first_is_the_mean_of_both() -> None:
    config = resolve("shells64-projected", {"total_kimg": "200"})
    costs = [
        network_cost(
            replace(config, discriminator=replace(config.discriminator, features_kimg=kimg))
        ).d_gflop
        for kimg in (0.0, 150.0, 200.0)
    ]
    assert costs[1] == pytest.approx(0.25 * costs[0] + 0.75 * costs[2])
    assert costs[2] < costs[0] / 3


def test_work_is_the_formula() -> None:
    """2·kernel²·in·out·places for each convolution of the generator, by hand."""
    config = resolve("dcgan64", {})
    size = network_cost(config)
    maps = [100, 800, 400, 200, 100, 3]
    places = [1, 16, 64, 256, 1024]  # a transposed convolution works at each of its inputs
    by_hand = sum(2 * 16 * maps[n] * maps[n + 1] * places[n] for n in range(5))
    assert size.g_gflop == pytest.approx(by_hand / 1e9, rel=1e-3)
    assert gflop_per_image(config, size) == pytest.approx(3 * size.g_gflop + 8 * size.d_gflop)


# The numbers in the seeds' and the papers' own tables

SETTINGS = {
    "dcgan64": {
        "batch": 128, "generator.z_dim": 100, "generator.width": 100, "discriminator.width": 100,
        "g_optimizer.lr": 2e-4, "d_optimizer.lr": 2e-4, "g_optimizer.beta1": 0.5,
        "resolution": 64, "loss.name": "non-saturating",
    },
    "dcgan128": {
        "batch": 64, "generator.width": 160, "discriminator.width": 40, "resolution": 128,
        "generator.z_dim": 100, "g_optimizer.lr": 2e-4, "g_optimizer.beta1": 0.5,
    },
    "woodblock128": {
        "batch": 128, "generator.z_dim": 128, "generator.output": "sigmoid", "resolution": 128,
        "g_optimizer.lr": 2e-4, "g_optimizer.beta1": 0.5, "g_optimizer.beta2": 0.999,
        "generator.multipliers": [1, 2, 4, 8, 16],
    },
    "ganhacks64": {
        "label_real": [0.7, 1.2], "label_fake": [0.0, 0.3], "d_optimizer.name": "sgd",
        "g_optimizer.name": "adam", "generator.dropout_at_test": True,
    },
    "wgan": {
        "loss.weight_clip": 0.01, "n_critic": 5, "d_optimizer.name": "rmsprop",
        "d_optimizer.lr": 5e-5, "batch": 64, "fresh_latents": True,
    },
    "wgan-gp": {
        "loss.gp": 10.0, "n_critic": 5, "g_optimizer.lr": 1e-4, "g_optimizer.beta1": 0.0,
        "g_optimizer.beta2": 0.9, "batch": 64, "fresh_latents": True,
    },
    "sngan": {
        "discriminator.spectral": True, "loss.name": "hinge", "n_critic": 5,
        "g_optimizer.lr": 2e-4, "g_optimizer.beta1": 0.0, "g_optimizer.beta2": 0.9,
        "updates": "generator-first",
    },
    "sagan": {
        "g_optimizer.lr": 1e-4, "d_optimizer.lr": 4e-4, "g_optimizer.beta1": 0.0,
        "g_optimizer.beta2": 0.9, "n_critic": 1, "loss.name": "hinge", "generator.spectral": True,
    },
    "rasgan-gp": {"loss.name": "rasgan", "loss.gp": 10.0, "n_critic": 1, "fresh_latents": True},
    "fastgan256": {"updates": "alternating", "fresh_latents": False},
    "dcgan-paper": {"updates": "alternating", "fresh_latents": False},
    **{name: {"updates": "generator-first"} for name in (
        "stylegan1-adain", "stylegan2-ada", "stylegan2-paper1024", "r3gan256", "projected64",
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_preset_reproduces_its_source_s_table(name: str) -> None:
    values = flatten(resolve(name, {}))
    assert {key: values[key] for key in SETTINGS[name]} == SETTINGS[name]


def test_grid_of_networks_needs_no_memory() -> None:
    """The table is counted on the meta device: no weight of SAGAN's 70 million is stored."""
    with torch.device("meta"):
        config = resolve("sagan", {"generator.spectral": "false"})
        network: nn.Module = build_generator(config.generator, ImageShape(128, 128, 3, 10))
    assert all(weight.is_meta for weight in network.parameters())
