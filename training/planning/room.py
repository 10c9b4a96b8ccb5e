"""Check of disk space before a run starts."""

from __future__ import annotations

from pipeline.contract import UserError, format_bytes
from training import best_checkpoint, checkpoint
from training.config import Config
from training.machine.disk import free_bytes
from training.runs import Run


def refuse_full_disk(run: Run, config: Config, size: int, keeps_best: bool) -> None:
    """Raise if the next two checkpoints of a run, of about `size` bytes each, do not fit on the
    disk.

    A new checkpoint is written beside the newest one, and beside the best one if it `keeps_best`,
    as evaluations are due. Existing checkpoints count, and so does the space that older ones would
    free.

    Raises:
        UserError: they do not fit; the message states needed and free space and contains
            suggestions.
    """
    folder = run.checkpoints
    there = checkpoint.list_checkpoints(folder)
    size = max([size, *(saved.bytes for saved in there[:1])])
    best = best_checkpoint.best(folder)
    kept = {saved.data_path.stat().st_ino for saved in there[:1] if saved.data_path.exists()}
    if best is not None and keeps_best:
        kept.add(best.saved.data_path.stat().st_ino)
    missing = max(1, 2 + keeps_best - len(kept))
    spare = config.record.spare_mb * 1e6
    need, free = missing * size + spare, free_bytes(folder) + checkpoint.freeable_bytes(folder)
    if need <= free:
        return
    count = {1: "the next checkpoint", 2: "two checkpoints", 3: "three checkpoints"}[missing]
    less = "; with --evaluate.kimg 0 one less is needed" if keeps_best else ""
    raise UserError(
        f"{folder}: {count} of {format_bytes(size)} each and {format_bytes(spare)} to spare need "
        f"{format_bytes(need)} of disk, {format_bytes(free)} are free; free some, or give a "
        f"--run on another disk or a smaller network{less}"
    )
