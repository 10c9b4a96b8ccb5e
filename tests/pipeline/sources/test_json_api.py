"""Every way of paging, and what is made of answers that are not as expected."""

import json
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.errors import UserError
from pipeline.sources import Page, PageRequest
from pipeline.sources.json_api import next_link, parse, start
from pipeline.sources.json_options import JsonSource

URL = "https://api.example/shells?size=2"


def config(**values: Any) -> JsonSource:
    return parse_config(
        JsonSource, {"start": [URL], "items": "items", "image": "item", **values}, "test"
    )


def walked(
    source: JsonSource, answer: Any, headers: Any = lambda url: {}, limit: int = 20
) -> tuple[list[str], list[str]]:
    """The images and the pages asked for, in order; `answer` gives a page by its URL."""
    queue, asked, found = start(source), [], []
    while queue and len(asked) < limit:
        request = queue.pop(0)
        if request.url in asked:
            continue
        asked.append(request.url)
        body = json.dumps(answer(request.url)).encode()
        result = parse(source, Page(request, body, request.url, headers(request.url)))
        assert not result.error
        found += [one.url.rsplit("/")[-1] for one in result.images]
        queue += result.follow
    return found, [url.partition("&")[2] for url in asked]


def number_in(url: str, name: str, first: int) -> int:
    return int(url.partition(f"&{name}=")[2] or first)


NAMES = [f"{n}.jpg" for n in range(7)]


def test_page_numbers_end_with_an_empty_page() -> None:
    source = config(next={"by": "page", "parameter": "p", "first": 1})
    found, asked = walked(
        source, lambda url: {"items": NAMES[2 * (n := number_in(url, "p", 1)) - 2 : 2 * n]}
    )
    assert found == NAMES
    assert asked == ["", "p=2", "p=3", "p=4", "p=5"]


def test_page_numbers_end_at_the_total() -> None:
    source = config(next={"by": "page", "parameter": "p", "first": 1, "step": 2, "total": "n"})
    found, asked = walked(
        source, lambda url: {"n": 7, "items": NAMES[2 * (n := number_in(url, "p", 1)) - 2 : 2 * n]}
    )
    assert (found, len(asked)) == (NAMES, 4)


@pytest.mark.parametrize(
    ("values", "pages"), [({}, 5), ({"total": "n"}, 4), ({"last": "end"}, 4), ({"until": 2}, 2)]
)
def test_offsets(values: dict[str, Any], pages: int) -> None:
    source = config(next={"by": "offset", "parameter": "o", "step": 2, **values})

    def answer(url: str) -> dict[str, Any]:
        offset = number_in(url, "o", 0)
        return {"n": 7, "end": offset >= 6, "items": NAMES[offset : offset + 2]}

    found, asked = walked(source, answer)
    assert asked == ["", "o=2", "o=4", "o=6", "o=8"][:pages]
    assert found == NAMES[: 2 * pages]


def test_a_server_that_ignores_the_number_is_noticed() -> None:
    source = config(next={"by": "page", "parameter": "p"})
    asked = walked(source, lambda url: {"items": NAMES[:2]})[1]
    assert len(asked) == 2


def test_cursor() -> None:
    source = config(next={"by": "cursor", "parameter": "after", "value": "meta.cursor"})
    cursors = {"": "a b/=", "after=a%20b%2F%3D": "z", "after=z": None}

    def answer(url: str) -> dict[str, Any]:
        rest = url.partition("&")[2]
        index = list(cursors).index(rest)
        return {"meta": {"cursor": cursors[rest]}, "items": NAMES[index : index + 1]}

    found, asked = walked(source, answer)
    assert (found, asked) == (NAMES[:3], list(cursors))


def test_next_url_and_link_header() -> None:
    following = {URL: "/shells?size=2&p=2", "https://api.example/shells?size=2&p=2": None}
    body = {"by": "url", "value": "next"}
    found, asked = walked(
        config(next=body), lambda url: {"next": following[url], "items": [f"{len(url)}.jpg"]}
    )
    assert (len(found), asked) == (2, ["", "p=2"])

    def headers(url: str) -> dict[str, str]:
        target = following[url]
        link = f'<{target}>; rel="next", ' if target else ""
        return {"link": f'{link}</shells?p=9>; rel="last"'}

    found, asked = walked(config(next={"by": "link"}), lambda url: {"items": NAMES[:1]}, headers)
    assert asked == ["", "p=2"]


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a.example/?p=2>; rel="next"', "https://a.example/?p=2"),
        ("<https://a.example/?p=2>;rel=next", "https://a.example/?p=2"),
        ('</a,b;c>; title="x, rel=y"; rel="prev next"', "/a,b;c"),
        ('<1>; rel="prev", <2>; rel="next"; title="n", <3>; rel=last', "2"),
        ('<1>; rel="prev"', None),
        ("", None),
    ],
)
def test_link_headers(header: str, target: str | None) -> None:
    assert next_link(header) == target


def test_parameters_replace_those_before() -> None:
    source = config(next={"by": "parameters", "value": "continue"})
    request = PageRequest(f"{URL}&token=1", 0, {"labels": ["x"]})
    body = json.dumps({"items": [], "continue": {"token": "2|3", "continue": "-||"}}).encode()
    (following,) = parse(source, Page(request, body)).follow
    assert following.url == f"{URL}&token=2%7C3&continue=-%7C%7C"
    assert following.context == {"labels": ["x"]}


def test_lists_of_images_and_labels() -> None:
    source = config(
        media="pictures",
        image="media.[small, large][?@]",
        title="join(' ', [item.genus, page.suffix])",
        labels=["item.genus", "item.missing", "item.tags"],
        rewrite=[{"match": r"_(\d)\.jpg$", "by": r"_full\1.jpg"}],
        exclude=["secret"],
    )
    body = {
        "suffix": "shell",
        "items": [
            {
                "genus": "Conus",
                "tags": ["a", "b"],
                "pictures": [
                    {"small": "/s_1.jpg", "large": "/l_1.jpg"},
                    {"small": "/secret.jpg", "large": None},
                    {},
                ],
            },
            {"genus": "none"},
        ],
    }
    result = parse(source, Page(PageRequest(URL), json.dumps(body).encode(), URL))
    rows = list(result.images)
    assert [one.url for one in rows] == [
        "https://api.example/s_full1.jpg",
        "https://api.example/l_full1.jpg",
    ]
    assert {(one.title, one.labels) for one in rows} == {("Conus shell", ("Conus", "", "a", "b"))}
    assert dict(result.skipped) == {"excluded": 1, "no_image": 1}


def test_urls_are_taken_as_written_and_texts_without_markup() -> None:
    url = "https://a.example/1.jpg?token=" + "A" * 1500 + "&signature=1"
    source = config(
        image="item.url", title="item.text", labels=["item.text"], follow=[{"values": "more"}]
    )
    text = "<b>Cones</b> &amp; co &lt;3"
    body = {
        "items": [{"url": url, "text": text}, {"url": "/a<b>c.jpg", "text": text}],
        "more": [url],
    }
    result = parse(source, Page(PageRequest(URL), json.dumps(body).encode(), URL))
    rows = list(result.images)
    assert [one.url for one in rows] == [url, "https://api.example/a%3Cb%3Ec.jpg"]
    assert {(one.title, one.labels) for one in rows} == {("Cones & co <3", ("Cones & co <3",))}
    assert [one.url for one in result.follow] == [url]


def test_follow_by_template_and_by_url() -> None:
    source = config(
        follow=[
            {"values": "topics[].name", "url": "/shells?topic={}", "label": r"^\w+"},
            {"values": "links"},
        ]
    )
    body = {"items": [], "topics": [{"name": "Cones & co"}], "links": ["/more", "mailto:x@y"]}
    result = parse(source, Page(PageRequest(URL, 2), json.dumps(body).encode(), URL))
    assert list(result.follow) == [
        PageRequest("https://api.example/shells?topic=Cones%20%26%20co", 3, {"labels": ["Cones"]}),
        PageRequest("https://api.example/more", 3, {}),
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>Just a moment</html>", "not JSON"),
        (b"", "not JSON"),
        (b'{"items": "none"}', "items is not a list"),
        (b'{"error": {"code": "maxlag"}}', "the API says"),
        (b'{"items": [1, 2]}', "do not match"),
    ],
)
def test_unexpected_forms_are_problems(body: bytes, words: str) -> None:
    source = config(image="join('', item)")
    assert words in parse(source, Page(PageRequest(URL), body, URL)).error


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"items": "a["}, "items: not a JMESPath expression"),
        ({"next": {"by": "offset", "parameter": "o"}}, "needs step"),
        ({"next": {"by": "cursor", "value": "a"}}, "needs parameter"),
        ({"next": {"by": "magic"}}, "next.by"),
        ({"rewrite": [{"match": "a", "by": r"\2"}]}, "by: "),
        ({"start": ["ftp://a"]}, "not an http(s) URL"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        config(**values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
