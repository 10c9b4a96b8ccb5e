"""Features of real images: of the first ones, with labels, kept on disk by what they are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from training.config import DataOptions
from training.metrics.fake import draw_inputs, fake_features, isolated_rng
from training.metrics.real import cache_path, real_features
from training.networks import Generator
from training.streaming.dataset import open_shard_dataset
from training.streaming.samples import iter_image_batches
from training.streaming.shards import DamagedShard
from training.techniques import draw_latents


@dataclass
class Corner:
    """The features of an image are its corner's two pixels, which tell its number."""

    name: str = "corner"
    identity: str = "corner-1"
    splits: int = 1
    asked: list[int] = field(default_factory=list)

    def features(self, images: torch.Tensor) -> Any:
        self.asked.append(len(images))
        return images[:, 0, 0, :2].numpy().astype(np.float32)

    def logits(self, features: Any) -> Any:
        return features


@pytest.fixture
def shards(
    small_shards: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.chdir(tmp_path)
    return small_shards(labels=("a", "b", "c"))


def test_the_first_images_with_their_labels(shards: Any) -> None:
    network = Corner()
    seen: list[tuple[int, int]] = []
    source = open_shard_dataset(shards.manifest, 0)
    found = real_features(source, network, 50, progress=lambda *at: seen.append(at))
    assert found.features[:, 1].tolist() == list(range(50))  # 40 of the first shard, then 10
    assert found.labels.tolist() == [number % 3 for number in range(50)]
    assert seen[-1] == (50, 50)
    assert len(real_features(source, Corner(), 0).labels) == shards.count


def test_they_are_read_once(shards: Any) -> None:
    network = Corner()
    source = open_shard_dataset(shards.manifest, 0)
    first = real_features(source, network, 50)
    path = cache_path(source, network, 50)
    assert path.parent == Path.cwd() / "data" / "small" / "features"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert source.index.digest[:16] in path.name
    shards.path(0).unlink()
    network.asked.clear()
    again = real_features(source, network, 50)
    assert network.asked == []
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert cache_path(source, Corner(identity="corner-2"), 50) != path


def test_the_same_images_in_gray_have_other_features(shards: Any) -> None:
    def features(channels: Literal[1, 3]) -> Any:
        source = open_shard_dataset(shards.manifest, 0, DataOptions(channels=channels))
        return real_features(source, Corner(), 50).features

    colour, gray = features(3), features(1)
    assert not np.array_equal(colour, gray)
    np.testing.assert_array_equal(features(3), colour)
    np.testing.assert_array_equal(features(1), gray)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a zip", b"anything"])
def test_a_damaged_file_is_made_again(shards: Any, damage: bytes) -> None:
    source, network = open_shard_dataset(shards.manifest, 0), Corner()
    first = real_features(source, network, 50)
    cache_path(source, network, 50).write_bytes(damage)
    np.testing.assert_array_equal(real_features(source, network, 50).features, first.features)
    assert cache_path(source, network, 50).stat().st_size > 400


def test_a_damaged_shard_is_skipped_with_leave_and_not_remembered(shards: Any) -> None:
    content = bytearray(shards.path(1).read_bytes())
    content[700] ^= 1
    shards.path(1).write_bytes(content)
    source, network = open_shard_dataset(shards.manifest, 0), Corner()
    with pytest.raises(DamagedShard, match=r"small-000001\.tar"):
        real_features(source, network, 80)
    found = real_features(source, network, 80, DataOptions(skip_corrupt=True))
    assert found.features[:, 1].tolist() == [*range(40), *range(73, 80)]
    assert not cache_path(source, network, 80).exists()


class Echo(Generator):
    """Its pictures show the label, and are noisy when sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim = 4

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(len(latents), 1, 2, 2)
        image = torch.cat([(labels / 127.5 - 1).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 1)] * 2, 3)
        image[:, :, 0, 1] = noise[:, :, 0, 0] * 2 - 1
        return image


def test_fakes_have_labels_as_often_and_leave_no_trace_in_random_numbers() -> None:
    labels = np.array([0] * 9 + [7])
    before = torch.get_rng_state()
    options = (Echo().eval(), "gaussian", labels, Corner(), 600, torch.device("cpu"))
    first, again = fake_features(*options, seed=3), fake_features(*options, seed=3)
    np.testing.assert_array_equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(first[:, 0]) == {0, 7}
    assert 0.05 < (first[:, 0] == 7).mean() < 0.16
    assert len(np.unique(first[:, 1])) > 100  # the noise differs between images
    assert not np.array_equal(first, fake_features(*options, seed=4))


def test_latents_are_those_of_training() -> None:
    cpu = torch.device("cpu")
    latents, which = draw_inputs("sphere", 16, np.array([2]), 5, 0, cpu)
    torch.testing.assert_close(latents.norm(dim=1), torch.full((5,), 4.0))
    assert which.tolist() == [2] * 5
    with isolated_rng(1, cpu):
        one = torch.rand(1)
    with isolated_rng(1, cpu):
        assert torch.equal(torch.rand(1), one)
    uniform = draw_latents("uniform", 9, 3, torch.Generator().manual_seed(0), cpu)
    assert uniform.abs().max() <= 1


def test_batches_of_images_stay_as_they_are_when_the_next_one_is_read(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.streaming.samples._BATCH", 8)
    source = open_shard_dataset(small_shards().manifest, 0)
    read = [images for images, _ in iter_image_batches(source, 24, DataOptions())]
    again = [images.clone() for images, _ in iter_image_batches(source, 24, DataOptions())]
    assert len(read) == 3
    assert not torch.equal(read[0], read[1])
    assert torch.equal(torch.cat(read), torch.cat(again))
