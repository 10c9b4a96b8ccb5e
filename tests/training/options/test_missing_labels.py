"""What becomes of conditions on labels where the shards have labels, and where they have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from training import sample
from training.networks import ImageShape, build_discriminator
from training.options.resolve import drop_label_conditions, flatten, resolve

CONDITIONS = (
    "--generator.condition", "norm", "--discriminator.condition", "projection",
    "--total-kimg", "0.016",
)  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "generator", "discriminator"),
    [((), "none", "none"), (("cone", "whelk"), "norm", "projection")],
)
def test_conditions_follow_the_shards_where_they_may(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    labels: tuple[str, ...],
    generator: str,
    discriminator: str,
) -> None:
    run, shards = tmp_path / "runs" / "tiny", small_shards(labels=labels)
    assert in_process(run, shards, *CONDITIONS, "--labels", "if-any") == 0
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["generator.condition"] == generator
    assert config["discriminator.condition"] == discriminator
    more = in_process(run, shards, *CONDITIONS, "--labels", "if-any", "--total-kimg", "0.032")
    assert more == 0  # the same command, with more images, is the same run
    assert sample.main([str(run), "--n", "4", "--out", str(tmp_path / "grid.png")]) == 0


def test_required_labels_that_are_missing_are_a_mistake(
    tmp_path: Path,
    small_shards: Callable[..., Any],
    in_process: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_process(tmp_path / "runs" / "tiny", small_shards(), *CONDITIONS) == 2
    said = capsys.readouterr().err
    assert (
        "generator.condition: the shards have no labels; name their source with --data.la" in said
    )


def test_only_the_conditions_are_left_out() -> None:
    config = resolve("shells64", {"discriminator.classifier": "true"})
    assert drop_label_conditions(config, 10) is config
    before, after = flatten(config), flatten(drop_label_conditions(config, 0))
    assert {key for key in before if before[key] != after[key]} == {
        "generator.condition", "discriminator.condition", "discriminator.classifier",
    }  # fmt: skip


def test_the_projection_begins_as_in_its_source() -> None:
    """Miyato & Koyama draw it after Glorot: uniform within √(6 / (labels + maps))."""
    config = resolve("shells64", {})
    network = build_discriminator(config.discriminator, ImageShape(64, 64, 3, 10))
    (projection,) = (layer for layer in network.modules() if isinstance(layer, nn.Embedding))
    bound = (6 / (10 + 32 * 8)) ** 0.5
    weight = projection.weight.detach()
    assert weight.abs().max() == pytest.approx(bound, rel=0.02)
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
