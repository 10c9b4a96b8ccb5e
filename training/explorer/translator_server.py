"""The server of the page of a run that translates images: the page, and one URL for images.

The body of a request is an image file; the answer is JSON: the image as the generators read it, and
its translations, as PNG data URLs. The generators work for one request at a time.
"""

from __future__ import annotations

import base64
import json
import threading
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.contract import BadRequest, create_local_app, respond
from training.grid import encode
from training.image_files import decode_image
from training.pretrained.inference import TrainedGenerator
from training.translation import DIRECTIONS, as_floats, translate

MOST_BYTES = 32 << 20
"""The largest image file."""


def create_translator_app(
    trained: TrainedGenerator, hosts: list[str], title: str = "", in_frame: bool = False
) -> Starlette:
    """Create the server's application; `hosts`, `title` and `in_frame` as in
    `training.explorer.server.create_app`."""
    lock = threading.Lock()

    def work(body: bytes) -> bytes:
        try:
            image = decode_image(body, trained.shape, trained.config.data.fit)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        with lock:  # PyTorch uses all of its threads for one request
            return json.dumps(_translations(trained, image)).encode()

    async def answer(request: Request) -> Response:
        return await respond(request, work, MOST_BYTES, "application/json")

    info = json.dumps(translator_info(trained, title)).encode()
    page = translator_files() | {"translator.json": info}
    routes = [Route("/translate", answer, methods=["POST"])]
    return create_local_app(routes, page, hosts, in_frame)


def translator_info(trained: TrainedGenerator, title: str = "") -> dict[str, Any]:
    """Return what the page needs to know, as JSON values; `captions` are those of the images of an
    answer, by their keys."""
    a, b = trained.set_names
    captions = "the image", f"as {b} (A → B)", f"as {a} (B → A)"
    shape = trained.shape
    return {
        "title": title or f"{a} ↔ {b}",
        "about": f"{trained.name}: translates images of {shape.width}×{shape.height} px between "
        f"{a} (A) and {b} (B), after {trained.seen / 1000:,.1f} kimg. Images are resized as in "
        "training. They stay on the machine that serves this page.",
        "captions": dict(zip(("image", *DIRECTIONS), captions, strict=True)),
        "most_bytes": MOST_BYTES,
    }


def translator_files() -> dict[str, bytes]:
    """Return the files of the page, by name."""
    folder = files("training.explorer")
    own = {file.name: file.read_bytes() for file in (folder / "translator").iterdir()}
    return {"page.css": (folder / "page" / "page.css").read_bytes(), **own}


def _translations(trained: TrainedGenerator, image: Any) -> dict[str, str]:
    pixels = {"image": image}
    for direction in DIRECTIONS:
        generator = trained.translator(direction)
        device = next(generator.parameters()).device
        pixels[direction] = translate(generator, as_floats(image[None], device))[0]
    return {
        name: "data:image/png;base64," + base64.b64encode(encode(one)).decode()
        for name, one in pixels.items()
    }
