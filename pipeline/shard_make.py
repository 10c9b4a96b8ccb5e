"""Making one shard: read the originals, make the samples, write the tar, then its sidecar."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import Dataset, UserError, atomic_file, write_json
from pipeline.images import ImageError
from pipeline.kept import KeptImage
from pipeline.options import Shards
from pipeline.originals import read_original
from pipeline.pixels import as_image
from pipeline.samples import Sample, make_samples, members
from pipeline.shard_plan import (
    ShardPlan,
    class_name,
    image_digest,
    options_digest,
    shard_digest,
)
from pipeline.tars import TarWriter

_MEAN_SIDE = 64
_MEASURED_ONE_IN = 4


@dataclass(frozen=True)
class MadeShard:
    """What a shard's sidecar says of it.

    `images` counts the originals in it; `skipped` names those that gave no sample (key, URL and
    why); `stats` sums what the card tells of the samples.
    """

    name: str
    digest: str
    nsamples: int
    images: int
    bytes: int
    sha256: str
    skipped: list[dict[str, str]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


def made_shard(dataset: Dataset, plan: ShardPlan) -> MadeShard | None:
    """The shard that is there, if it is the planned one and its tar has the right size."""
    try:
        values = json.loads(plan.sidecar(dataset).read_bytes())
        made = MadeShard(**values)
        size = plan.tar(dataset).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    return made if made.digest == plan.digest and made.bytes == size else None


def make_shard(
    options: Shards, source: Dataset, target: Dataset, classes: tuple[str, ...], plan: ShardPlan
) -> MadeShard:
    """Make one planned shard, or find it made. The tar appears whole or not at all.

    Args:
        source: the dataset whose kept list and originals are used.
        target: the dataset whose shard it is; often the same.
        classes: the plan's.

    Raises:
        UserError: the kept list is not the planned one any more, or originals are gone.
    """
    made = made_shard(target, plan)
    if made:
        return made
    images = _planned_images(options, source, classes, plan)
    skipped = []
    tally = Tally(options.size, options.channels)
    with atomic_file(plan.tar(target)) as file:
        tar = TarWriter(file)
        for image, number in images:
            try:
                samples = make_samples(read_original(source, image.record), image, options)
            except ImageError as error:
                skipped.append({"key": image.key, "url": image.row.url, "why": str(error)})
                continue
            for sample in samples:
                for name, data in members(sample, image, number, options).items():
                    tar.add(name, data)
                tally.add(sample)
        tar.close()
        plan.sidecar(target).unlink(missing_ok=True)  # it speaks of the tar that goes now
    made = MadeShard(
        plan.name, plan.digest, tally.samples, len(images) - len(skipped), tar.nbytes, tar.sha256,
        skipped, tally.to_json(),
    )  # fmt: skip
    write_json(plan.sidecar(target), asdict(made))
    return made


def _planned_images(
    options: Shards, source: Dataset, classes: tuple[str, ...], plan: ShardPlan
) -> list[tuple[KeptImage, int | None]]:
    """The images of a shard with their class numbers."""
    lines = []
    with source.kept.open("rb") as file:
        for offset in plan.offsets:
            file.seek(offset)
            lines.append(file.readline())
    try:
        found = [json.loads(line) for line in lines]
        digest = shard_digest(options_digest(options, classes), [*map(image_digest, found)])
    except (ValueError, KeyError):
        digest = ""
    if digest != plan.digest:
        raise UserError(f"{source.kept}: changed since {plan.name} was planned; plan again")
    numbers = {name: number for number, name in enumerate(classes)}
    position = options.class_label
    return [
        (KeptImage.from_json(line),
         None if position is None else numbers[class_name(line, position, source.kept)])
        for line in found
    ]  # fmt: skip


class Tally:
    """Sums over a fair part of a shard's samples (one in `_MEASURED_ONE_IN`), for the card."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        self.samples = 0
        self.enlarged = 0
        self.fell_back = 0
        self.plain = 0
        self._measured = 0
        self._sum = np.zeros((*size, channels), np.uint32)
        self._values = np.zeros((channels, 256), np.int64)

    def add(self, sample: Sample) -> None:
        height, width, channels = sample.pixels.shape
        self.samples += 1
        self.enlarged += sample.box.width < width or sample.box.height < height
        self.fell_back += sample.fell_back
        self.plain += sample.plain
        if self.samples % _MEASURED_ONE_IN != 1:
            return
        self._measured += 1
        self._sum += sample.pixels
        values = as_image(sample.pixels).histogram()
        self._values += np.array(values, np.int64).reshape(channels, 256)

    def to_json(self) -> dict[str, Any]:
        """`mean` and `mean_square` by channel, the mean image (a PNG, base64), how many samples
        these are of; how many are larger than what they are made of (`enlarged`), were cropped to
        the center for want of an object (`fell_back`), got a new ground (`plain`)."""
        level = np.arange(256)
        pixels = max(1, int(self._values[0].sum()))
        return {
            "mean": [round(float(one), 4) for one in self._values @ level / pixels],
            "mean_square": [round(float(one), 4) for one in self._values @ level**2 / pixels],
            "mean_image": base64.b64encode(_small_png(self._sum / max(1, self._measured))).decode(),
            "measured": self._measured,
            "enlarged": self.enlarged,
            "fell_back": self.fell_back,
            "plain": self.plain,
        }


def _small_png(mean: NDArray[np.float64]) -> bytes:
    image = as_image(np.rint(mean).astype(np.uint8))
    image.thumbnail((_MEAN_SIDE, _MEAN_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
