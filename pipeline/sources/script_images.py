"""Finds images in scripts and data attributes: JSON-LD, JSON and JavaScript literals.

An object with URLs of image files is one image, with sizes named by its keys (`thumb`, `src`,
`original` …). Plain URLs in an array are several images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bs4 import Tag

from pipeline.sources.candidates import FULL, LINKED, PREVIEW, Candidate
from pipeline.sources.image_urls import looks_like_image, rejection_reason
from pipeline.sources.literals import Call, read_json, read_literals
from pipeline.sources.text_selectors import attribute

_MAX_DEPTH = 64
_RENDITIONS = re.compile(r"article|posting|recipe|event|product(group|model)$", re.IGNORECASE)
"""Types whose list of plain URLs is one image in several formats, as search engines require."""

_ORNAMENT_KEYS = frozenset(("logo", "publisher", "thumbnail", "thumbnailUrl", "thumbnailURL"))
_SMALL_KEY = re.compile(
    r"[Tt]humb|[Ss]mall|[Pp]review|tiny|mini|lqip|blur|placeholder|[Ll]ow(res|_|-|$|[A-Z])|avatar|icon"
    r"|logo|poster|[Cc]over$|^msrc$|srct$|(^|[_.-])(t|s|th|sm|xs|min)$|[a-z]T$"
)
_LARGE_KEY = re.compile(r"orig|full|big|large|hi_?-?res|high|zoom|download|max|raw|huge", re.I)
_MEDIUM = re.compile(r"medium|^[mlx]{1,3}$|regular|^\d+(px|w|p)?$", re.I)
_IMAGE_KEY = re.compile(
    r"src|image|img|url|href|link|photo|pic|file|path|media|slide|content|^@?id$", re.I
)
_SIZES_KEY = re.compile(r"^(sources?|sizes|srcset|renditions|variants|resolutions|formats)$", re.I)


def script_images(script: Tag, notes: dict[str, int]) -> list[list[Candidate]]:
    """Return the candidates of each image in a script. `notes` counts invalid JSON-LD."""
    text = script.get_text()
    kind = attribute(script, "type").lower()
    if "ld+json" not in kind:
        return _data_images(read_literals(text))
    data = read_json(text.strip().removeprefix("<!--").removesuffix("-->"))
    if data is None:
        data = read_literals(text)  # comments, trailing commas, CDATA
        if not any("@" in key for one in data for key in _keys(one)):
            notes["bad_json_ld"] = notes.get("bad_json_ld", 0) + 1
            return []
    return list(_json_ld_images(data))


def attribute_images(tag: Tag) -> list[list[Candidate]]:
    """Return the candidates of each image in the JSON attributes of `tag`."""
    found: list[list[Candidate]] = []
    for name, value in tag.attrs.items():
        text = value.strip() if isinstance(value, str) else ""
        if (
            name.startswith("data-")
            and text[:1] in ("[", "{")
            and re.search(r"[\[{].*?[\]}]", text)
        ):
            found += _data_images(read_literals(text))
    return found


def _keys(node: Any) -> Iterator[str]:
    """Yield the keys of an object, or of the objects in an array."""
    for one in _as_list(node):
        if isinstance(one, dict):
            yield from one


# JSON-LD


def _json_ld_images(data: Any) -> Iterator[list[Candidate]]:
    stack: list[tuple[Any, int]] = [(data, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            continue
        if isinstance(node, list):
            stack += [(one, depth + 1) for one in reversed(node)]
        if not isinstance(node, dict):
            continue
        types = [one for one in _as_list(node.get("@type")) if isinstance(one, str)]
        if any(one.rpartition("/")[2] == "ImageObject" for one in types):
            yield from _image_object(node)
            continue
        yield from _plain_images(node, types)
        stack += [
            (value, depth + 1)
            for key, value in reversed(node.items())
            if key not in _ORNAMENT_KEYS and isinstance(value, dict | list)
        ]


def _image_object(node: dict[str, Any]) -> Iterator[list[Candidate]]:
    for value in _as_list(node.get("contentUrl") or node.get("url")):
        if isinstance(value, dict):
            value = value.get("@value") or value.get("@id")
        if isinstance(value, str):
            yield [Candidate(value, LINKED, _number(node.get("width")))]


def _plain_images(node: dict[str, Any], types: list[str]) -> Iterator[list[Candidate]]:
    for key in ("image", "associatedMedia", "photo"):
        plain = [one for one in _as_list(node.get(key)) if isinstance(one, str)]
        if not plain:
            continue
        groups = [[Candidate(url, LINKED)] for url in plain]
        if any(_RENDITIONS.search(one) for one in types):
            groups = [[one for group in groups for one in group]]
        yield from groups


# JSON and JavaScript


def _data_images(data: list[Any]) -> list[list[Candidate]]:
    walk = _DataWalk()
    for node in data:
        walk.take(walk.offers(node, (), "", 0))
    return walk.found


class _DataWalk:
    """Collects the images of nested objects and arrays in `found`."""

    def __init__(self) -> None:
        self.found: list[list[Candidate]] = []

    def take(self, offers: list[Candidate]) -> None:
        """Add an image, unless only previews of it are known."""
        if any(one.trust > PREVIEW for one in offers):
            self.found.append(offers)

    def offers(self, node: Any, keys: tuple[str, ...], base: str, depth: int) -> list[Candidate]:
        """Return the candidates in `node` that belong to the image of the object around it.

        Args:
            keys: the keys that lead to `node` within that object.
            base: prefix of relative URLs.
        """
        if depth > _MAX_DEPTH:
            return []
        if isinstance(node, list):
            return self._of_list(node, keys, base, depth)
        if not isinstance(node, dict) or node.get("kind") in ("album", "albumUp"):
            return []
        given = node.get("itemsBaseURL")
        base = given if isinstance(given, str) else base
        width = _number(node.get("width", node.get("w")))
        found: list[Candidate] = []
        for key, value in node.items():
            if isinstance(value, str):
                found += _from_text(value, (*keys, key), base, width)
            elif isinstance(value, dict) and not _is_size(key):
                self.take(self.offers(value, (), base, depth + 1))
            else:
                found += self.offers(value, (*keys, key), base, depth + 1)
        return found

    def _of_list(
        self, node: list[Any], keys: tuple[str, ...], base: str, depth: int
    ) -> list[Candidate]:
        one_image = bool(keys) and bool(_SIZES_KEY.search(keys[-1]))
        found: list[Candidate] = []
        for one in node:
            if isinstance(one, str):
                offers = (
                    [] if isinstance(node, Call) else _from_text(one, keys, base, 0.0, listed=True)
                )
            else:
                offers = self.offers(one, keys if one_image else (), base, depth + 1)
            if one_image:
                found += offers
            else:
                self.take(offers)
        return found


def _is_size(key: str) -> bool:
    """Return True if the value of `key` belongs to the same image as its siblings."""
    if re.search(r"(images|photos|pictures|items|slides|files|media)$", key, re.IGNORECASE):
        return False
    return any(
        pattern.search(key) for pattern in (_SMALL_KEY, _LARGE_KEY, _IMAGE_KEY, _SIZES_KEY, _MEDIUM)
    )


def _from_text(
    text: str, keys: tuple[str, ...], base: str, width: float, listed: bool = False
) -> list[Candidate]:
    """Return the candidate of a string that is the URL of an image file, if it is one."""
    if not looks_like_image(text) or rejection_reason(text) or "<" in text:
        return []
    if base and "//" not in text[:8] and not text.startswith("/"):
        text = f"{base.rstrip('/')}/{text}"
    if any(_SMALL_KEY.search(key) for key in keys):
        return [Candidate(text, PREVIEW, width)]
    if any(_LARGE_KEY.search(key) for key in keys):
        return [Candidate(text, FULL, width)]
    known = listed or any(_IMAGE_KEY.search(key) for key in keys)
    return [Candidate(text, LINKED, width)] if known else []


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> float:
    if isinstance(value, dict):
        value = value.get("value")
    try:
        number = float(str(value).removesuffix("px"))
    except ValueError:
        return 0.0
    return number if 0 < number < 1e9 else 0.0
