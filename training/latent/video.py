"""Video files: GIF and animated WebP with Pillow, mp4 with PyAV (extra `video`)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image

from pipeline.contract import UserError, atomic_file
from training.grid import Pixels
from training.latent.audio import Sound, decode, open_sound
from training.latent.cli import VIDEO_FORMATS

SOUND_RATE = 48_000
# Without mbtree=0, x264 at widths such as 80 px reads memory that it has not written, and the same
# frames give different files.
X264 = {"crf": "16", "x264-params": "mbtree=0"}
T = TypeVar("T")


def require_codec(path: Path) -> None:
    """Raise UserError if the package for the file's format is not installed."""
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise UserError(f"{path}: mp4 needs PyAV: pip install 'shellgan[video]'") from None


def read_ahead(parts: Iterator[T]) -> Generator[T, None, None]:
    """Yield the parts, and compute the next one in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, parts, None)
        while (part := pending.result()) is not None:
            pending = pool.submit(next, parts, None)
            yield part


def write_video(path: Path, frames: Iterable[Pixels], fps: int, sound: Sound | None = None) -> None:
    """Write frames uint8 (height, width, channels); GIF and WebP repeat forever. An mp4 gets the
    sound, cut to the length of the video.

    Raises:
        UserError: the extension is not in `VIDEO_FORMATS`, PyAV is missing for mp4, or the sound
            cannot be read.
    """
    require_codec(path)
    ending = path.suffix.lower()
    if ending not in VIDEO_FORMATS:
        raise UserError(f"{path}: the extension must be one of {', '.join(VIDEO_FORMATS)}")
    with atomic_file(path) as file:
        if ending == ".mp4":
            _write_mp4(file, iter(frames), fps, sound)
        else:
            _write_animation(file, frames, fps, ending[1:].upper())


def _write_animation(file: IO[bytes], frames: Iterable[Pixels], fps: int, form: str) -> None:
    images = (Image.fromarray(frame if frame.shape[2] == 3 else frame[:, :, 0]) for frame in frames)
    how = {"quality": 90, "method": 4} if form == "WEBP" else {"disposal": 1}
    next(images).save(
        file, form, save_all=True, append_images=images, duration=round(1000 / fps), loop=0, **how
    )


def _write_mp4(file: IO[bytes], frames: Iterator[Pixels], fps: int, sound: Sound | None) -> None:
    import av

    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])  # for half-resolution colour
    opened = open_sound(sound.path) if sound else nullcontext()
    with opened as source, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=X264)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        audio = _sound_packets(container, source) if sound else iter([])
        heard = 0.0
        for shown, pixels in enumerate(chain([first], frames), 1):
            odd = [(0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)]
            colour = np.pad(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), odd, mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(colour), format="rgb24")
            container.mux(stream.encode(frame))
            while heard < shown / fps and (packet := next(audio, None)) is not None:
                heard = float((packet.pts + packet.duration) * packet.time_base)
                container.mux(packet)  # empties the packet
        container.mux(stream.encode())


def _sound_packets(container: Any, source: Any) -> Iterator[Any]:
    """Add a sound stream to the container, and return its packets, encoded as AAC."""
    stream = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")

    def packets() -> Iterator[Any]:
        count = 0
        for frame in decode(source, "stereo", SOUND_RATE):
            frame.pts, frame.time_base = count, Fraction(1, SOUND_RATE)
            count += frame.samples
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()
