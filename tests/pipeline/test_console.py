"""What a person reads."""

from pipeline.console import Console, describe_count
from pipeline.events import Event, Progress
from pipeline.units import count_of, format_bytes, format_duration


def test_words_for_counts_sizes_and_times() -> None:
    report = Progress("download", 340, 2000, "images", 12_300_000, {"timeout": 2, "http-404": 1})
    assert describe_count(report) == ("340/2,000 images, 12.3 MB, 3 failed (http-404 1, timeout 2)")
    assert describe_count(Progress("crawl", 7, None, "pages")) == "7 pages"
    assert [format_bytes(n) for n in (0, 999, 1000, 1.5e9, 2e12)] == [
        *("0 B", "999 B", "1.0 kB", "1.5 GB", "2.0 TB")
    ]
    assert [format_duration(s) for s in (0, 61.9, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_without_a_terminal_there_are_few_plain_lines(capsys) -> None:
    with Console(live=False) as console:
        for done in range(100):
            console.on_progress(Progress("download", done, 100, "images"))
        console.on_event(Event("t", "r", "download", "done", {"good": 99, "failed": 1}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "download: 0/100 images",
        "download done: good 99, failed 1",
    ]


def test_quiet_says_nothing(capsys) -> None:
    with Console(quiet=True, live=True) as console:
        console.on_progress(Progress("download", 1, 100, "images"))
        console.on_event(Event("t", "r", "download", "done"))
    assert capsys.readouterr().err == ""


def test_bars_show_every_stage(capsys) -> None:
    with Console(live=True) as console:
        console.on_progress(Progress("crawl", 3, 10, "pages"))
        console.on_progress(Progress("download", 5, 20, "images", 2_000_000))
        console.on_progress(Progress("download", 20, 20, "images", 4_000_000))
    shown = capsys.readouterr().err
    assert "crawl" in shown
    assert "20/20 images" in shown


def test_one_is_singular() -> None:
    assert describe_count(Progress("select", 1, 1, "images")) == "1/1 image"
    assert describe_count(Progress("select", 1, None, "images")) == "1 image"
    assert describe_count(Progress("select", 0, 1000, "images")) == "0/1,000 images"
    assert [count_of(n, "hour") for n in (1.0, 0.5, 2, 1234)] == [
        "1 hour", "0.5 hours", "2 hours", "1,234 hours",
    ]  # fmt: skip
