"""The head with K + 1 answers: its arithmetic, learning from few labels, data and command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.contract import UserError
from training import probe
from training.data import Batch, Loader
from training.evaluation import probing as transfer
from training.losses.auxiliary import labelled_loss
from training.networks import ImageShape, build_discriminator
from training.options.resolve import resolve
from training.state import new_state
from training.step import Step
from training.streaming.dataset import open_shard_dataset
from training.streaming.order import label_mask

SMALL = {
    "generator.width": "8", "discriminator.width": "8", "generator.z_dim": "8", "batch": "32",
    "resolution": "16", "precision": "fp32", "augment.policy": "[]",
    "discriminator.semi_supervised": "true",
}  # fmt: skip
SHAPE = ImageShape(16, 16, 1, 4)


def test_real_or_fake_and_which_label_are_one_softmax_over_k_plus_1() -> None:
    """Against a softmax over K + 1 answers whose last is always 0."""
    torch.manual_seed(0)
    discriminator = build_discriminator(resolve("dcgan64", SMALL).discriminator, SHAPE)
    output = discriminator(torch.randn(6, 1, 16, 16), torch.zeros(6, dtype=torch.int64))
    assert output.classes is not None
    every = torch.cat([output.classes, torch.zeros(6, 1)], dim=1)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    as_real = binary_cross_entropy_with_logits(output.logits, torch.ones(6))
    named = labelled_loss(output.classes, labels)
    torch.testing.assert_close(as_real + named, cross_entropy(every, labels))
    as_fake = binary_cross_entropy_with_logits(output.logits, torch.zeros(6))
    torch.testing.assert_close(as_fake, cross_entropy(every, torch.full((6,), 4)))


def test_images_without_a_label_teach_no_label() -> None:
    guesses, labels = torch.randn(5, 3), torch.tensor([2, -1, 0, -1, -1])
    torch.testing.assert_close(
        labelled_loss(guesses, labels), cross_entropy(guesses[[0, 2]], labels[[0, 2]])
    )
    assert labelled_loss(guesses, torch.full((5,), -1)) == 0


def corners(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a spot in one of four corners, which is the label."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(60, 140, (count, 1, 16, 16), generator=random)
    for number, label in enumerate(labels.tolist()):
        row, column = (torch.randint(0, 4, (2,), generator=random)).tolist()
        row, column = row + 8 * (label // 2), column + 8 * (label % 2)
        images[number, 0, row : row + 4, column : column + 4] += 100
    return images.to(torch.uint8), labels


@pytest.mark.slow
def test_it_learns_from_eight_labels_among_hundreds_of_images() -> None:
    config = resolve("dcgan64", SMALL | {"loss.classifier": "2"})
    state = new_state(config, SHAPE, torch.device("cpu"))
    step = Step(config, state, torch.device("cpu"))
    images, labels = corners(320, 1)
    labels[8:] = -1  # two of each kind are named
    random = torch.Generator().manual_seed(0)
    held = transfer.LabelledImages(*corners(200, 2))
    assert transfer.head_accuracy(state.discriminator, held) < 0.5
    for _ in range(120):
        rows = torch.cat([torch.arange(8), torch.randint(8, 320, (24,), generator=random)])
        facts = step([Batch(images[rows], labels[rows])])
    assert facts["class_d"] < 0.2
    assert facts["loss_d"].isfinite()
    assert transfer.head_accuracy(state.discriminator, held) > 0.8  # chance is 0.25


def test_only_so_many_samples_show_their_label(small_shards: Callable[..., Any]) -> None:
    shards = small_shards(labels=("cone", "whelk"))
    config = resolve("dcgan64", SMALL | {"batch": "50", "data.labelled": "30"})
    with Loader(open_shard_dataset(shards.manifest, 0), config) as loader:
        epochs = [torch.cat([next(loader).labels, next(loader).labels]) for _ in range(2)]
    for labels in epochs:  # the same ones in every epoch, from memory too
        assert (labels >= 0).sum() == 30
        assert labels.max() == 1
    assert label_mask(0, 100, 30).sum() == 30
    assert label_mask(0, 100, 0).all()
    assert not np.array_equal(label_mask(0, 100, 30), label_mask(1, 100, 30))


def test_samples_without_label_are_no_class_and_no_condition(small_shards: Any) -> None:
    from training.streaming.openers import default_opener

    options = {
        "batch": "20",
        "generator.condition": "norm",
        "discriminator.condition": "projection",
    }
    shards = small_shards(sizes=(20,), labels=("cone", "whelk"), labelled=10)
    source = open_shard_dataset(shards.manifest, 0)
    plain = resolve("dcgan64", {"batch": "20"})
    with Loader(source, plain, opener=default_opener(source, plain.data)) as loader:
        assert sorted(next(loader).labels.tolist()) == [-1] * 10 + [0] * 5 + [1] * 5
    with (
        Loader(source, resolve("dcgan64", options)) as loader,
        pytest.raises(UserError, match=r"has no label \(.*\.cls\), and the networks are cond"),
    ):
        next(loader)


def test_probe_reports_the_head_on_images_whose_labels_it_never_saw(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, shards = tmp_path / "runs" / "tiny", small_shards(labels=("cone", "whelk"))
    options = ("--discriminator.semi_supervised", "true", "--data.labelled", "30")
    assert in_process(run, shards, *options, "--total-kimg", "0.016") == 0
    capsys.readouterr()
    assert probe.main(["tiny", "--steps", "0", "--held-out", "0.5", "--json"]) == 0
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["taught"], found["held_out"], found["saw_labels"]) == (30, 35, False)
    assert 0 <= found["own_head"] <= 1
    assert any("the run's semi-supervised head" in row for row in table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss.name": "hinge"}, "the hinge loss has no probabilities"),
        ({"discriminator.classifier": "true"}, "cannot be combined"),
        ({"discriminator.packing": "2"}, "cannot be combined with labels"),
        ({"loss.classifier": "0"}, "the labels would not be learned"),
        (
            {"discriminator.semi_supervised": "false", "data.labelled": "3"},
            "data.labelled: has an effect only with discriminator.semi_supervised",
        ),
    ],
)
def test_what_makes_no_sense_with_it_is_refused(options: dict[str, str], said: str) -> None:
    if "discriminator.classifier" in options:
        options = options | {"generator.condition": "embedding"}
    with pytest.raises(UserError, match=said):
        resolve("dcgan64", SMALL | options)
