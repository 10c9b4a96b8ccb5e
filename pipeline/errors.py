"""What can go wrong, as types.

An expected failure (a page that is gone, a picture that is not one) is a value, `Failure`: it is
logged, counted by kind and retried from the log. A user's mistake is a `UserError`: one line that
names the file, key or URL, and exit status 2. Everything else is a programming error and raises.
"""

from __future__ import annotations

from dataclasses import dataclass


class UserError(Exception):
    """The user's mistake, in one line that names the file, key or URL. Exit status 2."""


@dataclass(frozen=True)
class Failure:
    """One page or image that could not be had.

    `kind` is a short word from a closed list (`FAILURE_KINDS` in pipeline.http); `retryable` is
    the verdict on whether trying again later can help; `attempts` counts the requests made.
    """

    stage: str
    url: str
    kind: str
    retryable: bool
    key: str | None = None
    status: int | None = None
    attempts: int = 1
    detail: str = ""
