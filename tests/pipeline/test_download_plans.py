"""Which row goes into which part: by URL, whatever people do to the manifest; memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, UserError, image_key, read_jsonl
from pipeline.originals.part_planning import assign_parts
from pipeline.originals.parts import INDEX, PART_SIZE, PartFiles, planned_parts


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetPaths:
    made = DatasetPaths("shells", tmp_path)
    made.manifest_dir.mkdir(parents=True)
    return made


def rows(*numbers: int) -> list[dict]:
    urls = [f"http://a.example/{number}.jpg" for number in numbers]
    return [{"key": image_key(url), "url": url} for url in urls]


def write(dataset: DatasetPaths, lines: list[dict]) -> None:
    dataset.url_manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def assigned(dataset: DatasetPaths) -> list[list[str]]:
    return [
        [row["url"].rpartition("/")[2][:-4] for row in read_jsonl(PartFiles(dataset, part).plan)]
        for part in planned_parts(dataset)
    ]


def test_parts_of_a_thousand_in_the_order_of_the_manifest(dataset):
    write(dataset, rows(*range(2 * PART_SIZE + 5)))
    assert assign_parts(dataset) == ["shells-000000", "shells-000001", "shells-000002"]
    assert [len(part) for part in assigned(dataset)] == [PART_SIZE, PART_SIZE, 5]
    assert assigned(dataset)[1][0] == str(PART_SIZE)


def test_new_rows_on_top_and_moved_rows_make_no_duplicates(dataset):
    write(dataset, rows(1, 2, 3, 4))
    assign_parts(dataset)
    write(dataset, rows(9, 8, 4, 1, 7, 2, 9))  # on top, moved, removed, twice
    assign_parts(dataset)
    assign_parts(dataset)
    assert assigned(dataset) == [["1", "2", "3", "4"], ["9", "8", "7"]]


def test_an_edited_or_missing_key_is_that_of_the_url(dataset):
    good = rows(1)[0]
    write(
        dataset,
        [
            good,
            {"url": good["url"]},
            {"url": good["url"] + "?utm_source=x", "key": good["key"]},
            {"url": "http://a.example/2.jpg", "key": good["key"]},
        ],
    )
    assign_parts(dataset)
    assert assigned(dataset) == [["1", "2"]]
    keys = [row["key"] for row in read_jsonl(PartFiles(dataset, "shells-000000").plan)]
    assert keys[1] == image_key("http://a.example/2.jpg")


@pytest.mark.parametrize("harm", ["gone", "behind", "broken"])
def test_the_index_of_keys_is_derived_and_can_be_lost(dataset, harm):
    write(dataset, rows(1, 2, 3))
    assign_parts(dataset)
    index = dataset.originals_dir / INDEX
    before = index.read_bytes()
    write(dataset, rows(1, 2, 3, 4))
    assign_parts(dataset)
    if harm == "gone":
        index.unlink()
    elif harm == "behind":  # killed between a plan and its line in the index
        index.write_bytes(before)
    else:
        index.write_bytes(b"no database at all" * 100)
    write(dataset, rows(1, 2, 3, 4, 5))
    assign_parts(dataset)
    assert assigned(dataset) == [["1", "2", "3"], ["4"], ["5"]]


def test_a_part_that_was_deleted_is_planned_again(dataset):
    write(dataset, rows(*range(PART_SIZE + 2)))
    assign_parts(dataset)
    PartFiles(dataset, "shells-000001").plan.unlink()
    assert assign_parts(dataset) == ["shells-000000", "shells-000001"]
    assert assigned(dataset)[1] == [str(PART_SIZE), str(PART_SIZE + 1)]


def test_a_damaged_line_of_the_plan_of_an_open_part_is_planned_again(dataset):
    write(dataset, rows(1, 2, 3))
    assign_parts(dataset)
    files = PartFiles(dataset, "shells-000000")
    lines = files.plan.read_bytes().splitlines(keepends=True)
    files.plan.write_bytes(lines[0] + b"junk\n" + lines[2])
    with pytest.raises(
        UserError, match=r"plan\.jsonl:2: .*delete this line, and remove keys\.sqlite"
    ):
        list(files.rows())
    files.plan.write_bytes(lines[0] + lines[2])
    (dataset.originals_dir / INDEX).unlink()
    assign_parts(dataset)
    assert assigned(dataset) == [["1", "3"], ["2"]]


def test_a_row_without_a_url_is_named(dataset):
    write(dataset, [*rows(1), {"key": "0" * 16}])
    with pytest.raises(UserError, match=r"urls\.jsonl:2: url: missing"):
        assign_parts(dataset)


def test_memory_does_not_grow_with_the_manifest(tmp_path):
    """Peak memory of planning ten times as many rows, in processes of their own."""
    code = (
        "import sys; from pathlib import Path; from pipeline.contract import DatasetPaths;"
        "from pipeline.originals.part_planning import assign_parts;"
        "assign_parts(DatasetPaths('big', Path(sys.argv[1])));"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    peaks = []
    for count in (5_000, 50_000):
        dataset = DatasetPaths("big", tmp_path / str(count))
        dataset.manifest_dir.mkdir(parents=True)
        with dataset.url_manifest.open("w") as file:
            for number in range(count):
                url = f"http://a.example/{number}.jpg"
                file.write(f'{{"key": "{image_key(url)}", "url": "{url}"}}\n')
        output = subprocess.run(
            [sys.executable, "-c", code, str(dataset.root)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        peaks.append(int(output) / 1024)
        assert len(planned_parts(dataset)) == count // PART_SIZE
    assert peaks[1] - peaks[0] < 12, peaks  # MB; the rows alone would be 20 and more
