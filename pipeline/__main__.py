"""`python -m pipeline`: the stages without a server.

Exit status: 0 success; 1 finished, but some items failed and are in the failure log; 2 user error;
130 interrupted, state saved.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline.exit import CommandParser, exit_process, exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    return exit_status(lambda: _run(argv))


def command_parser(words: Sequence[str] = ()) -> CommandParser:
    """Return the parser of the command line; if `words` begin with a stage, only with the stages,
    because the imports of the other commands take longer."""
    from pipeline.commands import stages

    parser = CommandParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stages.add(commands)
    if not words or words[0] not in commands.choices:
        from pipeline.commands import datasets, recipes

        recipes.add(commands)
        datasets.add(commands)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    # its imports are inside, so that an interrupt during them is handled
    words = sys.argv[1:] if argv is None else argv
    args = command_parser(words).parse_args(words)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    exit_process(main())
