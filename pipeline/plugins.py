"""Loads functions that installed packages provide as entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from pipeline.errors import UserError


def load_plugin(group: str, name: str, key: str) -> Any:
    """Load the entry point `name` of `group`.

    Args:
        key: the recipe key that names it, for the error message.

    Raises:
        UserError: it does not exist, or its dependencies are not installed.
    """
    offered = {entry.name: entry for entry in entry_points(group=group)}
    if name not in offered:
        names = ", ".join(sorted(offered)) or "none"
        raise UserError(f"{key}: {name!r} is not an entry point of {group}; choose from {names}")
    try:
        return offered[name].load()
    except ImportError as error:
        raise UserError(f"{key}: {name!r} cannot be loaded ({error})") from None
