"""A dataset with its recipe, files, lock and stages.

The command line and the Prefect flows both run stages through this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pipeline.atomic_io import FileLock, lock
from pipeline.contract import DatasetPaths, now_utc
from pipeline.errors import UserError
from pipeline.events import EventListener, EventLog, ProgressListener
from pipeline.reading import is_url, split_url

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

Stage = Callable[..., Any]
"""Takes the recipe, the dataset, its log and keyword options; returns a dataclass."""

STAGES = ("crawl", "download", "select", "shard")
"""The stages in order."""


_SUFFIXES = frozenset((
    ".json", ".jsonl", ".tar", ".npz", ".md", ".html", ".jpg", ".png", ".lock",
    ".sqlite", ".sqlite-journal", ".sqlite-shm", ".sqlite-wal",
))  # fmt: skip
"""Extensions of a dataset's files."""


@dataclass(frozen=True)
class Job:
    """A recipe and its dataset.

    `recipe_name` is the name of an included recipe, or the path or URL of a recipe file;
    `overrides` replace its values by dotted key. `given` is a recipe that is used instead of the
    file. The dataset has the recipe's name, under the folder `root`.
    """

    recipe_name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    root: Path = field(default_factory=Path.cwd)
    given: Recipe | None = None

    @property
    def dataset(self) -> DatasetPaths:
        name = self.recipe_name
        if is_url(name):
            name = unquote(split_url(name).path)
        return DatasetPaths(Path(name).name.removesuffix(".toml"), self.root)

    def recipe(self) -> Recipe:
        """Read the recipe.

        Raises:
            UserError: it does not exist, or has an error.
        """
        if self.given is not None:
            return self.given
        from pipeline.recipe import load_recipe, locate_recipe

        return load_recipe(locate_recipe(self.recipe_name), self.overrides)

    @contextmanager
    def open(
        self,
        on_event: Sequence[EventListener] = (),
        on_progress: Sequence[ProgressListener] = (),
    ) -> Iterator[tuple[Recipe, DatasetPaths, EventLog]]:
        """Lock the dataset, and yield the recipe, the dataset and its log.

        If the recipe has a store, newer files are pulled from it before the block, and new files
        are pushed to it after a successful block, or else after the next one.

        Raises:
            UserError: the recipe is invalid, another process has locked the dataset, or the store
                does not respond.
        """
        recipe = self.recipe()
        dataset = replace(self.dataset, store=recipe.storage.url)
        with _locked(dataset):
            if not dataset.store:
                with EventLog(dataset, now_utc(), on_event, on_progress) as log:
                    yield recipe, dataset, log
                return
            from pipeline.remote.mirror import pull, push
            from pipeline.shards.forget import variants

            received = pull(dataset)
            with EventLog(dataset, now_utc(), on_event, on_progress) as log:
                if any(asdict(received).values()):
                    log.emit("store", "received", **asdict(received))
                yield recipe, dataset, log
            push(dataset, variants(dataset))


def run_stage(
    name: str,
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    *,
    refresh: bool = False,
    variant: str | None = None,
    stage: Stage | None = None,
) -> Any:
    """Run one stage, log its start and its result as events, and return the result, a dataclass.

    Args:
        refresh: if the stage is the crawl, visit every page again.
        variant: if the stage is shard, build the shards of the dataset `NAME-VARIANT`.
        stage: function to run instead of the stage's own.
    """
    log.emit(name, "start")
    stage = stage or load_stage(name)
    if refresh and name == "crawl":
        stage = partial(stage, refresh=True)
    if variant and name == "shard":
        stage = partial(stage, variant=variant)
    result = stage(recipe, dataset, log)
    log.emit(name, "done", **asdict(result))
    return result


def load_stage(name: str) -> Stage:
    """Import and return the function of a stage.

    Commands that run no stage start faster, because the imports take most of their time.
    """
    if name == "crawl":
        from pipeline.crawl.stage import crawl

        return crawl
    if name == "download":
        from pipeline.originals.download import download

        return download
    if name == "select":
        from pipeline.select.stage import select

        return select
    from pipeline.shards.stage import shard

    return shard


def _locked(dataset: DatasetPaths) -> FileLock:
    """Lock the dataset.

    Raises:
        UserError: another process works on it, or one of its files is not a regular file.
    """
    dataset.data_dir.mkdir(parents=True, exist_ok=True)
    check_files(dataset)
    return lock(
        dataset.data_dir / "lock",
        lambda holder: UserError(
            f"{dataset.data_dir}: process {holder} is working on this dataset"
        ),
    )


def check_files(dataset: DatasetPaths) -> None:
    """Check that the files of a dataset are regular files, because reading a FIFO may never end,
    and a folder cannot be read or replaced.

    Raises:
        UserError: one is not a regular file; the message names it.
    """
    folders = (
        dataset.manifest_dir, dataset.data_dir, dataset.originals_dir, dataset.shards_dir,
        dataset.event_log.parent,
    )  # fmt: skip
    for folder in folders:
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if Path(entry.name).suffix in _SUFFIXES or entry.name == "lock":
                        raise UserError(f"{entry.path}: a folder, not a file; remove or rename it")
                elif not entry.is_file() and Path(entry.path).exists():
                    raise UserError(f"{entry.path}: not a regular file; remove or replace it")
