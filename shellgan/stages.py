"""The stages from a web site to shards: `crawl`, `download`, `select`, `shard`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.atomic_io import write_atomic
from pipeline.config_io import format_toml, read_toml
from pipeline.crawl.results import CrawlResult
from pipeline.errors import UserError
from pipeline.events import Event, Progress
from pipeline.importers.items import ImportOptions
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.job import Job, run_stage
from pipeline.originals.download import DownloadResult
from pipeline.recipe import Recipe as ParsedRecipe
from pipeline.recipe import locate_recipe, parse_recipe
from pipeline.select.stage import SelectResult
from pipeline.shards.stage import ShardResult
from shellgan.where import propose_gallery

OnEvent = Callable[[Event], None]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Recipe:
    """A recipe: the `name` of its dataset, and its `values` as in the TOML file.

    Raises:
        UserError: a key is unknown or a value is invalid; the message names it.
    """

    name: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        Job(self.name).dataset  # noqa: B018 checks the name
        self.parse()

    @classmethod
    def load(cls, where: str | Path, name: str = "") -> Recipe:
        """Load the recipe at a path or URL, or an included one by its name.

        Args:
            name: of the dataset; by default that of the file.

        Raises:
            UserError: it does not exist, or has an error.
        """
        found = locate_recipe(str(where))
        return cls(name or Job(str(where)).dataset.name, read_toml(found))

    @classmethod
    def propose(cls, url: str, name: str) -> Recipe:
        """Propose a recipe for the gallery at a web address, from that page and a few behind it.

        Raises:
            UserError: the pages cannot be fetched, forbid it, or have no images, for example
                because scripts draw them.
        """
        return cls(name, tomllib.loads(propose_gallery(url)))

    def save(self, path: str | Path) -> None:
        """Write the recipe as a TOML file, without the comments of the file it was loaded from.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            write_atomic(Path(path), format_toml(self.values))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with other values, by section: `replace(select={"min_side": 128})`.

        Raises:
            UserError: a key is unknown or a value is invalid.
        """
        values = deepcopy(dict(self.values))
        for section, change in changes.items():
            if isinstance(change, Mapping):
                change = {**values.get(section, {}), **change}
            values[section] = change
        return replace(self, values=values)

    def parse(self) -> ParsedRecipe:
        """Return the recipe with typed values and defaults; its sections are attributes."""
        return parse_recipe(deepcopy(dict(self.values)), f"recipe {self.name}")


def crawl(
    recipe: Recipe | str,
    *,
    root: str | Path | None = None,
    refresh: bool = False,
    on_progress: OnProgress | None = None,
    on_event: OnEvent | None = None,
) -> CrawlResult:
    """Fetch the pages of a site, and write the URL of each image to the manifest.

    Like every stage, it continues where it was interrupted, and a page or an image that fails is a
    line of `logs/NAME/failures.jsonl`, not an exception.

    Args:
        recipe: a recipe, or its name, path or URL.
        root: the project's folder, which contains `manifests`, `data` and `logs` (None: the current
            folder).
        refresh: visit every page again.
        on_progress: called with the progress of the stage.
        on_event: called with what is also written to the event log.

    Raises:
        UserError: the recipe has an error, or another process works on the dataset.
    """
    result: CrawlResult = _run("crawl", recipe, root, on_progress, on_event, refresh=refresh)
    return result


def download(
    recipe: Recipe | str,
    *,
    root: str | Path | None = None,
    on_progress: OnProgress | None = None,
    on_event: OnEvent | None = None,
) -> DownloadResult:
    """Download the images in the manifest; arguments and errors as in `crawl`."""
    result: DownloadResult = _run("download", recipe, root, on_progress, on_event)
    return result


def select(
    recipe: Recipe | str,
    *,
    root: str | Path | None = None,
    on_progress: OnProgress | None = None,
    on_event: OnEvent | None = None,
) -> SelectResult:
    """Select images by the recipe's limits; arguments and errors as in `crawl`."""
    result: SelectResult = _run("select", recipe, root, on_progress, on_event)
    return result


def shard(
    recipe: Recipe | str,
    *,
    root: str | Path | None = None,
    variant: str | None = None,
    on_progress: OnProgress | None = None,
    on_event: OnEvent | None = None,
) -> ShardResult:
    """Crop and resize the selected images, and write the shards; arguments and errors as in
    `crawl`. With `variant`, the shards are those of the dataset `NAME-VARIANT`."""
    result: ShardResult = _run("shard", recipe, root, on_progress, on_event, variant=variant)
    return result


def import_images(
    where: str | Path,
    recipe: Recipe | str,
    *,
    root: str | Path | None = None,
    format: str = "",
    label: str = "",
    split: str = "",
    on_found: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
    on_event: OnEvent | None = None,
) -> ImportResult:
    """Import a folder, an archive or a dataset of another tool, instead of `crawl` and `download`;
    arguments and errors as in `crawl`.

    Args:
        where: a path; docs/formats.md lists the formats.
        format: one of these formats (empty: it is detected).
        label: what becomes the label, such as a column.
        split: import only this part, such as `train`.
        on_found: called with the format that was found, as one line.

    Raises:
        UserError: there is no such file or folder, or it has an unknown format.
    """
    if not str(where):
        raise UserError("where: empty; give a file or a folder")
    with _job(recipe, root).open(_listeners(on_event), _listeners(on_progress)) as opened:
        parsed, dataset, log = opened
        options, announce = ImportOptions(label, split), on_found or (lambda _: None)
        return import_dataset(Path(where), dataset, log, format, parsed, options, announce)


def _run(
    stage: str, recipe: Recipe | str, root: str | Path | None, on_progress: OnProgress | None,
    on_event: OnEvent | None, **options: Any,
) -> Any:  # fmt: skip
    job = _job(recipe, root)
    with job.open(_listeners(on_event), _listeners(on_progress)) as (parsed, dataset, log):
        return run_stage(stage, parsed, dataset, log, **options)


def _job(recipe: Recipe | str, root: str | Path | None) -> Job:
    folder = Path(root).absolute() if root is not None else Path.cwd()
    if isinstance(recipe, Recipe):
        return Job(recipe.name, root=folder, given=recipe.parse())
    return Job(str(recipe), root=folder)


def _listeners(one: Callable[[Any], None] | None) -> tuple[Callable[[Any], None], ...]:
    return () if one is None else (one,)
