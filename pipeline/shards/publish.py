"""Uploads a dataset to the Hugging Face Hub, where `datasets` and the Hub's viewer read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.contract import DatasetPaths, UserError
from pipeline.events import EventLog
from pipeline.hub import HubRepo, license_warnings, upload
from pipeline.shards.exports import ExportResult, export, staging_folder
from pipeline.shards.stats import collect_stats

HUB_FORMATS = ("huggingface-webdataset", "huggingface")


def publish(
    dataset: DatasetPaths,
    form: str,
    repo: HubRepo,
    out: Path | None,
    log: EventLog,
    say: Callable[[str], None],
) -> ExportResult:
    """Export the dataset in one of the `HUB_FORMATS` and upload it; the result's path is the URL.

    Without `out`, the export is a temporary folder in `data/NAME`, whose shards are links to the
    dataset's own. On the Hub, shards of an earlier upload that no longer exist are deleted.

    Raises:
        UserError: as `export` and `upload`.
    """
    if form not in HUB_FORMATS:
        raise UserError(f"--format {form}: --hub needs one of {', '.join(HUB_FORMATS)}")
    stats = collect_stats(dataset)
    for line in license_warnings(dataset.name, stats.licenses, sum(stats.overrides.values())):
        say(f"warning: {line}")
    if out is not None:
        count = export(dataset, form, out, log).samples
        return ExportResult(_upload(out, repo, say), count)
    folder = staging_folder(dataset)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        count = export(dataset, form, folder, log, link_or_copy).samples
        return ExportResult(_upload(folder, repo, say), count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _upload(folder: Path, repo: HubRepo, say: Callable[[str], None]) -> str:
    names = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
    return upload(folder, names, repo, say, replaced=("data/*",))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the disk has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
