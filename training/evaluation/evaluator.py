"""Evaluations during training: the averaged generator against real images, at intervals.

They use separate random numbers, so a run is the same with and without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.contract import UserError
from training.config import Config, crossed
from training.machine.distributed import Distributed
from training.metrics.fake import fake_features, translated_features
from training.metrics.feature_networks import (
    FeatureNetwork,
    load_feature_network,
    network_name,
    on_background,
)
from training.metrics.real import RealFeatures, real_features
from training.metrics.suite import MIN_IMAGES, FeatureSet, baseline, compute_metrics, full_name
from training.networks import Generator
from training.streaming.dataset import ShardDataset
from training.streaming.openers import sample_options


class EvaluationCancelled(Exception):
    """The user asked to stop while real images were being read."""


@dataclass(frozen=True)
class _RealReference:
    network: FeatureNetwork
    real: RealFeatures
    features: FeatureSet
    usual: dict[str, float]


class Evaluator:
    """Evaluates a run's generator; see `prepare` and `evaluate`. With two sets, translations of the
    first images of set A are compared with set B.

    `metric` is the name of the metric that selects the best checkpoint; lower is better.
    """

    def __init__(
        self, config: Config, source: ShardDataset, device: torch.device, ranks: Distributed
    ) -> None:
        self.config, self.device, self.ranks = config, device, ranks
        self.source, self._first = source.second or source, source
        self._samples = config.evaluate.samples
        if source.second is not None:
            self._samples = min(self._samples, source.index.nsamples)
        self._network = network_name(config.evaluate.features)
        self.metric = full_name(config.evaluate.metric, self._network)
        self._ready: _RealReference | None = None

    def is_due(self, rows: Sequence[dict[str, Any]], total: int) -> bool:
        """Return True if an evaluation is due after the newest one in a run's `rows`, up to `total`
        images."""
        return crossed(self.newest(rows).get("seen", 0), total, self.config.evaluate.kimg)

    def prepare(
        self, rows: Sequence[dict[str, Any]], total: int, say: Callable[[str], None], asked: Any
    ) -> None:
        """Read the real images, if an evaluation is due in a run with these `rows`.

        Raises:
            EvaluationCancelled: `asked()` returned True meanwhile.
            UserError: a shard cannot be read, or the feature network is not available.
        """
        options = self.config.evaluate
        if not self.is_due(rows, total):
            return
        count = min(options.real or self.source.index.nsamples, self.source.index.nsamples)
        if count < 2 * MIN_IMAGES:
            say(f"warning: too few images for evaluations during training: {count}")
            return
        start = time.monotonic()

        def progress(_done: int, _count: int) -> None:
            if asked():
                raise EvaluationCancelled

        network = on_background(
            load_feature_network(options.features, self.device),
            self.source.channels,
            options.background,
        )
        reading = self.config.data
        if self._first is not self.source:
            reading = sample_options(self.source, reading)
        real = real_features(self.source, network, count, reading, self.ranks, progress)
        features = FeatureSet(real.features, network.logits, network.splits)
        usual, held = baseline(features, self._samples, self.config.seed)
        self._ready = _RealReference(
            network, real, features, {name: mean for name, (mean, _) in usual.items()}
        )
        over = f", over {options.background}" if self.source.channels == 4 else ""
        say(
            f"evaluations every {options.kimg:g} kimg: {self._samples} samples against "
            f"{len(features)} real images{over}; {held} real images against the others: "
            f"{self._words(self._ready.usual)} ({time.monotonic() - start:.0f} s)"
        )

    def evaluate(self, average: Generator) -> dict[str, float]:
        """Return all metrics of the generator, in evaluation mode, by their full names; empty if
        there are too few real images."""
        if self._ready is None:
            return {}
        ready, config = self._ready, self.config
        if self._first is not self.source:
            features = translated_features(
                average, self._first, ready.network, self._samples,
                sample_options(self._first, config.data),
            )  # fmt: skip
        else:
            features = fake_features(
                average, config.latent, ready.real.labels, ready.network, self._samples,
                self.device, config.seed,
            )  # fmt: skip
        fakes = FeatureSet(features, ready.network.logits, ready.network.splits)
        found = compute_metrics(ready.features, fakes)
        return {full_name(name, self._network): round(value, 8) for name, value in found.items()}

    @property
    def criterion(self) -> str:
        """The criterion of the best checkpoint; only values of the same criterion are compared."""
        count = len(self._ready.features) if self._ready else 0
        over = f" over {self.config.evaluate.background}" if self.source.channels == 4 else ""
        return f"{self.metric} of {self._samples} samples against {count}{over}"

    def format_summary(self, metrics: dict[str, float]) -> str:
        """Return the most important metrics as text."""
        plain = {name.removesuffix(f"_{self._network}"): value for name, value in metrics.items()}
        return self._words(plain)

    def _words(self, found: dict[str, float]) -> str:
        return (
            f"{full_name('fd', self._network)} {found['fd']:.1f}, kid {found['kid']:.4f}, "
            f"precision {found['precision']:.2f}, recall {found['recall']:.2f}, "
            f"copies {found['copies']:.1%}"
        )

    def format_latest(self, rows: Sequence[dict[str, Any]]) -> str:
        """Return the newest value of the metric in a run's rows, for the console."""
        row = self.newest(rows)
        short = self.config.evaluate.metric.upper()
        return f"{short} {row[self.config.evaluate.metric]:.4g}" if row else ""

    def newest(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the metrics of the newest evaluation in a run's rows by their short names, and
        `seen`; empty if there is none."""
        if not self.config.evaluate.kimg:
            return {}
        row: dict[str, Any] = next((row for row in reversed(rows) if self.metric in row), {})
        return {name.removesuffix(f"_{self._network}"): value for name, value in row.items()}

    @property
    def limit(self) -> float | None:
        """The FD of real images against each other, at as many samples (None: not measured)."""
        return self._ready.usual["fd"] if self._ready else None


def prepare_or_warn(prepare: Callable[[], None], say: Callable[[str], None]) -> None:
    """Prepare; the training loop handles cancellation and unreadable data."""
    try:
        prepare()
    except EvaluationCancelled:
        return
    except UserError as error:
        say(f"warning: no evaluations during training: {error}")
