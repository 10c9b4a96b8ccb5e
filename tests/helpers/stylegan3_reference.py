"""StyleGAN3's generator in NumPy and SciPy, slowly and one image at a time: every filter is dense,
every weight is modulated, and padding is explicit. It shares no code with the package."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal
import scipy.special
from numpy.typing import NDArray

Array = NDArray[np.float64]
PUBLISHED: dict[str, Any] = {
    "channel_base": 32768, "channel_max": 512, "num_layers": 14, "num_critical": 2,
    "first_cutoff": 2, "first_stopband": 2**2.1, "last_stopband_rel": 2**0.3, "margin_size": 10,
    "output_scale": 0.25, "conv_kernel": 3, "filter_size": 6, "use_radial_filters": False,
    "conv_clamp": 256,
}  # fmt: skip
"""The defaults of the published code, by its names."""


def reference_image(
    weights: dict[str, Array], arguments: dict[str, Any], z: Array, label: Array | None = None,
    psi: float = 1.0, cutoff: int | None = None,
) -> Array:  # fmt: skip
    """The image (channels, side, side) of a latent (z_dim,) and a one-hot label (classes,), from
    the generator's tensors by name and the arguments of its synthesis."""
    given = PUBLISHED | arguments
    ws = mapped(weights, z, label, given["num_layers"] + 2, psi, cutoff)
    return synthesized(weights, given, ws)


def normalized(values: Array) -> Array:
    return values / np.sqrt(np.mean(values**2) + 1e-8)


def dense(weights: dict[str, Array], name: str, values: Array, rate: float = 1.0) -> Array:
    matrix = weights[f"{name}.weight"] * rate / np.sqrt(len(values))
    return matrix @ values + weights[f"{name}.bias"] * rate


def mapped(
    weights: dict[str, Array], z: Array, label: Array | None, count: int, psi: float,
    cutoff: int | None,
) -> Array:  # fmt: skip
    values = normalized(z)
    if label is not None:
        values = np.concatenate([values, normalized(dense(weights, "mapping.embed", label))])
    number = 0
    while f"mapping.fc{number}.weight" in weights:
        values = dense(weights, f"mapping.fc{number}", values, 0.01)
        values = np.where(values < 0, 0.2 * values, values) * np.sqrt(2)
        number += 1
    ws = np.tile(values, (count, 1))
    mean = weights["mapping.w_avg"]
    ws[:cutoff] = mean + psi * (ws[:cutoff] - mean)
    return ws


def layers(given: dict[str, Any], side: int) -> list[dict[str, float]]:
    count, critical = given["num_layers"], given["num_critical"]
    made = []
    for number in range(count + 1):
        place = min(number / (count - critical), 1.0)
        f_c = given["first_cutoff"] ** (1 - place) * (side / 2) ** place
        f_t = given["first_stopband"] ** (1 - place)
        f_t *= (side / 2 * given["last_stopband_rel"]) ** place
        rate = 1
        while rate < min(2 * f_t, side) - 1e-9:
            rate *= 2
        size = side if number >= count - 1 else rate + 2 * given["margin_size"]
        made.append({"f_c": f_c, "f_h": max(f_t, rate / 2) - f_c, "rate": rate, "size": size})
    return made


def lowpass(taps: int, layer: dict[str, float], rate: float, radial: bool) -> Array:
    """(taps, taps)."""
    if taps == 1:
        return np.ones((1, 1))
    width = 2 * layer["f_h"]
    if not radial:
        row = scipy.signal.firwin(taps, layer["f_c"], width=width, fs=rate)
        return np.outer(row, row)
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.sqrt(place[:, None] ** 2 + place[None] ** 2)
    jinc = scipy.special.j1(2 * np.pi * layer["f_c"] * radius) / radius
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    window = scipy.signal.windows.kaiser(taps, beta)
    both: Array = jinc * np.outer(window, window)
    return both / both.sum()


def features(weights: dict[str, Array], w: Array, first: dict[str, float]) -> Array:
    """The Fourier features after the learned mixing: (channels, size, size)."""
    t = dense(weights, "synthesis.input.affine", w)
    t = t / np.hypot(t[0], t[1])
    rotation = np.array([[t[0], -t[1], 0], [t[1], t[0], 0], [0, 0, 1]])
    translation = np.array([[1, 0, -t[2]], [0, 1, -t[3]], [0, 0, 1]])
    whole = rotation @ translation @ weights["synthesis.input.transform"]
    size, rate = int(first["size"]), first["rate"]
    waves, phases = weights["synthesis.input.freqs"], weights["synthesis.input.phases"]
    found = np.zeros((len(waves), size, size))
    for row in range(size):
        for column in range(size):
            point = np.array([column + 0.5 - size / 2, row + 0.5 - size / 2, rate]) / rate
            found[:, row, column] = np.sin(2 * np.pi * (waves @ (whole @ point)[:2] + phases))
    lengths = np.linalg.norm(waves @ whole[:2, :2], axis=1)
    fading = np.clip(1 - (lengths - first["f_c"]) / (rate / 2 - first["f_c"]), 0, 1)
    matrix = weights["synthesis.input.weight"] / np.sqrt(len(waves))
    mixed: Array = np.einsum("oi,ihw->ohw", matrix, found * fading[:, None, None])
    return mixed


def synthesized(weights: dict[str, Array], given: dict[str, Any], ws: Array) -> Array:
    side = given["img_resolution"]
    made = layers(given, side)
    maps = features(weights, ws[0], made[0])
    for number, after in enumerate(made):
        before, is_last = made[max(number - 1, 0)], number == len(made) - 1
        name = next(
            key.rsplit(".", 1)[0]
            for key in weights
            if key.startswith(f"synthesis.L{number}_") and key.count(".") == 2
        )
        convolved = modulated(weights, name, maps, ws[number + 1], not is_last)
        rate = max(before["rate"], after["rate"]) * (1 if is_last else 2)
        up, down = round(rate / before["rate"]), round(rate / after["rate"])
        size = given["filter_size"]
        taps = (1, 1) if is_last else (size * up, size * down)
        is_critical = number >= given["num_layers"] - given["num_critical"]
        radial = given["use_radial_filters"] and not is_critical
        filters = (
            lowpass(taps[0], before, rate, False), lowpass(taps[1], after, rate, radial)
        )  # fmt: skip
        target, kernel = int(after["size"]), weights[f"{name}.weight"].shape[2]
        total = (target - 1) * down + 1 - (maps.shape[1] + kernel - 1) * up + sum(taps) - 2
        padding = (total + up) // 2, total - (total + up) // 2
        gain, slope = (1.0, 1.0) if is_last else (np.sqrt(2), 0.2)
        maps = nonlinearity(convolved, filters, up, down, padding, gain, slope, given["conv_clamp"])
        assert maps.shape[1:] == (target, target)
    scaled: Array = maps * given["output_scale"]
    return scaled


def modulated(
    weights: dict[str, Array], name: str, maps: Array, w: Array, demodulate: bool
) -> Array:
    weight, styles = weights[f"{name}.weight"], dense(weights, f"{name}.affine", w)
    if demodulate:
        weight = weight / np.sqrt(np.mean(weight**2, axis=(1, 2, 3), keepdims=True))
        styles = styles / np.sqrt(np.mean(styles**2))
    else:
        styles = styles / np.sqrt(weight[0].size)
    weight = weight * styles[:, None, None]
    if demodulate:
        weight = weight / np.sqrt(np.sum(weight**2, axis=(1, 2, 3), keepdims=True) + 1e-8)
    weight = weight / np.sqrt(weights[f"{name}.magnitude_ema"])
    convolved = [
        sum(
            scipy.signal.correlate2d(one, kernel, "full")
            for one, kernel in zip(maps, row, strict=True)
        )
        for row in weight
    ]
    return np.stack(convolved) + weights[f"{name}.bias"][:, None, None]


def nonlinearity(
    maps: Array, filters: tuple[Array, Array], up: int, down: int, padding: tuple[int, int],
    gain: float, slope: float, clamp: float | None,
) -> Array:  # fmt: skip
    """Zeros between pixels, padding or cropping, the first filter, `gain`·leaky ReLU, the limit,
    the second filter, every `down`-th pixel."""
    made = []
    for one in maps:
        spread = np.zeros((len(one) * up, one.shape[1] * up))
        spread[::up, ::up] = one
        for axis in range(2):
            for first, amount in ((True, padding[0]), (False, padding[1])):
                spread = padded(spread, axis, first, amount)
        fine = scipy.signal.convolve2d(spread, filters[0] * up**2, "valid")
        fine = np.where(fine < 0, slope * fine, fine) * gain
        if clamp is not None:
            fine = np.clip(fine, -clamp, clamp)
        made.append(scipy.signal.convolve2d(fine, filters[1], "valid")[::down, ::down])
    return np.stack(made)


def padded(values: Array, axis: int, first: bool, amount: int) -> Array:
    if amount < 0:
        kept = slice(-amount, None) if first else slice(0, amount)
        return values[kept] if axis == 0 else values[:, kept]
    widths = [(0, 0), (0, 0)]
    widths[axis] = (amount, 0) if first else (0, amount)
    return np.pad(values, widths)
