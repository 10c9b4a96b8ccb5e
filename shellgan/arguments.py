"""Checks of arguments: a wrong one is a `UserError` that names it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.contract import UserError, suggestion
from training.latent.cli import label_number
from training.latent.image_numbers import LIMIT, check_numbers
from training.pretrained.inference import TrainedGenerator

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


def check_image_numbers(numbers: Iterable[Any], least: int = 0) -> list[int]:
    """Return image numbers as a list.

    Raises:
        UserError: one is not an image number, or there are fewer than `least`.
    """
    found = [check_count("numbers", one, 0, LIMIT - 1) for one in numbers]
    check_numbers(found, least)
    return found


def check_label(label: Any, trained: TrainedGenerator) -> int | None:
    """Return the number of a class, from its name or from the number itself (None: None).

    Raises:
        UserError: the generator has no such class.
    """
    if label is None:
        return None
    if isinstance(label, str) or not trained.conditional:
        return label_number(trained, str(label))
    return check_count("label", label, 0, trained.classes - 1)


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
