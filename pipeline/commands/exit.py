"""How every command ends: 2 for the user's mistake, 130 when interrupted, else what it says."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from pipeline.errors import UserError, describe_os_error


def exit_status(work: Callable[[], int]) -> int:
    """Do `work` and return its exit status; SIGTERM interrupts it as Ctrl-C does.

    A `UserError`, and an `OSError` such as a full disk, is printed in one line and gives 2; an
    interrupt gives 130, and a line that says how to resume.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = work()
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # the disk or the environment, such as a full disk
        print(f"error: {describe_os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
