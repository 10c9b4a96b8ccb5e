"""Options and failure kinds under their former names are still accepted."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from types import ModuleType

import pytest

from pipeline.commands import datasets
from pipeline.events import last_failures
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
