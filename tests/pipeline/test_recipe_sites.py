"""The shipped recipes against answers in the documented form of the services they name."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.names import recipe_names
from pipeline.recipe import load_recipe, recipe_path
from pipeline.sources import SOURCES, FoundImage, Page

ANSWERS = Path(__file__).parents[1] / "data" / "apis"
Site = Callable[[str, dict[str, list[str]]], str | None]


def walked(name: str, site: Site) -> tuple[list[FoundImage], list[str]]:
    """All images of a recipe and the pages asked for, with `site` giving the recorded file."""
    source = load_recipe(recipe_path(name)).source
    adapter = SOURCES[source.kind]
    queue = adapter.start(source)
    found: dict[str, FoundImage] = {}
    asked: list[str] = []
    while queue:
        request = queue.pop(0)
        if request.url in asked or request.depth > source.max_depth:
            continue
        asked.append(request.url)
        parts = urlsplit(request.url)
        file = site(parts.path, parse_qs(parts.query))
        if file is None:
            continue
        body = (ANSWERS / file).read_bytes()
        result = adapter.parse(source, Page(request, body, request.url))
        assert not result.error, (request.url, result.error)
        for row in result.images:
            found.setdefault(row.url, row)
        queue += result.follow
    return list(found.values()), asked


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(recipe_path(name))
    assert recipe.title
    assert SOURCES[recipe.source.kind].start(recipe.source)
    if name != "shells":
        assert recipe.politeness.rate <= 1
        assert not recipe.politeness.allow_private


def test_gbif() -> None:
    def site(path: str, query: dict[str, list[str]]) -> str:
        assert path == "/v1/occurrence/search"
        assert query["taxonKey"] == ["52"]
        assert query["mediaType"] == ["StillImage"]
        assert query["license"] == ["CC0_1_0", "CC_BY_4_0"]
        return f"gbif-{query['offset'][0]}.json"

    found, asked = walked("gbif-mollusca", site)
    assert len(asked) == 2
    assert found[0] == FoundImage(
        "https://collections.example.org/ids/deliveryService?id=NMNH-IZ-0001&max=2000",
        "Conus gloriamaris Chemnitz, 1777",
        ("Conidae", "Conus gloriamaris"),
        "http://creativecommons.org/publicdomain/zero/1.0/",
        "A Museum of Natural History",
    )
    # A picture without a licence of its own has the record's; a sound is none; nor is a reference.
    assert found[1].license == "http://creativecommons.org/publicdomain/zero/1.0/legalcode"
    assert found[1].attribution == "A. Curator"
    assert found[2].url == "http://mediaphoto.example.org/media/shell%20%282%29.jpg"
    assert (found[2].labels, found[2].attribution) == ((), "MNHN")
    assert [one.title for one in found[3:]] == ["Nautilus pompilius Linnaeus, 1758"]
    assert "by-nc" in found[3].license  # which the recipe's select refuses:
    accepted = load_recipe(recipe_path("gbif-mollusca")).select.licenses
    assert [any(word.lower() in one.license.lower() for word in accepted) for one in found] == [
        True, True, True, False,
    ]  # fmt: skip


def test_commons() -> None:
    def site(path: str, query: dict[str, list[str]]) -> str | None:
        assert path == "/w/api.php"
        assert query["generator"] == ["categorymembers"]
        assert query["gcmtype"] == ["file|subcat"]
        assert query["iiextmetadatafilter"] == ["LicenseShortName|Artist"]
        title = query["gcmtitle"][0]
        if title == "Category:Seashells":
            more = query.get("gcmcontinue")
            assert more in (None, ["file|4353|12345"])
            return "commons-Seashells-2.json" if more else "commons-Seashells.json"
        return {"Category:Conidae (shells)": "commons-Conidae.json"}.get(title)

    found, asked = walked("commons-shells", site)
    assert len(asked) == 4  # two pages of the first, two sub-categories, none twice
    assert [(one.title, one.labels, one.license) for one in found] == [
        ("File:Conus textile 7.JPG", (), "CC BY-SA 3.0"),
        ("File:Conus (Cone) & co.jpg", ("Conidae (shells)",), "CC0"),
        ("File:Nautilus.png", (), "Public domain"),
    ]
    assert found[0].attribution == "Some One"
    urls = [one.url for one in found]
    assert "https://upload.wikimedia.org/wikipedia/commons/4/4f/Conus_%28Cone%29_%26_co.jpg" in urls


def test_inaturalist() -> None:
    def site(path: str, query: dict[str, list[str]]) -> str:
        assert path == "/v1/observations"
        assert query["taxon_id"] == ["47115"]
        assert query["photo_license"] == ["cc0,cc-by"]
        return f"inaturalist-{query['id_above'][0]}.json"

    found, asked = walked("inaturalist-mollusca", site)
    assert len(asked) == 2
    assert found == [
        FoundImage(
            "https://inaturalist-open-data.s3.amazonaws.com/photos/7001/original.jpg",
            "Garden Snail",
            ("Cornu aspersum",),
            "cc-by",
            "(c) A Person, some rights reserved (CC BY)",
        ),
        FoundImage(
            "https://inaturalist-open-data.s3.amazonaws.com/photos/7004/original.png?1545",
            "Littorina littorea",
            ("Littorina littorea",),
            "cc0",
            "no rights reserved",
        ),
    ]


def test_wellcome() -> None:
    def site(path: str, query: dict[str, list[str]]) -> str | None:
        return {
            "/presentation/v3/collections/subjects/Shells": "iiif3-collection.json",
            "/presentation/v3/b1": "iiif3-manifest.json",
        }.get(path)

    found, asked = walked("wellcome-shells", site)
    assert len(asked) == 4
    assert found == [
        FoundImage(
            "https://iiif.wellcomecollection.org/image/b1_0001.jp2/full/683,/0/default.jpg",
            "Shells: 12 figures.",
            ("Etchings", "A. Engraver; B. Publisher"),
            "https://creativecommons.org/publicdomain/mark/1.0/",
            "Wellcome Collection; You have permission to make copies of this work.",
        )
    ]
