"""Run stages, retry failures, tell where a data set stands."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

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
from pipeline.recipe import recipe_path
from pipeline.retry import RetryResult, retry_failures
from pipeline.select.preview import preview
from pipeline.status import format_status, read_status

STAGE_HELP = {
    "run": "all stages: crawl, download, select, shard",
    "crawl": "fetch the pages, write the URL manifest",
    "download": "fetch the images of the manifest",
    "select": "judge the images by their recorded facts",
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
                "--refresh", action="store_true", help="visit every page again for what is new"
            )
        if name == "select":
            stage.add_argument(
                "--preview",
                action="store_true",
                help="only write a page of the images at the limits, to set them by looking",
            )
        if name == "shard":
            add_variant(stage)
    retry = add_command(commands, "retry", "try again what the failure log holds", _retry)
    retry.add_argument("--kind", action="append", default=[], help="only failures of this kind")
    retry.add_argument("--host", action="append", default=[], help="only failures of this host")
    retry.add_argument(
        "--older-than", type=float, metavar="HOURS", help="only failures older than this"
    )
    retry.add_argument(
        "--everything", action="store_true", help="also what is not worth retrying by its kind"
    )
    add_command(commands, "status", "where the data set stands, in one screen", _status)


def add_variant(command: argparse.ArgumentParser) -> None:
    """Let a command work on a second set from the same originals."""
    command.add_argument(
        "--variant",
        metavar="WORD",
        help="a second set from the same images, the data set NAME-WORD (with --set shards.…)",
    )


def _run(args: argparse.Namespace) -> int:
    facts: dict[str, dict[str, Any]] = {}
    failed: Counter[str] = Counter()
    before = _digest(job_from_args(args).dataset)
    for name in args.stages:
        with open_job(args) as (recipe, dataset, log):
            if args.preview:
                print(preview(recipe, dataset, log))
            else:
                facts[name] = run_stage(
                    name, recipe, dataset, log, refresh=args.refresh, variant=args.variant
                )
        failed += log.failed
    if args.json:
        print(json.dumps(facts))
    _explain_next(args, dataset, facts, before)
    explain_failures(args, dataset, failed)
    return 1 if failed or any(result.get("failed") for result in facts.values()) else 0


def _explain_next(
    args: argparse.Namespace, dataset: DatasetPaths, facts: dict[str, dict[str, Any]], before: str
) -> None:
    """Say which stages the shards still wait for; `before` is the digest of the old selection."""
    fetched, selected = facts.get("download", {}).get("fetched"), facts.get("select")
    if "shard" in facts or args.preview:
        return
    if selected is None and fetched:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        say(f"{fetched:,} new images; they are not in the shards yet; run: {todo}")
    elif (
        selected
        and selected["kept"]
        and (not dataset.shard_index.exists() or _digest(dataset) != before)
    ):
        say(f"the selection is not in the shards yet; run: {command(args, 'shard')}")


def _digest(dataset: DatasetPaths) -> str:
    """Identifies the kept list; empty if there is none."""
    try:
        with dataset.selection.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _retry(args: argparse.Namespace) -> int:
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
        log.emit("retry", "done", tried=result.tried, mended=result.resolved)
    if args.json:
        print(json.dumps(asdict(result)))
    _explain_retry(args, result, dataset)
    explain_failures(args, dataset, log.failed)
    return 1 if result.still_failed or log.failed else 0


def _explain_retry(args: argparse.Namespace, result: RetryResult, dataset: DatasetPaths) -> None:
    """Say why nothing was tried, and what to do with what was recovered."""
    if result.resolved:
        todo = " && ".join(command(args, name) for name in ("select", "shard"))
        say(f"{result.resolved:,} recovered; they are not in the shards yet; run: {todo}")
    if result.tried:
        return
    if not result.passed_over:
        say(f"retry tried nothing: {dataset.failure_log} has no outstanding failure")
        return
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(result.passed_over.items()))
    say(
        f"retry tried nothing: no outstanding failure is worth it or fits the options ({reasons}); "
        "--kind KIND and --everything try also what is not worth it by its kind"
    )


def _status(args: argparse.Namespace) -> int:
    dataset = job_from_args(args, reads=True).dataset
    folders = (dataset.manifest_dir, dataset.data_dir, dataset.failure_log.parent)
    if not any(folder.exists() for folder in folders):
        recipe_path(args.recipe)  # so that a name without recipe and dataset is a mistake
    status = read_status(dataset)
    print(json.dumps(status.to_json()) if args.json else format_status(status))
    return 0
