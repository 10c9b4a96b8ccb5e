"""Images on this machine: `file:///folder/a.jpg`, and `file:///folder/x.zip#a.jpg` in an archive.

Only files under the folders of a recipe are ever read, so no page and no redirect can lead here
to anything else.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from pipeline.errors import Failure
from pipeline.web.exchange import Response
from pipeline.web.failures import failure

SCHEME = "file:"


def file_url(path: Path, member: str = "") -> str:
    """The URL of a file, or of a member of an archive."""
    return path.absolute().as_uri() + (f"#{quote(member)}" if member else "")


def file_path(url: str) -> tuple[Path, str]:
    """The file that a file: URL means, and the member in it (empty for the file itself)."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)), unquote(parts.fragment)


class LocalFiles:
    """Answers file: URLs under `roots` as a server would.

    Args:
        roots: folders, or single archives.
        max_bytes: larger files are refused.
    """

    def __init__(self, roots: Sequence[Path], max_bytes: int) -> None:
        self._roots = [root.resolve() for root in roots]
        self._max_bytes = max_bytes
        self._archive: tuple[Path, zipfile.ZipFile] | None = None

    def close(self) -> None:
        if self._archive is not None:
            self._archive[1].close()
            self._archive = None

    def get(self, url: str, *, stage: str) -> Response | Failure:
        """The bytes behind a file: URL, as an answer with status 200 and no headers."""
        path, member = file_path(url)
        path = path.resolve()
        if not any(path.is_relative_to(root) for root in self._roots):
            return failure(stage, url, "bad_url", detail="not in a folder of the recipe")
        try:
            body = self._member(path, member) if member else self._whole(path)
        except (FileNotFoundError, KeyError):
            return failure(stage, url, "not_found")
        except OSError as error:
            return failure(stage, url, "unreachable", detail=str(error))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            return failure(stage, url, "undecodable", detail=str(error))
        if body is None:
            return failure(stage, url, "too_large", detail=f"more than {self._max_bytes} bytes")
        return Response(url, 200, MappingProxyType({}), body)

    def _whole(self, path: Path) -> bytes | None:
        with path.open("rb") as file:
            body = file.read(self._max_bytes + 1)
        return body if len(body) <= self._max_bytes else None

    def _member(self, path: Path, member: str) -> bytes | None:
        if self._archive is None or self._archive[0] != path:
            self.close()
            self._archive = (path, zipfile.ZipFile(path))
        with self._archive[1].open(member) as file:
            body = file.read(self._max_bytes + 1)
        return body if len(body) <= self._max_bytes else None
