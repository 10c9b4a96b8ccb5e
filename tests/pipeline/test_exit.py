"""Interrupts end a command with status 130, also where Python drops exceptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from pipeline.exit import exit_status


class _Watched:
    """An object that can have weak references."""


def _wait() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_callback_of_a_weak_reference_is_not_lost(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        watched = _Watched()
        reference = weakref.ref(watched, lambda _: signal.raise_signal(number))
        del watched  # the callback runs here, as after an import
        assert reference() is None
        _wait()

    start = time.monotonic()
    assert exit_status(work) == 130
    assert time.monotonic() - start < 10
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    "work",
    ["exec('signal.raise_signal(signal.SIGINT)')", "type('Named', (), {'field': Interrupting()})"],
    ids=["as in a dataclass", "as in a descriptor"],
)
def test_an_interrupt_while_a_class_is_made_ends_with_the_status(work: str, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import signal, sys\n"
        "from pipeline.exit import exit_process, exit_status\n"
        "class Interrupting:\n"
        "    def __set_name__(self, *_): signal.raise_signal(signal.SIGINT)\n"
        f"exit_process(exit_status(lambda: {work} and None))\n"
    )
    ended = subprocess.run(  # only `-m` ends by SIGINT after an interrupt in `exec` of a text
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 130
    assert ended.stderr == "interrupted; run the same command again to resume\n"


def test_other_dropped_exceptions_go_to_the_hook_that_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: found.append(one.exc_type))

    def fail(_: object) -> None:
        raise ValueError

    def work() -> None:
        watched = _Watched()
        reference = weakref.ref(watched, fail)
        del watched
        assert reference() is None

    assert exit_status(work) == 0
    assert found == [ValueError]
