"""The paths of the files of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
URL_MANIFEST, INDEX_FILE = "urls.jsonl", "shards.json"
_root: ContextVar[Path] = ContextVar("root")


@contextmanager
def project_root(root: Path) -> Iterator[None]:
    """Make `root` the project's folder in the block, instead of the current folder."""
    token = _root.set(root)
    try:
        yield
    finally:
        _root.reset(token)


def runs_dir() -> Path:
    """Return the folder of training runs; relative if the project's folder is the current one."""
    return _root.get(Path()) / "runs"


def _project_root() -> Path:
    return _root.get(None) or Path.cwd()


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of the files of dataset `name`, under the project's folder `root`.

    With `store`, a URL for fsspec, the tars of complete parts are stored there instead of in
    `originals_dir`, and the other files are mirrored there under the same paths.

    Raises:
        UserError: the name is not safe as a file name.
    """

    name: str
    root: Path = field(default_factory=_project_root)
    store: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"dataset name {self.name!r}: use lower-case letters, digits, '.', '_', '-'"
            )

    @property
    def manifest_dir(self) -> Path:
        return self.root / "manifests" / self.name

    @property
    def url_manifest(self) -> Path:
        """The URL manifest: one `ManifestRow` per line."""
        return self.manifest_dir / URL_MANIFEST

    @property
    def selection(self) -> Path:
        """The selection: one line per image that passed `select`."""
        return self.manifest_dir / "kept.jsonl"

    @property
    def rejections(self) -> Path:
        """The rejections: one line per image, with `key`, `url`, `part`, `reason` and `detail`."""
        return self.manifest_dir / "rejected.jsonl"

    @property
    def curation(self) -> Path:
        """The decisions made by eye: one line per decision."""
        return self.manifest_dir / "curated.jsonl"

    @property
    def shard_index(self) -> Path:
        """The shard index, written last."""
        return self.manifest_dir / INDEX_FILE

    @property
    def card(self) -> Path:
        return self.manifest_dir / "README.md"

    @property
    def card_page(self) -> Path:
        """The card as one HTML page with its images."""
        return self.manifest_dir / "card.html"

    @property
    def data_dir(self) -> Path:
        return self.root / "data" / self.name

    @property
    def crawl_state(self) -> Path:
        return self.data_dir / "crawl.sqlite"

    @property
    def originals_dir(self) -> Path:
        """The folder of the parts. Part N is `NAME-N.plan.jsonl` (its manifest rows), `NAME-N.tar`
        (the originals), `NAME-N.jsonl` (its journal, one `OriginalRecord` or failure per line) and
        `NAME-N.json` (its summary, written last)."""
        return self.data_dir / "originals"

    @property
    def shards_dir(self) -> Path:
        return self.data_dir / "shards"

    @property
    def failure_log(self) -> Path:
        return self.root / "logs" / self.name / "failures.jsonl"

    @property
    def event_log(self) -> Path:
        return self.root / "logs" / self.name / "events.jsonl"
