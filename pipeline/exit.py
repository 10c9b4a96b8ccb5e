"""The exit status of every command: 2 for a user error, 130 for an interrupt, else its own; and
output that does not make a command fail.

The reader of a pipe may stop reading, a terminal may be closed, and its encoding may lack
characters.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NoReturn, TextIO, cast

from pipeline.errors import UserError, describe_os_error, is_disk_full
from pipeline.outside_text import printable, without_passwords
from pipeline.suggestions import suggestion

INTERRUPTED = "interrupted; run the same command again to resume"
_AGAIN = 0.05
"""Seconds after which an interrupt that Python dropped is raised again."""


def exit_status(
    work: Callable[[], int | None], interrupted: str = INTERRUPTED, interrupted_status: int = 130
) -> int:
    """Run `work` and return its exit status (None: 0); SIGTERM interrupts it like Ctrl-C.

    For a `UserError`, an `OSError` such as a full disk, and insufficient memory, prints one line
    and returns 2. For an interrupt, prints the line `interrupted` and returns `interrupted_status`.
    A second interrupt ends the process at once, because all state is on disk.
    """
    with resilient_output(), _interrupts():
        try:
            status = work() or 0
            sys.stdout.flush()
            return status
        except UserError as error:
            print_error(str(error))
            return 2
        except OSError as error:  # an error of the disk or the environment, such as a full disk
            print_error(describe_os_error(error))
            return 2
        except KeyboardInterrupt:
            return _end_interrupted(interrupted, interrupted_status)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11, in `__set_name__`
                return _end_interrupted(interrupted, interrupted_status)
            if not _is_out_of_memory(error):
                raise
            print_error("not enough memory; ask for less at once, or use a larger machine")
            return 2


def _end_interrupted(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    # an interrupt inside `exec` of a text, as in a dataclass that is being imported, would make
    # Python end by SIGINT instead of with `status`; the next `exec` resets that
    exec("")
    return status


def exit_process(status: int) -> NoReturn:
    """Exit with `status`; an interrupt during the exit ends the process at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    sys.exit(status)


_shown_names: ContextVar[Mapping[str, str]] = ContextVar(
    "shown_names", default=MappingProxyType({})
)


@contextmanager
def shown_as(program: str, name: str) -> Iterator[None]:
    """Show `program` as `name` in the help and the messages of parsers created in the block, such
    as `python -m pipeline` that another command calls."""
    before = _shown_names.set({program: name})
    try:
        yield
    finally:
        _shown_names.reset(before)


class CommandParser(argparse.ArgumentParser):
    """A parser whose messages suggest the known words closest to unknown ones, and contain no
    passwords and no control characters."""

    _words: Sequence[str] = ()
    _commands: Any = None

    def __init__(self, prog: str | None = None, **settings: Any) -> None:
        super().__init__(prog=_shown_names.get().get(prog or "", prog), **settings)

    @property
    def arguments(self) -> list[argparse.Action]:
        """The arguments that were added, except those of groups."""
        found: list[argparse.Action] = vars(self).setdefault("_arguments", [])
        return found

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.arguments.append(super().add_argument(*names, **settings))
        return self.arguments[-1]

    @property
    def commands(self) -> Mapping[str, CommandParser]:
        """The parsers of the commands that were added."""
        return self._commands.choices if self._commands else {}

    def add_subparsers(self, **settings: Any) -> Any:
        self._commands = super().add_subparsers(**settings)
        return self._commands

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        hint = _choice_hint(message) or next(filter(None, map(self._option_hint, self._words)), "")
        super().error(printable(without_passwords(message + hint)))

    def option_names(self) -> list[str]:
        """Return the options in the help, and those of the command that was named."""
        found = re.findall(r"(?<![\w-])--[a-z][\w-]*", self.format_help())
        chosen = [self.commands[word] for word in self._words if word in self.commands]
        return found + [name for command in chosen for name in command.option_names()]

    def _option_hint(self, word: str) -> str:
        name = word.partition("=")[0]
        known = self.option_names() if name.startswith("--") else ()
        return "" if any(one.startswith(name) for one in known) else suggestion(name, known)


def _choice_hint(message: str) -> str:
    """Return a suggestion for argparse's message about an invalid choice."""
    found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
    return suggestion(found[1], re.findall(r"[^\s,']+", found[2])) if found else ""


def print_error(message: str) -> None:
    """Print the line that explains exit status 2."""
    print(f"error: {printable(without_passwords(message))}", file=sys.stderr)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Make the first SIGINT or SIGTERM in the block raise `KeyboardInterrupt`.

    Python drops exceptions in finalizers and in callbacks of weak references, such as those of
    imports: there it is raised again a little later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted, received, hook = False, signal.SIGINT, sys.unraisablehook

    def dropped(found: Any) -> None:
        nonlocal interrupted
        if found.exc_type is not KeyboardInterrupt:
            hook(found)
            return
        interrupted = False
        # the next handler runs in the main thread, outside of this hook
        threading.Timer(_AGAIN, os.kill, (os.getpid(), received)).start()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted, received
        if interrupted:
            os.write(2, f"{INTERRUPTED}\n".encode())
            os._exit(130)
        interrupted, received = True, signal.Signals(number)
        raise KeyboardInterrupt

    before = {
        one: signal.signal(one, interrupt)
        for one in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(one) is not signal.SIG_IGN  # for example in a background job
    }
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for one, handler in before.items():
            signal.signal(one, handler)


def _is_out_of_memory(error: Exception) -> bool:
    """Return True if memory ran out, for which PyTorch raises a `RuntimeError`."""
    texts = (
        "can't allocate memory",
        "CUDA out of memory",
        "size calculation overflow",
        "multiplication overflow",
    )
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


class ResilientStream:
    """A text stream that writes what `stream` accepts and drops the rest.

    Characters that its encoding lacks become escapes. Once its reader is gone, all output is
    dropped. With `is_result`, a full disk still raises `OSError`, because the output is the
    command's result.
    """

    def __init__(self, stream: TextIO, is_result: bool = False) -> None:
        self._stream = stream
        self._is_result = is_result

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except ValueError:  # it is closed
            pass
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except ValueError:
            pass
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Discard all output from now on, so that Python can end without a message."""
        if self._is_result and is_disk_full(error):
            raise error
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def resilient_output() -> Iterator[None]:
    """Make standard output and standard error resilient streams in the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _resilient(sys.stdout, is_result=True), _resilient(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _resilient(stream: TextIO | None, is_result: bool = False) -> TextIO:
    if stream is None:  # its descriptor was closed when Python started
        stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 kept open
    return cast(TextIO, ResilientStream(stream, is_result))
