"""Arbitrary text from outside on its way to a terminal: no control code reaches it."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.console import Console, describe_event
from pipeline.errors import Failure, UserError
from pipeline.events import FIRST_FAILURE, Event, Progress
from pipeline.exit import ResilientStream
from pipeline.outside_text import printable, without_passwords
from pipeline.status import Status, format_status
from training.monitoring.console import printable_lines

TEXT = st.text(
    st.characters() | st.sampled_from("\x1b\x9b\r\n\x07\u202e\u2066\ud800[]/@:\x00\u2028"),
    max_size=60,
)
JSON: Any = st.recursive(
    TEXT | st.integers() | st.booleans() | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FORBIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def check(text: str, line_ends: str = "") -> None:
    for character in text:
        allowed = character in line_ends or character in "\u200c\u200d"
        assert allowed or unicodedata.category(character) not in FORBIDDEN, repr(character)


@given(TEXT, st.none() | st.integers(1, 20))
@example("\x1b]0;title\x07\x1b[2J\u202e", None)
def test_printable_text_is_one_line_without_control_codes(text: str, most: int | None) -> None:
    shown = printable(text, most)
    check(shown)
    assert printable(shown) == shown
    if text.isprintable() and most is None:
        assert shown == text


@given(TEXT, TEXT)
def test_user_errors_and_lines_of_training_have_no_control_codes(one: str, other: str) -> None:
    check(str(UserError(f"{one}: {other}")))
    check(printable_lines(f"{one}\n{other}"), "\n")


@given(TEXT, TEXT, st.dictionaries(TEXT, JSON, max_size=4))
@example("[bold]x", "[/nosuch]", {"[red]": "[link=file:///x]y[/link]"})
def test_events_print_one_line_as_they_are(stage: str, event: str, facts: dict[str, Any]) -> None:
    line = describe_event(Event("", "", printable(stage), printable(event), facts))
    check(line)
    out = io.StringIO()
    console = Console(live=False)
    console._out.file = out
    console.on_event(Event("", "", "crawl", "done", facts))
    failure = {"kind": "dns", "url": str(facts), "detail": event}
    console.on_event(Event("", "", "crawl", FIRST_FAILURE, failure))
    console.on_progress(Progress("crawl", 1, 2, "pages", failed={stage: 1}))
    check(out.getvalue(), "\n")
    assert out.getvalue().count("\n") == 3


@given(TEXT, st.dictionaries(TEXT, st.integers(0, 9), max_size=3), st.lists(TEXT, max_size=2))
def test_a_status_prints_no_control_codes(
    name: str, counts: dict[str, int], damaged: list[str]
) -> None:
    status = Status(name, counts, failed=counts, opt_outs=counts, rejected=counts,
                    damaged=tuple(damaged), failure_log=name)  # fmt: skip
    check(format_status(status), "\n")


SECRET = "s3cr3tZq9"


@given(
    st.sampled_from(["http", "https", "ftp", "s3", "HTTP", "sftp"]),
    st.text("abc-._~!$&'()*+,;=:%25[]@<>\"`{}|^é", max_size=8),
    TEXT,
    TEXT,
)
def test_no_password_of_a_url_is_in_a_message(
    scheme: str, noise: str, before: str, after: str
) -> None:
    url = f"{scheme}://user{noise}:{SECRET}{noise}@host.example/x?y#z"
    for text in (url, f"{before}{url}{after}", f"{before} ({url}): {after}", f"'{url}'"):
        if before[-1:].isalnum() and text.startswith(before):
            continue  # another scheme
        assert SECRET not in without_passwords(text)
        assert SECRET not in str(UserError(text))
        failure = Failure("crawl", text, "dns", True, detail=text)
        assert SECRET not in failure.url + failure.detail


@given(TEXT, st.sampled_from(["ascii", "latin-1", "utf-8", "cp437"]))
def test_a_stream_takes_every_text(text: str, encoding: str) -> None:
    raw = io.BytesIO()
    stream = ResilientStream(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    stream.write(text)
    stream.write("neighbour")
    stream.flush()
    assert raw.getvalue().endswith("neighbour".encode(encoding))


class _Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


def test_a_stream_without_a_reader_takes_every_text() -> None:
    stream = ResilientStream(_Broken())
    stream.write("x")
    stream.flush()
    closed = io.StringIO()
    closed.close()
    ResilientStream(closed).write("x")
