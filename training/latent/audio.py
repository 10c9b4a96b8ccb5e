"""Sound: reading it, and its loudness, bass and onsets at the frames of a video.

PyAV (extra `video`) decodes every format that FFmpeg knows; NumPy does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import UserError, open_regular
from training.latent.timing import Floats

Signal = Literal["loudness", "bass", "onsets"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

RATE = 24_000
"""Samples per second that are analysed."""
MAX_SECONDS = 3600
WINDOW = 2048
"""Samples per spectrum for loudness and bass: 85 ms, 12 Hz per band."""
BASS_HZ = 150
RANGE_DB = 40
"""Loudness and bass are 0 this far below the loudest moment."""
SMOOTHING_SECONDS = 0.1
ONSET_WINDOW, ONSET_HOP = 1024, 240
"""Samples per spectrum (43 ms) and between spectra (10 ms) for onsets."""
COMPRESSION = 100.0
ONSET_THRESHOLD = 0.1
"""An onset exceeds the local mean of the flux by this share of its largest value."""
ONSET_NEAR = 5
ONSET_MEAN = 10
"""Spectra on each side among which an onset is the largest, and of the local mean."""
DECAY_SECONDS = 0.15
SILENT_DB = -80
_SILENCE = 1e-12
_BLOCK = 512


@dataclass(frozen=True)
class Sound:
    """A sound file: `samples` float32 (n,), mono, `RATE` per second, full scale 1."""

    path: Path
    samples: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def decode(path: Path, layout: str, rate: int) -> Iterator[Any]:
    """Yield the frames of a file's first sound, resampled to float32 planes.

    Raises:
        UserError: PyAV is missing, or the file cannot be read, or has no sound.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"{path}: sound needs PyAV: pip install 'shellgan[video]'") from None
    try:
        # A playlist could name other files and URLs; with this option they are not opened.
        only_this = {"protocol_whitelist": "none"}
        with (
            os.fdopen(open_regular(path), "rb") as file,
            av.open(file, "r", options=only_this) as found,
        ):
            if not found.streams.audio:
                raise UserError(f"{path}: has no sound; give a file with an audio stream")
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
            for frame in found.decode(audio=0):
                yield from resampler.resample(frame)
            yield from resampler.resample(None)
    except (av.FFmpegError, OSError) as error:  # some of PyAV's errors are OSErrors too
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot be read as sound ({reason})") from None


def read_sound(path: Path) -> Sound:
    """Read a sound file of any format, at most `MAX_SECONDS` long.

    Raises:
        UserError: PyAV is missing, or the file cannot be read, has no sound or is too long.
    """
    parts, count = [np.empty(0, np.float32)], 0
    for frame in decode(path, "mono", RATE):
        parts.append(frame.to_ndarray()[0])
        count += len(parts[-1])
        if count > MAX_SECONDS * RATE:
            raise UserError(f"{path}: longer than an hour; give a shorter sound")
    if not count:
        raise UserError(f"{path}: its sound is empty")
    return Sound(path, np.nan_to_num(np.concatenate(parts)))


def _windows(
    samples: NDArray[np.float32], centers: NDArray[np.int64], size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (≤ 512, size) of the samples around the centers; silence beyond both ends."""
    padded = np.pad(samples, size)
    offsets = np.arange(size) + size - size // 2
    for start in range(0, len(centers), _BLOCK):
        yield padded[centers[start : start + _BLOCK, None] + offsets]


def _powers(sound: Sound, times: Floats) -> tuple[Floats, Floats]:
    """Return the mean power (n,) around each time: of everything, and below `BASS_HZ`.

    By Parseval's theorem the power is a sum over the spectrum; full scale is 1.
    """
    window = np.hanning(WINDOW)
    below = np.fft.rfftfreq(WINDOW, 1 / RATE) < BASS_HZ
    centers = np.minimum(np.round(times * RATE).astype(np.int64), len(sound.samples))
    every, bass = [], []
    for block in _windows(sound.samples, centers, WINDOW):
        power = np.abs(np.fft.rfft(block * window, axis=1)) ** 2
        power[:, 1:-1] *= 2  # the negative frequencies
        power /= WINDOW * (window**2).sum()
        power[:, 0] = 0  # a constant offset is not heard
        every.append(power.sum(axis=1))
        bass.append(power[:, below].sum(axis=1))
    return np.concatenate(every), np.concatenate(bass)


def smooth(level: Floats, times: Floats) -> Floats:
    """Average a level (n,) with a Hann window of `SMOOTHING_SECONDS` on each side."""
    step = times[1] - times[0] if len(times) > 1 else 1.0
    reach = min(int(SMOOTHING_SECONDS / step), len(times) - 1)
    kernel = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(level, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def find_onsets(sound: Sound) -> tuple[Floats, Floats]:
    """Return the times of onsets in seconds, and their strengths from 0 to 1 (the largest is 1).

    Onsets are peaks of the spectral flux, the sum of the increases of the compressed magnitudes
    log(1 + γ|X|) from one spectrum to the next (Bello et al. 2005, "A tutorial on onset detection
    in music signals"), picked as by Dixon 2006, "Onset detection revisited": a local maximum that
    exceeds the local mean by a threshold.
    """
    # Half a window before the first sample, so that a sound at the very start is an increase.
    first, window = -(ONSET_WINDOW // 2), np.hanning(ONSET_WINDOW)
    # Not to the very end: a sound that is cut off is no onset.
    centers = np.arange(first, max(1, len(sound.samples) + first), ONSET_HOP)
    before, flux = np.zeros((1, ONSET_WINDOW // 2 + 1)), []
    for block in _windows(sound.samples, centers, ONSET_WINDOW):
        magnitude = np.abs(np.fft.rfft(block * window, axis=1)) / window.sum()
        compressed = np.log1p(COMPRESSION * magnitude)
        rise = np.diff(np.concatenate([before, compressed]), axis=0)
        flux.append(rise.clip(min=0).sum(axis=1))
        before = compressed[-1:]
    found = np.concatenate(flux)
    largest = found.max()
    if largest < 1e-3:  # silence
        return np.empty(0), np.empty(0)
    found /= largest
    near = np.lib.stride_tricks.sliding_window_view(np.pad(found, ONSET_NEAR), 2 * ONSET_NEAR + 1)
    mean = np.convolve(found, np.full(2 * ONSET_MEAN + 1, 1 / (2 * ONSET_MEAN + 1)), "same")
    is_peak = (found == near.max(axis=1)) & (found > mean + ONSET_THRESHOLD)
    is_peak[1:] &= ~(is_peak[:-1] & (found[1:] == found[:-1]))  # a plateau is one onset
    # The flux is largest while the window takes the event in, a quarter window early.
    times = (centers[is_peak] + ONSET_WINDOW // 4) / RATE
    return times.clip(min=0), found[is_peak]


def measure(sound: Sound, times: Floats) -> dict[Signal, Floats]:
    """Return the signals (n,), from 0 to 1, at ascending times (n,) in seconds, equally spaced.

    `loudness` and `bass`: the RMS level in dB, smoothed, of everything and below `BASS_HZ`; 1 is
    the loudest moment of the sound, 0 is `RANGE_DB` less. `onsets`: the strength of each onset,
    decaying with `DECAY_SECONDS`.
    """
    every, bass = (
        smooth(10 * np.log10(power + _SILENCE), times) for power in _powers(sound, times)
    )
    loudest = every.max()
    if loudest <= SILENT_DB:
        return {signal: np.zeros(len(times)) for signal in SIGNALS}
    onsets = np.zeros(len(times))
    for start, strength in zip(*find_onsets(sound), strict=True):
        here = slice(*np.searchsorted(times, [start, start + 10 * DECAY_SECONDS]))
        pulse = strength * np.exp((start - times[here]) / DECAY_SECONDS)
        onsets[here] = np.maximum(onsets[here], pulse)
    return {
        "loudness": ((every - loudest) / RANGE_DB + 1).clip(0, 1),
        "bass": ((bass - loudest) / RANGE_DB + 1).clip(0, 1),
        "onsets": onsets,
    }
