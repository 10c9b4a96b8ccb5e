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


def _run(argv: Sequence[str] | None) -> int:
    # imported here, so that an interrupt during the import is handled
    from pipeline.commands import stages

    words = sys.argv[1:] if argv is None else argv
    parser = CommandParser(prog="python -m pipeline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stages.add(commands)
    if not words or words[0] not in commands.choices:  # their imports take longer than `status`
        from pipeline.commands import datasets, recipes

        recipes.add(commands)
        datasets.add(commands)
    args = parser.parse_args(words)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    exit_process(main())
