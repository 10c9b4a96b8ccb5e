"""Which tests `make test-fast` leaves out: those that start a process or train a network.

They are found by what they call, so nobody has to mark them. Other tests that take more than about
a second carry `@pytest.mark.slow`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SLOW_NAMES = {
    "subprocess", "multiprocessing", "fork", "ChildProcesses", "ProcessPoolExecutor",
    "Browser", "fit_here", "run_here", "serve_prefect",
}  # fmt: skip
"""Modules, functions and classes that start processes or servers of other packages, or run whole
commands."""


def is_slow(item: pytest.Function) -> bool:
    """True if the test, one of its fixtures or a helper of theirs uses one of `SLOW_NAMES`."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(definitions[-1].func for definitions in fixtures)]
    return any(_uses_slow_name(function) for function in functions)


@functools.cache
def _uses_slow_name(function: Callable[..., Any]) -> bool:
    seen: set[Any] = set()
    waiting: list[Any] = [function]
    while waiting:
        code = getattr(waiting[-1], "__code__", None)
        where = getattr(waiting.pop(), "__globals__", {})
        for name in _names(code) if code is not None else ():
            if name in SLOW_NAMES:
                return True
            for helper in _functions(where.get(name)):
                if helper not in seen:
                    seen.add(helper)
                    waiting.append(helper)
    return False


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names and attributes in the code of a function and of those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _functions(value: Any) -> list[Any]:
    """The functions of the tests themselves behind a global name: itself, or a class's methods."""
    value = getattr(value, "__wrapped__", value)  # a context manager, a cached function
    if not getattr(value, "__module__", "").startswith("tests."):
        return []
    methods = vars(value).values() if isinstance(value, type) else [value]
    return [method for method in methods if isinstance(method, types.FunctionType)]
