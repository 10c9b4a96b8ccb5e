"""The rules of select: the reasons to reject an image, in order."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.recipe import Recipe
from pipeline.select.numeric_limits import NUMERIC_LIMITS, NumericLimit
from pipeline.select.selection import SelectedImage


def _license(image: SelectedImage, recipe: Recipe) -> str | None:
    limits = recipe.select
    words = image.row.license.casefold()
    if limits.licenses and not any(one.casefold() in words for one in limits.licenses):
        return repr(image.row.license)
    return None


def _labels(image: SelectedImage, recipe: Recipe) -> str | None:
    limits = recipe.select
    labels = [label.casefold() for label in image.row.labels]
    wanted = [word.casefold() for word in limits.labels]
    if wanted and not any(word in label for word in wanted for label in labels):
        return repr(list(image.row.labels))
    return None


def _mode(image: SelectedImage, recipe: Recipe) -> str | None:
    limits = recipe.select
    if limits.modes and image.record.mode not in limits.modes:
        return image.record.mode
    return None


def _no_class_label(image: SelectedImage, recipe: Recipe) -> str | None:
    position, labels = recipe.shards.class_label, image.row.labels
    if position is None or len(labels) > position:
        return None
    return f"no label number {position} in {list(labels)}"


FORGOTTEN, NOT_IN_MANIFEST = "forgotten", "not_in_manifest"


LICENSE, NO_CLASS_LABEL, DUPLICATE_KEY = "license", "no_class_label", "duplicate_key"


RULES: dict[str, Callable[[SelectedImage, Recipe], str | None]] = {
    LICENSE: _license,
    NO_CLASS_LABEL: _no_class_label,
    "label": _labels,
    "mode": _mode,
}
"""Functions by reason, in the order in which they are applied, before the numeric limits; each
returns details, or None to keep the image."""


CURATED = "curated"


OFF_TOPIC, DUPLICATE, NEAR_DUPLICATE = "off_topic", "duplicate", "near_duplicate"


FEATURE_DUPLICATE = "feature_duplicate"


FILTERS = {"text": "max_text", "unsafe": "max_unsafe", "face": "max_face"}
"""The option of each filter by its name, which is that of the entry point, of the extra that
installs it and of the reason to reject an image."""


INTERNAL = "internal"


REASONS = (
    FORGOTTEN,
    NOT_IN_MANIFEST,
    DUPLICATE_KEY,
    LICENSE,
    NO_CLASS_LABEL,
    CURATED,
    *(reason for reason in RULES if reason not in (LICENSE, NO_CLASS_LABEL)),
    *(one.reason for one in NUMERIC_LIMITS),
    *FILTERS,
    OFF_TOPIC,
    DUPLICATE,
    NEAR_DUPLICATE,
    FEATURE_DUPLICATE,
    INTERNAL,
)
"""All reasons. An image is rejected for the first one that applies."""


PERMANENT = frozenset(
    (FORGOTTEN, NOT_IN_MANIFEST, DUPLICATE_KEY, LICENSE, NO_CLASS_LABEL, INTERNAL)
)
"""The reasons that a decision to keep an image does not change."""


def first_rejection(
    image: SelectedImage, recipe: Recipe, filters: tuple[NumericLimit, ...]
) -> tuple[str, str] | None:
    """Return the first reason to reject an image by its own properties and the values of the
    `filters`, with details; None to keep it."""
    for reason, rule in RULES.items():
        detail = rule(image, recipe)
        if detail is not None:
            return reason, detail
    for limit in (*NUMERIC_LIMITS, *filters):
        detail = limit.rejection(image.record, recipe.select)
        if detail is not None:
            return limit.reason, detail
    return None
