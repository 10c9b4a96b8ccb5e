"""Interrupts end a command with status 130, also where Python drops exceptions."""

from __future__ import annotations

import signal
import sys
import time
import weakref

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
