"""The commands that run stages, retry failures and show the status of a dataset."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.commands.common import (
    Commands,
    add_command,
    command,
    explain_failures,
    job_from_args,
    open_job,
    say,
)
from pipeline.contract import DatasetPaths
from pipeline.job import STAGES, run_stage
from pipeline.reading import open_regular
from pipeline.select.selection import NO_IMAGES
from pipeline.units import count_of

if TYPE_CHECKING:
    from pipeline.retry import RetryResult

STAGE_HELP = {
    "run": "run all stages: crawl, download, select, shard",
    "crawl": "fetch pages and write the URL manifest",
    "download": "download the images in the manifest",
    "select": "filter images by the properties recorded at download",
    "shard": "crop, resize and write the training shards",
}


def add(commands: Commands) -> None:
    """Add these commands to the parser."""
    for name, what in STAGE_HELP.items():
        stage = add_command(commands, name, what, _run)
        stage.set_defaults(
            stages=tuple(STAGES) if name == "run" else (name,),
            refresh=False,
            variant=None,
            preview=False,
        )
        if name in ("run", "crawl"):
            stage.add_argument(
                "--refresh", action="store_true", help="visit every page again to find new images"
            )
        if name == "select":
            stage.add_argument(
                "--preview",
                action="store_true",
                help="only write a page that shows the images next to each limit",
            )
        if name == "shard":
            add_variant(stage)
    retry = add_command(commands, "retry", "retry failed pages and images", _retry)
    retry.add_argument("--kind", action="append", default=[], help="only failures of this kind")
    retry.add_argument("--host", action="append", default=[], help="only failures of this host")
    retry.add_argument(
        "--older-than", type=float, metavar="HOURS", help="only failures older than this"
    )
    retry.add_argument(
        "--everything",
        action="store_true",
        help="also retry failures whose kind is not retryable",
    )
    add_command(commands, "status", "show progress and counts for a dataset", _status)


def add_variant(command: argparse.ArgumentParser) -> None:
    """Add `--variant`: another set of shards from the same originals."""
    command.add_argument(
        "--variant",
        metavar="SUFFIX",
        help="another set of shards from the same images: dataset NAME-SUFFIX (use with "
        "--set shards.…)",
    )


def _run(args: argparse.Namespace) -> int:
    results: dict[str, Any] = {}
    failed: Counter[str] = Counter()
    before = _digest(job_from_args(args).dataset)
    for name in args.stages:
        with open_job(args) as (recipe, dataset, log):
            if args.preview:
                from pipeline.select.preview import preview

                print(preview(recipe, dataset, log))
            else:
                results[name] = run_stage(
                    name, recipe, dataset, log, refresh=args.refresh, variant=args.variant
                )
        failed += log.failed
    if args.json:
        print(json.dumps({name: asdict(result) for name, result in results.items()}))
    _explain_next(args, dataset, results, before)
    explain_failures(args, dataset, failed)
    return 1 if failed or any(getattr(result, "failed", 0) for result in results.values()) else 0


def _explain_next(
    args: argparse.Namespace, dataset: DatasetPaths, results: dict[str, Any], before: str
) -> None:
    """Print which stages to run next; `before` is the digest of the old selection."""
    downloaded, selected = results.get("download"), results.get("select")
    if "shard" in results or args.preview:
        return
    if selected is None and downloaded and downloaded.fetched:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        say(f"{count_of(downloaded.fetched, 'new image')} not in the shards yet; run: {todo}")
    elif selected and not selected.kept:
        say(_why_none_is_kept(args, dataset, selected.rejected))
    elif selected and (not dataset.shard_index.exists() or _digest(dataset) != before):
        say(f"the selection is not in the shards yet; run: {command(args, 'shard')}")


def _why_none_is_kept(
    args: argparse.Namespace, dataset: DatasetPaths, rejected: dict[str, int]
) -> str:
    if not rejected:
        return f"{dataset.originals_dir}: {NO_IMAGES}"
    reasons = ", ".join(f"{name} {count:,}" for name, count in rejected.items())
    return (
        f"no image is kept: {reasons}; to see what each limit rejects, run: "
        f"{command(args, 'select')} --preview"
    )


def _digest(dataset: DatasetPaths) -> str:
    """Return the digest of the selection; empty if it cannot be read."""
    try:
        with os.fdopen(open_regular(dataset.selection), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # the stage names the file
        return ""


def _retry(args: argparse.Namespace) -> int:
    from pipeline.retry import retry_failures

    with open_job(args) as (recipe, dataset, log):
        result = retry_failures(
            recipe,
            dataset,
            log,
            kinds=tuple(args.kind),
            hosts=tuple(args.host),
            older_than=args.older_than,
            everything=args.everything,
        )
        log.emit("retry", "done", tried=result.tried, resolved=result.resolved)
    if args.json:
        print(json.dumps(asdict(result)))
    _explain_retry(args, result, dataset)
    explain_failures(args, dataset, log.failed)
    return 1 if result.still_failed or log.failed else 0


def _explain_retry(args: argparse.Namespace, result: RetryResult, dataset: DatasetPaths) -> None:
    """Print why nothing was retried, and how to use the resolved failures."""
    if result.resolved:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        say(f"{result.resolved:,} resolved; they are not in the shards yet; run: {todo}")
    if result.tried:
        return
    if not result.passed_over:
        say(f"nothing to retry: {dataset.failure_log} has no unresolved failure")
        return
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(result.passed_over.items()))
    say(
        f"nothing to retry: no unresolved failure is retryable and matches the options "
        f"({reasons}); use --kind KIND or --everything to retry kinds that are not retryable"
    )


def _status(args: argparse.Namespace) -> int:
    from pipeline.status import format_status, read_status

    dataset = job_from_args(args, reads=True).dataset
    folders = (dataset.manifest_dir, dataset.data_dir, dataset.failure_log.parent)
    if not any(folder.exists() for folder in folders):
        from pipeline.recipe import locate_recipe

        locate_recipe(args.recipe)  # raises if there is no such recipe either
    status = read_status(dataset)
    print(json.dumps(status.to_json()) if args.json else format_status(status))
    return 0
