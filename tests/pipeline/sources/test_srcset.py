"""Expected values are those of the HTML standard's parsing algorithm, as the web platform's
shared conformance tests state them."""

import pytest

from pipeline.sources.image_urls import SrcsetCandidate, parse_srcset


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        (",", []),
        (",,,", []),
        ("data:,a", ["data:,a"]),
        ("  data:,a  1x  ", ["data:,a"]),
        ("\t\tdata:,a\t\t1x\t\t", ["data:,a"]),
        ("data:,a 1x,", ["data:,a"]),
        (",data:,a 1x", ["data:,a"]),
        ("data:,a,", ["data:,a"]),
        ("data:,a,,,", ["data:,a"]),
        ("data:,a , data:,b 2x", ["data:,a", "data:,b"]),
        ("data:,a 1x,data:,b 2x", ["data:,a", "data:,b"]),
        ("data:,a, data:,b", ["data:,a", "data:,b"]),
        ("data:,a ( , data:,b 1x, ), data:,c", ["data:,c"]),
        ("data:,a ((( , data:,b 1x, ), data:,c", ["data:,c"]),
        ("data:,a ( , data:,b 1x, ), data:,c 3x", ["data:,c"]),
        ("data:,a (1x", []),
        ("data:,a 1w", ["data:,a"]),
        ("data:,a 0w", []),
        ("data:,a -1w", []),
        ("data:,a 1.0w", []),
        ("data:,a 1w 1w", []),
        ("data:,a 1w 1x", []),
        ("data:,a 1x 1w", []),
        ("data:,a 1h", []),
        ("data:,a 1h 1w", ["data:,a"]),
        ("data:,a 1w 1h", ["data:,a"]),
        ("data:,a 1x 1h", []),
        ("data:,a 1h 1x", []),
        ("data:,a 0h 1w", []),
        ("data:,a 0x", ["data:,a"]),
        ("data:,a -1x", []),
        ("data:,a 1e0x", ["data:,a"]),
        ("data:,a 1E-0x", ["data:,a"]),
        ("data:,a .5x", ["data:,a"]),
        ("data:,a 1.x", []),
        ("data:,a +1x", []),
        ("data:,a Infinityx", []),
        ("data:,a NaNx", []),
        ("data:,a 0x1x", []),
        ("data:,a 1x1x", []),
        ("data:,a 1 x", []),
        ("data:,a 1x x", []),
        ("data:,a foo", []),
    ],
)
def test_takes_the_valid_candidates(text: str, urls: list[str]) -> None:
    assert [one.url for one in parse_srcset(text)] == urls


def test_urls_may_hold_commas() -> None:
    text = "/w_517,h_387,q_90/a.jpg 517w, /w_1034,h_774,q_90/a.jpg 1034w 774h"
    assert parse_srcset(text) == [
        SrcsetCandidate("/w_517,h_387,q_90/a.jpg", 517),
        SrcsetCandidate("/w_1034,h_774,q_90/a.jpg", 1034),
    ]


def test_density_and_width() -> None:
    assert parse_srcset("a.jpg, b.jpg 1.5x, c.jpg 2x") == [
        SrcsetCandidate("a.jpg", None, 1.0),
        SrcsetCandidate("b.jpg", None, 1.5),
        SrcsetCandidate("c.jpg", None, 2.0),
    ]
