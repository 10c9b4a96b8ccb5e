"""The explorer's server and its generator, when several requests come at once."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch

from training.explorer.server import create_app
from training.latent.space import LatentSpace
from training.pretrained.inference import load_generator


def test_the_generator_works_for_one_request_at_a_time(
    run_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_generator(str(run_of("dcgan")), torch.device("cpu"))
    generate, busy, seen = LatentSpace.generate, threading.Lock(), list[bool]()

    def watched(*given: Any) -> Any:
        seen.append(busy.acquire(blocking=False))
        time.sleep(0.05)
        if seen[-1]:
            busy.release()
        return generate(*given)

    monkeypatch.setattr(LatentSpace, "generate", watched)
    finder: Any = SimpleNamespace(find=lambda _: [])
    transport = httpx.ASGITransport(create_app(trained, finder, ["localhost"]))

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = struct.pack("<Ii8f", 1, 0, *[0.0] * 8)
            paths = ("nearest", "draw", "nearest", "draw")
            return await asyncio.gather(*(client.post(path, content=asked) for path in paths))

    assert [answer.status_code for answer in asyncio.run(ask_all())] == [200] * 4
    assert seen == [True] * 4
