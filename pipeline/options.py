"""The recipe's tables on where to store (`[storage]`), what (`[originals]`), what to keep
(`[select]`) and what to make of it (`[shards]`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic.dataclasses import dataclass

from pipeline.config_io import STRICT


@dataclass(frozen=True, config=STRICT)
class SelectOptions:
    """What to keep, by recorded facts. A limit left out does not apply.

    `min_side` is in pixels, `max_aspect` long side over short side; `min_sharpness`
    and `min_contrast` are limits of the properties of that name (`contract.OriginalRecord`).
    Of images whose
    perceptual hashes differ in `near_duplicate_bits` of 64 bits or fewer, and whose detail hashes
    in `near_duplicate_detail` of 256 or fewer, the largest stays; "off" looks for exact duplicates
    alone. (Copies that were encoded, resized or brightened again differ in 0 to 4 and 0 to 20 bits;
    different things in one pose can be as near to the first hash, hardly to the second.)
    With `off_topic`, images are left out that look strange among the rest to a network (`features`,
    an entry point of group `shellgan.features`): whose distance from the centre of its feature
    space is so many robust standard deviations above the median. 2.5 is a place to begin; the
    preview shows the boundary. The features are recorded once, some 50 ms an image.
    `licenses` are substrings, one of which the licence must hold (no
    case); `labels` likewise, in any label. `modes` are Pillow's words for the pixels of the files
    that are kept, such as "RGB" or "L".
    """

    min_side: int = Field(default=64, ge=1)
    max_aspect: float = Field(default=3.0, ge=1)
    min_sharpness: float = Field(
        default=0.0, ge=0, validation_alias=AliasChoices("min_sharpness", "min_blur")
    )
    min_contrast: float = Field(
        default=4.0, ge=0, validation_alias=AliasChoices("min_contrast", "min_spread")
    )
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] | Literal["off"] = 4
    near_duplicate_detail: int = Field(default=20, ge=0, le=256)
    off_topic: float | None = Field(default=None, gt=0)
    features: str = "efficientnet_lite0"
    licenses: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class StorageOptions:
    """Where the data set lives besides this machine (`[storage]`).

    `url` is a folder that fsspec reaches, such as `s3://bucket/galleries` (`pip install
    'shellgan[s3]'`) or `file:///mnt/shared`. The originals' tars are then there and not here;
    manifests, logs and shards are copied there after each stage, under the paths they have in the
    project's folder, the index last. Another machine with the same recipe goes on from there.
    """

    url: str = Field(default="", pattern=r"^$|^[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True, config=STRICT)
class OriginalsOptions:
    """What is kept of a downloaded image (`[originals]`): the bytes as served, or, with `side`,
    its centre square at that many pixels, as a JPEG of `quality`. The recorded facts are then
    those of what is kept, and nothing larger can be made of it later.

    Besides `politeness.max_pixels`, `max_side` (in pixels) and `max_aspect` (long side over short
    side) limit the images that are decoded. All images that are decoded at the same time, by all
    threads and processes on this machine, take `decode_megabytes` of memory at most; one that alone
    takes more is refused."""

    side: int | None = Field(default=None, ge=16, le=4096)
    quality: int = Field(default=95, ge=1, le=100)
    max_side: int = Field(default=65_535, ge=1, le=1 << 30)
    max_aspect: float = Field(default=1000.0, ge=1)
    decode_megabytes: int = Field(default=2048, ge=64, le=1 << 20)


Side = Annotated[int, Field(ge=8, le=1024)]
Crop = Literal["center", "pad", "object", "box", "hook", "none"]


@dataclass(frozen=True, config=STRICT)
class ShardOptions:
    """How the training samples are made.

    `resolution` is a side, or [height, width], in pixels. `crop` is one of

    - `center`: the largest part of that aspect in the middle;
    - `pad`: the whole image on a ground of its border's colour;
    - `object`: the one object on a plain or slowly varying ground, with `margin` around it (a
      share of its longer side); where none is found the center;
    - `box`: the boxes that the manifest carries for the image, likewise;
    - `hook`: the boxes that the entry point `hook` of group `shellgan.crops` finds;
    - `none`: the whole image, its aspect not kept.

    An image gives `crops` samples at most: of `center` windows along its longer side, of `box`
    and `hook` the largest boxes. `background`, "#rrggbb", is put in place of the plain ground an
    object is on. `linear_light` resizes light instead of sRGB values; JPEGs are then decoded
    whole. `class_label` is which of an image's labels is its class, by position; None makes an
    unlabelled set. `quality` None means lossless for png and webp, and 95 for jpg. With
    `keep_originals` false the bytes as served are dropped once they are in shards.
    """

    resolution: Side | tuple[Side, Side] = 64
    channels: Literal[1, 3] = 3
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

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a sample in pixels."""
        if isinstance(self.resolution, int):
            return self.resolution, self.resolution
        return self.resolution
