"""Types of errors.

An expected failure (a page that no longer exists, a file that is not an image) is a value,
`Failure`: it is logged, counted by kind and retried from the log. A user error is a `UserError`:
one line that names the file, key or URL, and exit status 2. All other exceptions are programming
errors.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pipeline.outside_text import printable, without_passwords

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class UserError(Exception):
    """An error of the user: one line that names the file, key or URL. The exit status is 2.

    Its text contains no passwords and no control characters.
    """

    def __str__(self) -> str:
        return printable(without_passwords(super().__str__()))


@dataclass(frozen=True)
class Failure:
    """One page or image that could not be fetched or read.

    `kind` is one of `FAILURE_KINDS` (pipeline.web.failures); `retryable` states whether a retry can
    help; `attempts` is the number of requests. `url` and `detail` contain no passwords.
    """

    stage: str
    url: str
    kind: str
    retryable: bool
    key: str | None = None
    status: int | None = None
    attempts: int = 1
    detail: str = ""

    def __post_init__(self) -> None:
        for name in ("url", "detail"):
            text = getattr(self, name)
            if (stripped := without_passwords(text)) != text:
                object.__setattr__(self, name, stripped)


def is_disk_full(error: OSError) -> bool:
    """Return True if there was no space: the disk is full, or a quota or file size limit was
    reached."""
    return error.errno in _DISK_FULL


def describe_os_error(error: OSError) -> str:
    """Return one line for the user: the file, what is wrong, and what to do."""
    name = error.filename2 or error.filename
    file = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes | os.PathLike) else ""
    if is_disk_full(error):
        return (
            f"{file}no space left on the disk; free some and run the same command again "
            "(everything reported as done is kept)"
        )
    return f"{file}{error.strerror or error}"
