"""The shard stage: builds training shards from the selected images.

Each shard is independent: its plan lists its inputs, and its sidecar marks it as built. So a killed
run continues with the missing shards, and a run without changes writes nothing. The index is
written last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.atomic_io import remove_temp_files
from pipeline.contract import (
    DatasetPaths,
    ShardEntry,
    ShardIndex,
    UserError,
    index_to_json,
    load_index,
    write_json,
)
from pipeline.cores import cpu_count
from pipeline.errors import Failure
from pipeline.events import EventLog, unresolved_failures
from pipeline.imaging.limits import limit_decoding
from pipeline.options import ShardOptions
from pipeline.originals.part_tars import delete_tar, parts_without_tar
from pipeline.originals.parts import PartFiles, planned_parts
from pipeline.recipe import Recipe
from pipeline.select.selection import read_rejected, read_selection
from pipeline.shards.builder import (
    STAGE,
    BuiltShard,
    build_shard,
    find_built_shard,
    is_repairable,
    reusable_shard,
)
from pipeline.shards.card import has_card, write_card
from pipeline.shards.plan import ShardingPlan, ShardPlan, plan_shards, planned_images
from pipeline.shards.recipe_snapshot import plain_json, snapshot, write_snapshot
from pipeline.shards.samples import load_hook
from pipeline.shards.stats import collect_stats
from pipeline.shards.warnings import warn
from pipeline.web.opt_out.signals import count_signals
from pipeline.workers import run_unordered


@dataclass(frozen=True)
class ShardResult:
    """The numbers of samples and shards, of shards that this run built (`made`) or reused, of
    images without a sample (`failed`), and the bytes of all shards."""

    samples: int
    shards: int
    made: int
    reused: int
    failed: int
    bytes: int


ShardBuilder = Callable[
    [ShardOptions, DatasetPaths, DatasetPaths, ShardingPlan, Sequence[ShardPlan]],
    Iterable[tuple[ShardPlan, BuiltShard]],
]
"""A function of the options, the source, the target, the plan and the missing shards. It builds the
missing shards and yields each with its result when it is built, in any order."""


def shard(
    recipe: Recipe,
    dataset: DatasetPaths,
    log: EventLog,
    workers: int | None = None,
    variant: str | None = None,
    make: ShardBuilder | None = None,
) -> ShardResult:
    """Build the shards that are missing or out of date, then the card and the index.

    Args:
        workers: number of processes; None: one per core.
        variant: build the dataset `NAME-VARIANT`, another set of shards from the same selection,
            for example at another resolution; nothing is downloaded again.
        make: builds the shards; None: a pool of `workers` processes.

    Raises:
        UserError: there is no selection, it is empty, needed originals are missing, or the crop
            hook does not exist.
    """
    limit_decoding(recipe.originals.decode_megabytes)
    if recipe.shards.hook:
        load_hook(recipe.shards.hook)
    target = shard_target(dataset, variant)
    plan = plan_shards(recipe.shards, dataset, target.name)
    if not plan.shards:
        raise UserError(
            f"{dataset.selection}: nothing was kept, so there is nothing to shard; change the "
            "limits and run select"
        )
    if target.shards_dir.is_dir():
        remove_temp_files(target.shards_dir)
    missing = [one for one in plan.shards if find_built_shard(target, one) is None]
    repairable = repairable_shards(recipe, dataset, target, plan)
    for one in repairable:
        one.sidecar(target).unlink()  # without it, the shard is not reused
    missing += repairable
    write_snapshot(recipe, dataset, target)
    if missing:
        _check_originals(recipe.shards, dataset, target, plan, missing)
        # The old index is wrong while shards change; without an index the shards are not ready.
        target.shard_index.unlink(missing_ok=True)
    done = plan.images - sum(len(one.offsets) for one in missing)
    log.progress("shard", done, plan.images, "images")
    make = make or partial(_build_shards, workers or cpu_count())
    for one, made in make(recipe.shards, dataset, target, plan, missing):
        done += len(one.offsets)
        log.progress("shard", done, plan.images, "images")
        for failure in _failures(made):
            log.log_failure(failure)
    return finish_shards(recipe, dataset, plan, log, made=len(missing), variant=variant)


def repairable_shards(
    recipe: Recipe, dataset: DatasetPaths, target: DatasetPaths, plan: ShardingPlan
) -> list[ShardPlan]:
    """Return the shards without samples of damaged originals that are intact now."""
    return [
        one
        for one in plan.shards
        if (made := find_built_shard(target, one))
        and is_repairable(recipe.shards, dataset, plan.classes, one, made)
    ]


def _check_originals(
    options: ShardOptions,
    dataset: DatasetPaths,
    target: DatasetPaths,
    plan: ShardingPlan,
    missing: Sequence[ShardPlan],
) -> None:
    """Check that missing shards can be built before existing ones are replaced.

    Raises:
        UserError: a shard needs originals that no longer exist.
    """
    gone = parts_without_tar(dataset)
    if not gone:
        return
    for one in missing:
        planned = planned_images(options, dataset, plan.classes, one)
        needed = sorted({image.record.part for image in planned.images} & gone)
        if needed and reusable_shard(target, one, planned) is None:
            raise UserError(
                f"{PartFiles(dataset, needed[0]).tar}: does not exist, but {one.name} needs its "
                "originals (keep_originals = false deletes them); no shard was changed; to fetch "
                f"them again, remove {PartFiles(dataset, needed[0]).summary.name} beside the file "
                "and run download"
            )


def shard_target(dataset: DatasetPaths, variant: str | None) -> DatasetPaths:
    """Return the dataset whose shards are built: `NAME`, or `NAME-VARIANT`."""
    return dataset if variant is None else DatasetPaths(f"{dataset.name}-{variant}", dataset.root)


def _build_shards(
    workers: int,
    options: ShardOptions,
    source: DatasetPaths,
    target: DatasetPaths,
    plan: ShardingPlan,
    missing: Sequence[ShardPlan],
) -> Iterator[tuple[ShardPlan, BuiltShard]]:
    build = partial(build_shard, options, source, target, plan.classes)
    return run_unordered(workers, [(one, partial(build, one)) for one in missing])


def _failures(made: BuiltShard) -> Iterator[Failure]:
    for one in made.skipped:
        kind, _, detail = one["why"].partition(": ")
        yield Failure(STAGE, one["url"], kind, retryable=False, key=one["key"], detail=detail)


def finish_shards(
    recipe: Recipe,
    dataset: DatasetPaths,
    plan: ShardingPlan,
    log: EventLog,
    made: int = 0,
    variant: str | None = None,
) -> ShardResult:
    """Write the card and the index once every planned shard is built, then remove other shards.

    Raises:
        UserError: a planned shard is missing.
    """
    target = shard_target(dataset, variant)
    shards = []
    for one in plan.shards:
        found = find_built_shard(target, one)
        if found is None:
            raise UserError(f"{one.tar(target)}: not built yet; run shard")
        shards.append(found)
    if not any(one.nsamples for one in shards):
        raise UserError(
            f"{dataset.selection}: none of its images has a sample; "
            f"the reasons are in {dataset.failure_log}"
        )
    warn(recipe.shards, shards, log)
    stats = collect_stats(dataset)
    stats.opt_outs.update(count_signals(map(vars, unresolved_failures(dataset).values())))
    index = _index(recipe, dataset, target, plan, shards, stats.counts)
    if not (has_card(target) and _is_written(target, index)):
        write_card(recipe, target, index, shards, stats)
        write_json(target.shard_index, index_to_json(index))
    _remove_others(target, {one.name for one in plan.shards})
    if not recipe.shards.keep_originals:
        _delete_originals(dataset)
    return ShardResult(
        samples=index.nsamples,
        shards=len(shards),
        made=made,
        reused=len(shards) - made,
        failed=sum(len(one.skipped) for one in shards),
        bytes=sum(one.bytes for one in shards),
    )


def _index(
    recipe: Recipe, source: DatasetPaths, target: DatasetPaths, plan: ShardingPlan,
    shards: Sequence[BuiltShard], counts: dict[str, int],
) -> ShardIndex:  # fmt: skip
    options = recipe.shards
    folder = Path(os.path.relpath(target.shards_dir, target.manifest_dir)).as_posix()
    return ShardIndex(
        name=target.name,
        shardlist=tuple(
            ShardEntry(f"{folder}/{one.name}.tar", one.nsamples, one.bytes, one.sha256)
            for one in shards
        ),
        resolution=options.size,
        channels=options.channels,
        format=options.format,
        digest=plan.digest,
        labels=plan.classes,
        counts={**counts, "samples": sum(one.nsamples for one in shards)},
        recipe=snapshot(recipe, source),
    )


def _is_written(target: DatasetPaths, index: ShardIndex) -> bool:
    try:
        written, _ = load_index(target.shard_index)
    except UserError:
        return False
    # In the free-form part, a round trip through JSON turns tuples into lists.
    same: bool = plain_json(index_to_json(written)) == plain_json(index_to_json(index))
    return same


def _remove_others(target: DatasetPaths, names: set[str]) -> None:
    """Remove shards that are no longer in the index, with their sidecars."""
    pattern = re.compile(re.escape(target.name) + r"-\d{6,}")
    for path in sorted(target.shards_dir.iterdir()):
        shard_file = path.suffix in (".tar", ".json") and pattern.fullmatch(path.stem)
        if shard_file and path.stem not in names:
            path.unlink()


def _delete_originals(dataset: DatasetPaths) -> None:
    """Remove the tars of the parts that `select` has read. Journals and summaries are kept, so that
    nothing is downloaded again."""
    parts = {image.record.part for image in read_selection(dataset.selection)}
    parts |= {line["part"] for line in read_rejected(dataset.rejections)}
    for part in sorted(parts & set(planned_parts(dataset))):
        delete_tar(dataset, part)
