"""Stops once, with a contact sheet, if some of the selected images are of another kind."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ImageOps

from pipeline.commands.common import root_option
from pipeline.contract import DatasetPaths, UserError, write_atomic, write_json
from pipeline.curate.thumbnails import scaled_image
from pipeline.events import Progress
from pipeline.imaging.limits import ImageError
from pipeline.job import Job
from pipeline.options import SelectOptions
from pipeline.originals.part_tars import read_original
from pipeline.select.foreign import LIST, SHEET, ForeignGroup, find_foreign_group
from pipeline.select.outliers import outlier_scores
from pipeline.select.selection import read_selection
from pipeline.shards.card import contact_sheet
from pipeline.units import count_of

SHOWN, _COLUMNS, _SIDE = 10, 5, 256
_OFF_TOPIC = 2.5


class MixedContent(Exception):
    """Some images are of another kind than the rest; the text says what to do."""


def check_kinds(
    recipe: str, root: Path, on_progress: Callable[[Progress], None] = lambda _: None
) -> None:
    """Stop if the selection of a recipe's dataset has images of another kind. A selection for which
    it has stopped before is accepted.

    Raises:
        MixedContent: it has such images.
        UserError: the recipe has an error.
    """
    with Job(recipe, root=root).open(on_progress=(on_progress,)) as (parsed, dataset, log):
        sheet, listed = (dataset.data_dir / name for name in (SHEET, LIST))
        selection = hashlib.sha256(dataset.selection.read_bytes()).hexdigest()
        if _shown_selection(listed) == selection:
            return
        for path in (listed, sheet):
            path.unlink(missing_ok=True)
        found = find_foreign_group(dataset, parsed.select.features, log)
        if found is None:
            return
        write_sheet(sheet, dataset, found)
        write_json(listed, {"selection": selection, "urls": [one.row.url for one in found.images]})
        curate = f"shellgan curate {shlex.quote(recipe)}{root_option(root)}"
        text = _advice(dataset, parsed.select, found, recipe, curate)
    raise MixedContent(text)


def _shown_selection(listed: Path) -> str:
    """Return the digest of the selection for which the list was written."""
    try:
        return str(json.loads(listed.read_bytes())["selection"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_sheet(path: Path, dataset: DatasetPaths, group: ForeignGroup) -> None:
    """Write the contact sheet of the strangest images, two rows of five."""
    images = []
    for one in group.images[:SHOWN]:
        try:
            image = scaled_image(one.record, read_original(dataset, one.record), _SIDE)
        except (UserError, ImageError):
            continue
        images.append(ImageOps.pad(image, (_SIDE, _SIDE), color="white"))
    if images:
        write_atomic(path, contact_sheet(images, _COLUMNS, _SIDE))


def _advice(
    dataset: DatasetPaths, limits: SelectOptions, group: ForeignGroup, recipe: str, curate: str
) -> str:
    count = len(group.images)
    keys = np.array([int(one.key, 16) for one in read_selection(dataset.selection)], np.uint64)
    scores = outlier_scores(dataset, limits.features, keys)
    is_foreign = np.isin(keys, [int(one.key, 16) for one in group.images])
    rejected = np.nan_to_num(scores, nan=-np.inf) > _OFF_TOPIC
    found, others = (rejected & is_foreign).sum(), (rejected & ~is_foreign).sum()
    lines = [
        f"mixed content: {count:,} of {group.compared:,} images are of another kind than the rest, "
        "and a network learns one kind best",
        f"  look at the strangest: {dataset.data_dir / SHEET} (all: {LIST} beside it)",
        f"  reject them by eye:    {curate}",
    ]
    if 2 * found > count:
        lines.append(
            f"  reject outliers:       off_topic = {_OFF_TOPIC} under [select] in {recipe} "
            f"rejects {found:,} of them, and {count_of(int(others), 'other image')}"
        )
    lines.append("  then, or to continue with all of them, run the same command again")
    return "\n".join(lines)
