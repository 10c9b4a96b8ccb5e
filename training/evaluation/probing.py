"""Tests what a discriminator has learned, by training classifiers on its features.

A linear classifier on its last features (as in Radford et al. 2016, section 5), and fine-tuning of
the full network, each compared with the same network with random weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, cross_entropy

from pipeline.contract import UserError
from training import best_checkpoint
from training.checkpoint_check import check_discriminator, check_fit
from training.config import Config
from training.data import Loader
from training.networks import Discriminator, ImageShape, build_discriminator
from training.options.architectures import code_count, is_semi_supervised
from training.options.resolve import unflatten
from training.pretrained.inference import load_further_network
from training.runs import find_run, read_config
from training.seeds import derive
from training.streaming.dataset import ShardDataset
from training.streaming.order import epoch_order, label_mask

_PLACES = 4
_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
_BATCH = 64


@dataclass(frozen=True)
class LabelledImages:
    """`images` uint8 (n, channels, height, width) and `labels` int64 (n,)."""

    images: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> LabelledImages:
        return LabelledImages(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class ProbedDiscriminator:
    """A discriminator with trained weights, and the same network with random weights;
    `trained_with_labels`, and `has_label_head`: it has a trained semi-supervised head. `classifier`
    is the one that the run has trained beside them, if any."""

    trained: Discriminator
    fresh: Discriminator
    trained_with_labels: bool
    has_label_head: bool = False
    classifier: nn.Module | None = None


def load_discriminators(
    run_name: str, device: torch.device, seed: int
) -> tuple[ProbedDiscriminator, Config]:
    """Load the discriminator of the run's newest complete checkpoint, and the run's configuration.

    Raises:
        UserError: the run or checkpoint does not exist, or the discriminator uses labels or
            packing.
    """
    run = find_run(run_name)
    described = read_config(run)
    config, dataset = unflatten(described["config"], str(run.config)), described["dataset"]
    if config.method.sets > 1:
        raise UserError(
            f"{run.folder}: translates images, and its discriminators see no labels; use "
            f"`python -m training.translate {run.folder.name} IMAGE`"
        )
    options = config.discriminator
    if options.condition == "embedding" or options.packing > 1:
        raise UserError(
            f"{run.config}: the discriminator uses labels or packed images, so its features do not "
            "depend on one image alone"
        )
    values = best_checkpoint.load_named(run.checkpoints, "newest", device, check_discriminator)
    classes = len(dataset["labels"])
    shape = ImageShape(dataset["height"], dataset["width"], dataset["channels"], classes)
    torch.manual_seed(derive(seed, "probe", "weights"))
    fresh = build_discriminator(options, shape, code_count(config.generator)).to(device)
    trained = copy.deepcopy(fresh)
    weights = values["state"]["discriminator"]
    try:
        check_fit(weights, trained.state_dict(), "discriminator")
    except ValueError as error:
        raise UserError(f"{run.folder}: {error}") from None
    trained.load_state_dict(weights)
    joint = is_semi_supervised(options)
    saw = options.condition != "none" or options.classifier or joint
    saw = saw and not config.data.labelled
    further = load_further_network("classifier", config, shape, values["state"], str(run.folder))
    if further is not None:
        further.to(device)
    return ProbedDiscriminator(trained, fresh, saw, joint, further), config


def read_all(source: ShardDataset, config: Config, at_most: int) -> tuple[LabelledImages, Tensor]:
    """Return the labelled ones among the first `at_most` samples in the order of epoch 0, and which
    of them showed their label to the run (bool (n,)).

    Raises:
        UserError: the shards have no labels.
    """
    if not source.classes:
        raise UserError(f"{source.index.name}: the shards have no labels")
    count = min(source.index.nsamples, at_most)
    plain = replace(config, batch=_BATCH, data=replace(config.data, mirror=False, labelled=0))
    images, labels = [], []
    with Loader(source, plain, advice="") as loader:
        for batch in loader:
            images.append(batch.images.clone())
            labels.append(batch.labels.clone())
            if len(images) * _BATCH >= count:
                break
    samples = LabelledImages(torch.cat(images)[:count].contiguous(), torch.cat(labels)[:count])
    rows = torch.nonzero(samples.labels >= 0).flatten()
    return samples.take(rows), _shown(source, config)[rows]


def _shown(source: ShardDataset, config: Config) -> Tensor:
    """Return which samples showed their label to the run, in the order of epoch 0."""
    sizes = [entry.nsamples for entry in source.index.shardlist]
    order = epoch_order(config.seed, 0, sizes, config.data.window)
    starts = np.cumsum([0, *sizes])
    shown = label_mask(config.seed, source.index.nsamples, config.data.labelled)
    return torch.from_numpy(shown[starts[order.shard] + order.member])


def split(
    samples: LabelledImages, share: float, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Split the samples by `seed` into those without and those in a held-out `share`."""
    order = np.random.Generator(np.random.PCG64(derive(seed, "probe", "split")))
    rows = torch.from_numpy(order.permutation(len(samples.labels)))
    held = max(1, round(share * len(rows)))
    return samples.take(rows[held:]), samples.take(rows[:held])


def features(network: Discriminator, images: Tensor) -> Tensor:
    """Return float32 (n, k): the last features, max-pooled to at most 4 × 4 positions."""
    device = next(network.parameters()).device
    pixels = images.to(device).float() / 127.5 - 1
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)
    found: Tensor = network(pixels, labels).features.float()
    if found.ndim == 4 and min(found.shape[2:]) > _PLACES:
        found = adaptive_max_pool2d(found, _PLACES)
    return found.flatten(1)


@torch.no_grad()
def all_features(network: Discriminator, images: Tensor) -> Tensor:
    """Return `features` in evaluation mode, batch by batch."""
    network.eval()
    return torch.cat([features(network, some) for some in torch.split(images, _BATCH)])


def fit_linear(inputs: Tensor, labels: Tensor, classes: int, decay: float) -> nn.Linear:
    """Fit a multinomial logistic regression with an L2 penalty of `decay`/2 on the weights, from
    0."""
    layer = nn.Linear(inputs.shape[1], classes).to(inputs.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(layer(inputs), labels) + decay / 2 * layer.weight.square().sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return layer


def accuracy(answers: Tensor, labels: Tensor) -> float:
    """Return the fraction of rows whose largest logit is the label's."""
    return float((answers.argmax(dim=1) == labels).float().mean())


def linear_probe(
    network: Discriminator, train: LabelledImages, test: LabelledImages, classes: int
) -> float:
    """Return the held-out accuracy of a linear classifier on the network's fixed features.

    Features are standardised; the penalty is chosen on a fifth of the training set.
    """
    inputs, others = all_features(network, train.images), all_features(network, test.images)
    mean, spread = inputs.mean(dim=0), inputs.std(dim=0) + 1e-5
    inputs, others = (inputs - mean) / spread, (others - mean) / spread
    labels = train.labels.to(inputs.device)
    fifth = max(1, len(labels) // 5)

    def on_fifth(decay: float) -> float:
        layer = fit_linear(inputs[fifth:], labels[fifth:], classes, decay)
        return accuracy(layer(inputs[:fifth]), labels[:fifth])

    best = max(_DECAYS, key=on_fifth)
    layer = fit_linear(inputs, labels, classes, best)
    return accuracy(layer(others), test.labels.to(others.device))


@torch.no_grad()
def classifier_accuracy(classifier: nn.Module, test: LabelledImages) -> float:
    """Return the accuracy of a run's own classifier, whose output are logits."""
    device = next(classifier.parameters()).device
    parts = [
        classifier(some.to(device).float() / 127.5 - 1) for some in torch.split(test.images, _BATCH)
    ]
    return accuracy(torch.cat(parts), test.labels.to(device))


@torch.no_grad()
def head_accuracy(network: Discriminator, test: LabelledImages) -> float:
    """Return the accuracy of a semi-supervised discriminator's own label head."""
    network.eval()
    device = next(network.parameters()).device
    answers = []
    for images in torch.split(test.images, _BATCH):
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        classes = network(images.to(device).float() / 127.5 - 1, labels).classes
        assert classes is not None
        answers.append(classes)
    return accuracy(torch.cat(answers), test.labels.to(device))


class Classifier(nn.Module):
    """The body of a discriminator with a new linear head."""

    def __init__(self, body: Discriminator, size: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(size, classes)

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.head(features(self.body, images))
        return answers


def finetune_probe(
    network: Discriminator,
    train: LabelledImages,
    test: LabelledImages,
    classes: int,
    steps: int,
    seed: int,
    tell: Callable[[str], None] = lambda _text: None,
) -> float:
    """Return the held-out accuracy after `steps` of Adam on all layers (batches of up to 64; the
    learning rate decays from 2e-4 to 0)."""
    device = next(network.parameters()).device
    torch.manual_seed(derive(seed, "probe", "head"))
    size = all_features(network, train.images[:1]).shape[1]
    model = Classifier(copy.deepcopy(network).requires_grad_(True), size, classes).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=1e-4)
    random = torch.Generator().manual_seed(derive(seed, "probe", "batches"))
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    rows = torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        if not len(rows):
            rows = torch.randperm(len(train.labels), generator=random)
        some, rows = train.take(rows[:_BATCH]), rows[_BATCH:]
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(model(some.images), some.labels.to(device)))
        optimizer.step()
        fall.step()
        if step % 50 == 0:
            tell(f"  step {step} of {steps}")
    model.eval()
    with torch.no_grad():
        parts: Sequence[Tensor] = [model(some) for some in torch.split(test.images, _BATCH)]
    return accuracy(torch.cat(list(parts)), test.labels.to(device))
