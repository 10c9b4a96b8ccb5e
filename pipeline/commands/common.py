"""What the commands share: their options, the job they name, and the work on an open data set."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pipeline.console import Console
from pipeline.contract import DatasetPaths
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.job import Job
from pipeline.outside_text import printable, without_passwords
from pipeline.recipe import Recipe
from pipeline.web.failures import FAILURE_KINDS

Command = Callable[[argparse.Namespace], int]
Commands = Any
"""What `argparse` gives for sub-commands; its type has no public name."""


def add_simple_command(
    commands: Commands, name: str, what: str, run: Command
) -> argparse.ArgumentParser:
    """Add a command without options of its own."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.set_defaults(run=run)
    return command


def add_command(commands: Commands, name: str, what: str, run: Command) -> argparse.ArgumentParser:
    """Add a command that works on the data set of a recipe."""
    command = add_simple_command(commands, name, what, run)
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
    return command


def job_from_args(args: argparse.Namespace, *, reads: bool = False) -> Job:
    """The job that the options name.

    Args:
        reads: the command writes nothing, so the project's folder must exist.

    Raises:
        UserError: the project's folder does not exist, or is no folder.
    """
    root = args.root.absolute()
    if not root.is_dir() and (reads or root.exists()):
        reason = "not a folder" if root.exists() else "no such folder; create it"
        raise UserError(f"--root {args.root}: {reason}")
    return Job(args.recipe, dict(args.set), root)


@contextmanager
def open_job(args: argparse.Namespace) -> Iterator[tuple[Recipe, DatasetPaths, EventLog]]:
    """The recipe, the data set and its log, shown on the console, while nobody else has it."""
    with (
        Console(args.quiet) as console,
        job_from_args(args).open([console.on_event], [console.on_progress]) as job,
    ):
        yield job


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line for a person, to standard error if no other file is given."""
    print(printable(without_passwords(text)), file=file or sys.stderr)


def explain_failures(args: argparse.Namespace, dataset: DatasetPaths, failed: Counter[str]) -> None:
    """Say why the exit status is 1: how many failed, where the reasons are, what to do."""
    total = sum(failed.values())
    retryable = sum(count for kind, count in failed.items() if FAILURE_KINDS.get(kind))
    if not total:
        return
    if retryable:
        todo = f"to try {retryable:,} of them again, run: {command(args, 'retry')}"
    else:
        todo = "none is worth trying again (retry --everything does it all the same)"
    say(f"{total:,} failed; the reasons are in {dataset.failure_log}; {todo}")
    if failed["internal"]:
        say(f"{failed['internal']:,} of them by errors of this program (kind internal)")


def command(args: argparse.Namespace, name: str) -> str:
    """The command line of another command on the same dataset."""
    return f"python -m pipeline {name} {shlex.quote(args.recipe)}"


def _setting(text: str) -> tuple[str, Any]:
    """`shards.resolution=128` as key and value; the value is JSON, or else the text itself."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        shown = printable(without_passwords(text), 100)
        raise argparse.ArgumentTypeError(f"{shown!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value
