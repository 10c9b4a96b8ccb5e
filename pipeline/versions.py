"""Migrates files of earlier versions, one version at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import UserError

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def migrate(values: Any, migrations: Sequence[Migration], where: str) -> Any:
    """Return the content of a JSON file migrated to the current version, which is the number of
    migrations plus one.

    Args:
        values: the content; an object without `version` has version 1. Values that are not objects
            are returned unchanged.
        migrations: the first converts version 1 to 2, the second 2 to 3, and so on.
        where: the file, for the error message.

    Raises:
        UserError: the version is not an integer from 1 to the current one.
    """
    if not isinstance(values, dict):
        return values
    version, current = values.get("version", 1), len(migrations) + 1
    if type(version) is not int or not 1 <= version <= current:
        raise UserError(
            f"{where}: version: {version!r:.60}: this version of the program reads 1 to {current}"
        )
    for step in migrations[version - 1 :]:
        values = step(values)
    return {**values, "version": current}
