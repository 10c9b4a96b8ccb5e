"""The table of a comparison, its remarks and its chart name runs briefly."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from training.evaluation.chart import chart
from training.evaluation.comparison import EvaluationResult, display_names
from training.evaluation.table import caveats, print_table
from training.metrics.suite import Estimate


def test_paths_are_not_shown(tmp_path: Path) -> None:
    run = str(tmp_path / "runs" / "shells@best")
    found = {"fd": Estimate(1.0, 0.1)}
    result = EvaluationResult(run, 1000, "small", "d", (16, 16), 3, 50, 100, found, {})
    file = io.StringIO()
    print_table([result], Console(file=file))
    for text in (file.getvalue(), chart([result])):
        assert "shells@best" in text
        assert str(tmp_path) not in text


@pytest.mark.parametrize("metric", ["fd_efficientnet_lite0", "fid"])
def test_a_sentence_says_what_the_distance_means(metric: str) -> None:
    found = {"kid": Estimate(0.5, 0.1), metric: Estimate(61.2, 0.1, 12.3, 0.2, 50)}
    result = EvaluationResult("some", 1000, "small", "d", (16, 16), 3, 50, 100, found, {})
    file = io.StringIO()
    print_table([result], Console(file=file))
    assert (
        "some: the Fréchet distance is 61.2 (lower is better); 50 of the real images against the "
        "others have 12.3, so a perfect generator would have about that\n"
    ) in file.getvalue()


def test_each_run_is_warned_of_by_its_own_samples() -> None:
    """A run of translations may have fewer samples than another one, and so another baseline."""

    def result(run: str, samples: int, fit: str = "") -> EvaluationResult:
        found = {"fd": Estimate(61.2, 0.1, 12.3, 0.2, samples)}
        return EvaluationResult(
            run, 1000, "small", "d", (16, 16), 3, samples, 2000, found, {}, fit=fit
        )

    alike = caveats([result("one", 1000), result("two", 1000)])
    assert not any(line.startswith("warning") for line in alike)
    (line,) = caveats([result("one", 1000, "crop"), result("two", 1000, "pad")])[2:]
    assert "these columns cannot be compared" in line
    different = caveats([result("one", 1000), result("two", 60)])
    warnings = [line for line in different if line.startswith("warning")]
    assert len(warnings) == 2
    assert "numbers of samples differ: these columns cannot be compared" in warnings[0]
    assert "fewer than 1000 samples" in warnings[1]
    file = io.StringIO()
    print_table([result("one", 1000), result("two", 60)], Console(file=file, width=200))
    assert "n = 1000" in file.getvalue()
    assert "n = 60" in file.getvalue()


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        (["one", "runs/two"], ["one", "two"]),
        (["a/one", "b/one"], ["a/one", "b/one"]),
        (["one", "one"], ["one", "one"]),
        (["runs/one/"], ["one"]),
    ],
)
def test_names_of_runs(runs: list[str], shown: list[str]) -> None:
    assert display_names(runs) == shown
