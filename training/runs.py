"""A run's folder: its files, its lock, its resolved configuration."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as typed_dataclass

from pipeline.contract import (
    LARGEST_SIDE,
    STRICT,
    FileLock,
    UserError,
    describe_os_error,
    is_locked,
    lock,
    migrate,
    parse_config,
    read_bytes,
    runs_dir,
    suggestion,
    without_passwords,
    write_json,
)
from training import best_checkpoint, checkpoint
from training.config import Config
from training.options.resolve import check_resumable, flatten
from training.streaming.dataset import ShardDataset
from training.versions import CONFIG_MIGRATIONS

CONFIG_VERSION = len(CONFIG_MIGRATIONS) + 1


@dataclass(frozen=True)
class Run:
    """The files of the run in `folder`."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def has_results(self) -> bool:
        """True if there is a checkpoint to continue from, and the configuration that it needs."""
        return self.config.exists() and bool(checkpoint.list_checkpoints(self.checkpoints))

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@typed_dataclass(frozen=True, config=STRICT)
class DatasetInfo:
    """The properties of a dataset stored with a run (`dataset` in its `config.json`); `location`
    is where the shards are, empty if unknown. If labels are clusters, `clusters` are their centres
    (`Clusters.to_text`)."""

    channels: Literal[1, 3, 4]
    digest: str
    height: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    labels: list[str]
    location: str
    name: str
    samples: Annotated[int, Field(ge=0, le=2**53)]
    width: Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
    clusters: str = ""


@typed_dataclass(frozen=True, config=STRICT)
class RunConfigFile:
    """A run's `config.json`: every key by dotted name, the dataset, that of the second set if there
    is one, the `version` of these keys and, in an exported folder, the number of images `seen`."""

    config: dict[str, Any]
    dataset: DatasetInfo
    dataset_b: DatasetInfo | None = None
    seen: Annotated[int, Field(ge=0, le=2**53)] = 0
    version: int = CONFIG_VERSION


def find_run(name: str) -> Run:
    """Return the run of that name under `runs/`, or in that folder if `name` is a path.

    Raises:
        UserError: an empty name, or one with non-printable characters.
    """
    if not name.strip() or any(unicodedata.category(one) == "Cc" for one in name):
        raise UserError(f"{name!r}: not a valid name for a run")
    return Run(Path(name) if os.sep in name or name in (".", "..") else runs_dir() / name)


def parse_run_spec(name: str) -> tuple[str, str]:
    """Parse a run and a checkpoint: `RUN@best`, `RUN@200` (kimg), or the `newest`."""
    run, at, which = name.rpartition("@")
    if not at or os.sep in which or find_run(name).folder.exists():
        return name, "newest"
    return run, which


def lock_run(run: Run) -> FileLock:
    """Lock the run for this process; the lock is released when the process ends, even by a kill.

    Raises:
        UserError: another process holds it.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    return lock(run.folder / ".lock", lambda _: _busy(run))


def run_config_json(config: Config, source: ShardDataset, location: str) -> dict[str, Any]:
    """Return the content of `config.json`: every key by dotted name, and the dataset or both."""
    keys = flatten(config)
    second = keys["data.shards_b"] = without_passwords(config.data.shards_b)
    found = {"config": keys, "dataset": _describe(source, location), "version": CONFIG_VERSION}
    return found | ({"dataset_b": _describe(source.second, second)} if source.second else {})


def _describe(source: ShardDataset, location: str) -> dict[str, Any]:
    index = source.index
    return {
        "location": without_passwords(location), "name": index.name, "digest": index.digest,
        "samples": index.nsamples, "channels": source.channels, "labels": list(index.labels),
        "height": source.height, "width": source.width,
        **({"clusters": source.clusters.to_text()} if source.clusters else {}),
    }  # fmt: skip


def refuse_unwritable(run: Run) -> None:
    """Raise if a folder or file of the run cannot be created, read or written to.

    Raises:
        OSError: the reason.
    """
    best = run.checkpoints / best_checkpoint.BEST
    for folder in (run.folder, run.samples, run.tensorboard, best):
        whole = (folder, *folder.parents, *folder.absolute().parents)
        there = next(path for path in whole if os.path.lexists(path))
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
    for file in (run.config, run.metrics, run.report):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))


def refuse_locked(run: Run) -> None:
    """Raise if another process trains the run, without changing its folder.

    Raises:
        UserError: another process trains it.
    """
    if is_locked(run.folder / ".lock"):
        raise _busy(run)


def _busy(run: Run) -> UserError:
    return UserError(f"{run.folder}: another process is training this run")


def refuse_other_run(run: Run, config: Config, source: ShardDataset, location: str) -> None:
    """Raise if a run that has results would be resumed with another configuration or dataset.

    Raises:
        UserError: a value that affects the result, or the dataset, differs.
    """
    # before the first checkpoint there is nothing to resume, so values may be corrected
    if not run.has_results:
        return
    before, now = read_config(run), run_config_json(config, source, location)
    check_resumable(before["config"], config, run.config)
    for key, option in (("dataset", "--shards"), ("dataset_b", "--shards-b")):
        old, new = before[key], now.get(key)
        if old and new and old["digest"] != new["digest"]:
            raise UserError(
                f"{run.config}: this run was trained on dataset {old['name']!r} (digest "
                f"{old['digest'][:12]}), but {option} has another digest; use the same shards or a "
                "new --run"
            )
    if before["dataset"]["channels"] != now["dataset"]["channels"]:
        raise UserError(
            f"{run.config}: images have {before['dataset']['channels']} channels in the run, "
            f"{now['dataset']['channels']} in the command; set --data.channels "
            f"{before['dataset']['channels']}, or use a new --run"
        )


def known_clusters(run: Run) -> str:
    """Return the centres of the clusters that are the labels of a run that has results, or an empty
    text.

    Raises:
        UserError: its configuration is invalid.
    """
    if not run.has_results:
        return ""
    return str(read_config(run)["dataset"]["clusters"])


def write_run_config(
    run: Run, config: Config, source: ShardDataset, location: str
) -> dict[str, Any]:
    """Write the run's configuration, after `refuse_other_run` has accepted it."""
    described = run_config_json(config, source, location)
    write_json(run.config, described)
    return described


def _how_to_rewrite(run: Run) -> str:
    if not run.checkpoints.exists():
        return "export the generator again"
    return "remove this file and run the same training.fit command again, which writes it anew"


def read_config(run: Run) -> dict[str, Any]:
    """Read a run's `config.json` as a `RunConfigFile`.

    Raises:
        UserError: it does not exist or is invalid; the message names the key.
    """
    try:
        values = json.loads(read_bytes(run.config))
    except (FileNotFoundError, NotADirectoryError):
        hint = suggestion(
            run.folder.name, (one.parent.name for one in runs_dir().glob("*/config.json"))
        )
        raise UserError(f"{run.config}: no run there{hint}") from None
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{run.config}: not JSON ({error}); {_how_to_rewrite(run)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{run.config}: not a run's configuration; {_how_to_rewrite(run)}")
    values = migrate(values, CONFIG_MIGRATIONS, str(run.config))
    return asdict(parse_config(RunConfigFile, values, str(run.config)))
