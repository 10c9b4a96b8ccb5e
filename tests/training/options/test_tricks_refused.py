"""What cannot be combined is refused in one line that names the key and the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.contract import UserError, parse_config
from training.config import Config
from training.losses import LOSSES
from training.machine.distributed import SINGLE_PROCESS
from training.methods import build_loss
from training.networks import ImageShape
from training.options.loss_rules import small_pass_conflicts, smallest_pass
from training.options.losses import LOSSES_WITH_TARGETS
from training.options.resolve import resolve
from training.options.target_rules import CROSS_ENTROPY
from training.options.validation import check_compatible
from training.state import new_state
from training.streaming.order import rank_slice

CPU = torch.device("cpu")
LABELLED = {"generator": {"condition": "embedding"}, "discriminator": {"condition": "projection"}}
PLAIN_D = {"norm": "none"}

AUTOENCODER = {"name": "autoencoder"}
"""What each loss needs beside its name; penalties are for those of logits."""
NEEDS: dict[str, dict[str, Any]] = {
    name: {
        **({"discriminator": AUTOENCODER} if one.energy else {}),
        "loss": {"name": name, **({"weight_clip": 0.01} if one.unbounded else {})},
    }
    for name, one in LOSSES.items()
}
PENALISED = [name for name, one in LOSSES.items() if not one.energy]

SWAPPED: list[dict[str, Any]] = [
    {"label_real": 0.0, "label_fake": 1.0},
    {"label_real": 0.5, "label_fake": 0.5},
    {"label_real": [0.0, 0.3], "label_fake": [0.7, 1.2]},
    {"label_real": 0.3, "label_fake": [0.2, 0.5]},
    {"label_flip": 0.5},
    {"label_flip": 1.0},
    {"label_real": 0.9, "label_flip": 0.6},
]
OUTSIDE: list[dict[str, Any]] = [
    {"label_real": 1.2},
    {"label_real": [0.9, 1.2]},
    {"label_fake": -0.1},
    {"label_fake": [-0.5, 0.3]},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"label_real": 0.9, "loss": {"name": "hinge"}}, "label_real"),
    ({"label_fake": [0.0, 0.3], "loss": {"name": "rsgan"}}, "label_fake"),
    ({"label_flip": 0.1, "loss": {"name": "ralsgan"}}, "label_flip"),
    *(({"loss": {"name": name}} | labels, "label_real, label_fake, label_flip: the mean")
      for name in sorted(LOSSES_WITH_TARGETS) for labels in SWAPPED),
    ({"loss": {"name": "lsgan"}, "label_real": 2.0, "label_fake": 0.5}, "label_real, label_fake"),
    *(({"loss": {"name": name}} | labels, "label_real, label_fake: the")
      for name in sorted(CROSS_ENTROPY) for labels in OUTSIDE),
    ({"loss": {"name": "wgan"}}, "loss.name: wgan needs"),
    ({"loss": {"name": "hinge", "weight_clip": 0.01}}, "loss.weight_clip: only for"),
    ({"loss": {"name": "wgan", "weight_clip": 0.01, "gp": 10}, "discriminator": PLAIN_D},
     "loss.weight_clip: a penalty"),
    ({"loss": {"name": "wgan", "weight_clip": 0.01}, "discriminator": {"spectral": True}},
     "loss.weight_clip: a penalty"),
    ({"loss": {"gp": 10, "dragan": 10}, "discriminator": PLAIN_D}, "loss.dragan"),
    ({"loss": {"name": "wgan", "gp": 10}}, "loss.gp: penalises the gradient of each sample"),
    ({"loss": {"adversarial": 0}}, "loss.adversarial"),
    ({"loss": {"interval": 16}}, "loss.interval"),
    ({"unroll": {"steps": 2, "lr": 1e-3}, "loss": {"r1": 1}}, "unroll.steps"),
    ({"unroll": {"steps": 2}}, "unroll.lr"),
    ({"updates": "simultaneous", "unroll": {"steps": 2, "lr": 1e-3}}, "updates: "),
    ({"updates": "simultaneous", "replay": {"size": 100}}, "updates: "),
    ({"updates": "simultaneous", "compile": True}, "updates: "),
    ({"updates": "simultaneous", "fresh_latents": True}, "updates: "),
    ({"init_from": "a", "freeze_d": 1, "unroll": {"steps": 2, "lr": 1e-3}}, "freeze_d: not"),
    ({"method": {"name": "bigan", "pair_widths": []}}, "method.pair_widths"),
    ({"updates": "simultaneous", "discriminator": {"name": "projected", "norm": "joint"}},
     "updates: "),
    ({"generator": {"condition": "norm"}}, "generator.condition"),
    ({"discriminator": {"condition": "projection"}}, "discriminator.condition"),
    ({"discriminator": {"classifier": True}}, "discriminator.classifier"),
    ({"generator": {"condition": "norm"}, "discriminator": {"classifier": True},
      "loss": {"classifier": 0}}, "loss.classifier"),
    ({"generator": {"categorical": [10]}, "loss": {"codes": 0}}, "loss.codes"),
    ({"generator": {"continuous": 2}, "replay": {"size": 100}}, "replay.size"),
    ({"batch": 9, "discriminator": {"packing": 2}}, "batch: must be a multiple"),
    ({"batch": 8, "micro_batch": 3, "discriminator": {"packing": 2}}, "micro_batch: must be a"),
    ({**LABELLED, "discriminator": {"condition": "projection", "packing": 2}},
     "discriminator.packing"),
    ({"generator": {"dropout_at_test": True}}, "generator.dropout_at_test"),
    ({"augment": {"noise_kimg": 3}}, "augment.noise_kimg"),
    ({"augment": {"blur_kimg": 3}}, "augment.blur_kimg"),
    ({"burn_in": {"kimg": 5}}, "burn_in.kimg: has no effect"),
    ({"burn_in": {"lr": 0.5}}, "burn_in: has no effect without"),
    ({"burn_in": {"kimg": 5, "penalty": 0.1}}, "burn_in.penalty"),
    ({"burn_in": {"kimg": 5, "beta2": 0.9}, "d_optimizer": {"name": "sgd"}}, "burn_in.beta2"),
    ({"generator": {"name": "r3gan", "spectral": True}}, "generator.spectral"),
    ({"discriminator": {"name": "r3gan", "spectral": True}}, "discriminator.spectral"),
    ({"generator": {"name": "r3gan", "condition": "norm"},
      "discriminator": {"condition": "projection"}}, "generator.condition: R3GAN"),
    ({"generator": {"continuous": 2}, "discriminator": {"name": "projected"}},
     "generator.categorical, generator.continuous"),
    ({"generator": {"categorical": [10]}, "discriminator": {"name": "stylegan2"}},
     "not supported by the stylegan2"),
    ({"loss": {"gp": 10}, "discriminator": {"name": "projected"}}, "the projected"),
    ({"discriminator": {"name": "projected", "features_kimg": 1}}, "discriminator.features_kimg"),
    ({"discriminator": {"name": "projected", "pixel_logits": 2}}, "discriminator.pixel_logits"),
    ({"discriminator": {"name": "projected", "condition": "pixels"},
      "generator": {"condition": "norm"}}, "discriminator.condition"),
    ({"discriminator": {"name": "projected", "pixel_width": 4, "features_kimg": 1},
      "method": {"name": "vae-gan"}}, "discriminator.features_kimg"),
    ({"discriminator": {"name": "projected", "pixel_width": 4}, "loss": {"r1": 1},
      "method": {"name": "vae-gan"}}, "loss.r1: "),
    ({"discriminator": {"name": "projected", "pixel_width": 4, "pixel_spectral": False},
      "loss": {"name": "wgan"}}, "discriminator.pixel_spectral"),
    ({"discriminator": {"name": "projected", "pixel_width": 4, "spectral": False},
      "loss": {"name": "wgan", "r1": 1}}, "discriminator.spectral"),
    ({"discriminator": {"name": "projected", "pixel_spectral": False}},
     "discriminator.pixel_spectral"),
    ({"discriminator": {"name": "projected", "pixel_width": 4, "spectral": False,
                        "pixel_spectral": False}}, "discriminator.pixel_spectral"),
    ({"discriminator": {"name": "projected", "pixel_width": 4, "features_kimg": 1},
      "unroll": {"steps": 2}, "d_optimizer": {"name": "sgd"}}, "unroll.steps"),
    ({"discriminator": {"name": "projected", "norm": "joint"}, "loss": {"r1": 1}},
     "discriminator.norm"),
    ({"discriminator": {"name": "projected", "norm": "joint"}, "unroll": {"steps": 2},
      "d_optimizer": {"name": "sgd"}}, "unroll.steps: not supported with discriminator.norm"),
    ({"loss": {"gp": 10}, "discriminator": {"name": "fastgan"}}, "the fastgan"),
    ({"loss": {"reconstruction": 0}, "discriminator": {"name": "fastgan"}},
     "loss.reconstruction"),
    ({"unroll": {"steps": 2}, "d_optimizer": {"name": "sgd"},
      "discriminator": {"name": "fastgan"}}, "unroll.steps"),
    ({"augment": {"ada": "bgc", "policy": ["color"]}}, "augment.policy"),
    ({"augment": {"ada": "bgc", "p": 0}}, "augment.p: with 0"),
    ({"augment": {"p": 0.2}}, "augment.p: has no effect"),
    ({"loss": {"name": "cramer"}}, "loss.name: cramer needs a discriminator with bounded"),
    ({"loss": {"margin": 2.0}}, "loss.margin: has an effect only with loss.name ebgan"),
    ({"loss": {"name": "began", "margin_kimg": 3}, "discriminator": AUTOENCODER},
     "loss.margin_kimg"),
    ({"discriminator": {"outputs": 16}}, "discriminator.outputs: the non-saturating loss"),
    ({"loss": {"name": "mmd"}, "discriminator": {"name": "fastgan"}}, "the fastgan discriminator"),
    ({"loss": {"name": "mmd"}, "generator": {"condition": "norm"},
      "discriminator": {"condition": "projection"}}, "discriminator.condition: the projection"),
    ({"loss": {"name": "mmd"}, "discriminator": {"semi_supervised": True}},
     "discriminator.semi_supervised: mmd"),
    ({"loss": {"name": "mmd", "r1": 1, "own_step": True}}, "loss.own_step: not supported with mmd"),
    ({"loss": {"name": "mmd"}, "micro_batch": 1}, "micro_batch: the mmd loss"),
    ({"loss": {"name": "mmd"}, "batch": 5, "micro_batch": 4}, "micro_batch: the mmd loss"),
    ({"loss": {"name": "mmd"}, "batch": 8, "micro_batch": 2, "discriminator": {"packing": 2}},
     "micro_batch: the mmd loss"),
    ({"loss": {"name": "mmd"}, "batch": 2, "discriminator": {"packing": 2}}, "batch: the mmd loss"),
    ({"generator": {"name": "mlp", "norm": "batch"}, "batch": 5, "micro_batch": 2},
     "micro_batch: generator.norm"),
    ({"generator": {"name": "mlp", "norm": "batch"}, "batch": 1}, "batch: generator.norm"),
    ({"discriminator": {"name": "projected", "size": 32}, "micro_batch": 1},
     "micro_batch: discriminator.norm"),
    ({"loss": {"pulling_away": 0.1}, "micro_batch": 1}, "micro_batch: loss.pulling_away"),
    ({"loss": {"feature_spread": 5}}, "loss.feature_spread: has an effect only with"),
    ({"loss": {"feature_spread": 5}, "discriminator": {"name": "projected"}, "micro_batch": 1},
     "micro_batch: loss.feature_spread"),
    ({"loss": {"feature_spread": 5}, "discriminator": {"name": "projected"}, "batch": 1},
     "batch: loss.feature_spread"),
    ({"loss": {"feature_spread": 5}, "discriminator": {"name": "projected"},
      "method": {"name": "bigan"}}, "loss.feature_spread: not supported"),
    ({"loss": {"name": "mmd"}, "label_real": 0.9}, "the mmd loss has no targets"),
    ({"loss": {"name": "began"}}, "loss.name: began compares the errors"),
    ({"discriminator": AUTOENCODER}, "an autoencoder has errors"),
    *(({"loss": {"name": "began", key: 1}, "discriminator": AUTOENCODER}, f"loss.{key}: limits")
      for key in ("r1", "r2", "gp", "dragan")),
    ({"loss": {"name": "began"}, "discriminator": AUTOENCODER,
      "generator": {"continuous": 2}}, "not supported by the autoencoder"),
    ({"loss": {"name": "began"}, "discriminator": AUTOENCODER,
      "generator": {"condition": "norm"}}, "generator.condition: has no effect unless"),
    ({"loss": {"name": "began"}, "discriminator": AUTOENCODER, "augment": {"ada": "bgc"}},
     "augment.p: an autoencoder"),
    ({"loss": {"name": "began"}, "discriminator": AUTOENCODER, "stop": {"chance_kimg": 5}},
     "stop.chance_kimg"),
    ({"loss": {"name": "began"}, "discriminator": AUTOENCODER, "stop": {"loss_kimg": 5}},
     "stop.loss_kimg"),
    *(({"loss": {"name": name, "weight_clip": 0.01}, "method": {"name": "bigan"}},
       "loss.name: with method") for name in ("mmd", "cramer")),
    ({"loss": {"name": "fisher"}, "method": {"name": "bigan"}}, "loss.name: with method"),
    ({"loss": {"pulling_away": 0.1}, "method": {"name": "bigan"}}, "loss.pulling_away: not"),
]  # fmt: skip

ALLOWED: list[dict[str, Any]] = [
    *NEEDS.values(),
    *({"loss": {"name": name, "gp": 10}, "discriminator": PLAIN_D} for name in PENALISED),
    *({"loss": {"name": name, "r1": 1, "r2": 1, "interval": 4}} for name in PENALISED),
    *({"loss": {"name": name, "feature_matching": 1, "r1": 1}} for name in PENALISED),
    *(
        {**needs, "loss": {**needs["loss"], "pulling_away": 0.1, "feature_matching": 1}}
        for needs in NEEDS.values()
    ),
    {"loss": {"name": "mmd", "weight_clip": 0.01}, "discriminator": {"outputs": 16}},
    {
        "loss": {"name": "cramer", "gp": 10},
        "generator": {"condition": "embedding"},
        "discriminator": {"outputs": 16, "condition": "embedding", "norm": "none"},
    },
    {"loss": {"name": "began"}, "discriminator": AUTOENCODER, "augment": {"ada": "bgc", "p": 0.2}},
    *({"loss": {"name": name}, "label_real": 0.9} for name in sorted(LOSSES_WITH_TARGETS)),
    *(
        {"loss": {"name": name}} | labels
        for name in sorted(LOSSES_WITH_TARGETS)
        for labels in (
            {"label_real": [0.7, 1.2], "label_fake": [0.0, 0.3], "label_flip": 0.05},
            {"label_real": [0.3, 0.9], "label_fake": 0.5},
            {"label_flip": 0.49},
            {"label_real": 0.0, "label_fake": 1.0, "label_flip": 0.9},  # swapped twice
        )
    ),
    {"loss": {"name": "lsgan"}, "label_real": 1.5, "label_fake": -1.0},
    {"loss": {"name": "wgan", "weight_clip": 0.01}},
    {"loss": {"name": "wgan"}, "discriminator": {"spectral": True}},
    {"loss": {"dragan": 10}},
    {"unroll": {"steps": 2}, "d_optimizer": {"name": "sgd"}},
    {"loss": {"name": "mmd"}, "batch": 6, "micro_batch": 4},
    {"generator": {"name": "mlp", "norm": "batch"}, "micro_batch": 2},
    {"discriminator": {"name": "projected", "size": 64}, "micro_batch": 1},
    LABELLED,
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_meaningless_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check_compatible(parse_config(Config, options, "test"))
    line = str(caught.value)
    assert said in line
    assert "\n" not in line
    assert line.split(":")[0].replace("_", "").replace(".", "").replace(", ", "").isalnum()


@pytest.mark.parametrize("options", ALLOWED, ids=str)
def test_meaningful_is_allowed(options: dict[str, Any]) -> None:
    check_compatible(parse_config(Config, options, "test"))


def test_a_command_line_is_checked() -> None:
    with pytest.raises(UserError, match="the hinge loss has no targets"):
        resolve("dcgan64", {"loss.name": "hinge", "label_real": "0.9"})


@pytest.mark.parametrize(
    ("batch", "micro_batch", "processes", "expected"),
    [(8, 0, 1, 8), (5, 4, 1, 1), (8, 4, 1, 4), (7, 0, 2, 3), (10, 4, 2, 1), (8, 3, 2, 1)],
)
def test_the_smallest_pass_is_the_last_micro_batch_of_a_process(
    batch: int, micro_batch: int, processes: int, expected: int
) -> None:
    config = Config(batch=batch, micro_batch=micro_batch)
    assert smallest_pass(config, processes) == expected
    passes = []
    for rank in range(processes):
        part = len(range(batch)[rank_slice(batch, rank, processes)])
        size = micro_batch or part
        passes += [min(size, part - start) for start in range(0, part, size)]
    assert min(passes) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": {"name": "mmd"}}, "the mmd loss"),
        ({"generator": {"name": "mlp", "norm": "batch"}}, "generator.norm"),
    ],
    ids=["mmd", "mlp"],
)
def test_samples_are_compared_within_a_process(options: dict[str, Any], said: str) -> None:
    config = parse_config(Config, {"batch": 2, **options}, "test")
    check_compatible(config)
    state = new_state(config, ImageShape(16, 16, 3), CPU)
    ranks = replace(SINGLE_PROCESS, world_size=2)
    with pytest.raises(UserError, match=f"^batch: {said} .*set at least 4"):
        build_loss(config, state, CPU, ranks, torch.Generator())
    if said == "generator.norm":  # over all processes, as sync_batch_norm does it
        joined = replace(config, sync_batch_norm=True)
        assert list(small_pass_conflicts(joined, 2)) == []


def test_attention_after_the_smallest_maps_is_refused_in_training_alone() -> None:
    """It never had a layer, and weights trained with the option still load."""
    options = {"width": 4, "attention": 4}
    config = parse_config(Config, {"generator": options}, "test")
    without = parse_config(Config, {"generator": options | {"attention": 0}}, "test")
    states = [new_state(one, ImageShape(16, 16, 3), CPU) for one in (config, without)]
    states[0].generator.load_state_dict(states[1].generator.state_dict())
    with pytest.raises(UserError, match=r"^generator\.attention: 4: .* choose 8, 16, "):
        build_loss(config, states[0], CPU, SINGLE_PROCESS, torch.Generator())
