"""The comparison of runs as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.contract import count_of, printable
from training.evaluation.comparison import EvaluationResult, display_names, result_to_json
from training.metrics.suite import Estimate

_WIDE = 100


def print_table(results: Sequence[EvaluationResult], console: Console | None = None) -> None:
    """Print one row per metric and one column per run, with baselines and warnings."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=max(_WIDE, 40 + 26 * len(results)))
    table = Table(title="value ± standard deviation", title_justify="left")
    table.add_column("")
    for name, result in zip(_names(results), results, strict=True):
        table.add_column(f"{_outside(name)}\n{result.seen / 1000:g} kimg", justify="right")
    biases = {result.comparison_key: result for result in results}
    for result in biases.values():
        count = next(iter(result.estimates.values())).baseline_n
        table.add_column(f"real images\n{_outside(result.dataset)}, n = {count}", justify="right")
    for name in dict.fromkeys(name for result in results for name in result.estimates):
        cells = [_cell(result.estimates.get(name)) for result in results]
        around = [_bias(result.estimates.get(name)) for result in biases.values()]
        table.add_row(_outside(name), *cells, *around)
    console.print(table)
    for line in (*meanings(results), *caveats(results)):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _names(results: Sequence[EvaluationResult]) -> list[str]:
    return display_names([result.run for result in results])


def _outside(text: str) -> str:
    """Escape text for a table."""
    return escape(printable(text))


def meanings(results: Sequence[EvaluationResult]) -> list[str]:
    """Return one sentence per run about its Fréchet distance, and how far it is from that of real
    images."""
    lines = []
    for name, result in zip(_names(results), results, strict=True):
        for metric, found in result.estimates.items():
            if metric.partition("_")[0] not in ("fd", "fid"):
                continue
            text = f"{name}: the Fréchet distance is {_number(found.value)} (lower is better)"
            if found.baseline is not None:
                text += (
                    f"; {found.baseline_n} of the real images against the others have "
                    f"{_number(found.baseline)}, so a perfect generator would have about that"
                )
            lines.append(text)
    return lines


def caveats(results: Sequence[EvaluationResult]) -> list[str]:
    """Return what the values were computed from, and which of them cannot be compared."""
    lines = [
        f"{name}: {count_of(result.samples, 'sample')} against "
        f"{count_of(result.real, 'image')} of {result.dataset} at "
        f"{result.size[0]}×{result.size[1]} px"
        + (f", over {result.background}" if result.background else "")
        for name, result in zip(_names(results), results, strict=True)
    ]
    if len({result.comparison_key for result in results}) > 1:
        lines.append(
            "warning: real images, sizes, colours or numbers of samples differ: these columns "
            "cannot be compared"
        )
    fewer = [
        found.baseline_n
        for result in results
        for found in result.estimates.values()
        if found.baseline_n is not None and found.baseline_n < result.samples
    ]
    if fewer:
        lines.append(
            f"warning: there are too few real images to hold out as many as there are samples; the "
            f"baseline uses {min(fewer)}, so its bias is larger than that of the runs"
        )
    if min(result.samples for result in results) < 1000:
        lines.append(
            "warning: with fewer than 1000 samples, rely on the kernel distance rather than on the "
            "Fréchet distance"
        )
    return lines


def _cell(found: Estimate | None) -> str:
    return "" if found is None else f"{_number(found.value)} ± {_number(found.sd)}"


def _bias(found: Estimate | None) -> str:
    if found is None or found.baseline is None or found.baseline_sd is None:
        return ""
    return f"{_number(found.baseline)} ± {_number(found.baseline_sd)}"


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.4f}"


def as_json(results: Sequence[EvaluationResult]) -> dict[str, Any]:
    """Return the results as one JSON object."""
    return {"runs": [result_to_json(result) for result in results]}
