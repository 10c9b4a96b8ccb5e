"""What a person reads when something failed: why, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, image_key
from pipeline.errors import Failure
from pipeline.events import FIRST_FAILURE, Event, EventLog
from tests.helpers.commands import run_pipeline as run
from tests.helpers.faulty_site import Row, first, page, picture, serve, status


@pytest.fixture
def project(faulty_site, tmp_path: Path) -> Path:
    """Five URLs: one good, two gone, one that comes back, one that does not."""
    rows = [
        Row("/good.jpg", serve(picture(1)), data=picture(1)),
        Row("/gone1.jpg", status("404 Not Found")),
        Row("/gone2.jpg", status("404 Not Found")),
        Row("/back.jpg", first(1, status("503 Busy"), serve(picture(2))), data=picture(2)),
        Row("/broken.jpg", serve(page("[bold]not\x1b[2J a picture[/]"), type_="image/jpeg")),
    ]
    faulty_site.rows |= {row.path: row for row in rows}
    (tmp_path / "mine.toml").write_text(
        f'[source]\nkind = "html"\nstart = ["{faulty_site.url("/")}"]\n[politeness]\nrate = 500\n'
        "allow_private = true\nattempts = 1\n[select]\nmin_side = 8\n"
    )
    urls = [faulty_site.url(row.path) for row in rows]
    with JsonlAppender(DatasetPaths("mine", tmp_path).url_manifest) as manifest:
        manifest.append(*({"key": image_key(url), "url": url} for url in urls))
    return tmp_path


def test_the_first_failure_of_each_kind_is_shown_and_status_1_explained(project: Path) -> None:
    result = run(project, "download", "mine.toml")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    shown = [line for line in lines if line.startswith("download first failure ")]
    kinds = [line.split()[3].rstrip(":") for line in shown]
    assert sorted(kinds) == sorted({"not_found", "unavailable", *kinds})  # each kind once
    assert len(shown) == 3
    assert all("http://127.0.0.1" in line for line in shown)
    assert "\x1b" not in result.stderr
    log = project / "logs" / "mine" / "failures.jsonl"
    assert lines[-1].startswith(f"4 failed; the reasons are in {log}; to retry ")
    assert lines[-1].endswith("run: python -m pipeline retry mine.toml")
    quiet = run(project, "status", "mine.toml")
    assert "images    1 of 5 attempted" in quiet.stdout


def test_retry_says_what_it_recovered_and_why_it_tried_nothing(project: Path) -> None:
    before = run(project, "retry", "mine.toml")
    assert "nothing to retry: " in before.stderr
    assert "has no unresolved failure" in before.stderr
    assert run(project, "download", "mine.toml").returncode == 1
    other = run(project, "retry", "mine.toml", "--host", "elsewhere.example")
    assert other.returncode == 0
    assert "nothing to retry: no unresolved failure is retryable and matches the options" in (
        other.stderr
    )
    assert "not_found 2" in other.stderr
    assert "--everything" in other.stderr
    done = run(project, "retry", "mine.toml")
    assert (
        "1 resolved; they are not in the shards yet; run: python -m pipeline select mine.toml"
        in (done.stderr)
    )
    assert run(project, "select", "mine.toml").returncode == 0
    assert run(project, "shard", "mine.toml").returncode == 0
    assert "kept      2" in run(project, "status", "mine.toml").stdout


def test_each_run_shows_the_first_failure_again_and_the_log_has_no_copy(tmp_path: Path) -> None:
    dataset = DatasetPaths("mine", tmp_path)
    for name in ("one", "two"):
        events: list[Event] = []
        with EventLog(dataset, name, [events.append]) as log:
            for url in ("http://u:s3cr3t@x/1", "http://x/2"):
                log.log_failure(Failure("crawl", url, "dns", retryable=True, detail="no such host"))
        (shown,) = events
        assert shown.event == FIRST_FAILURE
        assert shown.facts == {"kind": "dns", "url": "http://x/1", "detail": "no such host"}
    assert dataset.event_log.read_bytes() == b""


def test_of_opt_outs_alone_the_override_is_named(faulty_site, project: Path) -> None:
    faulty_site.rows["/noai.jpg"] = Row("/noai.jpg", serve(picture(3), **{"X-Robots-Tag": "noai"}))
    url = faulty_site.url("/noai.jpg")
    path = DatasetPaths("mine", project).url_manifest
    path.unlink()
    with JsonlAppender(path) as manifest:
        manifest.append({"key": image_key(url), "url": url})
    result = run(project, "download", "mine.toml")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(
        "; all are opt-outs (politeness.opt_out_overrides overrides a signal, with a reason)"
    )
