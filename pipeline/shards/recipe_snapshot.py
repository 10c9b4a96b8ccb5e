"""A file in the manifest folder with the options of the shards of a dataset."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.contract import DatasetPaths, write_json
from pipeline.errors import UserError
from pipeline.recipe import Recipe
from pipeline.versions import Migration, migrate

MIGRATIONS: tuple[Migration, ...] = ()
"""Migrations of the snapshot, see `pipeline.versions`."""


def recipe_snapshot_path(target: DatasetPaths) -> Path:
    """Return the path of the snapshot, `manifests/NAME/recipe.json`, which is written before the
    shards."""
    return target.manifest_dir / "recipe.json"


def snapshot(recipe: Recipe, source: DatasetPaths) -> dict[str, Any]:
    """Return the options of the shards that are built from the originals of `source`."""
    return {
        "title": recipe.title,
        "source": source.name,
        "select": asdict(recipe.select),
        "shards": asdict(recipe.shards),
    }


def write_snapshot(recipe: Recipe, source: DatasetPaths, target: DatasetPaths) -> None:
    """Write the snapshot of a dataset if it has changed."""
    options = plain_json({**snapshot(recipe, source), "version": len(MIGRATIONS) + 1})
    try:
        written = read_snapshot(target)
    except UserError:
        written = {}
    if written != options:
        write_json(recipe_snapshot_path(target), options)


def read_snapshot(target: DatasetPaths) -> dict[str, Any]:
    """Return the snapshot of a dataset, migrated to the current version; empty if there is none.

    Raises:
        UserError: the file is damaged, or has a later version.
    """
    path = recipe_snapshot_path(target)
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged; remove it and run shard, which writes it again")
    return dict(migrate(values, MIGRATIONS, str(path))) if values else {}


def plain_json(value: Any) -> Any:
    """Convert tuples in `value` to lists, as a round trip through JSON does."""
    if isinstance(value, dict):
        return {key: plain_json(one) for key, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, list | tuple) else value
