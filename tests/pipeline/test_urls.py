import pytest

from pipeline.web.urls import canonical_url

BASE = "http://shells.example/gallery/index.html?page=2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("a.jpg", "http://shells.example/gallery/a.jpg"),
        ("/a.jpg", "http://shells.example/a.jpg"),
        ("../a.jpg", "http://shells.example/a.jpg"),
        ("../../../a.jpg", "http://shells.example/a.jpg"),
        ("?page=3", "http://shells.example/gallery/index.html?page=3"),
        ("//cdn.example/a.jpg", "http://cdn.example/a.jpg"),
        ("  a.jpg\n", "http://shells.example/gallery/a.jpg"),
        ("dir\\a.jpg", "http://shells.example/gallery/dir/a.jpg"),
        ("\\dir\\a.jpg", "http://shells.example/dir/a.jpg"),
        ("..\\a.jpg", "http://shells.example/a.jpg"),
        ("\\\\cdn.example\\a.jpg", "http://cdn.example/a.jpg"),
        ("https:\\\\cdn.example\\a.jpg", "https://cdn.example/a.jpg"),
        ("a.jpg?b=\\c", "http://shells.example/gallery/a.jpg?b=%5Cc"),
        ("photos/1 (6).jpg", "http://shells.example/gallery/photos/1%20%286%29.jpg"),
        ("photos/1%20%286%29.jpg", "http://shells.example/gallery/photos/1%20%286%29.jpg"),
        ("w_517,h_387,q_90/a.jpg", "http://shells.example/gallery/w_517,h_387,q_90/a.jpg"),
        ("a.jpg#top", "http://shells.example/gallery/a.jpg"),
    ],
)
def test_resolves_against_the_page(url: str, expected: str) -> None:
    assert canonical_url(url, BASE) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Shells.Example", "http://shells.example/"),
        ("http://shells.example:80/a", "http://shells.example/a"),
        ("https://shells.example:443/a", "https://shells.example/a"),
        ("https://shells.example:80/a", "https://shells.example:80/a"),
        ("http://127.0.0.1:8971/", "http://127.0.0.1:8971/"),
        ("http://[::1]:8971/a", "http://[::1]:8971/a"),
        ("http://müscheln.example/ü.jpg", "http://xn--mscheln-n2a.example/%C3%BC.jpg"),
        ("http://a.example/a/./b/../c.jpg", "http://a.example/a/c.jpg"),
        ("http://a.example/a/%2E%2e/c.jpg", "http://a.example/c.jpg"),
        ("http://a.example/%7Euser/%c3%bc", "http://a.example/~user/%C3%BC"),
        ("http://a.example/100%.jpg", "http://a.example/100%25.jpg"),
        ("http://a.example/100%25.jpg", "http://a.example/100%25.jpg"),
        ("http://a.example/a%2Fb", "http://a.example/a%2Fb"),
        ("http://a.example//double//slash", "http://a.example//double//slash"),
        ("http://user:pw@a.example/x", "http://a.example/x"),
        ("http://a.example/?", "http://a.example/"),
        ("http://a.example/?q=a b&c[]=1", "http://a.example/?q=a%20b&c%5B%5D=1"),
        ("http://a.example/?q=a%20b+c%26", "http://a.example/?q=a%20b+c%26"),
        ("http://a.example/?b=2&a=1", "http://a.example/?b=2&a=1"),
    ],
)
def test_one_spelling_for_one_resource(url: str, expected: str) -> None:
    assert canonical_url(url) == expected
    assert canonical_url(expected) == expected


def test_tracking_parameters_go_and_others_stay() -> None:
    url = "http://a.example/p?utm_source=x&id=7&fbclid=Y&UTM_Medium=m&gclid=1&size=large&_ga=2"
    assert canonical_url(url) == "http://a.example/p?id=7&size=large"
    assert canonical_url("http://a.example/p?utm=1&album=utm_a") == (
        "http://a.example/p?utm=1&album=utm_a"
    )


@pytest.mark.parametrize(
    "url",
    [
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        "javascript:void(0)",
        "mailto:a@b.example",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "http://",
        "http:///a.jpg",
        "http://a.example:99999/",
        "http://[::1/",
        "http://a b.example/",
        "http://{host}/a.jpg",
        "a.jpg",
        "",
    ],
)
def test_none_for_what_is_not_http(url: str) -> None:
    assert canonical_url(url) is None


def test_every_result_is_ascii_and_stable() -> None:
    for code in [*range(0x20, 0x7F), 0xE9, 0x3B1, 0x1F41A]:
        first = canonical_url(f"http://a.example/x{chr(code)}y?q={chr(code)}z")
        assert first is not None
        assert first.isascii()
        assert canonical_url(first) == first
