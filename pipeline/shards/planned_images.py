"""Reads the images of a planned shard from the selection."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.contract import DatasetPaths, UserError
from pipeline.options import ShardOptions
from pipeline.select.selection import SelectedImage
from pipeline.shards.plan import (
    ShardPlan,
    class_name,
    image_digest,
    options_digest,
    shard_digest,
)


@dataclass(frozen=True)
class PlannedImages:
    """The images of a shard in order, their class numbers, and short digests by key; `options`
    identifies the options and the classes."""

    images: list[SelectedImage]
    classes: list[int | None]
    digests: dict[str, str]
    options: str


def planned_images(
    options: ShardOptions, source: DatasetPaths, classes: tuple[str, ...], plan: ShardPlan
) -> PlannedImages:
    """Read the images of a planned shard.

    Raises:
        UserError: the selection has changed since the plan.
    """
    lines = []
    with source.selection.open("rb") as file:
        for offset in plan.offsets:
            file.seek(offset)
            lines.append(file.readline())
    with_options = options_digest(options, classes)
    try:
        found = [json.loads(line) for line in lines]
        digests = [*map(image_digest, found)]
        digest = shard_digest(with_options, digests)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        digest = ""
    if digest != plan.digest:
        raise UserError(f"{source.selection}: changed since {plan.name} was planned; plan again")
    numbers = {name: number for number, name in enumerate(classes)}
    position = options.class_label
    try:
        images = [SelectedImage.from_json(line) for line in found]
    except ValueError as error:
        raise UserError(
            f"{source.selection}: not an image of a selection ({error}); run select again"
        ) from None
    return PlannedImages(
        images,
        [
            None if position is None else numbers[class_name(line, position, source.selection)]
            for line in found
        ],
        {line["key"]: one.hex()[:16] for line, one in zip(found, digests, strict=True)},
        with_options.hex(),
    )
