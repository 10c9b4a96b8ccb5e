"""Functions shared by the commands: common options, the job, messages."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.console import Console
from pipeline.contract import DatasetPaths
from pipeline.errors import UserError
from pipeline.events import EventLog
from pipeline.job import Job
from pipeline.outside_text import printable, without_passwords
from pipeline.web.failures import FAILURE_KINDS

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

Command = Callable[[argparse.Namespace], int]
Commands = Any
"""The return type of `add_subparsers`, which has no public name."""


def add_simple_command(
    commands: Commands, name: str, what: str, run: Command
) -> argparse.ArgumentParser:
    """Add a command without the common options."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.set_defaults(run=run)
    return command


def add_command(commands: Commands, name: str, what: str, run: Command) -> argparse.ArgumentParser:
    """Add a command for the dataset of a recipe, with the common options."""
    command = add_simple_command(commands, name, what, run)
    command.add_argument(
        "recipe", help="a recipe: its name in pipeline/sites, a TOML file, or its URL"
    )
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_setting,
        help="override a key of the recipe, for example shards.resolution=128",
    )
    command.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        default=Path.cwd(),
        help="project folder (default: the current folder)",
    )
    command.add_argument("--quiet", action="store_true", help="print only errors")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def job_from_args(args: argparse.Namespace, *, reads: bool = False) -> Job:
    """Return the job for the parsed options.

    Args:
        reads: the command only reads, so the project folder must exist.

    Raises:
        UserError: the project folder does not exist, or is not a folder.
    """
    root = args.root.absolute()
    if not root.is_dir() and (reads or root.exists()):
        reason = "not a folder" if root.exists() else "folder does not exist; create it"
        raise UserError(f"--root {args.root}: {reason}")
    return Job(args.recipe, dict(args.set), root)


@contextmanager
def open_job(args: argparse.Namespace) -> Iterator[tuple[Recipe, DatasetPaths, EventLog]]:
    """Open the job under its lock, and show its events and progress on the console."""
    with (
        Console(args.quiet) as console,
        job_from_args(args).open([console.on_event], [console.on_progress]) as job,
    ):
        yield job


def say(text: str, file: TextIO | None = None) -> None:
    """Print one line without control characters and passwords, by default to standard error."""
    print(printable(without_passwords(text)), file=file or sys.stderr)


def explain_failures(args: argparse.Namespace, dataset: DatasetPaths, failed: Counter[str]) -> None:
    """Print why the exit status is 1: the number of failures, the log, and what to do."""
    total = sum(failed.values())
    retryable = sum(count for kind, count in failed.items() if FAILURE_KINDS.get(kind))
    if not total:
        return
    if retryable:
        todo = f"to retry {retryable:,} of them, run: {command(args, 'retry')}"
    elif failed["opt_out"] == total:
        todo = "all are opt-outs (politeness.opt_out_overrides overrides a signal, with a reason)"
    else:
        todo = "none is retryable (use retry --everything to retry them anyway)"
    say(f"{total:,} failed; the reasons are in {dataset.failure_log}; {todo}")
    if failed["internal"]:
        say(f"{failed['internal']:,} of them are errors of this program (kind internal)")


def command(args: argparse.Namespace, name: str) -> str:
    """Return the command line of another command for the same dataset."""
    return f"python -m pipeline {name} {shlex.quote(args.recipe)}{root_option(args.root)}"


def root_option(root: Path) -> str:
    """Return the option that names the project's folder; empty for the current one."""
    return "" if root.absolute() == Path.cwd() else f" --root {shlex.quote(str(root))}"


def _setting(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`; a value that is not JSON is text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        shown = printable(without_passwords(text), 100)
        raise argparse.ArgumentTypeError(f"{shown!r}: expected KEY=VALUE")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value
