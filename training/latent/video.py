"""Video files: GIF and animated WebP with Pillow, mp4 with PyAV (extra `video`)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image

from pipeline.contract import UserError, atomic_file
from training.grid import Pixels
from training.latent.audio import Sound, decode
from training.latent.cli import VIDEO_FORMATS

SOUND_RATE = 48_000
MAX_GIF_FPS = 50
"""Browsers show a GIF with shorter frames at 10 fps."""
# Without mbtree=0, x264 at widths such as 80 px reads memory that it has not written, and the same
# frames give different files.
X264 = {"crf": "16", "x264-params": "mbtree=0"}
T = TypeVar("T")


def check_video(path: Path, fps: int) -> None:
    """Check that a video of that format and rate can be written.

    Raises:
        UserError: the extension is not in `VIDEO_FORMATS`, PyAV is missing for mp4, or the rate is
            over `MAX_GIF_FPS` for GIF.
    """
    ending = path.suffix.lower()
    if ending not in VIDEO_FORMATS:
        raise UserError(f"{path}: the extension must be one of {', '.join(VIDEO_FORMATS)}")
    if ending == ".gif" and fps > MAX_GIF_FPS:
        raise UserError(
            f"{path}: a .gif has at most {MAX_GIF_FPS} frames per second, not {fps}; lower the "
            "rate, or write .webp or .mp4"
        )
    if ending == ".mp4":
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
        UserError: as `check_video`, or the sound cannot be read, or mp4 does not allow the frames.
        OSError: the file cannot be written.
    """
    check_video(path, fps)
    ending = path.suffix.lower()
    with atomic_file(path) as file:
        if ending == ".mp4":
            with _errors_of_mp4(path):
                _write_mp4(file, iter(frames), fps, sound)
        else:
            _write_animation(file, frames, fps, ending[1:].upper())


def _write_animation(file: IO[bytes], frames: Iterable[Pixels], fps: int, form: str) -> None:
    """Write a GIF or WebP. Each frame starts at the unit of time (10 ms in a GIF, 1 ms in a WebP)
    nearest to its time."""
    unit = 10 if form == "GIF" else 1
    durations: list[int] = []

    def images() -> Iterator[Image.Image]:
        for number, frame in enumerate(frames):
            start, end = (round(at * 1000 / fps / unit) * unit for at in (number, number + 1))
            durations.append(end - start)  # Pillow reads it after the frame
            yield Image.fromarray(frame if frame.shape[2] == 3 else frame[:, :, 0])

    every = images()
    how = {"quality": 90, "method": 4} if form == "WEBP" else {"disposal": 1}
    next(every).save(
        file, form, save_all=True, append_images=every, duration=durations, loop=0, **how
    )


@contextmanager
def _errors_of_mp4(path: Path) -> Iterator[None]:
    """Raise an error of PyAV as the error of the file it could not write, or as a UserError."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error.__context__, OSError):  # PyAV fails again as it closes the file
            raise error.__context__ from None
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written as mp4 ({reason})") from None


def _write_mp4(file: IO[bytes], frames: Iterator[Pixels], fps: int, sound: Sound | None) -> None:
    import av

    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])  # for half-resolution colour
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=X264)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        audio = _sound_packets(container, sound.path) if sound else iter([])
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


def _sound_packets(container: Any, path: Path) -> Iterator[Any]:
    """Add a sound stream to the container, and return its packets, encoded as AAC."""
    stream = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")

    def packets() -> Iterator[Any]:
        count = 0
        for frame in decode(path, "stereo", SOUND_RATE):
            frame.pts, frame.time_base = count, Fraction(1, SOUND_RATE)
            count += frame.samples
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets()
