"""Clusters of similar images in place of labels."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import UserError
from tests.helpers.foreign_shards import file_of, write_tar
from tests.helpers.small_shards import SmallShards
from training.config import Config, DataOptions
from training.data import Loader
from training.evaluate import main as evaluate
from training.latent.neighbours import open_training_shards
from training.options.resolve import resolve
from training.pretrained.inference import load_generator
from training.sample import main as sample
from training.streaming.clusters import Clusters, find_clusters
from training.streaming.dataset import ShardDataset, open_shard_dataset

KINDS = 3
CONDITIONAL = (
    "--data.label", "clusters:4", "--generator.condition", "norm",
    "--discriminator.condition", "projection",
)  # fmt: skip


def drawings(count: int) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Return images uint8 (count, 3, 16, 16) of three kinds with slight noise, and their kinds."""
    random = torch.Generator().manual_seed(0)
    patterns = torch.rand(KINDS, 3, 16, 16, generator=random) * 200 + 20
    kinds = torch.randint(KINDS, (count,), generator=random)
    noise = torch.randn(count, 3, 16, 16, generator=random) * 5
    return (patterns[kinds] + noise).clamp(0, 255).byte(), kinds.numpy()


def same_partition(some: Any, others: Any) -> bool:
    """Return True if both number the same groups, in whatever order."""
    pairs = set(zip(list(some), list(others), strict=True))
    return len(pairs) == len(set(some)) == len(set(others))


def opened(location: str | Path, label: str, known: str = "") -> ShardDataset:
    return open_shard_dataset(location, 0, DataOptions(label=label), clusters=known)


def labelled_images(source: ShardDataset, label: str) -> tuple[torch.Tensor, list[int]]:
    config = Config(batch=10, data=DataOptions(label=label))
    with Loader(source, config) as loader:
        batches = list(itertools.islice(loader, source.index.nsamples // 10))
    labels = torch.cat([batch.labels for batch in batches]).tolist()
    return torch.cat([batch.images for batch in batches]), labels


def test_kinds_are_found_again() -> None:
    images, kinds = drawings(120)
    clusters = find_clusters(images[:60], KINDS)
    assert same_partition(clusters.nearest(images), kinds)
    assert (find_clusters(images[:60], KINDS).centres == clusters.centres).all()


def test_a_centre_is_the_mean_of_the_images_nearest_to_it() -> None:
    images = torch.randint(0, 256, (100, 1, 16, 16), generator=torch.Generator().manual_seed(1))
    clusters = find_clusters(images, 4)
    numbers = clusters.nearest(images)
    for number, centre in enumerate(clusters.centres):
        mean = images.flatten(1).numpy()[numbers == number].mean(axis=0)
        assert centre == pytest.approx(mean, abs=0.5)


def test_equal_images_are_one_cluster() -> None:
    images = torch.zeros(40, 3, 8, 8, dtype=torch.uint8)
    assert len(set(find_clusters(images, 5).nearest(images))) == 1


def test_shards_of_other_tools_get_clusters_as_labels(tmp_path: Path) -> None:
    images, kinds = drawings(60)
    folder = tmp_path / "out"
    for shard in range(2):
        rows = range(30 * shard, 30 * shard + 30)
        pixels = [Image.fromarray(images[row].permute(1, 2, 0).numpy()) for row in rows]
        samples = [
            {"__key__": f"{row:03d}", "png": file_of(one, "PNG"), "cls": b"none of these"}
            for row, one in zip(rows, pixels, strict=True)
        ]
        write_tar(folder / f"{shard}.tar", samples)
    source = opened(folder, f"clusters:{KINDS}")
    assert source.index.labels == ("cluster-1", "cluster-2", "cluster-3")
    assert source.index.digest != opened(folder, "none").index.digest
    found, labels = labelled_images(source, f"clusters:{KINDS}")
    truth = {image.numpy().tobytes(): kind for image, kind in zip(images, kinds, strict=True)}
    whole = [truth[image.contiguous().numpy().tobytes()] for image in found]
    assert same_partition(labels, whole)


@pytest.mark.parametrize("labels", [(), ("cone", "whelk")], ids=["unlabelled", "labelled"])
def test_clusters_replace_the_labels_of_shards(small_shards: Any, labels: tuple[str, ...]) -> None:
    shards = small_shards(labels=labels, labelled=50)
    source = opened(shards.manifest, "clusters:4")
    assert source.classes == 4
    assert source.index.digest != opened(shards.manifest, "clusters:5").index.digest
    images, numbers = labelled_images(source, "clusters:4")
    assert source.clusters is not None
    assert numbers == source.clusters.nearest(images).tolist()
    assert len(set(numbers)) == 4
    sizes = np.bincount(numbers)
    assert source.notes[-1].endswith(f", each of {min(sizes)} to {max(sizes)} of the first 100")


def test_a_run_learns_continues_and_draws_by_cluster(
    small_shards: Any, in_process: Callable[..., int], tmp_path: Path
) -> None:
    shards, run = small_shards(), tmp_path / "runs" / "clustered"
    assert in_process(run, shards, *CONDITIONAL) == 0
    assert in_process(run, shards, *CONDITIONAL, "--total-kimg", "0.6") == 0
    written = json.loads((run / "config.json").read_text())["dataset"]
    assert opened(shards.manifest, "clusters:4").clusters.to_text() == written["clusters"]  # type: ignore[union-attr]
    target = str(tmp_path / "drawn.png")
    assert sample([str(run), "--label", "cluster-3", "--n", "2", "--out", target]) == 0
    assert evaluate([str(run), "--samples", "50", "--device", "cpu"]) == 0


def test_the_clusters_of_a_run_stay_with_it(
    small_shards: Any, in_process: Callable[..., int], tmp_path: Path
) -> None:
    shards, run = small_shards(), tmp_path / "runs" / "kept"
    config = run / "config.json"
    assert in_process(run, shards, *CONDITIONAL) == 0
    own = opened(shards.manifest, "clusters:4")
    assert own.clusters is not None
    described = json.loads(config.read_text())
    turned = Clusters(own.clusters.centres[::-1].copy())  # as if others had been found at first
    source = opened(shards.manifest, "clusters:4", turned.to_text())
    described["dataset"] |= {"clusters": turned.to_text(), "digest": source.index.digest}
    assert own.index.digest != source.index.digest
    config.write_text(json.dumps(described))
    assert in_process(run, shards, *CONDITIONAL, "--total-kimg", "0.6") == 0
    assert json.loads(config.read_text())["dataset"]["clusters"] == turned.to_text()
    few = SmallShards(tmp_path / "few", sizes=(12,), name="few")  # too few to find clusters in
    kept = open_training_shards(load_generator(str(run), torch.device("cpu")), str(few.manifest))
    assert kept.clusters is not None
    assert kept.clusters.to_text() == turned.to_text()
    with pytest.raises(UserError, match=r"dataset\.clusters: not the centres of 4 clusters"):
        opened(shards.manifest, "clusters:4", turned.to_text()[:-4])


@pytest.mark.parametrize("label", ["clusters:1", "clusters:0", "clusters:257", "clusters:x"])
def test_a_number_of_clusters_is_from_2_to_256(label: str) -> None:
    with pytest.raises(UserError, match=r"data\.label"):
        resolve("dcgan64", {"data.label": label})


def test_a_few_labels_are_refused_with_clusters() -> None:
    options = {
        "data.label": "clusters:4", "data.labelled": "9", "discriminator.semi_supervised": "true"
    }  # fmt: skip
    with pytest.raises(UserError, match="has no effect on clusters"):
        resolve("dcgan64", options)


def test_clusters_need_images(small_shards: Any) -> None:
    with pytest.raises(UserError, match=r"data\.label: 100 images for 26 clusters.*ask for fewer"):
        opened(small_shards().manifest, "clusters:26")
