"""The commands `check-recipe` and `new-recipe`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.common import Commands, add_simple_command, say
from pipeline.crawl.check_recipe import COLUMNS, check_recipe, propose_recipe
from pipeline.outside_text import printable
from pipeline.recipe import locate_recipe
from pipeline.units import count_of
from pipeline.web.politeness import Politeness
from pipeline.web.waits import Wait

_MAX_CHARACTERS = 1000
"""Longer values are truncated in the table."""


def add(commands: Commands) -> None:
    """Add these commands to the parser."""
    what = "show what a recipe extracts from one page"
    check = add_simple_command(commands, "check-recipe", what, _check)
    check.add_argument(
        "recipe", help="a recipe: its name in pipeline/sites, a TOML file, or its URL"
    )
    check.add_argument("--url", required=True, help="a page of the site")
    new = add_simple_command(commands, "new-recipe", "propose a recipe for a page's site", _new)
    new.add_argument("url", help="the page to start from")
    new.add_argument(
        "--allow-private",
        action="store_true",
        help="allow a site on this machine or in the private network",
    )


def _check(args: argparse.Namespace) -> int:
    is_file = Path(args.recipe).is_file()  # of any extension
    where = Path(args.recipe) if is_file else locate_recipe(args.recipe)
    found = check_recipe(where, args.url, _print_wait)
    out = Console(highlight=False)
    if found.rows():
        table = Table(
            title=Text(f"{count_of(len(found.rows()), 'image')} on {printable(found.url)}")
        )
        for column in COLUMNS:
            table.add_column(column, overflow="fold")
        for row in found.rows():
            table.add_row(*(Text(printable(cell, _MAX_CHARACTERS)) for cell in row))
        out.print(table)
    else:
        why = found.error or (f"the page has {found.seen}" if found.seen else "")
        say(f"no image on {found.url}" + (f": {why}" if why else ""), sys.stdout)
    for page in found.follow:
        say(f"follows {page}", sys.stdout)
    for note, count in found.skipped.items():
        say(f"skipped: {note} ({count})", sys.stdout)
    return 0 if found.rows() or found.follow else 1


def _new(args: argparse.Namespace) -> int:
    rules = Politeness(allow_private=args.allow_private)
    proposal = propose_recipe(args.url, rules, _print_wait, lambda page: say(f"reading {page}"))
    for line in proposal.splitlines():
        say(line, sys.stdout)  # its escapes are TOML's
    return 0


def _print_wait(wait: Wait) -> None:
    say(f"waiting for {wait}")
