"""Odd arguments, output that nobody reads, and damaged files: one line, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, image_key
from pipeline.demo.shells import draw
from pipeline.errors import UserError
from pipeline.job import Job
from pipeline.status import format_status, read_status
from tests.helpers.commands import run_pipeline as run

ESCAPES = ("\x1b", "\x9b", "\r", "\u202e", "\x07", "\ud800")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `mine` of two local images, and odd files beside it."""
    root = tmp_path_factory.mktemp("project")
    (root / "pictures").mkdir()
    for number in range(2):
        draw(1, number, 48).save(root / "pictures" / f"{number}.png")
    (root / "mine.toml").write_text(
        f'[source]\nkind = "folder"\nstart = ["{root / "pictures"}"]\n[select]\nmin_side = 16\n'
        'near_duplicate_bits = "off"\n[shards]\nresolution = 16\n'
    )
    (root / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (root / "folder.toml").mkdir()
    (root / "keys.txt").write_bytes(b"\xff\xfe\x00")
    assert run(root, "run", "mine.toml").returncode == 0
    return root


@pytest.mark.parametrize(
    "words",
    [
        ("crawl", "nosuch"),
        ("status", "nosuch"),
        ("status", "Ü\x1b[31m"),
        ("status", b"\xff\xfe"),
        ("status", "x" * 5000),
        ("crawl", "binary.toml"),
        ("crawl", "folder.toml"),
        ("crawl", "mine.toml", "--set", "shards.resolution=" + "[" * 50_000),
        ("crawl", "mine.toml", "--set", "politeness.rate=1e999"),
        ("crawl", "mine.toml", "--set", "=1"),
        ("crawl", "mine.toml", "--set", "a..b=1"),
        ("crawl", "mine.toml", "--nosuch", "http://user:s3cr3t@host/\x1b[2J"),
        ("shard", "mine.toml", "--variant", "../x"),
        ("status", "mine.toml", "--root", "mine.toml"),
        ("status", "mine.toml", "--root", "nosuch"),
        ("retry", "mine.toml", "--older-than", "nan"),
        ("retry", "mine.toml", "--older-than", "-1"),
        ("retry", "mine.toml", "--kind", "x\x1b[2J"),
        ("forget", "mine.toml", "--key", "nosuch"),
        ("forget", "mine.toml", "--url", "http://[::1"),
        ("forget", "mine.toml", "--keys-from", "keys.txt"),
        ("forget", "mine.toml", "--keys-from", "."),
        ("export", "mine.toml", "mine.toml/x"),
        ("export", "mine.toml", ""),
        ("import", "mine.toml", "nosuch"),
        ("export-manifest", "mine.toml", "mine.toml/x.csv"),
        ("import-manifest", "mine.toml", "nosuch.csv"),
        ("check-recipe", "folder.toml", "--url", "http://127.0.0.1:1/"),
        ("check-recipe", "mine.toml", "--url", "x"),
        ("new-recipe", b"http://\xff/"),
        ("new-recipe", "http://[::1/"),
        (),
    ],
    ids=lambda words: repr(words)[:60],
)
def test_a_mistake_is_one_line_and_status_2(project: Path, words: tuple[str | bytes, ...]) -> None:
    result = run(project, *words)
    assert result.returncode == 2, result.stderr
    assert "error: " in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not any(escape in result.stderr for escape in ESCAPES)
    assert "s3cr3t" not in result.stderr


@pytest.mark.parametrize("root", [".", "../{name}", "./"])
def test_a_relative_root_is_as_good(project: Path, root: str) -> None:
    for command in ("status", "select", "verify"):
        result = run(project, command, "mine.toml", "--root", root.format(name=project.name))
        assert result.returncode == 0, result.stderr
    shown = run(project, "status", "mine.toml", "--root", root.format(name=project.name)).stdout
    assert "images    2 of 2 attempted" in shown


@pytest.mark.parametrize(
    ("command", "output", "status"),
    [
        ("status mine.toml", "| head -0", 0),
        ("status mine.toml", ">&-", 0),
        ("select mine.toml", "2>&-", 0),
        ("select mine.toml --json", "2>/dev/full", 0),
        ("select mine.toml --json", "| true", 0),
        ("status mine.toml", ">/dev/full", 2),
    ],
)
def test_output_that_nobody_takes_ends_no_work(
    project: Path, tmp_path: Path, command: str, output: str, status: int
) -> None:
    shell = f'{{ "$0" -m pipeline {command}; echo $? >"$1"; }} {output}'
    words = ["sh", "-c", shell, sys.executable, str(tmp_path / "status")]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True)
    assert int((tmp_path / "status").read_text()) == status, result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_terminal_without_unicode_gets_escapes(project: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with JsonlAppender(DatasetPaths("mine", project).failure_log) as file:
        file.append({"stage": "crawl", "url": "http://x/é", "kind": "ü", "retryable": False})
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "status", "mine.toml"], cwd=project, text=True,
        capture_output=True, env=os.environ | plain,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "\\xfc 1" in result.stdout


def test_status_loads_neither_image_libraries_nor_adapters(project: Path) -> None:
    """They would take most of its time."""
    code = (
        "import sys; from pipeline.__main__ import main; main(['status', 'mine.toml']); "
        "print(sorted({'numpy', 'PIL', 'bs4', 'requests', 'jinja2'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


AT_IMPORT = """
import signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "pipeline.commands.stages":
            for _ in range({times}):
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    if {times} == 1:
                        raise
sys.meta_path.insert(0, Finder())
from pipeline.__main__ import main
sys.exit(main(["status", "mine.toml"]))
"""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_is_one_line_also_while_the_program_loads(project: Path, times: int) -> None:
    """The second interrupt ends the process at once."""
    code = AT_IMPORT.format(times=times)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True
    )
    assert result.returncode == 130
    assert result.stderr == "interrupted; run the same command again to resume\n"


GARBAGE = [
    b"\x00\xff garbage\n",
    b"[]\n",
    b"{}\n",
    b'{"nsamples": "x"}\n',
    b"[" * 100_000 + b"\n",
    b"",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda data: repr(data[:12]))
def test_status_names_what_is_damaged(tmp_path: Path, garbage: bytes) -> None:
    dataset = DatasetPaths("mine", tmp_path)
    part = dataset.originals_dir / "mine-000000"
    paths = [
        dataset.url_manifest,
        dataset.selection,
        dataset.rejections,
        dataset.shard_index,
        dataset.crawl_state,
        dataset.failure_log,
        Path(f"{part}.plan.jsonl"),
        Path(f"{part}.json"),
        Path(f"{part}.jsonl"),
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(garbage)
    shown = format_status(read_status(dataset))
    assert f"damaged   {dataset.shard_index}: " in shown
    assert f"{part}.json: damaged; remove it and run download, which writes it again" in shown
    is_object = garbage.startswith(b"{") or not garbage
    assert (f"{dataset.url_manifest}: line 1: not a JSON object" in shown) != is_object
    assert json.loads(json.dumps(read_status(dataset).to_json()))["name"] == "mine"


def test_status_counts_urls_and_not_attempts(tmp_path: Path) -> None:
    """Twelve URLs, of which seven failed, two of them twice; opt-outs and errors are named."""
    dataset = DatasetPaths("mine", tmp_path)
    urls = [f"http://x/{number}" for number in range(12)]
    with JsonlAppender(dataset.url_manifest) as file:
        file.append(*({"key": image_key(url), "url": url} for url in urls))
    part = dataset.originals_dir / "mine-000000"
    good = [{"ok": True, "key": image_key(url), "ts": "2026-01-01T00:00:00Z", "bytes": 10}
            for url in urls[:5]]  # fmt: skip
    bad = [{"ok": False, "key": image_key(url), "ts": "2026-01-01T00:00:01Z", "kind": "x"}
           for url in urls[5:]]  # fmt: skip
    with JsonlAppender(Path(f"{part}.plan.jsonl")) as file:
        file.append({"key": "k", "url": "u"})
    with JsonlAppender(Path(f"{part}.jsonl")) as file:
        file.append(*good, *bad, *bad)
    kinds = ["opt_out", "opt_out", "internal", "not_found", "dns", "dns", "dns"]
    rows = [
        {"stage": "download", "url": url, "kind": kind, "retryable": kind in ("dns", "internal"),
         "detail": "noai: X-Robots-Tag" if kind == "opt_out" else "Traceback"}
        for url, kind in zip(urls[5:], kinds, strict=True)
    ]  # fmt: skip
    with JsonlAppender(dataset.failure_log) as file:
        file.append(*rows, *rows[:2])
    status = read_status(dataset)
    assert (status.images, status.attempted, status.urls) == (5, 12, 12)
    assert status.opt_outs == {"noai": 2}
    shown = format_status(status)
    assert "images    5 of 12 attempted" in shown
    assert "opt-outs  2: noai 2" in shown
    assert (
        f"internal  1 error of this program; the tracebacks are in {dataset.failure_log}" in shown
    )
    assert "4 retryable" in shown


@pytest.mark.parametrize("name", ["selection", "url_manifest", "shard_index", "failure_log"])
def test_a_fifo_among_the_files_of_a_dataset_is_one_line(name: str, tmp_path: Path) -> None:
    dataset = DatasetPaths("shells", tmp_path)
    path = getattr(dataset, name)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with (
        pytest.raises(UserError, match=f"{path.name}: not a regular file"),
        Job("shells", {}, tmp_path).open(),
    ):
        pass
