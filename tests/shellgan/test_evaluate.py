"""Evaluations read a dataset as it was opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import shellgan
from tests.helpers.foreign_shards import drawn, file_of, write_tar
from tests.helpers.untrained_runs import make_run


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """Wide images `b.png` beside others of another size, one of them damaged, and an untrained
    run."""
    make_run(tmp_path / "runs" / "some", "dcgan")
    samples = [
        {
            "__key__": f"{number:06d}", "a.png": file_of(drawn(number, 9, 9), "PNG"),
            "b.png": file_of(drawn(number, 40, 16), "PNG"), "cls": str(number % 2).encode(),
        }
        for number in range(120)
    ]  # fmt: skip
    samples[50]["b.png"] = samples[50]["b.png"][:-200]  # type: ignore[index]
    return str(write_tar(tmp_path / "wide.tar", samples))


def test_a_dataset_is_evaluated_as_it_was_opened(wide: str, tmp_path: Path) -> None:
    model = shellgan.load("some", root=tmp_path, device="cpu")
    found = {}
    for fit in ("crop", "pad", "stretch"):
        dataset = shellgan.open_dataset(
            wide, root=tmp_path, resolution=16, fit=fit, image="b.png", skip_corrupt=True
        )
        result = model.evaluate(dataset, samples=50, real=0)
        assert result.real == 119
        found[fit] = result.estimates["fd_efficientnet_lite0"].value
    assert len(set(found.values())) == 3
