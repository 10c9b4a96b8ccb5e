"""A run is accepted or refused alike with and without `--dry-run`: same status, same line."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.foreign_shards import numbered, write_tar
from tests.helpers.small_shards import SmallShards
from training import checkpoint
from training.planning import memory

HELD: list[int] = []
"""Locks that are open until the test ends."""
Setup = Callable[[Path, pytest.MonkeyPatch], None]


def nothing(_run: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def little_memory(_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1 << 20)
    monkeypatch.setattr("training.preparation.available_bytes", lambda _: 1 << 20)


def full_disk(_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.planning.room.free_bytes", lambda _: 100_000)


def a_file_there(run: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    run.parent.mkdir(parents=True)
    run.write_text("not a folder")


def locked(run: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    run.mkdir(parents=True)
    HELD.append(os.open(run / ".lock", os.O_WRONLY | os.O_CREAT))
    fcntl.flock(HELD[-1], fcntl.LOCK_EX)


def gpu_gone(_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


LABELS = ("--generator.condition", "norm", "--discriminator.condition", "projection")
REFUSED: dict[str, tuple[Setup, tuple[str, ...], str]] = {
    "memory": (little_memory, (), "batch: training needs"),
    "a batch that no memory holds": (nothing, ("--batch", "30000000"), "batch: training needs"),
    "disk": (full_disk, (), "two checkpoints of"),
    "options": (nothing, ("--loss.name", "hinge", "--label_real", "0.9"), "label_real"),
    "swapped labels": (nothing, ("--loss.name", "lsgan", "--label_real", "0", "--label_fake", "1"),
                       "label_real"),
    "no labels": (nothing, LABELS, "label"),
    "threads": (nothing, ("--threads", "100000"), "threads"),
    "device": (gpu_gone, ("--device", "cuda"), "device: cuda"),
    "resolution": (nothing, ("--resolution", "64"), "resolution: 64 px"),
    "an unknown key": (nothing, ("--wings", "2"), "wings"),
    "a value out of range": (nothing, ("--max-hours", "-1"), "max_hours"),
    "an infinite limit": (nothing, ("--total-kimg", "inf"), "total_kimg"),
    "a file in its place": (a_file_there, (), "Not a directory"),
    "another process": (locked, (), "another process is training this run"),
    "no such weights": (nothing, ("--init-from", "nowhere"), "nowhere"),
    "frozen layers": (nothing, ("--init-from", "nowhere", "--freeze_d", "99"), "freeze_d"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    yield
    while HELD:
        os.close(HELD.pop())


@pytest.fixture
def both(
    in_process: Callable[..., int], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str]]:  # fmt: skip
    """The command with `--dry-run`, then without; what both say, which must be the same."""
    monkeypatch.setattr("training.planning.forecast._TIMED_SECONDS", 0.0)

    def run(*arguments: Any) -> tuple[int, str]:
        found = []
        for more in (("--dry-run",), ()):
            status = in_process(*arguments, *more)
            said = re.sub(r"[\d.]+ GB", "SIZE", capsys.readouterr().err)  # memory is not constant
            found.append((status, said))
        assert found[0] == found[1]
        return found[1]

    return run


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_refused_by_both(
    case: str, tmp_path: Path, small_shards: Callable[..., Any],
    both: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    setup, options, words = REFUSED[case]
    run = tmp_path / "work" / "runs" / "one"
    setup(run, monkeypatch)
    status, said = both(run, small_shards(), *options)
    assert status == 2
    assert words in said
    assert said.count("\n") == 1
    assert not (run / "config.json").exists()


def test_missing_shards_are_refused_by_both(
    tmp_path: Path, both: Callable[..., tuple[int, str]]
) -> None:
    assert both(tmp_path / "work" / "runs" / "one", str(tmp_path / "nothing"))[0] == 2


def test_images_without_the_labels_that_are_needed_are_refused_by_both(
    tmp_path: Path, small_shards: Callable[..., Any], both: Callable[..., tuple[int, str]]
) -> None:
    shards = small_shards(labels=("a", "b"), labelled=0)
    status, said = both(tmp_path / "work" / "runs" / "one", shards, *LABELS)
    assert status == 2
    assert "has no label" in said


def test_one_image_without_its_label_is_refused_before_training(
    tmp_path: Path, both: Callable[..., tuple[int, str]]
) -> None:
    samples = numbered(120, cls=b"0") + numbered(1, 120)
    path = write_tar(tmp_path / "a.tar", samples)
    run = tmp_path / "work" / "runs" / "one"
    status, said = both(run, str(path), *LABELS)
    assert status == 2
    assert "a.tar: 1 image without a label, and the networks are conditioned on labels" in said
    assert not (run / "config.json").exists()


@pytest.mark.parametrize(
    "options", [("--labels", "if-any", *LABELS), ("--price-per-hour", "2"), ("--max-hours", "1")]
)
def test_what_is_accepted_is_accepted_by_both(
    options: tuple[str, ...], tmp_path: Path, small_shards: Callable[..., Any],
    both: Callable[..., tuple[int, str]],
) -> None:  # fmt: skip
    assert both(tmp_path / "work" / "runs" / "one", small_shards(), *options) == (0, "")


def test_what_a_run_was_begun_with_decides_in_both(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    both: Callable[..., tuple[int, str]],
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    assert in_process(run, shards, "--total-kimg", "0.08") == 0
    for options, words in (
        (("--batch", "4"), "batch is 8"), (("--threads", "2"), "threads is 1"),
        (("--loss.name", "hinge"), "loss.name"),
    ):  # fmt: skip
        status, said = both(run, shards, *options)
        assert status == 2
        assert words in said
    others = SmallShards(tmp_path / "others", sizes=(20, 13))
    status, said = both(run, others)
    assert status == 2
    assert "a new --run" in said
    assert both(run, shards, "--total-kimg", "0.08") == (0, "")  # already done
    (run / "config.json").write_text("{")
    assert both(run, shards)[0] == 2


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_run_goes_on_only_if_its_next_checkpoint_fits(
    kept: int, tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    both: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    keep = ("--record.keep", str(kept), "--record.spare_mb", "0")
    assert in_process(run, shards, "--total-kimg", "0.2", *keep) == 0
    saved = checkpoint.list_checkpoints(run / "checkpoints")
    assert len(saved) == kept
    size = max(one.bytes for one in saved)
    freed = checkpoint.freeable_bytes(run / "checkpoints")
    assert freed == sum(one.bytes for one in saved[1:])
    free = [0]
    monkeypatch.setattr("training.planning.room.free_bytes", lambda _: free[0])
    if kept == 1:
        status, said = both(run, shards, *keep)
        assert status == 2
        assert "the next checkpoint of" in said
        assert "kB of disk" in said
    free[0] = max(0, 2 * size - freed)
    assert both(run, shards, "--total-kimg", "0.24", *keep) == (0, "")


def test_the_best_checkpoint_needs_a_place_of_its_own(
    tmp_path: Path, small_shards: Callable[..., Any], both: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    monkeypatch.setattr("training.planning.room.free_bytes", lambda _: 200_000)
    options = ("--record.spare_mb", "0", "--evaluate.kimg", "0.2")
    status, said = both(run, shards, *options)
    assert status == 2
    assert "three checkpoints of" in said
    assert "with --evaluate.kimg 0 one less is needed" in said
    assert both(run, shards, "--record.spare_mb", "0", "--evaluate.kimg", "0") == (0, "")


def test_a_dry_run_knows_the_size_of_a_checkpoint(
    tmp_path: Path, small_shards: Callable[..., Any], in_process: Callable[..., int],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.planning.forecast._TIMED_SECONDS", 0.0)
    run, shards = tmp_path / "work" / "runs" / "one", small_shards()
    options = ("--generator.width", "16", "--replay.size", "40")
    for kind in ("adam", "sgd", "rmsprop"):
        name = run.with_name(kind)
        chosen = (*options, "--d_optimizer.name", kind, "--d_optimizer.lr", "1e-6")
        assert in_process(name, shards, *chosen, "--dry-run", "--json") == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["checkpoint_bytes"]
        assert in_process(name, shards, *chosen, "--total-kimg", "0.04") == 0
        capsys.readouterr()
        (saved,) = checkpoint.list_checkpoints(name / "checkpoints")[:1]
        assert told == pytest.approx(saved.bytes, rel=0.05)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_refused_by_both(
    tmp_path: Path, small_shards: Callable[..., Any], both: Callable[..., tuple[int, str]]
) -> None:
    run = tmp_path / "work" / "runs" / "one"
    run.parent.mkdir(parents=True)
    run.parent.chmod(0o500)
    assert both(run, small_shards())[0] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anywhere")
def test_checkpoints_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, small_shards: Callable[..., Any], both: Callable[..., tuple[int, str]]
) -> None:
    folder = tmp_path / "work" / "runs" / "one" / "checkpoints"
    folder.mkdir(parents=True)
    folder.chmod(0o300)
    with pytest.raises(PermissionError):
        checkpoint.load_newest(folder)
    status, said = both(folder.parent, small_shards())
    assert status == 2
    assert "checkpoints: Permission denied" in said
