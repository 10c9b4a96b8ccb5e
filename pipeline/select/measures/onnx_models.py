"""Runs networks that installed packages contain as ONNX files, without importing the packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Model = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A network with one input and one output."""


@cache
def load_model(package: str, file: str, extra: str) -> Model:
    """Return the network in a file of an installed package.

    Args:
        file: its path in the package's folder.
        extra: the extra of this project that installs both, for the error message.

    Raises:
        ImportError: onnxruntime or the package is not installed, or lacks the file.
    """
    install = f"pip install 'shellgan[{extra}]'"
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{error}; {install}") from None
    spec = find_spec(package)
    paths = [Path(folder, file) for folder in (spec and spec.submodule_search_locations) or ()]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ImportError(f"{file} of the package {package} is missing; {install}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait must not take the processor from other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(values: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {name: values})[0]
        return output

    return run
