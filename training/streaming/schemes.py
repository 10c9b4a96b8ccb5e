"""The schemes of URLs of shards, and the file systems of stores, through fsspec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.contract import UserError, fsspec_arguments, short_reason

T = TypeVar("T")
HTTP = frozenset({"http", "https"})
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "hf", "sftp", "ftp", "webhdfs", "hdfs"})
"""Schemes that use fsspec. Others, such as those that run commands, are refused."""
_PACKAGES = {
    "s3": "'shellgan[s3]'", "s3a": "'shellgan[s3]'", "gs": "'shellgan[gs]'",
    "gcs": "'shellgan[gs]'", "hf": "'shellgan[hf]'", "az": "adlfs", "abfs": "adlfs",
    "sftp": "paramiko", "hdfs": "pyarrow",
}  # fmt: skip
"""What to install for a scheme."""
ATTEMPTS = 5
"""Consecutive attempts of a request that gave hardly any bytes, before its URL fails."""
BACKOFF = 0.4
"""Delay in seconds before the second attempt; doubled for each further one."""


class ConnectionDropped(Exception):
    """The connection broke, or the server is busy: a retry can help."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait

    def delay(self, failures: int) -> float:
        """Return the seconds until the next attempt, after so many failed ones in a row."""
        return max(self.wait, BACKOFF * 2 ** (failures - 1) if failures else 0.0)


def given_up(url: str, reason: object) -> str:
    """Return the message for a URL whose connection was lost `ATTEMPTS` times."""
    return f"{url}: {reason} (tried {ATTEMPTS} times); check the URL and its server"


def check_scheme(url: str) -> str:
    """Return the scheme of a URL of shards.

    Raises:
        UserError: it is neither HTTP nor that of a store; the message names it.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise UserError(f"{url}: not a URL ({error})") from None
    if scheme == "pipe":
        raise UserError(
            f"{url}: not a scheme for shards, because it would run a command; write the command's "
            "output to a file, or give the URL that the command reads"
        )
    if "::" in url or scheme not in HTTP | STORES:
        known = ", ".join(sorted(HTTP | STORES))
        raise UserError(f"{url}: not a scheme for shards; use file, {known}")
    return scheme


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a store's URL, and the path in it.

    Raises:
        UserError: a package is missing, or the URL is invalid.
        Exception: any exception of the file system.
    """
    from fsspec.core import url_to_fs

    scheme = check_scheme(url)
    bare, options = fsspec_arguments(url)
    try:
        found: tuple[Any, str] = url_to_fs(bare, **options)
    except ImportError as error:
        raise missing_package(url, scheme, error) from None
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    return found


def missing_package(url: str, scheme: str, error: ImportError) -> UserError:
    """Return the error for a scheme whose package is not installed."""
    package = _PACKAGES.get(scheme)
    if package is None:
        return UserError(f"{url}: {error}")
    return UserError(f"{url}: a package for {scheme} is missing; run pip install {package}")


def from_store(url: str, action: Callable[[], T]) -> T:
    """Run an action of a file system.

    Raises:
        UserError: trying again cannot help.
        ConnectionDropped: it can.
    """
    try:
        return action()
    except UserError:
        raise
    except ImportError as error:
        raise missing_package(url, check_scheme(url), error) from None
    except FileNotFoundError:
        raise UserError(f"{url}: not there") from None
    except (ValueError, PermissionError) as error:
        raise UserError(f"{url}: {short_reason(error)}") from None
    except Exception as error:  # noqa: BLE001 (the clients of stores raise errors of their own)
        raise ConnectionDropped(short_reason(error)) from None
