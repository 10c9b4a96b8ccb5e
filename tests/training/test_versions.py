"""Runs and checkpoints of earlier versions are migrated; those of later versions are refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError, migrate
from training import best_checkpoint, checkpoint
from training.options.resolve import check_resumable, resolve
from training.runs import Run, read_config
from training.versions import CONFIG_MIGRATIONS

IMAGES = torch.arange(4.0).reshape(4, 1, 1, 1)


def save(folder: Path, version: int | None, state: dict[str, Any]) -> checkpoint.CheckpointInfo:
    """Save a checkpoint whose metadata names that version, or none."""
    saved = checkpoint.save(folder, 8, {"state": state}, 2)
    metadata = {**json.loads(saved.metadata_path.read_text()), "version": version}
    if version is None:
        del metadata["version"]
    saved.metadata_path.write_text(json.dumps(metadata))
    return checkpoint.list_checkpoints(folder)[0]


@pytest.mark.parametrize("version", [None, 1])
def test_replay_moves_out_of_the_scalars(tmp_path: Path, version: int | None) -> None:
    scalars = {
        "replay_images": IMAGES,
        "replay_filled": torch.tensor(4),
        "path_mean": torch.ones(()),
    }
    state = checkpoint.load(save(tmp_path, version, {"seen": 8, "scalars": scalars}))["state"]
    assert state["scalars"].keys() == {"path_mean"}
    assert state["replay"].keys() == {"images", "filled"}
    assert torch.equal(state["replay"]["images"], IMAGES)


@pytest.mark.parametrize("version", [None, 2])
def test_layers_of_discriminators_get_their_names(tmp_path: Path, version: int | None) -> None:
    names = ["sight.embed.weight", "head.judge.0.weight", "judges.3.judge.weight", "hidden.0.bias"]
    state = {"seen": 8, "scalars": {}, "discriminator": {name: torch.ones(1) for name in names}}
    loaded = checkpoint.load(save(tmp_path, version, state))["state"]["discriminator"]
    assert list(loaded) == [
        "input.embed.weight", "head.output.0.weight", "discriminators.3.output.weight",
        "hidden.0.bias",
    ]  # fmt: skip


def test_the_current_version_is_read_as_it_was_saved(tmp_path: Path) -> None:
    state = {"seen": 8, "scalars": {}, "replay": {"images": IMAGES}}
    saved = checkpoint.save(tmp_path, 8, {"state": state}, 2)
    assert saved.version == 3
    assert torch.equal(checkpoint.load(saved)["state"]["replay"]["images"], IMAGES)


def test_the_best_checkpoint_keeps_its_version(tmp_path: Path) -> None:
    save(tmp_path, None, {"seen": 8, "scalars": {"replay_images": IMAGES}})
    assert best_checkpoint.keep_best(tmp_path, 8, "fd", 1.0)
    kept = best_checkpoint.best(tmp_path)
    assert kept is not None
    assert torch.equal(checkpoint.load(kept.saved)["state"]["replay"]["images"], IMAGES)


def test_a_later_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    saved = save(tmp_path, 99, {"seen": 8, "scalars": {}})
    with pytest.raises(ValueError, match="version: 99"):
        checkpoint.load(saved)
    checkpoint.prune(tmp_path, 1)
    assert saved.data_path.exists()


@pytest.mark.parametrize(("latents", "accepted"), [("false", True), ("true", False)])
def test_an_earlier_run_reuses_latents(tmp_path: Path, latents: str, accepted: bool) -> None:
    """Its preset now draws fresh ones."""
    described = {"config": {"batch": 8, "data.window": 4}, "dataset": {}}
    before = migrate(described, CONFIG_MIGRATIONS, "config.json")["config"]
    given = {"batch": "8", "fresh_latents": latents}
    with nullcontext() if accepted else pytest.raises(UserError, match="fresh_latents is False"):
        check_resumable(before, resolve("wgan", given), tmp_path)


def test_a_later_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(UserError, match=r"config\.json: version: 99"):
        read_config(Run(tmp_path))
