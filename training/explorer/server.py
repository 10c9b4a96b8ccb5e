"""The server of the explorer: the page, and four URLs for the generator.

Bodies are little-endian: count uint32, `count` labels int32, values float32. The generator works
for one request at a time, because PyTorch uses all of its threads for one; a search for the nearest
training images, which may take minutes, does not keep others waiting.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

from pipeline.contract import (
    BadRequest,
    UserError,
    create_local_app,
    respond,
)
from training.explorer.generator_info import generator_info, page_files
from training.grid import encode
from training.latent.neighbours import (
    Describe,
    Neighbours,
    as_images,
    embed_training_images,
)
from training.pretrained.inference import TrainedGenerator

MAX_IMAGES_PER_REQUEST = 64
"""Maximum number of images per request."""
NEIGHBOURS = 6


@dataclass
class NearestFinder:
    """Searches the nearest training images; the dataset is read at the first search."""

    trained: TrainedGenerator
    describe: Describe
    shards: str | None
    _every: Neighbours | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, image: np.ndarray[Any, np.dtype[np.uint8]]) -> list[dict[str, Any]]:
        """Return the images nearest to an image (height, width, channels), as PNG data URLs.

        Raises:
            UserError: the shards cannot be read.
        """
        with self._lock:
            if self._every is None:
                self._every = embed_training_images(self.trained, self.shards, self.describe)
        vector = self.describe(as_images(image[None])).cpu()
        distances, places = self._every.nearest(vector, NEIGHBOURS)
        return [
            {
                "distance": distance,
                "image": "data:image/png;base64," + base64.b64encode(encode(image)).decode(),
            }
            for distance, image in zip(
                distances[0].tolist(), self._every.images(places[0].tolist()), strict=True
            )
        ]


def parse(body: bytes, row: int, classes: int) -> tuple[Tensor, Tensor]:
    """Parse values float32 (n, `row`) and labels int64 (n,) of a body.

    Raises:
        BadRequest: wrong length, too many images, values that are not finite, or an unknown label.
    """
    count = int.from_bytes(body[:4], "little")
    if not 1 <= count <= MAX_IMAGES_PER_REQUEST or len(body) != 4 + 4 * count + 4 * count * row:
        raise BadRequest(
            f"the body must contain 1 to {MAX_IMAGES_PER_REQUEST} images of {row} values"
        )
    labels = np.frombuffer(body, "<i4", count, 4).astype(np.int64)
    values = np.frombuffer(body, "<f4", count * row, 4 + 4 * count).reshape(count, row)
    if not np.isfinite(values).all():
        raise BadRequest("values are not finite")
    if not ((labels >= 0) & (labels < max(1, classes))).all():
        raise BadRequest("no such label")
    return torch.from_numpy(values.copy()), torch.from_numpy(labels)


Work = Callable[[Tensor, Tensor], bytes]
"""Makes the answer from values (n, row) and labels (n,)."""


def create_app(
    trained: TrainedGenerator, finder: NearestFinder | None, hosts: list[str], title: str = "",
    in_frame: bool = False,
) -> Starlette:  # fmt: skip
    """Create the server's application; `hosts` and `in_frame` as in `create_local_app`."""
    space, z_dim = trained.space, trained.generator.z_dim
    facts = json.dumps(generator_info(trained, "server", finder is not None, title))
    lock = threading.Lock()

    @torch.no_grad()
    def map_(values: Tensor, labels: Tensor) -> bytes:
        with lock:
            ws = space.map(values.to(space.device), labels.to(space.device))
        return ws.float().cpu().numpy().tobytes()

    def generate(values: Tensor, labels: Tensor) -> Any:
        ws = values.view(len(values), space.num_ws, space.w_dim).to(space.device)
        with lock:
            return space.generate(ws, labels.to(space.device))

    def draw(values: Tensor, labels: Tensor) -> bytes:
        return bytes(generate(values, labels).tobytes())

    def nearest(values: Tensor, labels: Tensor) -> bytes:
        assert finder is not None
        return json.dumps(finder.find(generate(values, labels)[0])).encode()

    row, classes = space.num_ws * space.w_dim, trained.classes
    routes = [
        Route("/map", _answering(map_, z_dim, classes), methods=["POST"]),
        Route("/draw", _answering(draw, row, classes), methods=["POST"]),
    ]
    if finder is not None:
        answer = _answering(nearest, row, classes, "application/json")
        routes.append(Route("/nearest", answer, methods=["POST"]))
    page = page_files("server") | {"generator.json": facts.encode()}
    return create_local_app(routes, page, hosts, in_frame)


def _answering(
    work: Work, row: int, classes: int, kind: str = "application/octet-stream"
) -> Callable[[Request], Any]:
    """Return the handler of a request with values of `row` numbers each, answered by `work`."""

    most = 4 + MAX_IMAGES_PER_REQUEST * 4 * (1 + row)

    async def answer(request: Request) -> Response:
        return await respond(
            request, lambda body: work(*parse(body, row, classes)), most, kind, {UserError: 503}
        )

    return answer
