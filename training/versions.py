"""How files of earlier versions become current ones, one version at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.contract import Migration

_REPLAY = "replay_"
_RENAMED_LAYERS = {"judge": "output", "judges": "discriminators", "sight": "input"}


def _reuse_latents(values: dict[str, Any]) -> dict[str, Any]:
    """Runs of version 1 reuse the discriminator's latents, also where a preset now does not."""
    if not isinstance(values.get("config"), dict):
        return values
    return {**values, "config": {"fresh_latents": False, **values["config"]}}


CONFIG_MIGRATIONS: Sequence[Migration] = (_reuse_latents,)
"""Those of a run's `config.json`."""


def _separate_replay(values: dict[str, Any]) -> dict[str, Any]:
    """Checkpoints of version 1 store the images of the replay among the scalars."""
    state = values.get("state")
    if not isinstance(state, dict) or not isinstance(state.get("scalars"), dict):
        return values  # a generator without the rest of a run, or damaged
    scalars = {str(name): value for name, value in state["scalars"].items()}
    old = [name for name in scalars if name.startswith(_REPLAY)]
    replay = {name.removeprefix(_REPLAY): scalars.pop(name) for name in old}
    return {**values, "state": {**state, "scalars": scalars, "replay": replay}}


def _rename_layers(values: dict[str, Any]) -> dict[str, Any]:
    """Some layers of discriminators have other names since version 3."""
    state = values.get("state")
    if not isinstance(state, dict) or not isinstance(state.get("discriminator"), dict):
        return values
    renamed = {
        ".".join(_RENAMED_LAYERS.get(part, part) for part in str(name).split(".")): weight
        for name, weight in state["discriminator"].items()
    }
    return {**values, "state": {**state, "discriminator": renamed}}


CHECKPOINT_MIGRATIONS: Sequence[Migration] = (_separate_replay, _rename_layers)
"""Those of a checkpoint's values; the metadata contains the version."""
