"""Renders the pages of the gallery's site from its layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw

from pipeline.demo.layout import (
    ORNAMENTS,
    SIZES,
    Layout,
    SpeciesPage,
    Specimen,
    address,
    build_layout,
    disguise,
    index_path,
)

PLACEHOLDER = "data:image/gif;base64,R0lGODlhAQABAIAAAO/u6wAAACwAAAAAAQABAAACAkQBADs="
STYLE = resources.files("pipeline.demo") / "pages" / "style.css"
ROBOTS = "User-agent: *\nDisallow: /reserve/\n"


@dataclass(frozen=True)
class TextDocument:
    """A text resource: its media type and its body."""

    media_type: str
    text: str


@dataclass(frozen=True)
class SpecimenImage:
    """An image of a specimen: index in the collection, side in pixels, "jpg" or "png"."""

    index: int
    side: int
    kind: str


def tag(page: SpeciesPage, ordinal: int) -> str:
    """Return the tracking parameters, if any, of a page's link to its specimen."""
    if not page.tagged or ordinal % 2:
        return ""
    return f"?utm_source=species&utm_campaign={page.species.family.name}"


class Site:
    """The site of ``count`` specimens of collection ``seed``: the content of each path."""

    def __init__(self, count: int, seed: int) -> None:
        self.layout: Layout = build_layout(count, seed)
        self._templates = Environment(
            loader=PackageLoader("pipeline.demo", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            index_path=index_path,
            tag=tag,
            placeholder=PLACEHOLDER,
            quoted=lambda path: address(path)[1:],
        )

    @cached_property
    def _images(self) -> dict[str, SpecimenImage]:
        """All images by unescaped path."""
        found: dict[str, SpecimenImage] = {}
        shelves = [page.specimens for page in self.layout.species]
        for specimens in (*shelves, self.layout.reserve):
            for one in specimens:
                for kind, side in SIZES.items():
                    found[one.path(kind)] = SpecimenImage(one.index, side, one.kind)
        return found

    @cached_property
    def _species(self) -> dict[str, SpeciesPage]:
        """All species' pages by path."""
        return {page.path: page for page in self.layout.species}

    @cached_property
    def _disguised(self) -> frozenset[str]:
        """Paths of the pages that are disguised as images."""
        return frozenset(path for page in self.layout.species for path in page.disguised)

    def resource_at(self, path: str) -> TextDocument | SpecimenImage | None:
        """Return the resource at an unescaped path without a leading slash, or None."""
        if path in self._images:
            return self._images[path]
        if path in self._species:
            return self._html("species", "../", page=self._species[path])
        if path in self._disguised:
            text = self.notice("Plate on loan", "This plate is being photographed anew.", "../../")
            return TextDocument(disguise(path), text)
        if path == "robots.txt":
            return TextDocument("text/plain; charset=utf-8", ROBOTS)
        if path == "assets/style.css":
            return TextDocument("text/css; charset=utf-8", STYLE.read_text())
        if path in ("reserve/", "reserve/index.html"):
            return self._html("reserve", "../")
        return self._index(path)

    def _index(self, path: str) -> TextDocument | None:
        """Return an index page, or None."""
        last = self.layout.index_pages
        number = 1 if path in ("", "index.html") else 0
        if path.startswith("page/") and path.endswith(".html"):
            digits = path[len("page/") : -len(".html")]
            number = int(digits) if digits.isascii() and digits.isdigit() else 0
        if path != (index_path(number) if path else ""):
            return None
        if not 1 <= number <= last:
            return None
        listed = self.layout.listed(number)
        featured: Specimen = listed[(7 * number) % len(listed)].specimens[0]
        dead = self.layout.dead[number - 1 :: last]
        up = "" if number == 1 else "../"
        return self._html(
            "index", up, number=number, last=last, listed=listed, featured=featured, dead=dead
        )

    def notice(self, title: str, text: str, up: str) -> str:
        """Return a short page with a title and a line of text."""
        return self._html("notice", up, title=title, text=text).text

    def _html(self, template: str, up: str, **values: object) -> TextDocument:
        """Render a template of a page that lies below the root by ``up``."""
        text = self._templates.get_template(f"{template}.html").render(
            layout=self.layout, up=up, **values
        )
        return TextDocument("text/html; charset=utf-8", text)


def ornament(path: str, logo: Image.Image) -> Image.Image:
    """Return the logo (the given image, 96 px) or an icon (48 px) of the site."""
    if path == ORNAMENTS[0]:
        return logo.resize((96, 96), Image.Resampling.LANCZOS)
    icon = Image.new("RGB", (192, 192), (29, 92, 107))
    pen = ImageDraw.Draw(icon)
    if path == ORNAMENTS[1]:
        pen.rectangle((40, 60, 152, 136), outline="white", width=12)
        pen.line((40, 60, 96, 104, 152, 60), fill="white", width=12)
    else:
        pen.rounded_rectangle((36, 56, 156, 144), 16, outline="white", width=12)
        pen.ellipse((74, 76, 118, 120), outline="white", width=12)
    return icon.resize((48, 48), Image.Resampling.LANCZOS)
