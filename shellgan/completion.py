"""`shellgan completion SHELL`: a script with which a shell completes the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.contract import CommandParser
from pipeline.names import recipe_names

SHELLS = ("bash", "zsh", "fish")
_FILES_TOO = {
    "bash": ("complete -o bashdefault -F", "complete -o bashdefault -o default -F"),
    "zsh": ("_describe 'shellgan commands' _commands", "_describe command _commands; _files"),
    "fish": ("complete -c shellgan -f\n", ""),
}
"""What is replaced in the scripts, because WHERE can be a file as well as a command."""


def command_parser() -> CommandParser:
    """Return the parser of the command line."""
    made = CommandParser(
        prog="shellgan completion",
        description="Print a script that completes commands, options, recipes and runs. For bash, "
        'add this line to ~/.bashrc: eval "$(shellgan completion bash)"',
    )
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return made


def completion(
    parser: CommandParser, commands: Mapping[str, CommandParser], words: Sequence[str]
) -> str:
    """Return the script for the shell in `words`.

    Args:
        parser: the parser of the command without WHERE.
        commands: the parsers of the words that can be in the place of WHERE.
    """
    import shtab

    shell = command_parser().parse_args(words).shell
    runs = shtab.cmd("ls runs 2>/dev/null")
    recipes = shtab.cmd(f"ls *.toml 2>/dev/null; echo {' '.join(recipe_names())}")
    values = {"run": runs, "runs": runs, "recipe": recipes}
    added = parser.add_subparsers(metavar="WHERE")
    for name, one in commands.items():
        what = (one.description or "").partition(".")[0] or name  # without help, it is left out
        added.add_parser(name, parents=[one], add_help=False, help=what, description=what)
        for argument in one.arguments:
            if argument.dest in values:
                argument.complete = values[argument.dest]  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    found, replaced = _FILES_TOO[shell]
    return script.replace(found, replaced)
