"""Writes the generated pages of this folder: `python docs/generate.py`.

`commands.md` contains the help of every command, `presets.md` the tables of presets,
`recipe-keys.md` and `training-keys.md` those of all keys, `failure-kinds.md` the kinds of failures.
"""

from __future__ import annotations

import io
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import keys  # noqa: E402 - beside this file

PYTHON = "3.11"
"""The wording and line breaks of the help are those of this version's argparse."""
COMMANDS = {
    "shellgan": "shellgan.__main__",
    "pipeline": "pipeline.__main__",
    "pipeline.serve": "pipeline.serve",
    "pipeline.demo": "pipeline.demo.__main__",
    **{
        f"training.{name}": f"training.{name}"
        for name in (
            "fit", "sample", "evaluate", "explore", "export", "walk", "mix", "directions",
            "nearest", "project", "translate", "probe",
        )
    },
}  # fmt: skip
"""The arguments of `python -m`, and the modules with their `main`."""


FAILURE_HEAD = """# Failure kinds

The kinds in `logs/NAME/failures.jsonl` and in the output of `python -m pipeline status NAME`.
`python -m pipeline retry NAME` tries the retryable ones again, `retry NAME --kind KIND` only those
of one kind. The last line of a page or image counts; `resolved` means that a later
attempt succeeded.

| kind | retryable | meaning | what to do |
|---|---|---|---|"""


def help_of(main: Callable[[Sequence[str]], int], *words: str) -> str:
    """Return the output of the command for `--help`."""
    out = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "98"
    try:
        with redirect_stdout(out):
            main([*words, "--help"])
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return out.getvalue().rstrip()


def subcommands(text: str) -> list[str]:
    """Return the names in a help's list of commands."""
    listed = text.partition("COMMAND\n")[2].partition("\n\n")[0]
    return re.findall(r"^    ([a-z-]+)\b", listed, re.M)


def commands_page() -> str:
    """Return the page of all commands."""
    parts = [
        "# Commands\n\nThe help of every command, written by `python docs/generate.py` "
        f"(Python {PYTHON}).\n"
    ]
    for name, module in COMMANDS.items():
        main = import_module(module).main
        text = help_of(main)
        parts.append(_section(2, f"python -m {name}", text))
        words = subcommands(text) if name == "pipeline" else ()
        parts += [_section(3, f"python -m {name} {word}", help_of(main, word)) for word in words]
    return "\n".join(parts)


def _section(level: int, title: str, text: str) -> str:
    return f"{'#' * level} {title}\n\n```text\n{text}\n```\n"


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name."""
    from training.catalogue import document

    return {
        "commands.md": commands_page(),
        "presets.md": document(),
        "recipe-keys.md": keys.recipe_page(),
        "training-keys.md": keys.training_page(),
        "failure-kinds.md": failure_page(),
    }


def failure_page() -> str:
    """Return the page of the kinds of failures."""
    from pipeline.web.failures import FAILURE_HELP, FAILURE_KINDS

    rows = [
        f"| `{kind}` | {'yes' if retryable else 'no'} | {' | '.join(FAILURE_HELP[kind])} |"
        for kind, retryable in FAILURE_KINDS.items()
    ]
    return "\n".join([FAILURE_HEAD, *rows, ""])


def main() -> int:
    """Write the pages; exit status 2 if this Python formats the help differently."""
    if not platform.python_version().startswith(PYTHON + "."):
        print(f"docs/generate.py: run it with Python {PYTHON}", file=sys.stderr)
        return 2
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(HERE / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
