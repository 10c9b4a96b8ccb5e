"""Run stages, retry failures, tell where a data set stands."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pipeline.commands.common import Commands, add_command, job_of, opened
from pipeline.job import STAGES, run_stage
from pipeline.stages.preview import preview
from pipeline.stages.retry import retry_failures
from pipeline.status import describe, survey

WHAT = {
    "run": "all stages: crawl, download, select, shard",
    "crawl": "fetch the pages, write the URL manifest",
    "download": "fetch the images of the manifest",
    "select": "judge the images by their recorded facts",
    "shard": "crop, resize and write the training shards",
}


def add(commands: Commands) -> None:
    """Add these commands to the parser."""
    for name, what in WHAT.items():
        command = add_command(commands, name, what, _run)
        command.set_defaults(
            stages=tuple(STAGES) if name == "run" else (name,),
            refresh=False,
            variant=None,
            preview=False,
        )
        if name in ("run", "crawl"):
            command.add_argument(
                "--refresh", action="store_true", help="visit every page again for what is new"
            )
        if name == "select":
            command.add_argument(
                "--preview",
                action="store_true",
                help="also write a page of the images at the limits, to set them by looking",
            )
        if name == "shard":
            add_variant(command)
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
    for name in args.stages:
        with opened(args) as (recipe, dataset, log):
            facts[name] = run_stage(
                name, recipe, dataset, log, refresh=args.refresh, variant=args.variant
            )
            if args.preview:
                print(preview(recipe, dataset, log))
    if args.json:
        print(json.dumps(facts))
    return 1 if any(result.get("failed") for result in facts.values()) else 0


def _retry(args: argparse.Namespace) -> int:
    with opened(args) as (recipe, dataset, log):
        result = retry_failures(
            recipe,
            dataset,
            log,
            kinds=tuple(args.kind),
            hosts=tuple(args.host),
            older_than=args.older_than,
            everything=args.everything,
        )
        log.emit("retry", "done", tried=result.tried, mended=result.mended)
    return 1 if result.still_failed else 0


def _status(args: argparse.Namespace) -> int:
    status = survey(job_of(args).dataset)
    print(json.dumps(status.to_json()) if args.json else describe(status))
    return 0
