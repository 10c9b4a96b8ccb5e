"""URL lists in the columns that others write, read in pieces."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pipeline.config_io import parse_config
from pipeline.errors import UserError
from pipeline.sources import FoundImage, Page, PageRequest, PageResult, text_lines
from pipeline.sources import url_list as listing
from pipeline.sources.interface import CorruptFile
from pipeline.sources.list_options import ListSource
from pipeline.sources.url_list import parse, start


def config(path: Path | str, **values: Any) -> ListSource:
    return parse_config(ListSource, {"start": [str(path)], **values}, "test")


def read(path: Path, **values: Any) -> tuple[list[FoundImage], dict[str, int], int]:
    """All images of a list, the notes, and in how many pieces it was read."""
    source = config(path, **values)
    queue, rows, notes, pieces = start(source), [], {}, 0
    while queue:
        pieces += 1
        result = parse(source, Page(queue.pop(0)))
        assert not result.error
        rows += list(result.images)
        notes = {key: notes.get(key, 0) + n for key, n in result.skipped.items()} | {
            key: n for key, n in notes.items() if key not in result.skipped
        }
        queue += result.follow
    return rows, notes, pieces


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "urls.txt", "\ufeffhttp://a.example/1.jpg\n\n http://a.example/2 x.jpg \nno\n"
    )
    rows, notes, _ = read(path, license="CC0")
    assert rows == [
        FoundImage("http://a.example/1.jpg", license="CC0"),
        FoundImage("http://a.example/2%20x.jpg", license="CC0"),
    ]
    assert notes == {"no_url": 1, "not_http": 1}


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        # img2dataset
        (
            "url,caption",
            '"http://a.example/1.jpg","a, ""b"""',
            FoundImage("http://a.example/1.jpg", 'a, "b"'),
        ),
        # LAION
        (
            "SAMPLE_ID,URL,TEXT,HEIGHT,WIDTH,LICENSE,NSFW,similarity",
            "1,http://a.example/1.jpg,a cone,9,9,CC-BY,UNLIKELY,0.3",
            FoundImage("http://a.example/1.jpg", "a cone", license="CC-BY"),
        ),
        # DataComp
        (
            "uid,url,text,original_width,original_height,clip_b32_similarity_score,face_bboxes,sha256",
            "0a,http://a.example/1.jpg,a cone,9,9,0.3,[],00ff",
            FoundImage("http://a.example/1.jpg", "a cone"),
        ),
        # Open Images
        (
            "ImageID,Subset,OriginalURL,License,Author,Title",
            "1,train,http://a.example/1.jpg,https://cc.example/by,An Author,x",
            FoundImage(
                "http://a.example/1.jpg",
                "x",
                license="https://cc.example/by",
                attribution="An Author",
            ),
        ),
    ],
)
def test_csv_of_others(tmp_path: Path, header: str, row: str, expected: FoundImage) -> None:
    rows, _, _ = read(write(tmp_path / "urls.csv", f"{header}\n{row}\n"))
    assert rows == [expected]
    tabs = write(tmp_path / "urls.tsv", f"{header}\n{row}\n".replace(",", "\t"))
    if '"' not in row:
        assert read(tabs)[0] == [expected]


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv", "link2,name,family,genus\nhttp://a.example/1.jpg,n,Conidae,Conus\n"
    )
    rows, _, _ = read(path, url="link2", title="name", labels=["family", "missing", "genus"])
    assert rows == [FoundImage("http://a.example/1.jpg", "n", ("Conidae", "Conus"))]
    result = parse(config(path), Page(start(config(path))[0]))
    assert result.error == "no column of URLs among: link2, name, family, genus"


def test_json_lines_like_our_own_manifest(tmp_path: Path) -> None:
    row = {
        "key": "0", "url": "http://a.example/1.jpg", "page": "p", "title": "t",
        "labels": ["a", "b"], "license": "l", "attribution": "x", "found": "",
    }  # fmt: skip
    path = write(
        tmp_path / "urls.jsonl", json.dumps(row) + "\nnot json\n[1]\n\n" + json.dumps({"URL": 5})
    )
    rows, notes, _ = read(path)
    assert rows == [FoundImage("http://a.example/1.jpg", "t", ("a", "b"), "l", "x")]
    assert notes == {"bad_line": 2, "not_http": 1}


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    count = 25
    table = pyarrow.table({
        "URL": [f"http://a.example/{n}.jpg" for n in range(count)],
        "TEXT": [f"shell {n}" for n in range(count)],
        "LICENSE": [None] * count,
        "similarity": [0.3] * count,
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "p.parquet", row_group_size=10)
    rows, _, pieces = read(tmp_path / "p.parquet")
    assert pieces == 3
    assert [one.url for one in rows] == table["URL"].to_pylist()
    assert (rows[7].title, rows[7].license) == ("shell 7", "")
    broken = write(tmp_path / "b.parquet", "PAR1")
    assert "not Parquet" in parse(config(broken), Page(start(config(broken))[0])).error


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_text_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(listing, "CHUNK_ROWS", 7)
    urls = [f"http://a.example/{n}.jpg" for n in range(30)]
    lines = {
        "txt": urls,
        "csv": ["caption,url", *(f'"é\n{n}",{url}' for n, url in enumerate(urls))],
        "jsonl": [json.dumps({"url": url}) for url in urls],
    }[kind]
    path = write(tmp_path / f"urls.{kind}", "\n".join(lines) + "\n")
    rows, _, pieces = read(path)
    assert [one.url for one in rows] == urls
    assert pieces == 5
    assert kind != "csv" or rows[29].title == "é 29"


def test_folders_of_lists_and_lists_on_the_web(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.md", "D.CSV"):
        write(tmp_path / name, f"url\nhttp://a.example/{name}.jpg\n")
    assert [one.url[-9:] for one in read(tmp_path)[0]] == ["D.CSV.jpg", "a.csv.jpg", "b.csv.jpg"]
    source = config("https://lists.example/urls.csv?v=1")
    (request,) = start(source)
    result: PageResult = parse(source, Page(request, b"url\nhttp://a.example/1.jpg\n" * 1))
    assert [one.url for one in result.images] == ["http://a.example/1.jpg"]
    assert list(result.follow) == []
    table = pyarrow.table({"url": ["http://a.example/2.jpg"]})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    page = Page(PageRequest("https://lists.example/x.parquet"), sink.getvalue().to_pybytes())
    assert [one.url for one in parse(source, page).images] == ["http://a.example/2.jpg"]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="list does not exist"):
        start(config(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="unknown format"):
        start(config(write(tmp_path / "urls.dat", "x")))
    assert start(config(tmp_path / "urls.dat", format="txt"))


@pytest.mark.parametrize(
    "header", ["URL,Caption,LICENSE,Author,Labels", "Url,TITLE,license,AUTHOR,labels"]
)
def test_headers_in_any_case(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "x.csv", f"{header}\nhttp://a.example/1.jpg,t,CC0,me,a\n")
    expected = FoundImage("http://a.example/1.jpg", "t", ("a",), "CC0", "me")
    assert read(path)[0] == [expected]
    assert read(path, url="uRL", labels=["LABELS"])[0] == [expected]


BOXES = [[1, 2, 3, 4], [0, 0, 9.5, 9]]
URL = "http://a.example/1.jpg"


@pytest.mark.parametrize("column", ["boxes", "Boxes", "objects"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_boxes(tmp_path: Path, kind: str, column: str) -> None:
    path = tmp_path / f"x.{kind}"
    record = {"url": URL, column: BOXES}
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    elif kind == "csv":
        write(path, f'url,{column}\n{URL},"{json.dumps(BOXES)}"\n{URL},"[1, 2, 3, 4]"\n{URL},\n')
    else:
        write(path, json.dumps([record] if kind == "json" else record))
    rows, notes, _ = read(path, **({"boxes": "objects"} if column == "objects" else {}))
    assert rows[0] == FoundImage(URL, boxes=((1, 2, 3, 4), (0, 0, 9.5, 9)))
    assert FoundImage.from_json(json.loads(json.dumps(rows[0].to_json()))) == rows[0]
    assert rows[0].row("", "").boxes == rows[0].boxes
    assert notes == {}
    if kind == "csv":
        assert [one.boxes for one in rows[1:]] == [((1, 2, 3, 4),), ()]


@pytest.mark.parametrize(
    "text", ["[[1, 2, 3]]", '[[1, 2, 3, "a"]]', "1 2 3 4", "[[1, 2, 3, 1e99]]"]
)
def test_bad_boxes_cost_themselves(tmp_path: Path, text: str) -> None:
    rows, notes, _ = read(write(tmp_path / "x.jsonl", json.dumps({"url": URL, "boxes": text})))
    assert rows == [FoundImage(URL)]
    assert notes == {"bad_boxes": 1}


def test_a_url_is_not_cut(tmp_path: Path) -> None:
    url = "https://a.example/1.jpg?token=" + "A" * 1500 + "&signature=1"
    path = write(tmp_path / "x.jsonl", json.dumps({"url": url, "title": "x" * 1500}))
    assert read(path)[0] == [FoundImage(url, "x" * 1000)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_json_array(tmp_path: Path, encoding: str, indent: int | None) -> None:
    values = [
        {"url": URL, "title": "caf\u00e9 ]", "labels": ["a", "b"], "more": {"x": [[1], {}]}},
        "http://a.example/2.jpg", 5, {"title": "x"},
    ]  # fmt: skip
    path = tmp_path / "x.json"
    path.write_text(json.dumps(values, ensure_ascii=False, indent=indent), encoding=encoding)
    rows, notes, pieces = read(path)
    assert rows == [
        FoundImage(URL, "caf\u00e9 ]", ("a", "b")), FoundImage("http://a.example/2.jpg")
    ]  # fmt: skip
    said = {} if encoding.startswith("utf-8") else {encoding.replace("-", "_"): 1}
    assert notes == {"bad_entry": 1, "no_url": 1, **said}
    assert pieces == 1


@pytest.mark.parametrize("tail", ["", ",", ", {", "}", ' {"url": "http://a.example/3.jpg"}]'])
def test_a_damaged_json_array_gives_what_comes_before(tmp_path: Path, tail: str) -> None:
    path = write(tmp_path / "x.json", f'[{{"url": "{URL}"}}{tail}')
    result = parse(config(path), Page(start(config(path))[0]))
    rows = iter(result.images)
    assert next(rows) == FoundImage(URL)
    with pytest.raises(CorruptFile, match="not a JSON array: "):
        next(rows)


def test_a_large_json_array_is_not_one_line_of_text(tmp_path: Path) -> None:
    """Longer than the longest line that is read, and than a chunk of the file."""
    urls = [f"http://a.example/{number}.jpg" for number in range(20_000)]
    records = [{"url": url, "title": "x" * 900} for url in urls]
    text = json.dumps(records)
    assert len(text) > text_lines.MAX_LINE
    rows, notes, _ = read(write(tmp_path / "x.json", text))
    assert [one.url for one in rows] == urls
    assert notes == {}


def test_json_lines_with_the_extension_json(tmp_path: Path) -> None:
    rows, notes, _ = read(write(tmp_path / "x.json", f'{{"url": "{URL}"}}\n\n{{"url": "{URL}"}}'))
    assert rows == [FoundImage(URL)] * 2
    assert notes == {}


def test_labels_as_a_json_array_in_a_csv(tmp_path: Path) -> None:
    text = f'url,labels\n{URL},"[""a"", ""b""]"\n{URL},[not json\n'
    rows, _, _ = read(write(tmp_path / "x.csv", text))
    assert [one.labels for one in rows] == [("a", "b"), ("[not json",)]
