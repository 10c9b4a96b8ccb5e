"""Reads small files from a path or URL, with limits on size and time."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from pipeline.credentials import basic_authorization, fsspec_arguments, split_user
from pipeline.errors import UserError
from pipeline.outside_text import printable, without_passwords

MOST = 64 << 20
"""Maximum size in bytes of an index or a similar file."""
_SECONDS = 300.0
"""Maximum time in seconds to read a URL."""
_CHUNK = 1 << 16
QUIET_SECONDS = 10.0
"""Time after which `report_waiting` first reports."""
_BACKOFF = 0.5
"""Delay in seconds before the first retry; doubled for each further one."""
_REASON_LENGTH = 200
_CONNECTING = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError")
"""Errors of urllib3 whose text is not about the cause."""
_LATE = ("TimeoutError", "ReadTimeoutError")
_PLAIN = (
    (ConnectionRefusedError, "no server listens there (connection refused)"),
    (socket.gaierror, "the name of the host is unknown"),
    (RemoteDisconnected, "the server closed the connection without an answer"),
    (ConnectionResetError, "the server closed the connection"),
)
T = TypeVar("T")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def is_url(location: str) -> bool:
    """Return True if `location` has a scheme (a one-letter scheme is a Windows drive)."""
    return _SCHEME.match(location) is not None


def split_url(url: str) -> SplitResult:
    """Split a URL that the user gave.

    Raises:
        UserError: it is malformed.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UserError(
            f"{without_passwords(url)}: not a URL ({error}); write it as https://HOST/PATH"
        ) from None


def local_path(location: str) -> Path | None:
    """Return the local path of a location; None for a URL whose scheme is not `file`.

    Raises:
        UserError: the URL is invalid.
    """
    if not is_url(location):
        return Path(location)
    parts = split_url(location)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; refuse FIFOs, which could block, and devices.
    A file that does not exist is created if `flags` contains `O_CREAT`.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    try:
        is_new = bool(flags & os.O_CREAT) and not path.exists()
        if not is_new and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except ValueError as error:  # a null byte in the name
        raise OSError(f"{str(path)!r}: {error}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def read_bytes(location: str | Path, most: int = MOST) -> bytes:
    """Read all bytes of a path or URL.

    Raises:
        OSError: it cannot be read, or is larger than `most` bytes.
        UserError: the URL is invalid.
    """
    path = location if isinstance(location, Path) else local_path(location)
    if path is not None:
        with os.fdopen(open_regular(path), "rb") as file:
            if os.fstat(file.fileno()).st_size > most:
                raise _too_large(str(path), most)
            data = file.read(most + 1)
    else:
        url = str(location)
        read = _get if urlsplit(url).scheme in ("http", "https") else _from_store
        with report_waiting(url):
            data = finish_within(_SECONDS, lambda: read(url, most))
    if len(data) > most:
        raise _too_large(str(location), most)
    return data


def finish_within(seconds: float, work: Callable[[], T]) -> T:
    """Run `work` in a new thread and return its result.

    Raises:
        TimeoutError: it takes longer than `seconds`; the thread keeps running.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again by `result`)
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([result], seconds).done:
        raise TimeoutError(f"not there after {seconds:g} s")
    return result.result()


@contextmanager
def report_waiting(location: str, reason: Callable[[], str] = str) -> Iterator[None]:
    """Print a line to standard error if the block takes longer than ten seconds, and one per minute
    after that. `reason` returns the reason for the wait, or ""."""
    done = threading.Event()

    def report() -> None:
        pause = QUIET_SECONDS
        while not done.wait(pause):
            text = f"{location}: waiting for the server" + (
                f" ({why})" if (why := reason()) else ""
            )
            print(printable(without_passwords(text)), file=sys.stderr, flush=True)
            pause = 60.0

    threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def is_web_page(start: bytes) -> bool:
    """Return True if a file begins like HTML or XML: the answer of many servers to a wrong URL."""
    return start[:512].lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def short_reason(error: BaseException) -> str:
    """Return the innermost cause of a network error in one short line, in plain words if it is a
    common one."""
    while True:
        causes = (getattr(error, "reason", None), *error.args)
        inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
        if inner is None and type(error).__name__ in _CONNECTING:
            inner = error.__cause__
        if inner is None or inner is error:
            break
        error = inner
    for kind, words in _PLAIN:
        if isinstance(error, kind):
            return words
    if isinstance(error, IncompleteRead):
        have = error.partial if isinstance(error.partial, int) else len(error.partial)
        early = f"{error.expected} bytes early" if error.expected else "early"
        return f"the connection ended {early}, after {have} bytes"
    name, text = type(error).__name__, next(iter(str(error).splitlines()), "")
    if name == "ResponseError":  # of urllib3, such as "too many redirects"
        return text
    if name in _LATE:
        return "the server did not answer in time"
    return (text if text.startswith(name) else f"{name}: {text}")[:_REASON_LENGTH]


def _too_large(location: str, most: int) -> OSError:
    return OSError(f"{location}: more than {most >> 20} MiB")


def _from_store(url: str, most: int) -> bytes:
    import fsspec

    if "::" in url:
        raise OSError("a chain of URLs")
    try:
        bare, options = fsspec_arguments(url)
        with fsspec.open(bare, "rb", **options) as file:
            data: bytes = file.read(most + 1)
    except Exception as error:  # noqa: BLE001 (the clients of file systems raise any exception)
        raise OSError(short_reason(error)) from None
    return data


def _get(url: str, most: int) -> bytes:
    """Read the body of an HTTP response without further dependencies (fsspec would need aiohttp).

    Raises:
        OSError: there is no response, its status is not 200, or its body is not complete after
            `_SECONDS`.
    """
    import urllib3

    # the server must not determine how long this takes
    retries = urllib3.Retry(
        3, backoff_factor=_BACKOFF, respect_retry_after_header=False, raise_on_status=False,
        status_forcelist=(429, 500, 502, 503, 504),
    )  # fmt: skip
    bare, user = split_user(url)
    end, parts, size = time.monotonic() + _SECONDS, list[bytes](), 0
    try:
        response = urllib3.request(
            "GET", bare, headers=basic_authorization(user), timeout=60.0, retries=retries,
            preload_content=False,
        )  # fmt: skip
        try:
            if response.status != 200:
                raise OSError(f"HTTP {response.status}")
            while size <= most and (part := response.read1(_CHUNK, decode_content=True)):
                parts.append(part)
                size += len(part)
                if time.monotonic() > end:
                    raise OSError(f"not there after {_SECONDS:.0f} s")
        finally:
            response.close()
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (urllib3, http.client and codecs raise their own)
        raise OSError(short_reason(error)) from None
    return b"".join(parts)
