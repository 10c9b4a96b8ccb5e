"""Reads and measures the images of an import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import Failure
from pipeline.imaging.images import decoded
from pipeline.imaging.limits import ImageError, ImageLimits
from pipeline.imaging.properties import ImageProperties, measure_image
from pipeline.importers.items import STAGE, ImportedImage
from pipeline.originals.inspect_image import DECODE_SIDE
from pipeline.web.failures import caught_failure, failure

T = TypeVar("T")
Outcome = ImageProperties | Failure


@dataclass(frozen=True)
class ImageReader:
    """Reads and measures images; errors of one image are returned."""

    limits: ImageLimits
    max_bytes: int

    def read(self, item: ImportedImage) -> bytes | Failure:
        return _or_failure(item, lambda: item.read(self.max_bytes))

    def measure(self, item: ImportedImage, data: bytes) -> Outcome:
        def run() -> ImageProperties:
            with decoded(data, self.limits, DECODE_SIDE) as image:
                return measure_image(image)

        return _or_failure(item, run)


def _or_failure(item: ImportedImage, run: Callable[[], T]) -> T | Failure:
    """Return the result of `run`, or the failure of the image."""
    key = item.key
    try:
        return run()
    except ImageError as error:
        return failure(STAGE, item.url, error.kind, key=key, detail=error.detail)
    except OSError as error:
        kind = "not_found" if isinstance(error, FileNotFoundError) else "unreachable"
        return failure(STAGE, item.url, kind, key=key, detail=error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 errors of one image are caught here
        return caught_failure(STAGE, item.url, error, key)
