"""IIIF: Presentation 2 and 3 manifests and collections, image sizes through the Image API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT
from pipeline.outside_text import parse_json
from pipeline.sources.interface import (
    LARGE_PAGE,
    Adapter,
    CrawlLimits,
    FoundImage,
    Notes,
    Page,
    PageRequest,
    PageResult,
)
from pipeline.sources.text_selectors import Pattern, clean, clean_html
from pipeline.sources.url_rules import check_start, is_allowed
from pipeline.web.urls import canonical_url

_MAX_SIDE = 10**7
_LEVEL = re.compile(r"level(\d)|#level(\d)|compliance.*?level(\d)", re.IGNORECASE)
_API = re.compile(r"(?:ImageService|image/|image-api/)(\d)", re.IGNORECASE)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class IiifSource(CrawlLimits):
    """IIIF manifests, and collections of them at any depth; versions 2 and 3 may be mixed.

    `max_side` is the longest side to request from the image service, in pixels; by default the
    whole image. Manifests with more than `max_canvases` canvases (books) are skipped. `labels` are
    names of metadata entries, in any of their languages. Patterns are applied to image URLs.
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
        kind = _kind(data)
        if kind == "Manifest":
            return _manifest(config, page, data)
        if kind in ("Collection", "CollectionPage"):
            return PageResult(follow=list(_members(page, data)))
    except ValueError as error:
        return PageResult(error=f"not JSON ({error})")
    except RecursionError:
        return PageResult(error="not a IIIF response: nested too deeply")
    return PageResult(error=f"neither a IIIF manifest nor a collection: {kind or 'no type'}")


def _kind(node: Any) -> str:
    if not isinstance(node, dict):
        return ""
    return (_text(node.get("type")) or _text(node.get("@type"))).removeprefix("sc:")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _id(node: Any) -> str:
    if isinstance(node, dict):
        return _text(node.get("id")) or _text(node.get("@id"))
    return _text(node)


def _list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _nodes(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list, or the one object; other values are ignored."""
    return [one for one in _list(value) if isinstance(one, dict)]


# collections


def _members(page: Page, data: dict[str, Any]) -> Iterator[PageRequest]:
    depth = page.request.depth
    for name in ("items", "members", "collections", "manifests"):
        for member in _list(data.get(name)):
            kind = _kind(member) or {"collections": "Collection"}.get(name, "Manifest")
            url = canonical_url(_id(member), page.url)
            if url and kind in ("Manifest", "Collection"):
                yield PageRequest(url, depth + 1)
    following = [data.get("next")]
    if data.get("first") and not any(data.get(name) for name in ("items", "members", "manifests")):
        following.append(data["first"])
    for node in following:
        url = canonical_url(_id(node), page.url) if node else None
        if url:
            yield PageRequest(url, depth)


# manifests


def _manifest(config: IiifSource, page: Page, data: dict[str, Any]) -> PageResult:
    canvases = _nodes(data.get("items")) or [
        canvas
        for sequence in _nodes(data.get("sequences"))
        for canvas in _nodes(sequence.get("canvases"))
    ]
    if config.max_canvases is not None and len(canvases) > config.max_canvases:
        return PageResult(skipped=Notes({"too_many_canvases": 1}))
    notes = Notes()

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
    """Return the images painted on a canvas; of a choice, the first."""
    for annotation_page in _nodes(canvas.get("items")):
        for annotation in _nodes(annotation_page.get("items")):
            if annotation.get("motivation", "painting") == "painting":
                yield from _bodies(annotation.get("body"))
    for annotation in _nodes(canvas.get("images")):
        yield from _bodies(annotation.get("resource"))


def _bodies(body: Any) -> Iterator[dict[str, Any]]:
    for one in _nodes(body):
        kind = _kind(one).removeprefix("oa:").lower()
        if kind == "choice":
            yield from _bodies((_list(one.get("items")) or _list(one.get("default")))[:1])
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
        for entry in _nodes(data.get("metadata"))
        for name in text.all(entry.get("label"))
    }
    labels = [metadata.get(name.lower(), "") for name in config.labels]
    while labels and not labels[-1]:
        labels.pop()
    rights = _list(canvas.get("rights") or data.get("rights") or data.get("license"))
    statement = data.get("requiredStatement")
    attribution = statement.get("value") if isinstance(statement, dict) else data.get("attribution")
    return FoundImage(
        url,
        clean(f"{title}, {part}" if part and part != title else title),
        tuple(labels),
        clean(_id(rights[0])) if rights else "",
        text(attribution),
    )


class _Text:
    """Read the texts of both versions: strings, {"@value"}, lists, and language maps."""

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, value: Any) -> str:
        """Return the text in the configured language, or else in the first one."""
        return "; ".join(self._pick(value))

    def all(self, value: Any) -> list[str]:
        """Return the texts in all languages."""
        if isinstance(value, dict) and "@value" not in value:
            return [text for one in value.values() for text in self.all(one)]
        return [text for one in _list(value) for text in self._one(one)]

    def _pick(self, value: Any) -> list[str]:
        if isinstance(value, dict) and "@value" not in value:
            wanted: Any = (
                value.get(self._language) or value.get("none") or next(iter(value.values()), [])
            )
            return self._pick(wanted)
        values = _list(value)
        mine = [
            one
            for one in values
            if isinstance(one, dict) and one.get("@language") == self._language
        ]
        if not mine and any(isinstance(one, dict) and one.get("@language") for one in values):
            mine = values[:1]
        return [text for one in mine or values for text in self._one(one)]

    def _one(self, value: Any) -> list[str]:
        text = value.get("@value") if isinstance(value, dict) else value
        return [clean_html(text)] if isinstance(text, str) and text.strip() else []


# the Image API


def image_url(resource: dict[str, Any], max_side: int | None) -> str | None:
    """Return the URL of an image resource, through its image service if it has one.

    Args:
        resource: the body (Presentation 3) or resource (2) of a painting annotation.
        max_side: the longest side in pixels; None: the whole image.
    """
    service = next((one for one in _nodes(resource.get("service")) if _is_image_service(one)), None)
    base = _id(service).rstrip("/")
    if service is None or not base:
        return _id(resource) or None
    version = _version(service)
    quality = "native" if version < 2 else "default"
    size = _size(service, resource, version, max_side)
    return f"{base}/full/{size}/0/{quality}.jpg"


def _is_image_service(service: dict[str, Any]) -> bool:
    words = f"{_kind(service)} {service.get('@context', '')} {service.get('profile', '')}"
    return bool(_API.search(words)) or "image-api" in words or "iiif.io/api/image" in words


def _version(service: dict[str, Any]) -> int:
    for word in (_kind(service), str(service.get("@context", "")), str(service.get("profile", ""))):
        match = _API.search(word)
        if match:
            return int(match[1])
    return 2


def _level(service: dict[str, Any]) -> int:
    profile = _list(service.get("profile"))
    match = _LEVEL.search(str(profile[0])) if profile else None
    return int(next(group for group in match.groups() if group)) if match else 1


def _size(
    service: dict[str, Any], resource: dict[str, Any], version: int, max_side: int | None
) -> str:
    whole = "max" if version >= 3 else "full"
    if max_side is None:
        return whole
    width = _side(service, resource, "width")
    height = _side(service, resource, "height")
    if width and height and max(width, height) <= max_side:
        return whole
    sizes = [
        (_number(one, "width"), _number(one, "height")) for one in _nodes(service.get("sizes"))
    ]
    sizes = [one for one in sizes if all(one)]
    if _level(service) == 0:
        if not sizes:
            return whole
        # Only the listed sizes exist: use the smallest that is large enough, or else the largest.
        enough = [one for one in sizes if max(one) >= max_side]
        wide, high = min(enough) if enough else max(sizes)
        return f"{wide},{high}" if version >= 3 else f"{wide},"
    if width and height:
        wide = min(width, max(1, round(width * max_side / max(width, height))))
        high = max(1, round(height * wide / width))
        return f"{wide},{high}" if version >= 3 and _level(service) >= 2 else f"{wide},"
    return f"!{max_side},{max_side}"


def _side(service: dict[str, Any], resource: dict[str, Any], name: str) -> int:
    return _number(service, name) or _number(resource, name)


def _number(node: dict[str, Any], name: str) -> int:
    """Return a size in pixels; 0 if the value is not one."""
    value = node.get(name)
    return int(value) if isinstance(value, int | float) and 0 < value <= _MAX_SIDE else 0


IIIF = Adapter(IiifSource, start, parse, page_bytes=lambda _: LARGE_PAGE)
