"""Triple-GAN: its three players against the written-out sums, few labels, and the probe."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from tests.training.methods.conftest import TinyRun
from tests.training.methods.test_further_networks import CPU, SHAPE, batch_at, configuration
from tests.training.test_semi_supervised import corners
from training import probe
from training.data import Batch
from training.evaluation.probing import LabelledImages, classifier_accuracy
from training.methods import triple_gan
from training.methods.triple_gan import sample_labels
from training.networks import ImageShape
from training.state import new_state
from training.step import Step


def test_labels_are_drawn_with_the_probabilities_of_the_logits() -> None:
    logits = torch.tensor([0.0, 1.0, -2.0, 0.5])
    drawn = sample_labels(logits.expand(40_000, 4), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 40_000
    torch.testing.assert_close(shares, logits.softmax(dim=0), rtol=0, atol=0.01)


PATCHES = {
    "name": "fastgan", "width": 4, "condition": "projection", "spectral": False,
    "reconstruction": "none",
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"discriminator": PATCHES}], ids=["one logit", "patches"])
def test_each_player_minimises_what_the_paper_says(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equation 4 and algorithm 1 of Li 2017, for a batch with three labels out of eight. The losses
    of an image's patches are averaged."""
    monkeypatch.setattr(triple_gan, "sample_labels", lambda logits, _random: logits.argmin(dim=1))
    config = configuration("triple-gan", **more)
    options = replace(config.method, alpha=0.3, pseudo=0.2, positives=0.4)
    state = new_state(config, SHAPE, CPU)
    loss = Step(replace(config, method=options), state, CPU).loss
    g, d, c = state.generator, state.discriminator, state.network("classifier")
    real = batch_at(0).images.float() / 127.5 - 1
    given = torch.tensor([2, -1, 0, -1, -1, 3, -1, -1])
    labels = loss.labels(given)
    assert torch.equal(labels[1][given >= 0], given[given >= 0])
    assert (labels[1] >= 0).all()
    latents = torch.randn(8, 8)
    fake, logits = g(latents, labels[1]), c(real)

    completed = torch.where(given >= 0, given, logits.argmax(dim=1))
    weights = torch.where(given >= 0, 1.0, 0.4)
    on_real, on_fake, on_named = (
        d(images, shown).logits.reshape(8, -1)
        for images, shown in (
            (real, completed), (fake.detach(), labels[1]), (real, logits.argmin(dim=1))
        )
    )  # fmt: skip
    total = (weights * softplus(-on_real).mean(dim=1)).sum() / (3 + 5 * 0.4)
    total = total + 0.7 * softplus(on_fake).mean() + 0.3 * softplus(on_named).mean()
    terms = [term for term, _ in loss.discriminator(real, fake.detach(), labels, latents)]
    torch.testing.assert_close(sum(terms), total)

    chance = logits.softmax(dim=1)[torch.arange(8), logits.argmin(dim=1)]
    game = -(chance * softplus(on_named.detach()).mean(dim=1)).mean()
    shown = given >= 0
    wanted_c = 0.3 * game + cross_entropy(logits[shown], given[shown])
    wanted_c = wanted_c + 0.2 * cross_entropy(c(fake.detach()), labels[1])
    wanted_g = 0.7 * softplus(-d(fake, labels[1]).logits).mean()
    found, _ = loss.generator(real, loss.generate(latents, labels[1]), labels, latents)
    torch.testing.assert_close(found, wanted_c + wanted_g)
    for network, wanted in ((g, wanted_g), (c, wanted_c)):
        weight = list(network.parameters())
        pairs = zip(
            torch.autograd.grad(found, weight, retain_graph=True),
            torch.autograd.grad(wanted, weight, retain_graph=True), strict=True,
        )  # fmt: skip
        for mine, other in pairs:
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


def test_consistency_is_the_mean_squared_difference_of_two_predictions() -> None:
    config = configuration("triple-gan")
    options = replace(config.method, consistency=7.0)
    state = new_state(config, SHAPE, CPU)
    loss = Step(replace(config, method=options), state, CPU).loss
    predictions = torch.randn(3, 8, 4)
    real = batch_at(0).images.float() / 127.5 - 1
    labels, latents = loss.labels(torch.arange(8) % 4), torch.randn(8, 8)
    fake = loss.generate(latents, labels[1])

    def total(again: torch.Tensor) -> torch.Tensor:
        drawn = iter([*predictions[:2], again])
        loss.classify = lambda _images: next(drawn)  # type: ignore[method-assign]
        loss._random.manual_seed(0)  # the same labels
        return loss.generator(real, fake, labels, latents)[0]

    first, third = predictions[0].softmax(dim=1), predictions[2].softmax(dim=1)
    apart = total(predictions[2]) - total(predictions[0])
    torch.testing.assert_close(apart, 7 * (first - third).square().mean())


@pytest.mark.slow
def test_the_classifier_learns_from_eight_labels_among_hundreds_of_images() -> None:
    config = configuration(
        "triple-gan", batch=32, g_optimizer={"lr": 2e-3}, d_optimizer={"lr": 2e-3}
    )
    state = new_state(config, ImageShape(16, 16, 1, 4), CPU)
    step = Step(config, state, CPU)
    images, labels = corners(320, 1)
    labels[8:] = -1  # two of each kind are named
    random = torch.Generator().manual_seed(0)
    held = LabelledImages(*corners(200, 2))
    classifier = state.averages["classifier"]
    assert classifier_accuracy(classifier, held) < 0.5
    for _ in range(120):
        rows = torch.cat([torch.arange(8), torch.randint(8, 320, (24,), generator=random)])
        stats = step([Batch(images[rows], labels[rows])])
    assert stats["loss_d"].isfinite()
    assert classifier_accuracy(classifier, held) > 0.8  # chance is 0.25


def test_probe_reports_the_classifier_on_images_whose_labels_it_never_saw(
    tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(
        "--method.name", "triple-gan", "--method.classifier.width", "4", "--data.labelled", "30",
        "--generator.condition", "norm", "--discriminator.condition", "projection",
        labels=("cone", "whelk"),
    )  # fmt: skip
    assert "classifier 0.0" in capsys.readouterr().out
    assert probe.main(["tiny", "--steps", "0", "--held-out", "0.5", "--json"]) == 0
    *table, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["taught"], found["held_out"], found["saw_labels"]) == (30, 35, False)
    assert 0 <= found["own_classifier"] <= 1
    assert any("the run's classifier" in row for row in table)
