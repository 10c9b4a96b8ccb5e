"""What `--preset auto` says about a run: soon, if its speed is not the planned one; after a tenth
of its time, what to expect; at its end, how close to the real images it came and what would help.

Both compare the Fréchet distance (FD) with that of real images against each other, at equal sample
numbers. In earlier runs on a CPU the difference of the two fell like a power of the number of
images (benchmarks/quality.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.contract import format_duration
from training.config import Config
from training.monitoring.history import Row
from training.options.architectures import features_kimg
from training.planning.auto import NAME
from training.planning.auto_table import DAY
from training.planning.inputs import PLAIN

_SIMILAR = 1.5
"""A measured speed that differs by at most this factor from the planned one is not reported."""
_DECAY = 0.9
"""The exponent on photographs of garments: 33 above real images after 18 kimg, 17 after 37 and 6
after 113 (FD over EfficientNet-Lite0)."""
_PLAIN_DECAY = 0.6
"""The exponent on garments cut out: 47 above after 20 kimg, 23 after 60 (FD over
EfficientNet-Lite2)."""
_DRAWN_DECAY = 0.15
"""The exponent on drawn shells, by pixels: 186 above after 58 kimg, 137 after 441."""
_CLOSE = 1.2
"""An FD up to this multiple of that of real images is close to the limit."""
_LEAST = 0.5
"""An FD of real images below this is 0 but for rounding."""
_VARIED, _MEMORISED, _COPIES = 0.5, 0.8, 0.02
"""Below this diversity samples are too alike; above this r_t the discriminator memorises; above
this fraction of copies the generator does."""
_RECENT = 5
"""Number of rows that are averaged."""


@dataclass(frozen=True)
class Progress:
    """The state of a run that has seen `kimg` of the `planned` thousand images that it will see.

    `fd` and `limit` are of the newest evaluation, at `fd_kimg`, and of real images (None: there was
    none). `copies` is its fraction of copies, `diversity` the spread of samples relative to that
    of real images, `r_t` the sign of D on real images (from -1 to 1), `passes` how often
    each image was seen, and `plain` the fraction of images with a plain border; `drawn`: they are
    drawings. After `alone` thousand images, discriminators on frozen features join
    that of pixels (0: from the start).
    """

    kimg: float
    planned: float
    samples: int
    plain: float
    fd: float | None = None
    limit: float | None = None
    fd_kimg: float = 0.0
    recall: float = 0.0
    copies: float = 0.0
    diversity: float | None = None
    r_t: float | None = None
    drawn: bool = False
    alone: float = 0.0

    @property
    def passes(self) -> float:
        return self.kimg * 1000 / self.samples

    def fd_at(self, kimg: float) -> float:
        """Return the FD to expect after this many thousand images."""
        assert self.fd is not None
        assert self.limit is not None
        undrawn = _PLAIN_DECAY if self.plain >= PLAIN else _DECAY
        decay = _DRAWN_DECAY if self.drawn else undrawn
        above = max(0.0, self.fd - self.limit)
        return self.fd - above * (1 - float((self.fd_kimg / kimg) ** decay))


def speed_remark(config: Config, seconds_per_kimg: float, seen: int, until: float) -> str:
    """Return a line for the user if discriminators on frozen features join later, after which steps
    take longer, or not at all before the end at `until` thousand images; or if the measured speed
    is far from the one that `--preset auto` planned with; otherwise, for runs that have `seen`
    images before, and where the number of images ends the run, so that its rates fall to the end at
    any speed, an empty text."""
    kimg, alone = config.burn_in.kimg, features_kimg(config.discriminator)
    if seen < 1000 * alone:
        if alone < until:
            return (
                f"from {alone:g} kimg on, discriminators on frozen features join; steps take longer"
            )
        return (
            f"warning: discriminator.features_kimg: {alone:g}, but the run ends at {until:.3g} "
            "kimg: discriminators on frozen features never join; train longer, or lower it"
        )
    if config.preset != NAME or seen or not kimg or kimg >= config.total_kimg:
        return ""
    planned = (config.max_hours or DAY) * 3600 / kimg
    if planned / _SIMILAR <= seconds_per_kimg <= planned * _SIMILAR:
        return ""
    took = kimg * seconds_per_kimg
    advice = (
        f"with --hours {took / 3600:.2g} they would fall to the end"
        if seconds_per_kimg > planned
        else "after that, training continues at the last rates"
    )
    return (
        f"auto: {seconds_per_kimg:.3g} s/kimg were measured, {planned:.3g} were planned; the "
        f"learning rates fall over {kimg:g} kimg, which take {format_duration(took)}; {advice}"
    )


def recent_mean(rows: Sequence[Row], name: str, over: str = "") -> float | None:
    """Return the mean of a stat, divided by the stat `over`, of the newest rows that have both."""
    found = [
        row[name] / (row[over] if over else 1.0)
        for row in rows[-_RECENT:]
        if name in row and (not over or row.get(over, 0) > 0)
    ]
    return fmean(found) if found else None


def expectation(now: Progress) -> str:
    """Return what to expect of a run after its first part, in one line."""
    parts = []
    if now.diversity is not None:
        few = " (too alike; if it stays so, start again with another --seed)"
        parts.append(
            f"samples vary {now.diversity:.0%} as much as real images"
            + (few if now.diversity < _VARIED else "")
        )
    if now.r_t is not None and now.r_t > _MEMORISED:
        parts.append(
            f"D memorises the images (r_t {now.r_t:.2f}); more images, or --augment.ada bgc, "
            "would help"
        )
    if now.fd is not None and now.limit is not None and now.fd_kimg < now.alone:
        parts.append(
            f"FD {now.fd:.0f} (real images: {now.limit:.0f}); what lowers it most begins at "
            f"{now.alone:g} kimg: discriminators on frozen features"
        )
    elif now.fd is not None and now.limit is not None:
        parts.append(
            f"FD {now.fd:.0f}, about {now.fd_at(now.planned):.0f} is to be expected at "
            f"{now.planned:.3g} kimg, as in earlier runs (real images: {now.limit:.0f})"
        )
    else:
        parts.append("no evaluation yet, so the result cannot be predicted")
    return f"auto: after {now.kimg:.3g} of {now.planned:.3g} kimg: {'; '.join(parts)}"


def conclusion(now: Progress) -> str:
    """Return how close to real images a run came and what would help most, in one paragraph."""
    if now.fd is None or now.limit is None:
        return (
            f"auto: {now.kimg:.3g} kimg without an evaluation (--evaluate.kimg): how close they "
            "come to the real images is not known; python -m training.evaluate measures it"
        )
    if now.limit < _LEAST:
        return (
            f"auto: FD {now.fd:.0f} after {now.fd_kimg:.3g} kimg; the real images are all alike, "
            "so there is nothing to compare it with"
        )
    ratio = now.fd / now.limit
    twice = now.fd_at(2 * now.fd_kimg)
    helps = []
    if now.fd_kimg < now.alone:
        helps.append((1.0, f"discriminators on frozen features, which join at {now.alone:g} kimg"))
    if now.copies > _COPIES:
        helps.append((1.0, f"more images: {now.copies:.0%} of the samples are copies"))
    if now.r_t is not None and now.r_t > _MEMORISED:
        helps.append((0.9, f"more images: D memorises these (r_t {now.r_t:.2f})"))
    if ratio > _CLOSE:
        gain = 1 - twice / now.fd
        helps.append((gain, f"twice the time, for an FD of about {twice:.0f}"))
        if now.plain < PLAIN:
            helps.append((0.0, "even backgrounds, which need not be learned"))
    close = (
        "as close as can be measured"
        if ratio <= 1
        else "close to the limit"
        if ratio <= _CLOSE
        else f"{ratio:.1f} times the limit"
    )
    what = (
        f"; what would help most: {', then '.join(text for _, text in sorted(helps, reverse=True))}"
        if helps
        else "; more time would help little"
    )
    return (
        f"auto: FD {now.fd:.0f} after {now.fd_kimg:.3g} kimg, real images against each other "
        f"{now.limit:.0f}: {close}; recall {now.recall:.2f}, each image seen {now.passes:.0f} "
        f"times{what}"
    )
