"""ONNX models by `torch.onnx.export`, checked against PyTorch before they are written (extra
`export`)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.contract import UserError, write_atomic

TOLERANCE = 1e-3
"""The largest difference of a value in [-1, 1]: an eighth of a step of an 8-bit image."""
BATCHES = (1, 3)


@dataclass(frozen=True)
class Graph:
    """A module to export. `inputs` (None: not an input) are examples for two items, whose first
    dimension is dynamic if it is 2; `names` are their names, `output` that of the result."""

    module: nn.Module
    names: tuple[str, ...]
    inputs: tuple[Tensor | None, ...]
    output: str

    def example_inputs(self, count: int) -> tuple[Tensor | None, ...]:
        """Return inputs for `count` items: random numbers, and cycling labels."""
        random = torch.Generator().manual_seed(count)
        made: list[Tensor | None] = []
        for example in self.inputs:
            if example is None or example.dim() == 0:
                made.append(example)
            elif example.is_floating_point():
                made.append(torch.randn(count, *example.shape[1:], generator=random))
            else:
                made.append(torch.arange(count) % (int(example.max()) + 1))
        return tuple(made)


def write_onnx(graph: Graph, path: Path, tolerance: float = TOLERANCE) -> float:
    """Export, compare with PyTorch and write; return the largest difference.

    Raises:
        UserError: packages are missing, or the difference exceeds `tolerance`.
    """
    data = export(graph)
    apart = max_difference(graph, data)
    if not apart <= tolerance:
        raise UserError(
            f"{path}: differs from PyTorch by {apart:.2g} (at most {tolerance:g}); not written"
        )
    write_atomic(path, data)
    return apart


def export(graph: Graph) -> bytes:
    """Return the module as an ONNX model with a dynamic batch size.

    Raises:
        UserError: packages are missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'shellgan[export]'") from None
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple(
        None if example is None else {0: batch} if example.dim() else {} for example in graph.inputs
    )
    given = [name for name, i in zip(graph.names, graph.inputs, strict=True) if i is not None]
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(), graph.inputs, dynamo=True, dynamic_shapes=shapes, verbose=False,
            input_names=given,
            output_names=[graph.output], opset_version=18,
        )  # fmt: skip
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def max_difference(graph: Graph, data: bytes, batches: Sequence[int] = BATCHES) -> float:
    """Return the largest difference between ONNX Runtime's and PyTorch's results, over several
    batches.

    Raises:
        UserError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("ONNX needs onnxruntime: pip install 'shellgan[export]'") from None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in batches:
        inputs = graph.example_inputs(count)
        with torch.no_grad():
            wanted = graph.module(*inputs).numpy()
        feed = {
            name: value.numpy()
            for name, value in zip(graph.names, inputs, strict=True)
            if value is not None
        }
        found = session.run(None, feed)[0]
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the exporter's own output."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
