"""Sections of a recipe: `[storage]`, `[originals]`, `[select]` and `[shards]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class SelectOptions:
    """Limits for the selection, on image properties. An unset limit does not apply.

    `min_side` is in pixels, `max_aspect` is long side / short side; `min_sharpness` and
    `min_contrast` are minimums of the properties of that name (`contract.OriginalRecord`).
    `max_missing` limits the part of an image, from 0 to 1, that decoders filled with gray because
    its file ended early; 1 keeps all.

    Images are near duplicates if their perceptual hashes differ in at most `near_duplicate_bits` of
    64 bits and their detail hashes in at most `near_duplicate_detail` of 256; only the largest is
    kept. "off" rejects only exact duplicates. (Re-encoded, resized or brightened copies differ in 0
    to 4 and 0 to 20 bits. Different objects in the same pose can be that close by the first hash,
    but rarely by the second.)

    `off_topic` rejects outliers: images whose features (`features`, an entry point of group
    `shellgan.features`) are more than this many robust standard deviations from the centre of the
    dataset. Start with 2.5; the preview shows the images next to the limit. Features are computed
    once, about 50 ms per image.

    `duplicate_distance` also rejects cropped, mirrored and recoloured copies: images whose
    features, whitened over the dataset, have a cosine distance of at most this (0 to 2) from those
    of a selected image; the largest is kept. Start with 0.2. Not for images of nearly the same
    object: other specimens of it are rejected too.

    Filters reject images by networks of optional packages, whose values are recorded once:
    `max_text` by the fraction of the image that text covers (`pip install 'shellgan[text]'`; start
    with 0.002), `max_face` by the confidence of a face ('shellgan[face]'; 0.7) and `max_unsafe` by
    the score of nudity ('shellgan[unsafe]'; 0.5), from 0 to 1.

    The licence must contain one of `licenses`, and a label must contain one of `labels` (substrings
    whose case is ignored). `modes` are the Pillow image modes to keep, such as "RGB" or "L".
    """

    min_side: int = Field(default=64, ge=1)
    max_aspect: float = Field(default=3.0, ge=1)
    min_sharpness: float = Field(
        default=0.0, ge=0, validation_alias=AliasChoices("min_sharpness", "min_blur")
    )
    min_contrast: float = Field(
        default=4.0, ge=0, validation_alias=AliasChoices("min_contrast", "min_spread")
    )
    max_missing: Fraction = 0.02
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] | Literal["off"] = 4
    near_duplicate_detail: int = Field(default=20, ge=0, le=256)
    off_topic: float | None = Field(default=None, gt=0)
    duplicate_distance: float | None = Field(default=None, gt=0, lt=2)
    features: str = "efficientnet_lite0"
    max_text: Fraction | None = None
    max_face: Fraction | None = None
    max_unsafe: Fraction | None = None
    licenses: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class StorageOptions:
    """The object storage of a dataset (`[storage]`).

    `url` is a folder for fsspec, such as `s3://bucket/galleries` (`pip install 'shellgan[s3]'`) or
    `file:///mnt/shared`. The tars of the originals are stored only there; manifests, logs and
    shards are copied there after each stage, under the same paths as in the project folder, the
    index last. Another machine with the same recipe can continue from there.
    """

    url: str = Field(default="", pattern=r"^$|^[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True, config=STRICT)
class OriginalsOptions:
    """How to store downloaded images (`[originals]`): the bytes as served or, with `side`, the
    central square scaled to that side in pixels, as a JPEG of `quality`. The image properties are
    then those of the stored image, and larger samples cannot be built later.

    Besides `politeness.max_pixels`, `max_side` (in pixels) and `max_aspect` (long side / short
    side) limit the images that are decoded. All images decoded at the same time, by all threads and
    processes on this machine, use at most `decode_megabytes` of memory; an image that alone needs
    more is refused.
    """

    side: int | None = Field(default=None, ge=16, le=4096)
    quality: int = Field(default=95, ge=1, le=100)
    max_side: int = Field(default=65_535, ge=1, le=1 << 30)
    max_aspect: float = Field(default=1000.0, ge=1)
    decode_megabytes: int = Field(default=2048, ge=64, le=1 << 20)


Side = Annotated[int, Field(ge=8, le=1024)]
Crop = Literal["center", "pad", "object", "box", "hook", "none"]


@dataclass(frozen=True, config=STRICT)
class ShardOptions:
    """How to build training samples (`[shards]`).

    `resolution` is a side, or [height, width], in pixels. `crop` is one of
    - `center`: the largest central region with that aspect;
    - `pad`: the whole image on a background of its border's colour;
    - `object`: the object on a plain or slowly varying background; as `center` if no object is
      found;
    - `box`: the boxes in the manifest;
    - `hook`: the boxes found by a function of yours;
    - `none`: the whole image, stretched to the size of the sample.

    `margin` is left around objects and boxes, as a fraction of their longer side. With `crop =
    "hook"`, `hook` names the function: an entry point of group `shellgan.crops`.

    `channels` is 1 (gray), 3 (colour) or 4 (colour and transparency, straight alpha). With 4,
    images keep the transparency they have; `object` makes the background of the others transparent,
    other modes leave them opaque. What is outside the image is transparent.

    An image yields at most `crops` samples: windows along its longer side, or the largest boxes.
    `background`, "#rrggbb", replaces the plain background of an object. `linear_light` resizes in
    linear light instead of sRGB values; JPEGs are then decoded at full size. `class_label` is the
    position of the label that is the class; none: the dataset has no classes. `format` is that of
    the images. `quality` none is lossless for png and webp, and 95 for jpg. A shard has
    `samples_per_shard` samples, in an order given by `seed`. If `keep_originals` is false,
    originals are deleted once they are in shards.
    """

    resolution: Side | tuple[Side, Side] = 64
    channels: Literal[1, 3, 4] = 3
    crop: Crop = "center"
    crops: int = Field(default=1, ge=1, le=64)
    margin: float = Field(default=0.1, ge=0, le=2)
    hook: str = ""
    background: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")
    linear_light: bool = False
    format: Literal["png", "webp", "jpg"] = "webp"
    quality: int | None = Field(default=None, ge=1, le=100)
    samples_per_shard: int = Field(default=1000, ge=1)
    seed: int = 0
    class_label: int | None = Field(default=None, ge=0)
    keep_originals: bool = True

    def __post_init__(self) -> None:
        if (self.crop == "hook") != bool(self.hook):
            raise ValueError('hook: must be set with crop = "hook", and only then')
        if self.crops > 1 and self.crop not in ("center", "box", "hook"):
            raise ValueError(f"crops: crop = {self.crop!r} gives one sample per image")
        if self.channels == 4 and self.format == "jpg":
            raise ValueError('format: jpg has no transparency (channels = 4); use "png" or "webp"')
        if self.channels == 4 and self.background:
            raise ValueError("background: transparent with channels = 4; remove one of them")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a sample in pixels."""
        if isinstance(self.resolution, int):
            return self.resolution, self.resolution
        return self.resolution
