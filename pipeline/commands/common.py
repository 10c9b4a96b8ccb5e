"""What the commands share: their options, the job they name, and the work on an open data set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.console import Console
from pipeline.contract import Dataset
from pipeline.events import EventLog
from pipeline.job import Job
from pipeline.recipe import Recipe

Command = Callable[[argparse.Namespace], int]
Commands = Any
"""What `argparse` gives for sub-commands; its type has no public name."""


def add_plain(commands: Commands, name: str, what: str, run: Command) -> argparse.ArgumentParser:
    """Add a command without options of its own."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    command.set_defaults(run=run)
    return command


def add_command(commands: Commands, name: str, what: str, run: Command) -> argparse.ArgumentParser:
    """Add a command that works on the data set of a recipe."""
    command = add_plain(commands, name, what, run)
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


def job_of(args: argparse.Namespace) -> Job:
    """The job that the options name."""
    return Job(args.recipe, dict(args.set), args.root)


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[Recipe, Dataset, EventLog]]:
    """The recipe, the data set and its log, shown on the console, while nobody else has it."""
    with (
        Console(args.quiet) as console,
        job_of(args).open([console.on_event], [console.on_progress]) as job,
    ):
        yield job


def _setting(text: str) -> tuple[str, Any]:
    """`shards.resolution=128` as key and value; the value is JSON, or else the text itself."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
