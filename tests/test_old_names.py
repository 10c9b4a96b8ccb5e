"""Options and failure kinds under their former names are still accepted."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.commands import datasets
from pipeline.contract import DatasetPaths, UserError, read_jsonl, read_rows
from pipeline.errors import Failure
from pipeline.events import EventLog, last_failures
from pipeline.exit import CommandParser
from training import nearest, probe, project, walk

RUN = ["run", "--out", "a.png"]


@pytest.mark.parametrize(
    ("command", "work", "arguments", "old", "new"),
    [
        (walk, "write_walk", RUN, ["--through", "z"], ["--space", "z"]),
        (walk, "write_walk", RUN, ["--open"], ["--no-loop"]),
        (project, "write_projection", ["run", "i.png", "--out", "a.png"], ["--each-layer"],
         ["--w-plus"]),
        (nearest, "write_nearest", RUN, ["--by", "pixels"], ["--distance", "pixels"]),
        (probe, "probe", ["run"], ["--labels", "7"], ["--num-labels", "7"]),
    ],
)  # fmt: skip
def test_old_options_mean_the_new_ones(
    command: ModuleType, work: str, arguments: list[str], old: list[str], new: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    parsed: list[Namespace] = []
    monkeypatch.setattr(command, work, parsed.append)
    main: Callable[[list[str]], int] = command.main
    for options in ([], old, new):
        assert main([*arguments, *options]) == 0
    default, with_old, with_new = map(vars, parsed)
    assert with_old == with_new != default


def test_form_means_format() -> None:
    parser = CommandParser()
    datasets.add(parser.add_subparsers())
    for command, other in (("export", "out"), ("import", "in")):
        args = parser.parse_args([command, "recipe", other, "--form", "nvlabs"])
        assert args.format == "nvlabs"


def test_old_failure_kinds_are_read() -> None:
    page = {"stage": "crawl", "url": "https://a.example/", "kind": "unexpected_form"}
    other = {"stage": "crawl", "url": "https://b.example/", "kind": "dns"}
    rows = [page, other, {**other, "kind": "mended"}]
    assert [row["kind"] for row in last_failures(rows).values()] == ["parse_error"]


def test_failures_of_a_later_version_are_refused(tmp_path: Path) -> None:
    dataset = DatasetPaths("d", tmp_path)
    failure = Failure("crawl", "https://a.example/", "mended", False)  # not renamed: of version 2
    with EventLog(dataset, "run") as log:
        log.log_failure(failure)
    (row,) = read_jsonl(dataset.failure_log)
    assert [one["kind"] for one in last_failures([row]).values()] == ["mended"]
    with pytest.raises(UserError, match="version: 3: this version of the program reads 1 to 2"):
        last_failures([{**row, "version": row["version"] + 1}])


def test_rows_of_a_later_version_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "selected.jsonl"
    file.write_text('{"key": "a"}\n{"key": "b", "version": 1}\n{"key": "c", "version": 2}\n')
    rows = read_rows(file, lambda row: row["key"])
    assert [next(rows), next(rows)] == ["a", "b"]
    with pytest.raises(UserError, match=r"selected.jsonl:3: version: 2: .* reads 1 to 1"):
        next(rows)
