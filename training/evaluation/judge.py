"""Evaluations while training: the moving average against real images, every so many images.

They draw no random number that training would draw, so a run is the same with and without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.contract import UserError
from training.config import Config
from training.data import Source
from training.extractor import EXTRACTOR
from training.machine.ranks import Ranks
from training.metrics.fake import fake_features
from training.metrics.networks import Lite0, load_lite0
from training.metrics.real import Real, real_features
from training.metrics.suite import FEWEST, Side, baseline, full_name, measure
from training.networks import Generator


class Stopped(Exception):
    """The user asked to stop while real images were being read."""


@dataclass(frozen=True)
class _Ready:
    network: Lite0
    real: Real
    side: Side
    usual: dict[str, float]


class Judge:
    """Measures a run's generator; see `prepare` and `judge`.

    `metric` is the name of the measure that chooses the best checkpoint; lower is better.
    """

    def __init__(self, config: Config, source: Source, device: torch.device, ranks: Ranks) -> None:
        self.config, self.source, self.device, self.ranks = config, source, device, ranks
        self._network = EXTRACTOR
        self.metric = full_name(config.evaluate.metric, self._network)
        self._ready: _Ready | None = None

    def due(self, before: int, after: int) -> bool:
        """Whether the run is to be evaluated after the step from `before` to `after` images."""
        every = self.config.evaluate.kimg * 1000
        return bool(every) and int(after / every) > int(before / every)

    def prepare(self, seen: int, total: int, say: Callable[[str], None], asked: Any) -> None:
        """Read the real images, where an evaluation lies ahead.

        Raises:
            Stopped: `asked()` became true meanwhile.
            UserError: a shard cannot be had.
        """
        table = self.config.evaluate
        if not self.due(seen, total):
            return
        count = min(table.real or self.source.index.nsamples, self.source.index.nsamples)
        if count < 2 * FEWEST:
            say(f"warning: {count} images are too few for evaluations while training")
            return
        start = time.monotonic()

        def progress(_done: int, _count: int) -> None:
            if asked():
                raise Stopped

        network = load_lite0(self.device)
        real = real_features(self.source, network, count, self.config.data, self.ranks, progress)
        side = Side(real.features, network.logits, network.splits)
        usual, held = baseline(side, table.samples, self.config.seed)
        self._ready = _Ready(network, real, side, {name: mean for name, (mean, _) in usual.items()})
        say(
            f"evaluations every {table.kimg:g} kimg: {table.samples} samples against "
            f"{len(side)} real images; {held} real images against the others: "
            f"{self._words(self._ready.usual)} ({time.monotonic() - start:.0f} s)"
        )

    def judge(self, average: Generator) -> dict[str, float]:
        """Every measure of the generator, in evaluation mode, by its full name; none where real
        images are too few."""
        if self._ready is None:
            return {}
        ready, count = self._ready, self.config.evaluate.samples
        features = fake_features(
            average, self.config.latent, ready.real.labels, ready.network, count, self.device,
            self.config.seed,
        )  # fmt: skip
        fakes = Side(features, ready.network.logits, ready.network.splits)
        found = measure(ready.side, fakes)
        return {full_name(name, self._network): round(value, 8) for name, value in found.items()}

    @property
    def measure(self) -> str:
        """What the best checkpoint is best by; only values of the same measure compare."""
        count = len(self._ready.side) if self._ready else 0
        return f"{self.metric} of {self.config.evaluate.samples} samples against {count}"

    def words(self, facts: dict[str, float]) -> str:
        """The facts that a person looks at first."""
        plain = {name.removesuffix(f"_{self._network}"): value for name, value in facts.items()}
        return self._words(plain)

    def _words(self, found: dict[str, float]) -> str:
        return (
            f"{full_name('fd', self._network)} {found['fd']:.1f}, kid {found['kid']:.4f}, "
            f"precision {found['precision']:.2f}, recall {found['recall']:.2f}, "
            f"copies {found['copies']:.1%}"
        )

    def latest(self, rows: Sequence[dict[str, Any]]) -> str:
        """The newest value of the metric among a run's rows, for the console."""
        row = next((row for row in reversed(rows) if self.metric in row), None)
        short = self.config.evaluate.metric.upper()
        return f"{short} {row[self.metric]:.4g}" if row else ""


def ready_or_told(prepare: Callable[[], None], say: Callable[[str], None]) -> None:
    """Prepare; being asked to stop, or data that cannot be read now, is the loop's to handle."""
    try:
        prepare()
    except Stopped:
        return
    except UserError as error:
        say(f"warning: no evaluations while training: {error}")
