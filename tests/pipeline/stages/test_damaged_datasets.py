"""Damaged files of a complete dataset, through the commands: what is done stays done, and the
advice of a message repairs it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.contract import DatasetPaths, image_key, load_index, read_jsonl
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import PartFiles, read_records
from pipeline.shards import verify
from tests.helpers.faulty_site import FaultySite, Row, picture, serve

IMAGES = 6
Tree = Callable[[Path], dict[str, bytes]]
RECIPE = """
[source]
kind = "list"
start = ["{list}"]
[politeness]
allow_private = true
rate = 1000
[select]
min_side = 8
[shards]
resolution = 16
samples_per_shard = 3
"""


@pytest.fixture(scope="module")
def site() -> Iterator[FaultySite]:
    with FaultySite() as site:
        site.rows |= {
            f"/{n}.jpg": Row(f"/{n}.jpg", serve(picture(5000 + n)), data=picture(5000 + n))
            for n in range(IMAGES)
        }
        yield site


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, site: FaultySite) -> Path:
    """A project folder with the complete dataset `d` of two shards."""
    root = tmp_path_factory.mktemp("complete")
    urls = [site.url(f"/{n}.jpg") for n in range(IMAGES)]
    (root / "list.txt").write_text("\n".join(urls))
    (root / "d.toml").write_text(RECIPE.format(list=root / "list.txt"))
    assert main(["run", str(root / "d.toml"), "--root", str(root), "--quiet"]) == 0
    return root


@pytest.fixture
def dataset(complete: Path, site: FaultySite, tmp_path: Path) -> DatasetPaths:
    """A copy of the complete dataset; the log of the site is empty."""
    shutil.copytree(complete, tmp_path / "root")
    site.log.clear()
    return DatasetPaths("d", tmp_path / "root")


def command(dataset: DatasetPaths, *args: str) -> int:
    name, *options = args
    recipe = str(dataset.root / "d.toml")
    return main([name, recipe, *options, "--root", str(dataset.root), "--quiet"])


def assert_complete(dataset: DatasetPaths) -> None:
    assert command(dataset, "run") == 0
    data = sorted(read_original(dataset, record) for record in read_records(dataset))
    assert data == sorted(picture(5000 + n) for n in range(IMAGES))
    index, _ = load_index(dataset.shard_index)
    assert index.nsamples == IMAGES


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["folder", "fifo"])
@pytest.mark.parametrize(
    "name",
    [
        "data/d/originals/d-000000.jsonl", "data/d/shards/d-000000.tar", "data/d/lock",
        "manifests/d/kept.jsonl", "logs/d/failures.jsonl",
    ],
)  # fmt: skip
def test_a_folder_or_fifo_in_the_place_of_a_file_is_one_line_and_changes_nothing(
    dataset: DatasetPaths, tree: Tree, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    path = dataset.root / name
    if path.exists():
        path.unlink()
    (Path.mkdir if kind == "folder" else os.mkfifo)(path)
    before = without_databases(tree(dataset.root))
    what = "a folder, not a file; remove or rename it"
    if kind == "fifo":
        what = "not a regular file; remove or replace it"
    for one in (["run"], ["select", "--preview"], ["export-manifest", "out.csv"]):
        capsys.readouterr()
        assert command(dataset, *one) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: {path}: {what}"
    assert command(dataset, "status") == 0
    assert without_databases(tree(dataset.root)) == before


def without_databases(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if "sqlite" not in name}


@pytest.mark.parametrize(
    ("name", "empty"),
    [("README.md", True), ("card.html", False), ("contact.jpg", True), ("mean.png", False)],
)
def test_a_file_of_the_card_that_is_missing_or_empty_is_written_again(
    dataset: DatasetPaths, name: str, empty: bool
) -> None:
    path = dataset.manifest_dir / name
    before = path.read_bytes()
    path.write_bytes(b"") if empty else path.unlink()
    assert command(dataset, "shard") == 0
    assert path.stat().st_size >= len(before) - 10  # the card names the time
    written = path.stat().st_mtime_ns
    assert command(dataset, "shard") == 0
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"nsamples": "6"}', None])
def test_a_damaged_summary_is_written_again_and_nothing_is_fetched(
    dataset: DatasetPaths, site: FaultySite, capsys: pytest.CaptureFixture[str],
    content: bytes | None,
) -> None:  # fmt: skip
    files = PartFiles(dataset, "d-000000")
    before = json.loads(files.summary.read_bytes())
    if content is None:
        files.summary.unlink()
    else:
        files.summary.write_bytes(content)
        assert command(dataset, "status") == 0
        what = f"damaged   {files.summary}: damaged; run download, which writes it again"
        assert what in capsys.readouterr().out
    assert_complete(dataset)
    after = json.loads(files.summary.read_bytes())
    assert {**after, "finished": ""} == {**before, "finished": ""}
    assert not site.asked()


def test_a_part_with_an_erased_image_is_recovered_without_fetching_it(
    dataset: DatasetPaths, site: FaultySite
) -> None:
    key = image_key(site.url("/2.jpg"))
    assert command(dataset, "forget", "--key", key) == 0
    files = PartFiles(dataset, "d-000000")
    before = json.loads(files.summary.read_bytes())
    files.summary.write_bytes(b"")
    assert command(dataset, "run") == 0
    assert json.loads(files.summary.read_bytes())["sha256"] == before["sha256"]
    assert not site.asked()
    (erased,) = (one for one in read_records(dataset) if one.key == key)
    assert not any(read_original(dataset, erased))


def test_forgotten_images_are_not_fetched_for_a_part_that_is_repaired(
    dataset: DatasetPaths, site: FaultySite
) -> None:
    assert command(dataset, "forget", "--key", image_key(site.url("/2.jpg"))) == 0
    files = PartFiles(dataset, "d-000000")
    files.journal.write_bytes(b"junk\n")
    files.tar.write_bytes(b"")
    files.summary.unlink()
    assert command(dataset, "run") == 0
    assert sorted(site.asked()) == [f"/{n}.jpg" for n in range(IMAGES) if n != 2]
    index, _ = load_index(dataset.shard_index)
    assert index.nsamples == IMAGES - 1


@pytest.mark.slow
def test_an_image_that_is_forgotten_before_its_download_is_not_fetched(
    complete: Path, site: FaultySite, tmp_path: Path
) -> None:
    for name in ("d.toml", "list.txt"):
        shutil.copy(complete / name, tmp_path)
    dataset = DatasetPaths("d", tmp_path)
    assert command(dataset, "crawl") == 0
    assert command(dataset, "forget", "--key", image_key(site.url("/2.jpg"))) == 0
    site.log.clear()
    assert command(dataset, "run") == 0
    assert sorted(site.asked()) == [f"/{n}.jpg" for n in range(IMAGES) if n != 2]


@pytest.mark.parametrize("line", [0, 4])
def test_the_advice_for_a_damaged_journal_repairs_the_part(
    dataset: DatasetPaths, site: FaultySite, capsys: pytest.CaptureFixture[str], line: int
) -> None:
    files = PartFiles(dataset, "d-000000")
    lines = files.journal.read_bytes().splitlines(keepends=True)
    lines[line] = b"\xff\xfe junk\n"
    files.journal.write_bytes(b"".join(lines))
    assert command(dataset, "run") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: {files.journal}:{line + 1}: not JSON ")
    assert f"; restore it from a copy, or remove {files.summary.name} beside it and run" in message
    files.summary.unlink()
    assert command(dataset, "download") == 0
    assert_complete(dataset)
    assert not site.asked()


@pytest.mark.parametrize("damage", ["line gone", "all gone", "another hash", "another place"])
def test_lines_of_a_journal_are_read_again_from_the_tar(
    dataset: DatasetPaths, site: FaultySite, damage: str
) -> None:
    files = PartFiles(dataset, "d-000000")
    before = list(read_jsonl(files.journal))
    rows = [dict(row) for row in before]
    if damage == "line gone":
        del rows[2]
    elif damage == "all gone":
        rows = []
    elif damage == "another hash":
        rows[2]["sha256"] = "0" * 64
    else:
        rows[2] |= {"offset": 1 << 30, "end": 1 << 31}
    files.journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files.summary.unlink()
    assert_complete(dataset)
    assert not site.asked()
    after = list(read_jsonl(files.journal))
    assert [row | {"ts": ""} for row in after] == [row | {"ts": ""} for row in before]


@pytest.mark.parametrize("rows", [0, 4])
def test_a_journal_that_lost_its_end_is_noticed_and_repaired(
    dataset: DatasetPaths, site: FaultySite, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    files = PartFiles(dataset, "d-000000")
    lines = files.journal.read_bytes().splitlines(keepends=True)
    files.journal.write_bytes(b"".join(lines[:rows]) + b'{"torn')
    assert command(dataset, "select") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        f"error: {files.journal}: {rows} images, the summary counts {IMAGES}; restore it from a "
        f"copy, or remove {files.summary.name} beside it and run download"
    )
    files.summary.unlink()
    assert command(dataset, "download") == 0
    assert_complete(dataset)
    assert not site.asked()


@pytest.mark.slow
def test_a_plan_that_is_lost_is_written_again_and_nothing_is_fetched(
    dataset: DatasetPaths, site: FaultySite
) -> None:
    site.rows["/6.jpg"] = Row("/6.jpg", serve(picture(5006)), data=picture(5006))
    with (dataset.root / "list.txt").open("a") as file:
        file.write("\n" + site.url("/6.jpg"))
    (dataset.root / "d.toml").write_text(RECIPE.format(list=dataset.root / "list.txt"))
    assert command(dataset, "crawl", "--refresh") == 0
    assert command(dataset, "download") == 0  # a second part
    assert site.asked() == ["/6.jpg"]
    files = PartFiles(dataset, "d-000000")
    before = files.plan.read_bytes()
    files.plan.unlink()
    assert command(dataset, "run") == 0
    assert files.plan.read_bytes() == before
    assert site.asked() == ["/6.jpg"]
    index, _ = load_index(dataset.shard_index)
    assert index.nsamples == IMAGES + 1


@pytest.mark.parametrize("name", ["kept.jsonl", "rejected.jsonl", "shards.json"])
def test_lists_that_a_stage_writes_are_written_again(
    dataset: DatasetPaths, site: FaultySite, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = dataset.manifest_dir / name
    path.write_bytes(b"\xff\n" + path.read_bytes())
    stage, failing = ("shard", "export") if name == "shards.json" else ("select", "shard")
    assert command(dataset, failing, *(["out"] if failing == "export" else [])) == 2
    assert stage in capsys.readouterr().err.rpartition(";")[2]
    assert command(dataset, stage) == 0
    assert_complete(dataset)
    assert not site.asked()


@pytest.mark.slow
def test_verify_says_how_to_repair(
    dataset: DatasetPaths,
    site: FaultySite,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "cpu_count", lambda: 1)
    tar = dataset.shards_dir / "d-000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 255
    tar.write_bytes(data)
    assert command(dataset, "verify") == 1
    said = capsys.readouterr().err
    again = f"python -m pipeline verify {dataset.root / 'd.toml'} --root {dataset.root} --repair"
    assert "d-000001: its sha256 is not the index's\n" in said
    assert said.endswith(f"to rebuild damaged shards, run: {again}\n")
    assert command(dataset, "verify", "--repair") == 0
    assert command(dataset, "verify") == 0
    assert_complete(dataset)
    assert not site.asked()
    assert not list(read_jsonl(dataset.failure_log))


@pytest.mark.slow
@pytest.mark.parametrize("field", [124, 148, 156], ids=["size", "checksum", "kind"])
def test_a_shard_with_a_damaged_header_is_named_and_rebuilt(
    dataset: DatasetPaths,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    field: int,
) -> None:
    """Its size is right, so only reading it shows the damage."""
    monkeypatch.setattr(verify, "cpu_count", lambda: 1)
    shard = next(dataset.shards_dir.glob("*.tar"))
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[field] ^= 0xFF
    shard.write_bytes(damaged)
    dataset.card.unlink()
    assert command(dataset, "shard") in (0, 1)
    assert command(dataset, "export", str(dataset.root / "exported")) != 0
    assert command(dataset, "verify") == 1
    assert shard.name in (said := capsys.readouterr().err)
    assert "internal" not in said
    assert "Traceback" not in said
    assert command(dataset, "verify", "--repair") == 0
    assert shard.read_bytes() == whole
