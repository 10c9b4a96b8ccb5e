"""Training from Python: a configuration in, a run out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.contract import UserError, project_root
from shellgan.datasets import Dataset, absolute_location
from shellgan.models import Model, load
from training import session
from training.callbacks import EndReason
from training.monitoring.console import NullDisplay, TrainingProgress
from training.options.resolve import pickle_to_start_from, resolve
from training.planning.auto import NAME as AUTO
from training.planning.auto import resolve_auto
from training.pretrained.adoption import resolve_from_pickle


@dataclass(frozen=True)
class Run:
    """A training run: its `folder`, why the training ended (`reason`, with a `detail` for people),
    the images `seen`, and the `seconds` of all its trainings. `root` is the project's folder."""

    folder: Path
    reason: EndReason
    seen: int
    seconds: float
    detail: str = ""
    root: Path = field(default_factory=Path.cwd)

    @property
    def is_complete(self) -> bool:
        """Whether it has trained for its images or hours, or a rule (`stop`) has ended it;
        otherwise call `train` again."""
        return self.reason in (EndReason.DONE, EndReason.HOURS, EndReason.RULE)

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.folder / "report.html"

    def load(self, which: str = "newest", device: str = "auto") -> Model:
        """Load the generator of a checkpoint: `newest`, `best`, or a number of kimg."""
        return load(f"{self.folder}@{which}", root=self.root, device=device)


class _Display(NullDisplay):
    """Passes messages and progress to functions."""

    def __init__(
        self,
        on_message: Callable[[str], None] | None,
        on_progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self._message, self._progress = on_message, on_progress

    def message(self, text: str) -> None:
        if self._message:
            self._message(text)

    def update(self, advance: TrainingProgress) -> None:
        if self._progress:
            self._progress(advance)


def train(
    dataset: Dataset | str | Path,
    preset: str | Path = AUTO,
    *,
    hours: float = 0.0,
    run: str | Path | None = None,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    callbacks: Sequence[session.MakeCallback] = (),
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Run:
    """Train a generator on shards, or resume the run.

    An interrupt, a full disk and divergence end the training with a checkpoint; they are the
    `reason` of the returned run. An exception of a callback is raised after a checkpoint was saved.

    Args:
        dataset: as `open_dataset` returns or takes.
        preset: `auto`, the name of a preset, or a TOML file. `auto` with a pickle as `init_from` is
            the preset of its networks.
        hours: time limit of this training (0: none).
        run: name of the run below `runs`, or its folder, as a `Path` or a text with a slash, below
            `root` (None: DATASET-PRESET).
        root: the project's folder, which contains `runs` (None: that of the dataset, or the current
            folder).
        options: further keys of the configuration by dotted name, such as
            `{"generator.width": 32}`.
        callbacks: functions of the loop that return a `Callback`, such as a subclass of it.
        on_progress: called after each step.
        on_message: called with lines for people: the forecast, warnings, the end.

    Raises:
        UserError: the shards, the options, the run, the memory or the disk cannot be used.
    """
    texts = {key: _text(value) for key, value in (options or {}).items()}
    if isinstance(dataset, Dataset):
        folder = dataset.root if root is None else Path(root).absolute()
        location, texts = dataset.location, dataset.training_options() | texts
    else:
        folder = Path.cwd() if root is None else Path(root).absolute()
        location = absolute_location(dataset, folder)
    if second := texts.get("data.shards_b"):
        texts["data.shards_b"] = json.dumps(absolute_location(second, folder))
    if hours:
        texts["max_hours"] = _text(hours)
    # a name is below `runs`, a folder below the root
    is_folder = isinstance(run, Path) or os.sep in str(run or "")
    name = str(folder / run if is_folder else run) if run else None
    with project_root(folder), _same_threads():
        named = None if preset == AUTO else str(preset)
        if start := pickle_to_start_from(named, texts):
            config, why = resolve_from_pickle(location, name, start, named, texts)
        elif preset == AUTO:
            config, why = resolve_auto(location, name, texts)
        else:
            config, why = resolve(str(preset), texts), ()
        display = _Display(on_message, on_progress)
        result = session.train(config, location, name, None, display, why, callbacks)
    return Run(
        result.run.folder.absolute(), result.reason, result.seen, result.seconds, result.detail,
        folder,
    )  # fmt: skip


def _text(value: Any) -> str:
    """Return a value as on the command line.

    Raises:
        UserError: it is not a value of a configuration.
    """
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    try:
        return json.dumps(value.item() if hasattr(value, "item") else value)
    except TypeError as error:
        raise UserError(f"options: {value!r}: {error}") from None


@contextmanager
def _same_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads after the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
