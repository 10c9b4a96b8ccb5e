"""The first screen: pages, images, licences and time, and a size that fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.crawl.estimate import estimate_site
from pipeline.demo.gallery import serve
from pipeline.importers.items import ImportedImage
from pipeline.recipe import load_recipe
from pipeline.sources.proposal import PRIVATE_RATE, Proposal
from shellgan.__main__ import main
from shellgan.survey import choose_size, survey_files
from shellgan.where import Where
from tests.helpers.commands import run_here
from tests.helpers.plain_gallery import plain_gallery
from tests.helpers.small_shards import picture
from tests.helpers.static_site import served

LICENSE = '<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY</a>'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """An index of six albums with four images each."""
    folder = tmp_path / "site"
    folder.mkdir()
    links = "".join(
        f'<li class="album"><a href="{n}.html"><img src="t{n}.png" width="60"></a></li>'
        for n in range(6)
    )
    (folder / "index.html").write_text(f"<html><body><ul>{links}</ul></body></html>")
    for album in range(6):
        Image.fromarray(picture(album, 60)).save(folder / f"t{album}.png")
        names = [f"a{album}-{n}.png" for n in range(4)]
        for n, name in enumerate(names):
            Image.fromarray(picture(10 * album + n, 100)).save(folder / name)
        images = "".join(f'<li><a class="full" href="{name}">{name}</a></li>' for name in names)
        (folder / f"{album}.html").write_text(
            f"<html><body><ul>{images}</ul>{LICENSE}</body></html>"
        )
    with served(folder) as url:
        yield f"{url}/index.html"


def test_the_size_of_a_site_is_estimated_from_a_few_pages(tmp_path: Path, site: str) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'[source]\nkind = "html"\nstart = ["{site}"]\nfollow = ["li.album a"]\nimage = "a.full"\n'
        "[politeness]\nrate = 100\nallow_private = true\n"
    )
    found = estimate_site(recipe, site)
    assert (found.pages, found.images, found.visited, found.is_complete) == (7, 24, 4, True)
    assert found.licenses.total() == 12
    assert found.side == 100


def test_the_first_screen_of_a_gallery(tmp_path: Path) -> None:
    with serve(plain_gallery(40, 7, tmp_path / "drawn")) as gallery:
        said = run_here(main, tmp_path, gallery.url, "--hours", "0.1", "--out", "out")
    assert re.search(r"about \d+ pages with about \d+ images", said.stdout), said.stderr
    assert "creativecommons.org/licenses/by/4.0" in said.stdout
    assert "50 requests per second" in said.stdout
    (recipe,) = (tmp_path / "out").glob("*.toml")
    assert "allow_private = true" in recipe.read_text()
    assert "\nresolution = 64  # pixels; " in recipe.read_text()


def test_a_password_in_the_address_is_used_and_not_shown(tmp_path: Path) -> None:
    with serve(plain_gallery(40, 7, tmp_path / "drawn")) as gallery:
        url = gallery.url.replace("://", "://me:secret@")
        said = run_here(main, tmp_path, url, "--out", "out")
    (recipe,) = (tmp_path / "out").glob("*.toml")
    (line,) = [line for line in recipe.read_text().splitlines() if "secret" in line]
    assert line.endswith(" = {}  # user and password")
    assert list(load_recipe(recipe).politeness.host_headers.values()) == [
        {"Authorization": "Basic bWU6c2VjcmV0"}
    ]
    assert "secret" not in said.stdout + said.stderr


def test_an_unexpected_error_of_one_image_is_left_to_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some").mkdir()
    for number, side in enumerate((40, 90)):
        Image.fromarray(picture(number, side)).save(tmp_path / "some" / f"{number}.png")
    original = ImportedImage.__getattribute__

    def fail(item: ImportedImage, name: str) -> object:
        if name == "read" and item.url.endswith("0.png"):
            raise ValueError("odd")
        return original(item, name)

    monkeypatch.setattr(ImportedImage, "__getattribute__", fail)
    assert survey_files(Where("files", str(tmp_path / "some"), "some")).side == 90


def test_only_private_addresses_get_a_fast_rate() -> None:
    for start, rate in (("https://example.org/", 1), ("http://10.0.0.2/", PRIVATE_RATE)):
        assert f"\nrate = {rate} " in Proposal(start, private=True).to_toml()


def test_a_size_that_was_edited_is_kept(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    for number in range(3):
        Image.fromarray(picture(number, 40)).save(tmp_path / "some" / f"{number}.png")
    run_here(main, tmp_path, "some", "--hours", "1")
    recipe = tmp_path / "some.toml"
    assert "resolution = 32  # pixels; the images have a short side of 40 px" in recipe.read_text()
    recipe.write_text(recipe.read_text().replace("resolution = 32", "resolution = 48"))
    run_here(main, tmp_path, "some", "--hours", "1")
    assert "resolution = 48" in recipe.read_text()


@pytest.mark.parametrize(
    ("side", "hours", "device", "size"),
    [
        (0, 0.9, "cpu", 64),
        (500, 0.9, "cpu", 64),
        (500, 1.0, "cpu", 128),
        (100, 30.0, "cpu", 64),
        (40, 1.0, "cpu", 32),
        (20, 1.0, "cpu", 32),
        (500, 2.0, "cuda", 128),
        (500, 9.0, "cuda", 256),
    ],
)
def test_the_size_fits_images_and_hours(side: int, hours: float, device: str, size: int) -> None:
    assert choose_size(side, hours, device)[0] == size
