"""The best checkpoint stays until there is a better one, costs no disk while it can be linked, and
is never half-made."""

from __future__ import annotations

import contextlib
import errno
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError
from training import best_checkpoint, checkpoint


def save(folder: Path, number: int, keep: int = 2) -> None:
    values = {"seen": number, "weight": torch.full((50_000,), float(number))}
    checkpoint.save(folder, number, values, keep, spare=0)


def best_seen(folder: Path) -> int:
    kept = best_checkpoint.best(folder)
    assert kept is not None
    return kept.saved.seen


def test_it_outlives_the_newest_until_there_is_a_better(tmp_path: Path) -> None:
    assert best_checkpoint.is_best(tmp_path, "fd", 99.0)
    for number, value in enumerate((50.0, 40.0, 45.0, 60.0, 41.0), start=1):
        save(tmp_path, number)
        if best_checkpoint.is_best(tmp_path, "fd", value):
            assert best_checkpoint.keep_best(tmp_path, number, "fd", value)
    assert [saved.seen for saved in checkpoint.list_checkpoints(tmp_path)] == [5, 4]
    assert best_seen(tmp_path) == 2
    assert len(list((tmp_path / "best").iterdir())) == 2
    values = best_checkpoint.load_named(tmp_path, "best")
    assert torch.equal(values["weight"], torch.full((50_000,), 2.0))
    assert best_checkpoint.load_named(tmp_path, "newest")["seen"] == 5
    assert best_checkpoint.load_named(tmp_path, "0.004")["seen"] == 4
    assert best_checkpoint.load_named(tmp_path, "0.002")["seen"] == 2  # the best, by its number
    with pytest.raises(UserError, match=r"no checkpoint '0\.001'; there are newest, best, 0\.005"):
        best_checkpoint.load_named(tmp_path, "0.001")


def test_values_of_another_measure_do_not_compare(tmp_path: Path) -> None:
    save(tmp_path, 1)
    best_checkpoint.keep_best(tmp_path, 1, "fd of 500 samples", 30.0)
    assert not best_checkpoint.is_best(tmp_path, "fd of 500 samples", 30.0)
    assert best_checkpoint.is_best(tmp_path, "fd of 1000 samples", 31.0)


def test_while_both_exist_they_are_one_file(tmp_path: Path) -> None:
    save(tmp_path, 1)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 1.0)
    [data] = (tmp_path / "best").glob("*.pt")
    assert data.stat().st_nlink == 2
    for number in (2, 3, 4):
        save(tmp_path, number)
    assert data.stat().st_nlink == 1
    assert best_seen(tmp_path) == 1


def test_where_nothing_can_be_linked_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refuse)
    save(tmp_path, 1)
    assert best_checkpoint.keep_best(tmp_path, 1, "fd", 2.0)
    assert best_checkpoint.load_named(tmp_path, "best")["seen"] == 1
    save(tmp_path, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert not best_checkpoint.keep_best(tmp_path, 2, "fd", 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert best_seen(tmp_path) == 1  # the one before is still whole
    assert best_checkpoint.load_named(tmp_path, "best")["seen"] == 1
    assert len(list((tmp_path / "best").iterdir())) == 2


@pytest.mark.parametrize("text", ["", "{}", '{"seen": 1, "bytes": 5, "sha256": "x"}'])
def test_a_damaged_record_or_half_a_file_is_no_best(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 1.0)
    [record] = (tmp_path / "best").glob("*.json")
    record.write_text(text)
    assert best_checkpoint.best(tmp_path) is None
    assert best_checkpoint.is_best(tmp_path, "fd", 5.0)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 5.0)
    [data] = (tmp_path / "best").glob("*.pt")
    data.unlink()
    assert best_checkpoint.best(tmp_path) is None
    with pytest.raises(ValueError, match="no checkpoint at 7"):
        best_checkpoint.keep_best(tmp_path, 7, "fd", 0.0)


@pytest.mark.parametrize("is_rewritten", [False, True])
def test_a_kill_while_it_is_kept_again_leaves_it(
    is_rewritten: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    save(tmp_path, 1)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 2.0)
    if is_rewritten:
        save(tmp_path, 1)
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("os.link", killed)
        best_checkpoint.keep_best(tmp_path, 1, "kid", 1.0)
    assert best_checkpoint.load_named(tmp_path, "best")["seen"] == 1
    best_checkpoint.keep_best(tmp_path, 1, "kid", 1.0)
    kept = best_checkpoint.best(tmp_path)
    assert kept is not None
    assert kept.criterion == "kid"
    assert kept.saved.data_path.samefile(tmp_path / kept.saved.data_path.name)
    assert len(list((tmp_path / "best").iterdir())) == 2


def test_a_kill_between_the_better_and_the_older_leaves_the_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(_: Path) -> None:
        raise Killed

    save(tmp_path, 1)
    best_checkpoint.keep_best(tmp_path, 1, "fd", 2.0)
    save(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(best_checkpoint, "remove_temp_files", killed)
        with pytest.raises(Killed):
            best_checkpoint.keep_best(tmp_path, 2, "fd", 1.0)
    assert len(list((tmp_path / "best").glob("*.json"))) == 2
    assert best_seen(tmp_path) == 2
    save(tmp_path, 3)
    best_checkpoint.keep_best(tmp_path, 3, "fd", 0.5)
    assert len(list((tmp_path / "best").iterdir())) == 2
    assert best_seen(tmp_path) == 3
