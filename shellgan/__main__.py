"""`shellgan WHERE`: from a gallery, a folder or a dataset to an explorer of generated images."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contract import UserError, suggestion
from pipeline.exit import CommandParser, exit_process, exit_status, shown_as
from pipeline.outside_text import printable
from shellgan import __version__
from training.latent.cli import float_in_range

if TYPE_CHECKING:
    from shellgan.journey import Line, Options

FORWARDED = {
    "status": ("pipeline.__main__", "status"), "curate": ("pipeline.__main__", "curate"),
    "sample": ("training.sample", ""), "explore": ("training.explore", ""),
    "evaluate": ("training.evaluate", ""), "export": ("training.export", ""),
    "walk": ("training.walk", ""), "translate": ("training.translate", ""),
}  # fmt: skip
"""The module of each subcommand, and the word that it needs first."""
WORDS = (*FORWARDED, "doctor", "completion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in FORWARDED:
        module, first = FORWARDED[words[0]]
        program = f"python -m {module.removesuffix('.__main__')}"
        with shown_as(program, "shellgan" if first else f"shellgan {words[0]}"):
            status: int = import_module(module).main([*filter(None, [first]), *words[1:]])
        return status
    if words[:1] == ["doctor"]:
        from shellgan.doctor import examine

        return exit_status(lambda: examine(Path.cwd()))
    if words[:1] == ["completion"]:
        return exit_status(lambda: print(_completion(words[1:])))
    return exit_status(lambda: _go(words))


def _completion(words: Sequence[str]) -> str:
    from shellgan.completion import command_parser, completion

    commands = {"completion": command_parser(), "doctor": CommandParser()}
    for name, (module, first) in FORWARDED.items():
        one: CommandParser = import_module(module).command_parser()
        commands[name] = one.commands[first] if first else one
    return completion(parser(has_where=False), commands, words)


def parser(has_where: bool = True) -> CommandParser:
    """Return the parser of `shellgan WHERE`, on request without WHERE."""
    made = CommandParser(
        prog="shellgan", usage="shellgan WHERE [options] | shellgan COMMAND …",
        description="From images to an explorer of generated images. Run the same command again "
        "to resume.",
        epilog=f"Commands: {', '.join(WORDS)}. Options of training follow by dotted name, "
        "as in --generator.width 32.", allow_abbrev=False,
    )  # fmt: skip
    if has_where:
        made.add_argument(
            "where", metavar="WHERE",
            help="web address, folder, zip, dataset of another tool, shards, recipe or run",
        )  # fmt: skip
    made.add_argument(
        "--hours",
        type=float_in_range("--hours", 1e-4, 1e4),
        default=2.0,
        help="hours of training (default: 2)",
    )
    made.add_argument("--preset", default="auto", help="preset of training (default: auto)")
    made.add_argument(
        "--out", "--root", type=Path, default=Path(), metavar="DIR",
        help="folder for everything that is written (default: the current folder)",
    )  # fmt: skip
    made.add_argument("--yes", action="store_true", help="start without asking")
    made.add_argument("--no-explorer", action="store_true", help="end after the evaluation")
    made.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    made.add_argument("--version", action="version", version=f"shellgan {__version__}")
    return made


def _go(words: Sequence[str]) -> int:
    made = parser()
    args, rest = made.parse_known_args(words)

    from shellgan import journey
    from shellgan.mixed import MixedContent
    from shellgan.where import find, full_path

    root = full_path(args.out)
    where = find(args.where, root, WORDS)
    training = _training_options(made, args.preset, rest)
    options = journey.Options(root, args.hours, args.preset, training)
    if where.kind == "run":
        return _explore(where.location, args)
    first = {"files": ("import",), "shards": ()}.get(where.kind, ("crawl", "download"))
    chosen = () if where.kind == "shards" else ("select", "shard")
    last = () if args.no_explorer else ("explore",)
    line = journey.Line((*first, *chosen, "train", "evaluate", *last), args.hours)
    if where.kind == "shards":
        shards = where.location
    else:
        where, recipe, has_begun = journey.prepare(where, options, _say)
        if not has_begun and not _is_wanted(
            journey.describe(where, recipe, options, not args.no_explorer), args
        ):
            _say(f"nothing was started; the proposed recipe is {recipe}")
            return 0
        try:
            shards = journey.make_shards(where, recipe, options, line)
        except KeyboardInterrupt:
            line.interrupt()
            raise
        except MixedContent as error:
            for one in str(error).splitlines():
                _say(one)
            return 1
    return _train(shards, options, line, args)


def _training_options(made: CommandParser, preset: str, words: Sequence[str]) -> dict[str, str]:
    """Return the options of training by dotted name.

    Raises:
        UserError: the preset or an option does not exist, or a value is invalid.
    """
    from training.config import Config
    from training.fit import parse_dotted
    from training.planning.auto import resolve_first

    sections = {one.name for one in fields(Config)}
    for word, after in zip_longest(words, words[1:], fillvalue="--"):
        name, equals, _ = word.partition("=")
        section = name.removeprefix("--").replace("-", "_").partition(".")[0]
        if not name.startswith("--") or section in sections:
            continue
        hint = suggestion(name, made.option_names())
        if hint or (not equals and after.startswith("--")):
            raise UserError(f"{name}: unknown option{hint or '; shellgan --help lists them'}")
    options = parse_dotted(words)
    resolve_first(preset, options)
    return options


def _train(shards: str, options: Options, line: Line, args: argparse.Namespace) -> int:
    from shellgan import journey
    from training.session import EXIT_STATUS

    index = journey.read_index(shards, options)
    folder = options.run_folder(index.name)
    run = journey.train(shards, folder, options, line)
    if run is not None:
        line.end(f"{run.seen / 1000:g} thousand images; {run.detail or run.reason.value}")
        if not run.is_complete:
            _say("state saved; run the same command again to resume")
            return EXIT_STATUS[run.reason]
        if index.nsamples >= journey.NEEDED:
            journey.evaluate(run, index.nsamples, line)
    _say(f"report {folder / 'report.html'}")
    if args.no_explorer:
        return 0
    line.begin("explore")
    line.end(f"opens now; to open it again: shellgan explore {shlex.quote(str(folder))}")
    return _explore(str(folder), args)


def _explore(run: str, args: argparse.Namespace) -> int:
    from training.explore import main as explore

    return explore([run, *(["--no-browser"] if args.no_browser else [])])


def _is_wanted(screen: str, args: argparse.Namespace) -> bool:
    print(screen, flush=True)
    if args.yes:
        return True
    try:
        return input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        raise UserError("no terminal to ask on; add --yes") from None


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


if __name__ == "__main__":
    exit_process(main())
