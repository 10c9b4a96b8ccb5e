"""Uploads a dataset to the Hugging Face Hub, where `datasets` and the Hub's viewer read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.contract import DatasetPaths, UserError
from pipeline.events import EventLog
from pipeline.hub import HubRepo, check_hub, license_warnings, upload
from pipeline.shards.exports import ExportResult, export, known_stats, staging_folder

HUB_FORMATS = ("huggingface-webdataset", "huggingface")


def publish(
    dataset: DatasetPaths, form: str, repo: HubRepo, log: EventLog, say: Callable[[str], None]
) -> ExportResult:
    """Export the dataset in one of the `HUB_FORMATS` and upload it; the result's path is the URL.

    The export is a temporary folder in `data/NAME`, whose shards are links to the dataset's own. On
    the Hub, shards of an earlier upload that no longer exist are deleted.

    Raises:
        UserError: as `export` and `upload`.
    """
    if form not in HUB_FORMATS:
        raise UserError(f"--format {form}: --hub needs one of {', '.join(HUB_FORMATS)}")
    check_hub(repo)
    stats = known_stats(dataset)
    for line in license_warnings(dataset.name, stats.licenses, sum(stats.overrides.values())):
        say(f"warning: {line}")
    folder = staging_folder(dataset)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        count = export(dataset, form, folder, log, link_or_copy).samples
        names = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
        return ExportResult(upload(folder, names, repo, say, replaced=("data/*",)), count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the disk has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
