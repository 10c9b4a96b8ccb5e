"""Texts from users and sites in every encoding and with every line end: read, or refused with a
reason."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.config_io import parse_config, read_toml
from pipeline.contract import UserError, read_jsonl
from pipeline.importers.stage import import_dataset
from pipeline.outside_text import decode_text, has_invalid_bytes, open_text
from pipeline.sources import CorruptFile, Page, PageRequest, html, iiif, json_api, sitemap, url_list
from pipeline.sources.html_options import HtmlSource
from pipeline.sources.interface import Notes
from pipeline.sources.json_options import JsonSource
from pipeline.sources.list_options import ListSource
from pipeline.sources.proposal import propose
from pipeline.web.opt_out.directives import read_tdmrep
from pipeline.web.responses import RawResponse
from pipeline.web.robots import parse_robots

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")
LINE_ENDS = ("\n", "\r\n", "\r")
URL = "http://a.example/x"
TEXTS = ("url\ntitle,\u00e9\n", "{}", "")

in_every_encoding = pytest.mark.parametrize("encoding", ENCODINGS)
with_every_line_end = pytest.mark.parametrize("end", LINE_ENDS, ids=["lf", "crlf", "cr"])


def page(body: bytes, **context: Any) -> Page:
    return Page(PageRequest(URL, 0, context), body, URL)


@in_every_encoding
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_read_without_their_byte_order_mark(encoding: str, text: str) -> None:
    data = text.encode(encoding)
    assert decode_text(data) == decode_text(data, "strict") == text
    with open_text(io.BytesIO(data)) as file:
        assert "".join(file) == text


def test_a_text_in_another_encoding_names_its_line() -> None:
    data = "one\ntwo\ncaf\u00e9\n".encode("latin-1")
    assert decode_text(data) == "one\ntwo\ncaf\ufffd\n"
    with pytest.raises(ValueError, match="line 3: not UTF-8; save the file as UTF-8"):
        decode_text(data, "strict")
    with open_text(io.BytesIO(data)) as file:
        assert [has_invalid_bytes(line) for line in file] == [False, False, True]


@pytest.mark.parametrize("data", [b"\0<p>x", bytes(9), b"a\0bcd", b"\0\0ab", b"\xff", b"\0"])
def test_stray_zero_bytes_are_not_another_encoding(data: bytes) -> None:
    assert decode_text(data) == data.decode(errors="replace")


# files of the user


@in_every_encoding
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_recipe_is_read_in_every_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(f'title = "\u00e9"{end}[select]{end}min_side = 8'.encode(encoding))
    assert read_toml(path) == {"title": "\u00e9", "select": {"min_side": 8}}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('a = 1\ntitle = "\u00e9"\n'.encode("latin-1"), "line 2: not UTF-8; save the file"),
        (b"a = 1\rb = 2\r", "line 1"),
        (b"a = 1\n\0\n", "line 2"),
        (bytes(64), "not TOML"),
    ],
)
def test_a_recipe_that_is_no_text_is_one_line(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.toml: not TOML .*{reason}|x\.toml: {reason}"):
        read_toml(path)


@in_every_encoding
@with_every_line_end
def test_keys_to_forget_are_read_in_every_encoding(
    shop: Any, tmp_path: Path, encoding: str, end: str
) -> None:
    images = shop.served(3)
    shop.add(images)
    (tmp_path / "shells.toml").write_text(
        '[source]\nkind = "html"\nstart = ["http://a.example/"]\n'
    )
    keys = tmp_path / "keys.txt"
    keys.write_bytes(end.join(one.key for one in images[:2]).encode(encoding))
    args = ["forget", str(tmp_path / f"{shop.dataset.name}.toml"), "--root", str(tmp_path)]
    (tmp_path / f"{shop.dataset.name}.toml").write_text(
        '[source]\nkind = "html"\nstart = ["http://a.example/"]\n'
    )
    assert main([*args, "--keys-from", str(keys)]) == 0
    forgotten = read_jsonl(shop.dataset.manifest_dir / "forgotten.jsonl")
    assert {row["key"] for row in forgotten} == {one.key for one in images[:2]}


@in_every_encoding
@with_every_line_end
@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv"])
def test_metadata_of_an_import_is_read_in_every_encoding(
    shop: Any, log: Any, tmp_path: Path, encoding: str, end: str, form: str
) -> None:
    folder = write_images(shop, tmp_path)
    rows = [("0000.jpg", "caf\u00e9"), ("0001.jpg", "b")]
    if form == "metadata.csv":
        lines = ["file_name,label", *(",".join(row) for row in rows)]
    else:
        lines = [json.dumps({"file_name": name, "label": label}) for name, label in rows]
    (folder / form).write_bytes(end.join(lines).encode(encoding))  # no final line end
    assert import_dataset(folder, shop.dataset, log, recipe=shop.recipe()).failed == 0
    assert labels_of(shop) == {"0000.jpg": ["caf\u00e9"], "0001.jpg": ["b"]}


def write_images(shop: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for one in shop.served(2):
        (folder / one.name).write_bytes(one.data)
    return folder


def labels_of(shop: Any) -> dict[str, list[str]]:
    return {row["title"]: row["labels"] for row in read_jsonl(shop.dataset.url_manifest)}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("metadata.csv", "file_name,label\n0000.jpg,caf\u00e9\n0001.jpg,b\n"),
        (
            "metadata.jsonl",
            '{"file_name": "0000.jpg", "label": "\u00e9"}\n'
            '{"file_name": "0001.jpg", "label": "b"}\n',
        ),
    ],
)
def test_a_row_of_metadata_in_latin_1_is_one_failure(
    shop: Any, log: Any, tmp_path: Path, form: str, text: str
) -> None:
    folder = write_images(shop, tmp_path)
    (folder / form).write_text(text, encoding="latin-1")
    assert import_dataset(folder, shop.dataset, log, recipe=shop.recipe()).failed == 1
    (failed,) = read_jsonl(shop.dataset.failure_log)
    assert failed["kind"] == "parse_error"
    assert failed["detail"].endswith("not UTF-8; save the file as UTF-8")
    assert labels_of(shop) == {"0001.jpg": ["b"]}
    (folder / form).write_text(text, encoding="utf-8")
    assert import_dataset(folder, shop.dataset, log, recipe=shop.recipe()).failed == 0
    assert labels_of(shop).keys() == {"0000.jpg", "0001.jpg"}


@in_every_encoding
def test_labels_of_an_import_are_read_in_every_encoding(
    shop: Any, log: Any, tmp_path: Path, encoding: str
) -> None:
    folder = write_images(shop, tmp_path)
    facts = {"labels": [["0000.jpg", 0], ["0001.jpg", 0]], "label_names": ["caf\u00e9"]}
    text = json.dumps(facts, ensure_ascii=False)
    (folder / "dataset.json").write_bytes(text.encode(encoding))
    import_dataset(folder, shop.dataset, log, "nvlabs", shop.recipe())
    assert set(map(tuple, labels_of(shop).values())) == {("caf\u00e9",)}
    (folder / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"dataset\.json: .*line 1: not UTF-8; save the file"):
        import_dataset(folder, shop.dataset, log, "nvlabs", shop.recipe())


def read_list(path: Path) -> tuple[list[tuple[str, str]], Notes, str]:
    config = parse_config(ListSource, {"kind": "list", "start": [str(path)]}, "test")
    (request,) = url_list.start(config)
    try:
        result = url_list.parse(config, Page(request))
        found = [(one.url, one.title) for one in result.images]
    except CorruptFile as error:
        return [], Notes(), str(error)
    notes = result.skipped
    assert isinstance(notes, Notes)
    return found, notes, result.error


LISTS: dict[str, Callable[[str, str], str]] = {
    "list.txt": lambda url, title: url,
    "list.csv": lambda url, title: f"{url},{title}",
    "list.tsv": lambda url, title: f"{url}\t{title}",
    "list.jsonl": lambda url, title: json.dumps({"url": url, "title": title}, ensure_ascii=False),
}


def list_text(name: str, end: str, titles: tuple[str, ...]) -> str:
    rows = [LISTS[name](f"http://a.example/{n}.jpg", title) for n, title in enumerate(titles)]
    if name.endswith("sv"):
        rows.insert(0, LISTS[name]("url", "title"))
    return end.join(rows)


@in_every_encoding
@with_every_line_end
@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_list_is_read_or_refused_as_a_whole(
    tmp_path: Path, encoding: str, end: str, name: str, zipped: bool
) -> None:
    data = list_text(name, end, ("caf\u00e9", "b")).encode(encoding)
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(data) if zipped else data)
    found, notes, error = read_list(path)
    if end == "\r":
        assert not found
        assert error.startswith("its lines end with CR alone; save it with LF")
    else:
        assert not error
        said = {} if encoding.startswith("utf-8") else {encoding[:6].replace("-", "_"): 1}
        assert notes == said
        assert [url for url, _ in found] == [f"http://a.example/{n}.jpg" for n in (0, 1)]
        assert name == "list.txt" or [title for _, title in found] == ["caf\u00e9", "b"]


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_lines_of_a_list_that_are_not_utf8_are_read_as_latin_1(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(list_text(name, "\n", ("a", "caf\u00e9", "b")).encode("latin-1"))
    found, notes, _ = read_list(path)
    assert [title for _, title in found] == ["a", "caf\u00e9", "b"]
    assert notes == {"latin_1": 1}
    assert "caf\u00e9" in notes.examples["latin_1"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.txt", b"http://a.example/caf\xe9.jpg\nhttp://a.example/\0.jpg\n"),
        ("list.csv", b"url\nhttp://a.example/caf\xe9.jpg\nhttp://a.example/\0.jpg\n"),
        (
            "list.jsonl",
            b'{"url": "http://a.example/caf\xe9.jpg"}\n{"url": "http://a.example/\\u0000.jpg"}\n',
        ),
    ],
)
def test_a_url_in_latin_1_is_that_of_its_characters(tmp_path: Path, name: str, data: bytes) -> None:
    """As in a page of this encoding; one with a zero byte is not requested."""
    path = tmp_path / name
    path.write_bytes(data)
    found, notes, error = read_list(path)
    assert ([url for url, _ in found], error) == (["http://a.example/caf%C3%A9.jpg"], "")
    assert notes == {"latin_1": 1, "not_http": 1}


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl", "list.json"])
def test_an_empty_list_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert read_list(tmp_path / name) == ([], {"empty": 1}, "")


def test_an_imported_manifest_keeps_rows_that_are_not_utf8_and_says_so(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_bytes(
        list_text("list.csv", "\n", ("a", "caf\u00e9")).encode("latin-1")
    )
    (tmp_path / "d.toml").write_text('[source]\nkind = "list"\nstart = ["list.csv"]\n')
    args = [str(tmp_path / "d.toml"), str(tmp_path / "list.csv"), "--root", str(tmp_path)]
    assert main(["import-manifest", *args]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 rows are new" in said
    assert "latin_1 (not UTF-8; read as Latin-1) 1, first http://a.example/1.jpg,caf\u00e9" in said
    assert main(["import-manifest", *args[:1], str(tmp_path / "none.csv"), *args[2:]]) == 2


def test_a_line_break_within_quotes_of_the_first_line_is_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b'"the\rtitle",url\nx,http://a.example/0.jpg\n')
    assert [url for url, _ in read_list(path)[0]] == ["http://a.example/0.jpg"]


# documents of a site


@in_every_encoding
@with_every_line_end
def test_robots_txt_and_tdmrep_are_obeyed_in_every_encoding(encoding: str, end: str) -> None:
    text = end.join(("User-agent: *", "Disallow: /no", "Crawl-delay: 7"))
    robots = parse_robots(RawResponse(URL, 200, {}, text.encode(encoding)), "ShellGAN/0.1")
    assert robots.why_disallowed("http://a.example/no/1.jpg", "ShellGAN/0.1") is not None
    assert robots.crawl_delay("ShellGAN/0.1") == 7
    rules = f'[{{"location": "/no",{end} "tdm-reservation": 1}}]'
    reservation = read_tdmrep(rules.encode(encoding)).reservation("http://a.example/no")
    assert reservation is not None
    assert reservation.reserved


def test_a_rule_in_latin_1_holds_for_urls_of_the_same_bytes() -> None:
    text = "User-agent: *\nDisallow: /gr\u00f6\u00dfe/\nDisallow: /b/\n".encode("latin-1")
    robots = parse_robots(RawResponse(URL, 200, {}, text), "ShellGAN/0.1")
    allowed = {
        path: robots.why_disallowed(f"http://a.example{path}", "ShellGAN/0.1") is not None
        for path in ("/gr%F6%DFe/1.jpg", "/b/1.jpg", "/gr/1.jpg")
    }
    assert allowed == {"/gr%F6%DFe/1.jpg": True, "/b/1.jpg": True, "/gr/1.jpg": False}


@in_every_encoding
@with_every_line_end
@pytest.mark.parametrize("zipped", [False, True])
def test_a_sitemap_of_plain_text_is_read(encoding: str, end: str, zipped: bool) -> None:
    data = end.join(("http://a.example/1.html", "http://a.example/2.html")).encode(encoding)
    config = parse_config(sitemap.SitemapSource, {"start": [URL]}, "test")
    body = gzip.compress(data) if zipped else data
    result = sitemap.parse(config, page(body, role="sitemap"))
    assert [one.url for one in result.follow] == [
        "http://a.example/1.html", "http://a.example/2.html",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_sitemap_of_xml_is_read(encoding: str) -> None:
    text = "\n<urlset><url><loc>http://a.example/1.html</loc></url></urlset>"
    config = parse_config(sitemap.SitemapSource, {"start": [URL]}, "test")
    result = sitemap.parse(config, page(text.encode(encoding), role="sitemap"))
    assert [one.url for one in result.follow] == ["http://a.example/1.html"]


@in_every_encoding
def test_pages_and_answers_of_an_api_are_read(encoding: str) -> None:
    text = '<figure><a class="photo" href="/1.jpg">x</a><p>\u00e9</p></figure>'
    keys = {"start": [URL], "item": "figure", "image": "a.photo", "title": "p"}
    source = parse_config(HtmlSource, keys, "test")
    (image,) = html.parse(source, page(text.encode(encoding))).images
    assert (image.url, image.title) == ("http://a.example/1.jpg", "\u00e9")
    api = {"start": [URL], "items": "[]", "image": "item.url", "title": "item.title"}
    record = json.dumps([{"url": "http://a.example/1.jpg", "title": "\u00e9"}], ensure_ascii=False)
    config = parse_config(JsonSource, {"kind": "json", **api}, "test")
    result = json_api.parse(config, page(record.encode(encoding)))
    assert [(one.url, one.title) for one in result.images] == [("http://a.example/1.jpg", "\u00e9")]
    assert not result.skipped
    assert propose(page(record.encode(encoding)), lambda _: None).kind == "json"


def test_answers_of_an_api_in_latin_1_are_counted() -> None:
    api = {"start": [URL], "items": "[]", "image": "item.url", "title": "item.title"}
    record = '[{"url": "http://a.example/1.jpg", "title": "caf\u00e9"}]'.encode("latin-1")
    result = json_api.parse(parse_config(JsonSource, {"kind": "json", **api}, "test"), page(record))
    assert [one.title for one in result.images] == ["caf\ufffd"]
    assert result.skipped == {"not_utf8": 1}
    manifest = {"type": "Manifest", "label": "caf\u00e9", "items": [{"type": "Canvas"}]}
    body = json.dumps(manifest, ensure_ascii=False).encode("latin-1")
    source = parse_config(iiif.IiifSource, {"kind": "iiif", "start": [URL]}, "test")
    assert iiif.parse(source, page(body)).skipped["not_utf8"] == 1
