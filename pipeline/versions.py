"""Versions of files: files of earlier versions are migrated, one version at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import UserError

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def migrate(values: Any, migrations: Sequence[Migration], where: str) -> Any:
    """Return the content of a JSON file in its current version, which is one more than there are
    migrations.

    Args:
        values: the content; an object without `version` has version 1. Other values are returned
            as they are.
        migrations: the first converts version 1 to 2, the second 2 to 3, and so on.
        where: the file, for the error.

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
