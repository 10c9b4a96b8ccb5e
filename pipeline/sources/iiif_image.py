"""Reads properties of IIIF resources, and builds image URLs of the Image API."""

from __future__ import annotations

import re
from typing import Any

_MAX_SIDE = 10**7
_LEVEL = re.compile(r"level(\d)|#level(\d)|compliance.*?level(\d)", re.IGNORECASE)
_API = re.compile(r"(?:ImageService|image/|image-api/)(\d)", re.IGNORECASE)


def kind_of(node: Any) -> str:
    if not isinstance(node, dict):
        return ""
    return (text_of(node.get("type")) or text_of(node.get("@type"))).removeprefix("sc:")


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def id_of(node: Any) -> str:
    if isinstance(node, dict):
        return text_of(node.get("id")) or text_of(node.get("@id"))
    return text_of(node)


def list_of(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def nodes_of(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list, or the one object; other values are ignored."""
    return [one for one in list_of(value) if isinstance(one, dict)]


def image_url(resource: dict[str, Any], max_side: int | None) -> str | None:
    """Return the URL of an image resource, through its image service if it has one.

    Args:
        resource: the body (Presentation 3) or resource (2) of a painting annotation.
        max_side: maximum of the longer side in pixels; None: the whole image.
    """
    service = next(
        (one for one in nodes_of(resource.get("service")) if _is_image_service(one)), None
    )
    base = id_of(service).rstrip("/")
    if service is None or not base:
        return id_of(resource) or None
    version = _version(service)
    quality = "native" if version < 2 else "default"
    size = _size(service, resource, version, max_side)
    return f"{base}/full/{size}/0/{quality}.jpg"


def _is_image_service(service: dict[str, Any]) -> bool:
    words = f"{kind_of(service)} {service.get('@context', '')} {service.get('profile', '')}"
    return bool(_API.search(words)) or "image-api" in words or "iiif.io/api/image" in words


def _version(service: dict[str, Any]) -> int:
    for word in (
        kind_of(service),
        str(service.get("@context", "")),
        str(service.get("profile", "")),
    ):
        match = _API.search(word)
        if match:
            return int(match[1])
    return 2


def _level(service: dict[str, Any]) -> int:
    profile = list_of(service.get("profile"))
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
        (_number(one, "width"), _number(one, "height")) for one in nodes_of(service.get("sizes"))
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
    """Return a size in pixels; 0 if the value is invalid."""
    value = node.get(name)
    return int(value) if isinstance(value, int | float) and 0 < value <= _MAX_SIDE else 0
