"""How every command ends: 2 for the user's mistake, 130 when interrupted, else what it says."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from pipeline.errors import UserError


def exit_status(work: Callable[[], int]) -> int:
    """Do `work` and return its exit status; SIGTERM interrupts it as Ctrl-C does.

    A `UserError` is printed in one line and gives 2; an interrupt gives 130, and a word that the
    same command goes on.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
