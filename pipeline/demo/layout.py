"""Builds the layout of the site as plain data: pages, images, traps, and the expected results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from pipeline.demo.catalogue import FAMILIES, Species, place, species_of
from pipeline.demo.randomness import generator

SPECIES_PER_PAGE = 20
RESERVE = 6
SIZES = {"thumb": 96, "medium": 160, "full": 256}
Style = Literal["plain", "srcset", "lazy", "picture", "blur"]
STYLES: tuple[Style, ...] = ("plain", "srcset", "lazy", "picture", "blur")
ORNAMENTS = ("assets/logo.png", "assets/icon-post.png", "assets/icon-photo.png")

Fault = Literal["missing image", "missing page", "page served as image"]


def address(path: str) -> str:
    """Return the path of a request for a file: percent-encoded, with a leading slash."""
    return "/" + quote(path, safe="/()")


@dataclass(frozen=True)
class Specimen:
    """A specimen: its index in the collection and its file name on the site."""

    index: int
    species: Species
    file: str
    folder: str = "images"

    @property
    def kind(self) -> str:
        """The format of the image, "jpg" or "png"."""
        return self.file.rsplit(".", 1)[1]

    def path(self, kind: str) -> str:
        """Return the unescaped path, from the root, of its "thumb", "medium" or "full"."""
        return f"{self.folder}/{kind}/{self.file}"


@dataclass(frozen=True)
class SpeciesPage:
    """A species' page: how it marks up its images, and which traps it contains.

    ``also`` are specimens of other pages that are shown here too; ``lost`` and ``disguised`` are
    paths of full-size images that are missing or are a page instead; ``tagged`` links have tracking
    parameters.
    """

    species: Species
    style: Style
    specimens: tuple[Specimen, ...]
    tagged: bool
    also: tuple[Specimen, ...] = ()
    lost: tuple[str, ...] = ()
    disguised: tuple[str, ...] = ()
    reserve: tuple[Specimen, ...] = ()

    @property
    def path(self) -> str:
        """Path of the page from the root of the site."""
        return f"species/{self.species.slug}.html"


@dataclass(frozen=True)
class TrueImage:
    """A valid full-size image: the path to request, and its labels on the page."""

    path: str
    index: int
    family: str
    species: str
    licence: str
    credit: str


@dataclass(frozen=True)
class TrueFault:
    """A broken link: the path to request, what is wrong, and the response."""

    path: str
    fault: Fault
    status: int
    content_type: str


@dataclass(frozen=True)
class Truth:
    """The layout of a site; all paths are as a client requests them.

    ``images`` are exactly the valid full-size images; ``disallowed`` are linked but disallowed by
    robots.txt; ``ornaments`` are logo and icons.
    """

    images: tuple[TrueImage, ...]
    faults: tuple[TrueFault, ...]
    disallowed: tuple[str, ...]
    pages: tuple[str, ...]
    ornaments: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A complete site for ``count`` specimens of collection ``seed``, in page order."""

    count: int
    seed: int
    species: tuple[SpeciesPage, ...]
    dead: tuple[Species, ...]
    reserve: tuple[Specimen, ...] = ()

    @property
    def index_pages(self) -> int:
        """Number of index pages, at least one."""
        return max(1, -(-len(self.species) // SPECIES_PER_PAGE))

    def listed(self, page: int) -> tuple[SpeciesPage, ...]:
        """Return the species of index page ``page``, counted from 1."""
        return self.species[(page - 1) * SPECIES_PER_PAGE : page * SPECIES_PER_PAGE]

    def truth(self) -> Truth:
        """Return the results of a perfect crawl of the site."""
        images = tuple(
            TrueImage(
                address(specimen.path("full")),
                specimen.index,
                page.species.family.label,
                page.species.name,
                page.species.licence.name,
                page.species.credit,
            )
            for page in self.species
            for specimen in page.specimens
        )
        faults = [
            TrueFault(address(f"species/{gone.slug}.html"), "missing page", 404, "text/html")
            for gone in self.dead
        ]
        for page in self.species:
            faults += [
                TrueFault(address(path), "missing image", 404, "text/html") for path in page.lost
            ]
            faults += [
                TrueFault(address(path), "page served as image", 200, disguise(path))
                for path in page.disguised
            ]
        pages = [index_path(number) for number in range(1, self.index_pages + 1)]
        pages += [page.path for page in self.species]
        hidden = ["reserve/index.html"]
        hidden += [one.path(kind) for one in self.reserve for kind in SIZES]
        return Truth(
            images,
            tuple(faults),
            tuple(address(path) for path in hidden),
            tuple(address(path) for path in pages),
            tuple(address(path) for path in ORNAMENTS),
        )


def index_path(number: int) -> str:
    """Return the path of index page ``number``, counted from 1."""
    return "index.html" if number == 1 else f"page/{number}.html"


def disguise(path: str) -> str:
    """Return the media type under which a page disguised as an image is served."""
    return "image/jpeg" if path.endswith("-plate.jpg") else "text/html"


def file_name(species: Species, ordinal: int, spaced: bool) -> str:
    """Return the file name of a specimen of a species, counted from 1."""
    kind = "png" if species.number % 5 == 3 else "jpg"
    if spaced:
        return f"{species.name} ({ordinal}).{kind}"
    return f"{species.slug}-{ordinal:02d}.{kind}"


def build_layout(count: int, seed: int) -> Layout:
    """Build the layout of a site for ``count`` (>= 1) specimens of collection ``seed``."""
    if count < 1:
        raise ValueError(f"a gallery holds at least one specimen, not {count}")
    members: dict[tuple[int, int], list[int]] = {}
    for index in range(count):
        family, number = place(index)
        members.setdefault((number, family), []).append(index)
    members = dict(sorted(members.items()))
    kinds = [species_of(seed, family, number) for number, family in members]
    shelves: list[tuple[Specimen, ...]] = []
    for order, (species, indices) in enumerate(zip(kinds, members.values(), strict=True)):
        spaced = order % 11 == 4
        shelves.append(
            tuple(
                Specimen(index, species, file_name(species, ordinal, spaced))
                for ordinal, index in enumerate(indices, 1)
            )
        )
    reserve = tuple(
        Specimen(index, _species_at(seed, index), f"type-{index - count + 1}.jpg", "reserve")
        for index in range(count, count + RESERVE)
    )
    pages = tuple(_page(seed, order, kinds, shelves, reserve) for order in range(len(kinds)))
    beyond = place(count + RESERVE)[1] + 1
    dead = tuple(
        species_of(seed, family % len(FAMILIES), beyond + family // len(FAMILIES))
        for family in range(1 + len(kinds) // 60)
    )
    return Layout(count, seed, pages, dead, reserve)


def _species_at(seed: int, index: int) -> Species:
    return species_of(seed, *place(index))


def _page(
    seed: int,
    order: int,
    kinds: list[Species],
    shelves: list[tuple[Specimen, ...]],
    reserve: tuple[Specimen, ...],
) -> SpeciesPage:
    """Return page ``order``; on every site, the first pages contain one trap of each kind."""
    species = kinds[order]
    rng = generator("page", seed, order)
    also: tuple[Specimen, ...] = ()
    if order % 7 == 2 and len(shelves) > 1:
        other = shelves[(order + 1 + int(rng.integers(len(shelves) - 1))) % len(shelves)]
        also = (other[int(rng.integers(len(other)))],)
    slug = species.slug
    disguised: tuple[str, ...] = ()
    if order % 23 == 0:
        ending = "plate" if order % 2 == 0 else "scan"
        disguised = (f"images/full/{slug}-{ending}.jpg",)
    return SpeciesPage(
        species,
        STYLES[order % len(STYLES)],
        shelves[order],
        tagged=order % 6 == 3,
        also=also,
        lost=(f"images/full/{slug}-holotype.jpg",) if order % 17 == 0 else (),
        disguised=disguised,
        reserve=(reserve[order // 29 % RESERVE],) if order % 29 == 0 else (),
    )
