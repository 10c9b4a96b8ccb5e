"""Transfer of a discriminator: its features, the classifiers on them, the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training import probe
from training.evaluation import probing
from training.evaluation.probing import LabelledImages
from training.networks import ImageShape, build_discriminator
from training.options.resolve import resolve
from training.streaming.dataset import open_shard_dataset
from training.streaming.shards import DamagedShard

SHAPE = ImageShape(32, 32, 3, 2)


def discriminator(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    options = {"discriminator.width": "4", "resolution": "32"}
    return build_discriminator(resolve("shells64", options).discriminator, SHAPE)


def shades(count: int) -> LabelledImages:
    """Noise, brighter where the label is 1."""
    random = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 180, (count, 3, 32, 32), generator=random)
    return LabelledImages((noise + 60 * labels[:, None, None, None]).to(torch.uint8), labels)


def test_logistic_regression_is_at_its_minimum() -> None:
    """Where the gradient is zero: Σ(softmax − one-hot)·x/n + decay·w, written out."""
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(60, 5, generator=random)
    labels = torch.randint(0, 3, (60,), generator=random)
    layer = probing.fit_linear(inputs, labels, 3, 0.1)
    weight, bias = (value.detach().double().numpy() for value in (layer.weight, layer.bias))
    x = inputs.double().numpy()
    odds = np.exp(x @ weight.T + bias)
    residue = odds / odds.sum(axis=1, keepdims=True) - np.eye(3)[labels.numpy()]
    assert np.abs(residue.T @ x / 60 + 0.1 * weight).max() < 1e-3
    assert np.abs(residue.mean(axis=0)).max() < 1e-3


def test_linear_probe_learns_what_features_show_and_nothing_from_noise() -> None:
    network, taught, held = discriminator(), shades(80), shades(40)
    assert probing.linear_probe(network, taught, held, 2) > 0.9
    random = torch.Generator().manual_seed(0)
    mixed = LabelledImages(taught.images, torch.randint(0, 2, (80,), generator=random))
    wrong = LabelledImages(held.images, torch.randint(0, 2, (40,), generator=random))
    assert 0.2 < probing.linear_probe(network, mixed, wrong, 2) < 0.8


@pytest.mark.slow
def test_whole_probe_learns_and_leaves_the_network_as_it_was() -> None:
    network, taught, held = discriminator(), shades(64), shades(40)
    before = [weight.clone() for weight in network.state_dict().values()]
    assert probing.finetune_probe(network, taught, held, 2, 60, 0) > 0.9
    assert all(map(torch.equal, before, network.state_dict().values()))


def test_split_keeps_every_sample_once() -> None:
    taught, held = probing.split(LabelledImages(torch.arange(50), torch.arange(50)), 0.2, 3)
    assert len(held.labels) == 10
    assert sorted([*taught.labels.tolist(), *held.labels.tolist()]) == list(range(50))
    again, _ = probing.split(LabelledImages(torch.arange(50), torch.arange(50)), 0.2, 3)
    assert torch.equal(taught.labels, again.labels)


def test_command_compares_a_run_with_fresh_weights(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, shards = tmp_path / "runs" / "tiny", small_shards(labels=("cone", "whelk"))
    assert in_process(run, shards, "--total-kimg", "0.016") == 0
    capsys.readouterr()
    assert probe.main(["tiny", "--num-labels", "40", "--steps", "2", "--json"]) == 0
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["taught"], found["held_out"], found["saw_labels"]) == (40, 20, False)
    rows = {*probe.ROWS} - {"own_head", "own_classifier"}  # this run has neither
    assert rows == {*found} & {*probe.ROWS}
    assert all(0 <= found[name] <= 1 for name in rows)
    assert len(table) == 1 + len(rows)


@pytest.mark.parametrize(
    ("labels", "shown", "options", "said"),
    [
        ((), 0, [], "small: the shards have no labels"),
        (("cone", "whelk"), 0, ["--n", "3"], "--n 3: must be an integer from 10"),
        (("cone", "whelk"), 0, ["--held-out", "1"], "--held-out 1: must be a number from 0.001"),
        (("cone", "whelk"), 0, ["--num-labels", "2"], "--num-labels: at least 5"),
        (
            ("cone", "whelk"),
            100,
            ["--steps", "0"],
            "--n: no image is left whose label the run did not see",
        ),
    ],
)
def test_what_cannot_be_probed_is_one_line(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
    labels: tuple[str, ...],
    shown: int,
    options: list[str],
    said: str,
) -> None:
    """`shown`: of how many images a semi-supervised run sees the labels (0: another run)."""
    run, shards = tmp_path / "runs" / "tiny", small_shards(labels=labels)
    seen = ("--discriminator.semi_supervised", "true", "--data.labelled", str(shown))
    assert in_process(run, shards, "--total-kimg", "0.016", *(seen if shown else ())) == 0
    assert probe.main(["tiny", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_shard_is_named_without_an_option_of_another_command(
    small_shards: Callable[..., Any],
) -> None:
    shards = small_shards(labels=("cone", "whelk"))
    for number, tar in enumerate(shards.tars):
        shards.path(number).write_bytes(bytes(len(tar)))
    config = resolve("shells64", {"data.memory_gb": "0.1"})
    with pytest.raises(DamagedShard, match=r"its sha256 is not the index's$"):
        probing.read_all(open_shard_dataset(shards.manifest, 0), config, 10)


def test_features_that_know_the_label_are_refused(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, shards = tmp_path / "runs" / "tiny", small_shards(labels=("cone", "whelk"))
    options = ("--generator.condition", "embedding", "--discriminator.condition", "embedding")
    assert in_process(run, shards, *options, "--total-kimg", "0.016") == 0
    assert probe.main(["tiny"]) == 2
    assert "uses labels" in capsys.readouterr().err
