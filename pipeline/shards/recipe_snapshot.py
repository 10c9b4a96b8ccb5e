"""The options by which the shards of a dataset are made, as a file of the manifest folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.contract import (
    DatasetPaths,
    write_json,
)
from pipeline.recipe import Recipe


def recipe_snapshot_path(target: DatasetPaths) -> Path:
    """What the shards of a dataset are made by, `manifests/NAME/recipe.json`, written first."""
    return target.manifest_dir / "recipe.json"


def snapshot(recipe: Recipe, source: DatasetPaths) -> dict[str, Any]:
    return {
        "title": recipe.title,
        "source": source.name,
        "select": asdict(recipe.select),
        "shards": asdict(recipe.shards),
    }


def write_snapshot(recipe: Recipe, source: DatasetPaths, target: DatasetPaths) -> None:
    options, path = snapshot(recipe, source), recipe_snapshot_path(target)
    try:
        written = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        written = None
    if written != plain_json(options):
        write_json(path, options)


def plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, list | tuple) else value
