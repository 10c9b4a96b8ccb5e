"""Comparison of runs with real images: all metrics with baseline and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import UserError, write_json
from training.config import DataOptions
from training.latent.neighbours import open_training_shards
from training.metrics.equivariance import equivariance, require_transform
from training.metrics.fake import fake_features, translated_features
from training.metrics.feature_networks import (
    FeatureNetwork,
    load_feature_network,
    load_inception,
    load_lite0,
    on_background,
)
from training.metrics.path_length import path_length
from training.metrics.real import RealFeatures, real_features
from training.metrics.suite import MIN_IMAGES, Estimate, FeatureSet, estimate, full_name
from training.monitoring.console import show_progress
from training.monitoring.history import read_history
from training.pretrained.inference import TrainedGenerator, load_generator
from training.runs import Run, find_run, parse_run_spec
from training.streaming.dataset import ShardDataset
from training.transparency import color_values, composite, limit_colours


@dataclass(frozen=True)
class ComparisonOptions:
    """Options of a comparison: location of the real images (None: those of each run), number of
    samples and maximum number of real images, feature network, weights of Inception to use instead,
    number of paths for the path length, how progress is shown, the colour behind images with
    transparency, number of images that are moved and turned for the equivariance, and how the real
    images are read (None: as in the training of each run)."""

    shards: str | None
    samples: int
    real: int
    features: str
    inception: Path | None
    paths: int
    seed: int
    device: torch.device
    show: Callable[[str], AbstractContextManager[Callable[[int, int], None]]] = show_progress
    background: str = "#ffffff"
    moved: int = 0
    data: DataOptions | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """The estimates of a run by their full names. `history` contains (images seen, value) of its
    evaluations during training, by the same names; `background` is the colour behind images with
    transparency, `fit` how larger images were resized (`DataOptions`)."""

    run: str
    seen: int
    dataset: str
    digest: str
    size: tuple[int, int]
    channels: int
    samples: int
    real: int
    estimates: dict[str, Estimate]
    history: dict[str, list[tuple[int, float]]]
    background: str = ""
    fit: str = ""

    @property
    def comparison_key(self) -> tuple[Any, ...]:
        """Results with different keys must not be compared."""
        return (
            self.digest, self.size, self.channels, self.fit, self.samples, self.real,
            self.background,
        )  # fmt: skip


def display_names(runs: Sequence[str]) -> list[str]:
    """Return the last parts of the paths of runs; the whole paths if two runs would look equal."""
    names = [Path(run).name or Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(set(runs)) else list(runs)


def compare(runs: Sequence[str], plan: ComparisonOptions) -> list[EvaluationResult]:
    """Evaluate each of `runs`.

    Raises:
        UserError: a run, checkpoint, shard or feature network is not available, or there are too
            few real images.
    """
    loaded = [(name, load_generator(name, plan.device)) for name in runs]
    for _, trained in loaded if plan.paths or plan.moved else ():
        trained.require_latents()
    for name, trained in loaded if plan.moved else ():
        require_transform(trained.generator, name)
    sources = [
        open_training_shards(trained, plan.shards, trained.dataset_b, plan.data)
        for _, trained in loaded
    ]
    for (name, trained), source in zip(loaded, sources, strict=True):
        _require_images(name, trained, source)
    network: FeatureNetwork
    if plan.inception:
        network = load_inception(plan.inception, plan.device)
    else:
        network = load_feature_network(plan.features, plan.device)
    reals: dict[tuple[Any, ...], tuple[RealFeatures, FeatureSet]] = {}
    results = []
    for (name, trained), source in zip(loaded, sources, strict=True):
        key = source.index.digest, source.width, source.height, source.channels, source.fit
        seeing = on_background(network, source.channels, plan.background)
        if key not in reals:
            real = _real(source, seeing, plan, plan.data or trained.config.data)
            reals[key] = real, FeatureSet(real.features, network.logits, network.splits)
        results.append(_evaluate(name, trained, source, *reals[key], seeing, plan))
    return results


def write_results(results: Sequence[EvaluationResult]) -> None:
    """Write each result to `evaluation.json` in its run's folder."""
    for result in results:
        folder = find_run(parse_run_spec(result.run)[0]).folder
        if folder.is_dir():
            write_json(folder / "evaluation.json", result_to_json(result))


def _require_images(name: str, trained: TrainedGenerator, source: ShardDataset) -> None:
    """Raise UserError if the run cannot be compared with these real images."""
    if source.index.nsamples < 2 * MIN_IMAGES:
        raise UserError(
            f"{source.index.name}: only {source.index.nsamples} real images; at least "
            f"{2 * MIN_IMAGES}"
        )
    if trained.is_translator and trained.dataset["samples"] < MIN_IMAGES:
        raise UserError(
            f"{trained.set_names[0]}: only {trained.dataset['samples']} images to translate; at "
            f"least {MIN_IMAGES}"
        )
    if trained.is_translator or source.classes == trained.classes:
        return
    if trained.conditional or source.classes < trained.classes:
        kind = "fewer" if source.classes < trained.classes else "more"
        raise UserError(f"{source.index.name}: has {kind} labels than the run {name}")


def _real(
    source: ShardDataset, network: FeatureNetwork, plan: ComparisonOptions, options: DataOptions
) -> RealFeatures:
    with plan.show(f"real images of {source.index.name}") as progress:
        return real_features(source, network, plan.real, options, progress=progress)


def _evaluate(
    name: str,
    trained: TrainedGenerator,
    source: ShardDataset,
    real: RealFeatures,
    real_set: FeatureSet,
    network: FeatureNetwork,
    plan: ComparisonOptions,
) -> EvaluationResult:
    labels = real.labels if trained.classes else real.labels * 0
    generator, device = trained.generator, plan.device
    with plan.show(f"samples of {display_names([name])[0]}") as progress:
        if trained.is_translator:
            features = translated_features(
                generator, open_training_shards(trained), network, plan.samples,
                trained.config.data, progress,
            )  # fmt: skip
        else:
            features = fake_features(
                generator, trained.latent, labels, network, plan.samples, device, plan.seed,
                progress,
            )  # fmt: skip
    fakes = FeatureSet(features, network.logits, network.splits)
    found = {
        full_name(plain, network.name): value
        for plain, value in estimate(real_set, fakes, plan.seed).items()
    }
    if plan.paths:
        lite0, behind = load_lite0(device), color_values(plan.background).to(device)
        length = path_length(
            generator, trained.latent,
            lambda *pair: lite0.extractor.distance(
                *(composite(limit_colours(one), behind) for one in pair)
            ),
            labels, plan.paths, device, plan.seed,
        )  # fmt: skip
        key = full_name(f"ppl_{length.space}", lite0.name)
        found[key] = Estimate(length.value, length.sd)
    if plan.moved:
        moves = equivariance(generator, trained.latent, labels, plan.moved, device, plan.seed)
        found |= {key: Estimate(one.value, one.sd) for key, one in moves.items()}
    size = source.width, source.height
    run = find_run(parse_run_spec(name)[0])
    return EvaluationResult(
        name, trained.seen, source.index.name, source.index.digest, size, source.channels,
        len(features), len(real_set), found, _history(run, list(found)),
        plan.background if source.channels == 4 else "", source.fit,
    )  # fmt: skip


def _history(run: Run, names: list[str]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in read_history(run.metrics):
        for name in names:
            if isinstance(row.get(name), float) and math.isfinite(row[name]):
                found.setdefault(name, []).append((row["seen"], row[name]))
    return found


def result_to_json(result: EvaluationResult) -> dict[str, Any]:
    """Return a result as JSON values."""
    return {
        "run": result.run, "seen": result.seen, "dataset": result.dataset,
        "digest": result.digest, "size": list(result.size),
        "channels": result.channels, "samples": result.samples, "real": result.real,
        **({"background": result.background} if result.background else {}),
        "metrics": {name: vars(value) for name, value in result.estimates.items()},
    }  # fmt: skip
