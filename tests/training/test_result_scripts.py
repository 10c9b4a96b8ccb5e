"""The scripts that make the pictures of docs/presets.md and docs/results.md."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from curves import Curve, Panel, draw, normalized
from preset_pictures import reduce
from prints import SUBJECTS, draw_print
from results_datasets import PER_PAGE, PlainGallery
from results_runs import ALL
from results_text import SEEN

from training.catalogue import gflop_per_image, network_cost
from training.options.resolve import resolve


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dcgan64", "width / 8, batch 16 instead of 128"),
        ("woodblock128", "width / "),  # its layers allow no other resolution
        ("r3gan256", "64 px instead of 256, width / 8"),
        ("gan-mnist", "full size"),  # its own batch costs less than 16 images of others
    ],
)
def test_a_reduced_preset_is_what_its_caption_says(name: str, words: str) -> None:
    changes, caption = reduce(name, 0.3)
    config, full = resolve(name, changes), resolve(name, {})
    assert words in caption
    assert ("px instead" in caption) == (config.resolution < full.resolution)
    assert ("batch" in caption) == (config.batch < full.batch)
    costs = [gflop_per_image(one, network_cost(one)) for one in (config, full)]
    assert costs[0] <= costs[1]


def test_a_print_follows_from_its_number() -> None:
    first, again, other = (draw_print(number) for number in (5, 5, 9))
    assert first[0] == other[0] == SUBJECTS[1]
    assert first[1].tobytes() == again[1].tobytes() != other[1].tobytes()


def test_every_image_of_the_plain_gallery_is_reached_by_links() -> None:
    names = [f"a/{number}.jpg" for number in range(2 * PER_PAGE + 1)]
    site = PlainGallery("T", {"a": names, "b": ["b/0.jpg"]}, lambda name: name.encode())
    todo, found = [""], set[str]()
    while todo:
        page = todo.pop()
        for link in re.findall(r'href="/?([^"]+)"', site.respond(page).body.decode()):
            if link not in found:
                found.add(link)
                todo += [link] if link.endswith(".html") else []
    assert {link for link in found if link.endswith(".jpg")} == {*names, "b/0.jpg"}
    assert site.respond("a/7.jpg").body == b"a/7.jpg"
    assert {site.respond(path).status for path in ("c-1.html", "../x", "a/999.jpg")} == {404}


def test_curves_fill_their_axes() -> None:
    assert normalized([(0, 2), (1, 4), (2, 3)]) == [(0, 0), (1, 1), (2, 0.5)]
    text = draw([Panel("a < b", [Curve("x & y", [(0, 0.001), (2, 10)])], log=True)])
    svg = ElementTree.fromstring(text)
    points = next(one for one in svg.iter() if one.tag.endswith("polyline")).get("points") or ""
    (left, bottom), (right, top) = (map(float, pair.split(",")) for pair in points.split())
    assert right - left == 230
    assert bottom - top == 150


def test_remarks_are_about_runs_that_exist() -> None:
    names = [one.name for one in ALL]
    assert len(set(names)) == len(names)
    seen = [key for texts in SEEN.values() for key in texts]
    assert [key for key in seen if not key.startswith(tuple(names))] == []
    for one in ALL:
        if one.preset != "auto":
            resolve(one.preset, dict(one.changes))
