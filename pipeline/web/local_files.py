"""Images on this machine: `file:///folder/a.jpg`, and `file:///folder/x.zip#a.jpg` in an archive.

Only files under the folders of a recipe are read, so pages and redirects cannot lead to others.
"""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from pipeline.errors import Failure, UserError
from pipeline.reading import open_regular
from pipeline.web.failures import failure, internal_failure
from pipeline.web.responses import Response
from pipeline.web.zips import BROKEN_ARCHIVE, open_zip

SCHEME = "file:"


def file_url(path: Path, member: str = "") -> str:
    """Return the URL of a file, or of a member of an archive."""
    return path.absolute().as_uri() + (
        f"#{quote(member, errors='surrogateescape')}" if member else ""
    )


def file_path(url: str) -> tuple[Path, str]:
    """Return the path of a file: URL, and the archive member (empty for the file itself)."""
    parts = urlsplit(url)
    return Path(os.fsdecode(unquote_to_bytes(parts.path))), unquote(parts.fragment)


def argument_path(text: str | Path, missing: str) -> Path:
    """Return the path of a file or folder that the user names.

    Raises:
        UserError: it does not exist (with the message `missing`), or the name is invalid.
    """
    path = Path(text)
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, a null byte, no permission
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(text)[:200]!r}: {reason}") from None
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(text)):
        raise UserError(f"{text}: not an http(s) URL")
    base = "" if path.is_absolute() else f" in {Path.cwd()}"
    raise UserError(f"{path}: {missing}{base}")


class LocalFileReader:
    """Returns responses for file: URLs under `roots`. Not thread-safe.

    Args:
        roots: folders, or single archives.
        max_bytes: larger files are refused.
        allow_outside_links: follow symbolic links under the roots that lead out of them.
    """

    def __init__(
        self, roots: Sequence[Path], max_bytes: int, allow_outside_links: bool = False
    ) -> None:
        self._roots = [root.resolve() for root in roots]
        self._max_bytes = max_bytes
        self._allow_outside_links = allow_outside_links
        self._archive: tuple[Path, zipfile.ZipFile] | None = None

    def close(self) -> None:
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None

    def get(self, url: str, *, stage: str) -> Response | Failure:
        """Return the bytes of a file: URL, as a response with status 200 and no headers."""
        try:
            path, member = file_path(url)
            refused = self._why_outside(path)
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, or a cycle of links
            refused = str(error)
        if refused:
            return failure(stage, url, "bad_url", detail=refused)
        try:
            body = self._member(path, member) if member else self._whole(path)
        except (FileNotFoundError, KeyError):
            return failure(stage, url, "not_found")
        except NotRegular as error:
            return failure(stage, url, "wrong_type", detail=str(error))
        except OSError as error:  # from Python 3.13 on, `resolve` stops at a cycle of links
            kind = "bad_url" if error.errno == errno.ELOOP else "unreachable"
            return failure(stage, url, kind, detail=str(error))
        except BROKEN_ARCHIVE as error:
            return failure(stage, url, "undecodable", detail=str(error))
        except Exception as error:  # noqa: BLE001 - errors of one file are caught here
            return internal_failure(stage, url, error)
        if body is None:
            return failure(stage, url, "too_large", detail=f"more than {self._max_bytes} bytes")
        return Response(url, 200, MappingProxyType({}), body)

    def _why_outside(self, path: Path) -> str:
        """Return why a path is outside of the recipe's folders; empty if it is inside."""
        target = path.resolve()
        if any(target.is_relative_to(root) for root in self._roots):
            return ""
        named = Path(os.path.normpath(path))
        if not any(named.is_relative_to(root) for root in self._roots):
            return "not in a folder of the recipe"
        if self._allow_outside_links:
            return ""
        return outside_link(path, target)

    def _whole(self, path: Path) -> bytes | None:
        _check_regular(path)
        with os.fdopen(open_regular(path), "rb") as file:
            body = file.read(self._max_bytes + 1)
        return body if len(body) <= self._max_bytes else None

    def _member(self, path: Path, member: str) -> bytes | None:
        if self._archive is None or self._archive[0] != path:
            self.close()
            _check_regular(path)
            self._archive = (path, open_zip(path))
        with self._archive[1].open(member) as file:
            body = file.read(self._max_bytes + 1)
        return body if len(body) <= self._max_bytes else None


class NotRegular(OSError):
    """The file is a FIFO, socket or device, which may block or be endless."""


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise NotRegular(f"{path}: not a regular file")


def outside_link(path: Path, target: Path) -> str:
    """Return the error message for a symbolic link that leads out of the recipe's folders."""
    return (
        f"{path} is a symbolic link to {target}, out of the recipe's folders; "
        "source.allow_outside_links = true admits it"
    )
