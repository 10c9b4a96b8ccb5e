"""The whole way of the command: stages with one line of progress each; all state is in files."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.contract import UserError, format_bytes, format_duration, printable, project_root
from pipeline.events import Progress
from pipeline.units import count_of, line_interval
from shellgan.mixed import check_kinds
from shellgan.where import Where, check_owner, propose

if TYPE_CHECKING:
    from pipeline.contract import ShardIndex
    from shellgan.runs import Run

NEEDED = 100
"""Fewer images can be neither evaluated nor learned from."""
_EVALUATION_SECONDS, _REST = 60.0, 60.0


@dataclass
class Line:
    """One line of progress: rewritten on a terminal, otherwise printed every few seconds, later
    every minute."""

    stages: Sequence[str]
    hours: float
    number: int = 0
    clock: Callable[[], float] = time.monotonic
    _began: float = 0.0
    _start: float = 0.0
    _first: float = 0.0
    _done: float = math.inf
    _last: float = 0.0

    def begin(self, stage: str) -> None:
        self.number, self._done = self.stages.index(stage) + 1, math.inf
        self._began = self.clock()
        self._last = 0.0 if sys.stderr.isatty() else self._began

    def show(self, text: str, done: float, total: float | None, left: float | None = None) -> None:
        """Print the progress. Without `left`, the seconds that are left follow from the progress
        since the first report of this work; if `done` falls, another work has begun."""
        now = self.clock()
        if done < self._done:
            self._start, self._first = now, done
        self._done = done
        if now - self._last < (0.2 if sys.stderr.isatty() else line_interval(now - self._began)):
            return
        self._last = now
        if left is None and total and done > self._first:
            left = (now - self._start) / (done - self._first) * max(0.0, total - done)
        rest = ""
        if left is not None:
            rest, later = f"; {format_duration(left)} left", self.later()
            rest += f", {format_duration(left + later)} with the stages after it" if later else ""
        self._print(f"{text}{rest}", "" if sys.stderr.isatty() else "\n")

    def end(self, text: str) -> None:
        self._print(text, "\n")

    def later(self) -> float:
        """Seconds of the stages after this one, as far as they are known."""
        after = self.stages[self.number :]
        return self.hours * 3600 * ("train" in after) + _EVALUATION_SECONDS * ("evaluate" in after)

    def interrupt(self) -> None:
        """Leave the last progress on a line of its own."""
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _print(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        head = f"[{self.number} of {len(self.stages)}] {self.stages[self.number - 1]}"
        print(f"{start}{head}: {printable(text)}", end=end, file=sys.stderr, flush=True)

    def on_progress(self, report: Progress) -> None:
        if not report.done:
            return
        inner = "" if report.stage in self.stages else f"{report.stage}: "
        failed = f", {sum(report.failed.values())} failed" if report.failed else ""
        done = report.count(report.done)
        if report.total:
            done = f"{report.done:,} of {report.count(report.total)}"
        self.show(f"{inner}{done}{failed}", report.done, report.total)


@dataclass(frozen=True)
class Options:
    """Options of the command: hours of training, preset, further training options by dotted key."""

    root: Path
    hours: float
    preset: str
    training: dict[str, str]

    def run_folder(self, dataset: str) -> Path:
        """Return the folder of the run of a dataset, by its name."""
        return self.root / "runs" / f"{dataset}-{Path(self.preset).stem}"


def prepare(where: Where, options: Options, say: Callable[[str], None]) -> tuple[Where, str, bool]:
    """Return the place, as an earlier recipe for it spells it; the recipe to use, writing a
    proposed one if there is none; and whether the work on its dataset has already begun.

    Raises:
        UserError: as `propose`.
    """
    if where.kind == "recipe":
        recipe = where.location
    else:
        path = options.root / f"{where.name}.toml"
        if path.exists():
            where = check_owner(path, where)
        else:
            options.root.mkdir(parents=True, exist_ok=True)
            propose(where, path, say)
        recipe = str(path)
    return where, recipe, (options.root / "data" / where.name).exists()


def describe(where: Where, recipe: str, options: Options, explored: bool = True) -> str:
    """Return one screen about what the command will do, which ends with an explorer if `explored`.
    Sets the size of images in a new recipe.

    Raises:
        UserError: the recipe has an error, or the files have an unknown format.
    """
    from shellgan.stages import Recipe
    from shellgan.survey import Survey, survey_files, survey_gallery

    rate = Recipe.load(recipe).parse().politeness.rate
    if where.kind == "files":
        found = survey_files(where)
    elif where.kind == "gallery":
        found = survey_gallery(where, recipe, rate)
    else:
        polite = f"{count_of(rate, 'request')} per second and host"
        found = Survey([("politeness", f"{polite}; robots.txt and opt-outs are obeyed")])
    if where.kind != "recipe":
        _propose_size(Path(recipe), found.side, options)
    parsed = Recipe.load(recipe).parse()
    lines = [("recipe", f"{recipe} (edit it, then run the same command again)"), *found.lines]
    free = shutil.disk_usage(options.root).free
    lines += [
        ("shards", f"{parsed.shards.resolution} px; at least {NEEDED} images are needed, some "
         "thousands are better"),
        ("disk", f"{format_bytes(free)} free in {options.root}"),
        ("time", f"{count_of(options.hours, 'hour')} of training, after the images are there"),
        ("result", f"{options.run_folder(where.name)}{', opened in the explorer' * explored}"),
    ]  # fmt: skip
    return "\n".join(f"  {name:<11} {printable(text)}" for name, text in lines)


def _propose_size(recipe: Path, side: int, options: Options) -> None:
    from shellgan.survey import choose_size, write_size
    from training.machine.device import choose_device

    device = choose_device(options.training.get("device", "auto")).type
    write_size(recipe, *choose_size(side, options.hours, device))


def make_shards(where: Where, recipe: str, options: Options, line: Line) -> str:
    """Run the stages up to the shards; return the manifest folder.

    Raises:
        UserError: there are fewer than `NEEDED`.
        MixedContent: some are of another kind.
    """
    from pipeline.select.numeric_limits import NUMERIC_LIMITS
    from shellgan import stages

    shared: dict[str, Any] = {"root": options.root, "on_progress": line.on_progress}
    if where.kind == "files":
        line.begin("import")
        taken = stages.import_images(where.location, recipe, **shared)
        line.end(f"{count_of(taken.images + taken.known, 'image')}, {taken.failed:,} failed")
        _require(taken.images + taken.known, "images were found", "add images", recipe)
    else:
        line.begin("crawl")
        crawled = stages.crawl(recipe, **shared)
        line.end(f"{count_of(crawled.pages, 'page')}, {count_of(crawled.urls, 'image')}, "
                 f"{crawled.failed:,} failed")  # fmt: skip
        remedy = "change the start pages or the limits of the crawl in it"
        _require(crawled.urls, "images were found on its pages", remedy, recipe)
        line.begin("download")
        fetched = stages.download(recipe, **shared)
        line.end(f"{count_of(fetched.images, 'new image')}, {fetched.failed:,} failed")
    line.begin("select")
    selected = stages.select(recipe, **shared)
    reasons = ", ".join(f"{name} {count:,}" for name, count in selected.rejected.items())
    line.end(f"{count_of(selected.kept, 'image')} kept; rejected: {reasons or 'none'}")
    keys = ", ".join(one.option for one in NUMERIC_LIMITS if one.reason in selected.rejected)
    remedy = f"change {keys or 'the limits'} under [select] in it, or add images"
    _require(selected.kept, f"images were kept (rejected: {reasons or 'none'})", remedy, recipe)
    check_kinds(recipe, options.root, line.on_progress)
    line.begin("shard")
    built = stages.shard(recipe, **shared)
    line.end(f"{count_of(built.samples, 'sample')} in {count_of(built.shards, 'shard')}")
    return str(options.root / "manifests" / where.name)


def _require(count: int, what: str, remedy: str, recipe: str) -> None:
    if count < NEEDED:
        raise UserError(
            f"{recipe}: {count:,} {what}, at least {NEEDED} are needed; {remedy}, and run the same "
            "command again"
        )


def read_index(shards: str, options: Options) -> ShardIndex:
    """Return the index of the shards: its name and number of samples are those of the training.

    Raises:
        UserError: there are none, or they cannot be read with the options of training.
    """
    from training.config import count_clusters
    from training.planning.auto import resolve_first
    from training.streaming.dataset import open_shard_dataset

    config = resolve_first(options.preset, options.training)
    data, height = config.data, config.resolution if config.data.fit else 0
    if count_clusters(data.label):  # they take time, and change neither name nor number of samples
        data = replace(data, label="")
    with project_root(options.root):
        return open_shard_dataset(shards, height, data).index


def train(shards: str, folder: Path, options: Options, line: Line) -> Run | None:
    """Train the run in `folder` for the hours that are left; None if it was trained and evaluated
    before."""
    from shellgan.runs import train as train_run

    line.begin("train")
    left = options.hours * 3600 - _trained_seconds(folder)
    if _is_evaluated(folder) and left < _REST:
        line.end("already done")
        return None
    return train_run(
        shards, options.preset, hours=max(left, 1.0) / 3600, run=folder, root=options.root,
        options=_frequent_checkpoints(options.hours) | options.training,
        on_progress=lambda now: line.show(
            f"{count_of(now.seen, 'image')}, {now.rate:.0f} per second", now.seen, now.total,
            now.left,
        ),
        on_message=lambda text: line.end(text) if text.startswith(("warning", "auto")) else None,
    )  # fmt: skip


def _frequent_checkpoints(hours: float) -> dict[str, str]:
    """Return options so that a kill costs at most a tenth of a short run, or 10 minutes."""
    return {"record.checkpoint_minutes": f"{min(10.0, max(0.25, hours * 6)):g}"}


def _trained_seconds(folder: Path) -> float:
    """Seconds that the run has trained, by its newest checkpoint."""
    from training.best_checkpoint import load_named
    from training.checkpoint import list_checkpoints
    from training.checkpoint_check import check_weights

    if not list_checkpoints(folder / "checkpoints"):
        return 0.0
    return float(load_named(folder / "checkpoints", "newest", "cpu", check_weights)["seconds"])


def _is_evaluated(folder: Path) -> bool:
    """Return True if the newest checkpoint has been evaluated."""
    from training.checkpoint import list_checkpoints

    try:
        seen = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["seen"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    saved = list_checkpoints(folder / "checkpoints")
    return bool(saved) and saved[0].seen == seen


def evaluate(run: Run, samples: int, line: Line) -> None:
    """Evaluate the run, print the table, and write it to the run's folder."""
    from training.evaluation.comparison import write_results
    from training.evaluation.table import print_table

    line.begin("evaluate")
    count = min(1000, samples)
    result = run.load().evaluate(
        samples=count,
        on_progress=lambda what, done, total: line.show(f"{what}: {done} of {total}", done, total),
    )
    write_results([result])
    line.end(f"{count} generated images against {result.real} real ones")
    print_table([result])
