"""`python -m pipeline`: the stages without a server, for a shell and for scripts.

Exit status: 0 done; 1 finished with failures that the log holds; 2 the user's mistake;
130 interrupted, state saved.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table

from pipeline.command import exit_status
from pipeline.console import Console
from pipeline.job import STAGES, Job, run_stage
from pipeline.manifest import export_manifest, import_manifest
from pipeline.politeness import Politeness
from pipeline.stages.check_recipe import COLUMNS, check_recipe, propose_recipe
from pipeline.stages.retry import retry_failures
from pipeline.status import describe, survey

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = _parser().parse_args(argv)
    run: Command = args.run
    return exit_status(lambda: run(args))


def _run_stages(args: argparse.Namespace) -> int:
    job = _job(args)
    facts: dict[str, dict[str, Any]] = {}
    with Console(args.quiet) as console:
        for name in args.stages:
            with job.open([console.on_event], [console.on_progress]) as (recipe, dataset, log):
                facts[name] = run_stage(name, recipe, dataset, log, refresh=args.refresh)
    if args.json:
        print(json.dumps(facts))
    return 1 if any(result.get("failed") for result in facts.values()) else 0


def _retry(args: argparse.Namespace) -> int:
    job = _job(args)
    with (
        Console(args.quiet) as console,
        job.open([console.on_event], [console.on_progress]) as (recipe, dataset, log),
    ):
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
    status = survey(_job(args).dataset)
    print(json.dumps(status.to_json()) if args.json else describe(status))
    return 0


def _check_recipe(args: argparse.Namespace) -> int:
    found = check_recipe(args.file, args.url)
    out = RichConsole(highlight=False)
    if found.rows():
        table = Table(title=f"{len(found.rows())} images on {found.url}")
        for column in COLUMNS:
            table.add_column(column, overflow="fold")
        for row in found.rows():
            table.add_row(*row)
        out.print(table)
    else:
        out.print(f"no image on {found.url}" + (f": {found.problem}" if found.problem else ""))
    for page in found.follow:
        out.print(f"follows {page}")
    for note, count in found.notes.items():
        out.print(f"passed over: {note} ({count})")
    return 0 if found.rows() or found.follow else 1


def _new_recipe(args: argparse.Namespace) -> int:
    print(propose_recipe(args.url, Politeness(allow_private=args.allow_private)))
    return 0


def _export_manifest(args: argparse.Namespace) -> int:
    print(f"{export_manifest(_job(args).dataset, args.file):,} rows in {args.file}")
    return 0


def _import_manifest(args: argparse.Namespace) -> int:
    with _job(args).open() as (_recipe, dataset, _log):
        added = import_manifest(dataset, args.file)
    print(f"{added.added:,} of {added.read:,} rows are new in {dataset.urls}")
    return 0


def _job(args: argparse.Namespace) -> Job:
    return Job(args.recipe, dict(args.set), args.root)


def _setting(text: str) -> tuple[str, Any]:
    """`shards.resolution=128` as key and value; the value is JSON, or else the text itself."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, what in {
        "run": "all stages: crawl, download, select, shard",
        "crawl": "fetch the pages, write the URL manifest",
        "download": "fetch the images of the manifest",
        "select": "judge the images by their recorded facts",
        "shard": "crop, resize and write the training shards",
    }.items():
        command = _command(commands, name, what, _run_stages)
        command.set_defaults(stages=tuple(STAGES) if name == "run" else (name,), refresh=False)
        if name in ("run", "crawl"):
            command.add_argument(
                "--refresh", action="store_true", help="visit every page again for what is new"
            )
    retry = _command(commands, "retry", "try again what the failure log holds", _retry)
    retry.add_argument("--kind", action="append", default=[], help="only failures of this kind")
    retry.add_argument("--host", action="append", default=[], help="only failures of this host")
    retry.add_argument(
        "--older-than", type=float, metavar="HOURS", help="only failures older than this"
    )
    retry.add_argument(
        "--everything", action="store_true", help="also what is not worth retrying by its kind"
    )
    _command(commands, "status", "where the dataset stands, in one screen", _status)
    for name, what, move in (
        ("export-manifest", "write the URL manifest for another downloader", _export_manifest),
        ("import-manifest", "add the rows of another downloader's manifest", _import_manifest),
    ):
        moved = _command(commands, name, what, move)
        moved.add_argument("file", type=Path, help="a .parquet, .csv or .jsonl file")
    _recipe_commands(commands)
    return parser


def _recipe_commands(commands: Any) -> None:
    what = "show what a recipe takes from one page"
    check = commands.add_parser("check-recipe", help=what, description=what)
    check.add_argument("file", type=Path, help="the recipe, a TOML file")
    check.add_argument("--url", required=True, help="a page of the site")
    check.set_defaults(run=_check_recipe)
    what = "look at a page and propose a recipe for its site"
    new = commands.add_parser("new-recipe", help=what, description=what)
    new.add_argument("url", help="the page to start from")
    new.add_argument(
        "--allow-private", action="store_true", help="the site is on this machine or network"
    )
    new.set_defaults(run=_new_recipe)


def _command(commands: Any, name: str, what: str, run: Command) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.add_argument("recipe", help="a recipe's name (pipeline/sites) or a TOML file")
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_setting,
        help="override a key of the recipe, such as shards.resolution=128",
    )
    command.add_argument(
        "--root", type=Path, default=Path.cwd(), help="the project's folder (default: this one)"
    )
    command.add_argument("--quiet", action="store_true", help="show only what went wrong")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=run)
    return command


if __name__ == "__main__":
    sys.exit(main())
