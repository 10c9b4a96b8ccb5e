"""Checks of arguments: a wrong one is a `UserError` that names it."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from pipeline.contract import UserError, suggestion

MAX_COUNT, MAX_SEED, MAX_PSI = 1_000_000, 2**63 - 1, 100


def check_count(name: str, value: Any, least: int, most: int = MAX_COUNT) -> int:
    """Return an integer, such as a Python or NumPy one.

    Raises:
        UserError: it is not an integer from `least` to `most`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        raise UserError(f"{name}: {value!r} is not an integer from {least} to {most}")
    return number


def check_truncation(value: Any) -> float:
    """Return a truncation psi.

    Raises:
        UserError: it is not a number from -100 to 100.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not abs(number) <= MAX_PSI:
        raise UserError(f"truncation: {value!r} is not a number from -{MAX_PSI} to {MAX_PSI}")
    return number


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that a text is one of the choices.

    Raises:
        UserError: it is not.
    """
    if value not in choices:
        hint = suggestion(str(value), choices)
        raise UserError(f"{name}: {value!r} is unknown; choose from {', '.join(choices)}{hint}")
