"""Manifests and collections of both versions; sizes by the rules of the Image API."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config_io import parse_config
from pipeline.sources import FoundImage, Page, PageRequest, PageResult
from pipeline.sources.iiif import IiifSource, parse
from pipeline.sources.iiif_image import image_url

ANSWERS = Path(__file__).parents[2] / "data" / "apis"
URL = "https://museum.example/iiif/x"


def parsed(data: Any, **values: Any) -> PageResult:
    config = parse_config(IiifSource, {"start": [URL], **values}, "test")
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return parse(config, Page(PageRequest(URL, 1), body, URL))


def recorded(name: str) -> Any:
    return json.loads((ANSWERS / name).read_text())


def test_presentation_2_manifest() -> None:
    rows = list(parsed(recorded("iiif2-manifest.json"), labels=["family"]).images)
    rights = "https://creativecommons.org/licenses/by/4.0/"
    assert rows == [
        FoundImage(
            "https://museum.example/img/1/full/full/0/default.jpg",
            "Shells, front",
            ("Conidae",),
            rights,
            "The Museum",
        ),
        FoundImage(
            "https://museum.example/plain/2.jpg",
            "Shells, back",
            ("Conidae",),
            rights,
            "The Museum",
        ),
    ]


def test_languages() -> None:
    french = list(parsed(recorded("iiif2-manifest.json"), language="fr").images)
    assert french[0].title == "Coquilles, front"
    german = list(parsed(recorded("iiif3-manifest.json"), language="de", labels=["Technik"]).images)
    assert (german[0].title, german[0].labels) == ("Muscheln: 12 Figuren.", ("Radierungen",))


def test_collections_lead_to_their_members() -> None:
    two = parsed(recorded("iiif2-collection.json"))
    root = "https://museum.example/iiif/2/"
    assert {(one.url.removeprefix(root), one.depth) for one in two.follow} == {
        ("collection/a", 2),
        ("m/manifest", 2),
        ("n/manifest", 2),
        ("collection/top?page=2", 1),
    }  # fmt: skip
    three = parsed(recorded("iiif3-collection.json"))
    assert [one.url.rsplit("/", 1)[-1] for one in three.follow] == ["b1", "b2", "Shells_in_art"]
    first = {"@type": "sc:Collection", "first": "https://museum.example/iiif/p1", "total": 9}
    assert [(one.url, one.depth) for one in parsed(first).follow] == [
        ("https://museum.example/iiif/p1", 1)
    ]


def test_books_are_passed_over() -> None:
    result = parsed(recorded("iiif2-manifest.json"), max_canvases=1)
    assert (list(result.images), dict(result.skipped)) == ([], {"too_many_canvases": 1})


def service(version: int, level: int, **more: Any) -> dict[str, Any]:
    if version == 3:
        return {
            "id": "https://i.example/a",
            "type": "ImageService3",
            "profile": f"level{level}",
            **more,
        }
    return {
        "@context": f"http://iiif.io/api/image/{version}/context.json",
        "@id": "https://i.example/a/",
        "profile": f"http://iiif.io/api/image/{version}/level{level}.json",
        **more,
    }  # fmt: skip


SIZES = {"sizes": [{"width": 3 * n, "height": 2 * n} for n in (50, 200, 400)]}


@pytest.mark.parametrize(
    ("given", "max_side", "path"),
    [
        (service(3, 2), None, "full/max/0/default.jpg"),
        (service(2, 2), None, "full/full/0/default.jpg"),
        (service(1, 1), None, "full/full/0/native.jpg"),
        # never above the whole image
        (service(3, 2), 4000, "full/max/0/default.jpg"),
        (service(2, 1), 3000, "full/full/0/default.jpg"),
        # the short form that level 1 must support; the canonical one of version 3
        (service(2, 1), 600, "full/600,/0/default.jpg"),
        (service(2, 2), 600, "full/600,/0/default.jpg"),
        (service(3, 1), 600, "full/600,/0/default.jpg"),
        (service(3, 2), 600, "full/600,400/0/default.jpg"),
        # level 0: only what is listed, the smallest that is large enough
        (service(3, 0, **SIZES), 500, "full/600,400/0/default.jpg"),
        (service(2, 0, **SIZES), 500, "full/600,/0/default.jpg"),
        (service(2, 0, **SIZES), 2500, "full/1200,/0/default.jpg"),
        (service(2, 0), 500, "full/full/0/default.jpg"),
    ],
)
def test_sizes(given: dict[str, Any], max_side: int | None, path: str) -> None:
    resource = {"id": "x", "type": "Image", "width": 3000, "height": 2000, "service": [given]}
    assert image_url(resource, max_side) == f"https://i.example/a/{path}"


def test_portrait_keeps_its_longest_side() -> None:
    resource = {"width": 2000, "height": 3000, "service": service(3, 2)}
    assert image_url(resource, 600) == "https://i.example/a/full/400,600/0/default.jpg"


def test_size_without_known_dimensions_and_without_service() -> None:
    assert image_url({"service": service(2, 2)}, 600) == (
        "https://i.example/a/full/!600,600/0/default.jpg"
    )
    assert image_url({"id": "https://i.example/a.jpg"}, 600) == "https://i.example/a.jpg"
    auth = {"@id": "https://i.example/login", "profile": "http://iiif.io/api/auth/1/login"}
    assert image_url({"@id": "https://i.example/a.jpg", "service": auth}, None) == (
        "https://i.example/a.jpg"
    )


@pytest.mark.parametrize("data", [b"<html>", {"@type": "sc:Range"}, [], {"label": "x"}])
def test_other_things_are_problems(data: Any) -> None:
    assert parsed(data).error
