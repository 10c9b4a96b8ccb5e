"""IIIF manifests and collections (Presentation API 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.outside_text import parse_json
from pipeline.sources.iiif_image import id_of, image_url, kind_of, list_of, nodes_of
from pipeline.sources.interface import (
    LARGE_PAGE,
    Adapter,
    CrawlLimits,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
    notes_on_text,
)
from pipeline.sources.text_selectors import Pattern, clean, clean_html
from pipeline.sources.url_rules import check_start, is_allowed
from pipeline.web.urls import canonical_url


@dataclass(frozen=True, config=STRICT, kw_only=True)
class IiifSource(CrawlLimits):
    """IIIF manifests, and collections of them at any depth; versions 2 and 3 may be mixed.

    `start` are the URLs of manifests or collections. `max_side` is the longest side to request from
    the image service, in pixels; by default the whole image. Manifests with more than
    `max_canvases` canvases (books) are skipped. `labels` are names of metadata entries, in any of
    their languages; `language` is the preferred one of texts. Patterns are applied to image URLs:
    one of `include` and none of `exclude` must match.
    """

    kind: Literal["iiif"] = "iiif"
    start: tuple[str, ...] = Field(min_length=1)
    max_side: int | None = Field(default=None, ge=16)
    max_canvases: int | None = Field(default=None, ge=1)
    labels: tuple[str, ...] = ()
    language: str = "en"
    include: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        check_start(self.start)


def start(config: IiifSource) -> list[PageRequest]:
    """Return the requests for the first manifests and collections."""
    return [PageRequest(url) for url in map(canonical_url, config.start) if url]


def parse(config: IiifSource, page: Page) -> PageResult:
    """Parse a manifest (images) or a collection (members)."""
    try:
        data = parse_json(page.body)
        kind = kind_of(data)
        if kind == "Manifest":
            return _manifest(config, page, data)
        if kind in ("Collection", "CollectionPage"):
            return PageResult(follow=list(_members(page, data)))
    except ValueError as error:
        return PageResult(error=f"not JSON ({error})")
    except RecursionError:
        return PageResult(error="not a IIIF response: nested too deeply")
    return PageResult(error=f"neither a IIIF manifest nor a collection: {kind or 'no type'}")


# collections


def _members(page: Page, data: dict[str, Any]) -> Iterator[PageRequest]:
    depth = page.request.depth
    for name in ("items", "members", "collections", "manifests"):
        for member in list_of(data.get(name)):
            kind = kind_of(member) or {"collections": "Collection"}.get(name, "Manifest")
            url = canonical_url(id_of(member), page.url)
            if url and kind in ("Manifest", "Collection"):
                yield PageRequest(url, depth + 1)
    following = [data.get("next")]
    if data.get("first") and not any(data.get(name) for name in ("items", "members", "manifests")):
        following.append(data["first"])
    for node in following:
        url = canonical_url(id_of(node), page.url) if node else None
        if url:
            yield PageRequest(url, depth)


# manifests


def _manifest(config: IiifSource, page: Page, data: dict[str, Any]) -> PageResult:
    canvases = nodes_of(data.get("items")) or [
        canvas
        for sequence in nodes_of(data.get("sequences"))
        for canvas in nodes_of(sequence.get("canvases"))
    ]
    if config.max_canvases is not None and len(canvases) > config.max_canvases:
        return PageResult(skipped=Notes({"too_many_canvases": 1}))
    notes = notes_on_text(page.body)

    def read(canvas: dict[str, Any]) -> Iterator[FoundImage]:
        for resource in _resources(canvas):
            text = image_url(resource, config.max_side)
            url = canonical_url(text or "", page.url)
            if url is None:
                notes.add("no_image", text)
            elif not is_allowed(url, config.include, config.exclude):
                notes.add("excluded", url)
            else:
                yield _describe(config, data, canvas, url, len(canvases) > 1)

    found: dict[str, FoundImage] = {}
    for one in notes.each(canvases, read):
        found.setdefault(one.url, one)
    return PageResult(list(found.values()), skipped=notes)


def _resources(canvas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the image resources painted on a canvas; of a choice, the first."""
    for annotation_page in nodes_of(canvas.get("items")):
        for annotation in nodes_of(annotation_page.get("items")):
            if annotation.get("motivation", "painting") == "painting":
                yield from _bodies(annotation.get("body"))
    for annotation in nodes_of(canvas.get("images")):
        yield from _bodies(annotation.get("resource"))


def _bodies(body: Any) -> Iterator[dict[str, Any]]:
    for one in nodes_of(body):
        kind = kind_of(one).removeprefix("oa:").lower()
        if kind == "choice":
            yield from _bodies((list_of(one.get("items")) or list_of(one.get("default")))[:1])
        elif kind == "specificresource":
            yield from _bodies(one.get("source") or one.get("full"))
        elif kind in ("image", "dctypes:image") or one.get("service"):
            yield one


def _describe(
    config: IiifSource, data: dict[str, Any], canvas: Any, url: str, several: bool
) -> FoundImage:
    text = _Text(config.language)
    title = text(data.get("label"))
    part = text(canvas.get("label")) if several else ""
    metadata = {
        name.lower(): text(entry.get("value"))
        for entry in nodes_of(data.get("metadata"))
        for name in text.all(entry.get("label"))
    }
    labels = [metadata.get(name.lower(), "") for name in config.labels]
    while labels and not labels[-1]:
        labels.pop()
    rights = list_of(canvas.get("rights") or data.get("rights") or data.get("license"))
    statement = data.get("requiredStatement")
    attribution = statement.get("value") if isinstance(statement, dict) else data.get("attribution")
    return FoundImage(
        url,
        clean(f"{title}, {part}" if part and part != title else title),
        tuple(labels),
        clean(id_of(rights[0])) if rights else "",
        text(attribution),
    )


class _Text:
    """Reads texts of both versions: strings, {"@value"} objects, lists, and language maps."""

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, value: Any) -> str:
        """Return the text in the configured language, or else in the first one."""
        return "; ".join(self._pick(value))

    def all(self, value: Any) -> list[str]:
        """Return the texts in all languages."""
        if isinstance(value, dict) and "@value" not in value:
            return [text for one in value.values() for text in self.all(one)]
        return [text for one in list_of(value) for text in self._one(one)]

    def _pick(self, value: Any) -> list[str]:
        if isinstance(value, dict) and "@value" not in value:
            wanted: Any = (
                value.get(self._language) or value.get("none") or next(iter(value.values()), [])
            )
            return self._pick(wanted)
        values = list_of(value)
        matching = [
            one
            for one in values
            if isinstance(one, dict) and one.get("@language") == self._language
        ]
        if not matching and any(isinstance(one, dict) and one.get("@language") for one in values):
            matching = values[:1]
        return [text for one in matching or values for text in self._one(one)]

    def _one(self, value: Any) -> list[str]:
        text = value.get("@value") if isinstance(value, dict) else value
        return [clean_html(text)] if isinstance(text, str) and text.strip() else []


IIIF = Adapter(IiifSource, start, parse, page_bytes=lambda _: LARGE_PAGE)
