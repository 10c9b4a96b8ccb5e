"""The search for the nearest training images fetches shards as the training did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.contract import UserError
from tests.helpers.small_shards import number_of
from training.config import DataOptions
from training.image_shape import ImageShape
from training.latent.neighbours import embed_training_images, small_pixels


def test_the_cache_options_of_the_run_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_shards: Callable[..., Any],
    serve: Callable[..., Any],
) -> None:  # fmt: skip
    shards = small_shards(sizes=(6, 6))
    location = f"{serve(shards.root).url}/manifests/small"
    monkeypatch.chdir(tmp_path)

    def trained(data: DataOptions) -> Any:
        dataset = {"location": location}
        return SimpleNamespace(
            dataset=dataset, shape=ImageShape(16, 16, 3), config=SimpleNamespace(data=data)
        )

    cache = tmp_path / "own"
    own = trained(DataOptions(cache=str(cache)))
    every = embed_training_images(own, None, small_pixels)
    fetched = sorted(cache.glob("*.tar"))
    assert len(fetched) == 2
    for path in fetched:
        path.unlink()
    assert [number_of(image) for image in every.images([0, 9])] == [0, 9]
    assert sorted(cache.glob("*.tar")) == fetched
    assert not (tmp_path / "data/small/cache").exists()
    small = trained(DataOptions(cache=str(cache), cache_gb=1e-5))
    with pytest.raises(UserError, match=r"data\.cache_gb: 1e-05 GB are too little"):
        embed_training_images(small, None, small_pixels)
