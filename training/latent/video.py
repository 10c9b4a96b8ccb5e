"""Video files: GIF and animated WebP with Pillow, mp4 with PyAV (extra `video`)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.contract import UserError, write_atomic
from training.grid import Pixels
from training.latent.cli import VIDEO_FORMATS


def require_codec(path: Path) -> None:
    """Raise UserError if the package for the file's format is not installed."""
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise UserError(f"{path}: mp4 needs PyAV: pip install 'shellgan[video]'") from None


def write_video(path: Path, frames: Pixels, fps: int) -> None:
    """Write frames uint8 (n, height, width, channels); GIF and WebP repeat forever.

    Raises:
        UserError: the extension is not in `VIDEO_FORMATS`, or PyAV is missing for mp4.
    """
    require_codec(path)
    ending = path.suffix.lower()
    if ending == ".mp4":
        write_atomic(path, _mp4(frames, fps))
    elif ending in (".gif", ".webp"):
        write_atomic(path, _animated(frames, fps, ending[1:].upper()))
    else:
        raise UserError(f"{path}: the extension must be one of {', '.join(VIDEO_FORMATS)}")


def _images(frames: Pixels) -> list[Image.Image]:
    return [Image.fromarray(frame if frame.shape[2] == 3 else frame[:, :, 0]) for frame in frames]


def _animated(frames: Pixels, fps: int, form: str) -> bytes:
    first, *rest = _images(frames)
    buffer = io.BytesIO()
    how = {"quality": 90, "method": 4} if form == "WEBP" else {"disposal": 1}
    first.save(
        buffer, form, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, **how
    )
    return buffer.getvalue()


def _mp4(frames: Pixels, fps: int) -> bytes:
    import av

    colour = np.repeat(frames, 3, axis=3) if frames.shape[3] == 1 else frames
    odd = [(0, 0), (0, colour.shape[1] % 2), (0, colour.shape[2] % 2), (0, 0)]
    colour = np.pad(colour, odd, mode="edge")  # chroma subsampling needs even sides
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.height, stream.width = colour.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in colour:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
