"""Alarms: signs in a run's rows that training goes wrong, with suggestions.

Pure functions of the rows. The suggestions are those of practitioners (Chintala's GAN hacks,
tutorials), with the option names of this project.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from pipeline.contract import UserError
from training.config import Config
from training.options.algorithm import StopOptions
from training.options.resolve import override
from training.options.validation import check_compatible

Row = dict[str, Any]

RECENT = 5
"""Number of rows that must all show a sign; a single row may be chance."""
_WON = 0.97
_SEPARATED = 0.999
_CHANCE = 0.02
_LONG = 4 * RECENT
"""Number of rows in which D must only guess: it may do so for a moment."""
_VANISHED = 0.01
_COLLAPSED = 0.3


@dataclass(frozen=True)
class Alarm:
    """An alarm: `kind` is a short name, `sign` the message, and `remedies` what to try, with the
    options of the command line."""

    kind: str
    sign: str
    remedies: tuple[str, ...]

    @property
    def text(self) -> str:
        """The message with the remedies."""
        *others, last = self.remedies or ("",)
        either = f"{', '.join(others)} or {last}" if others else last
        return f"{self.sign}; try {either}" if either else self.sign


def discriminator_wins(recent: Sequence[Row], _earlier: Sequence[Row]) -> Alarm | None:
    """D separates real from fake images without error: its probabilities are near 1 and 0 or, with
    a loss that has none, all real images score above all fakes."""
    if all({"d_real", "d_fake_before"} <= row.keys() for row in recent):
        real, fake = fmean(r["d_real"] for r in recent), fmean(r["d_fake_before"] for r in recent)
        wins, values = real >= _WON and fake <= 1 - _WON, f"D(x) {real:.2f}, D(G(z)) {fake:.2f}"
    elif all("separation" in row for row in recent):
        share = fmean(row["separation"] for row in recent)
        wins, values = share >= _SEPARATED, f"{share:.2%} of real images score above fakes"
    else:
        return None
    if not wins:
        return None
    return Alarm(
        "discriminator",
        f"the discriminator is too strong ({values}), so the generator gets little gradient",
        (
            "label smoothing (--label_real 0.9)", "a lower learning rate (--d_optimizer.lr)",
            "a gradient penalty (--loss.r1 1)",
            "augmentation (--augment.policy color,translation,cutout)",
            "slight noise on all images (--augment.noise 0.02)",
        ),
    )  # fmt: skip


def discriminator_guesses(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """D could tell real from fake images and now cannot: its accuracy is 50 %, so its gradient says
    nothing (\"junk feedback\")."""
    found = [row["separation"] for row in (*earlier, *recent) if "separation" in row]
    now, before = found[-_LONG:], found[:-_LONG]
    if not only_guesses(now, before):
        return None
    return Alarm(
        "chance",
        f"the discriminator only guesses ({fmean(now):.0%} of real images score above fakes), so "
        "the generator learns from noise and its images may get worse: evaluate "
        "(python -m training.evaluate) and take the best checkpoint, or continue with a stronger "
        "discriminator (--discriminator.width, a higher --d_optimizer.lr, a lower --loss.r1, less "
        "augmentation)",
        (),
    )


def only_guesses(now: Sequence[float], before: Sequence[float]) -> bool:
    """Return True if the shares `now` of real images that score above fakes are those of guessing,
    and `before` were not."""
    if min(len(now), len(before)) < RECENT or abs(fmean(now) - 0.5) > _CHANCE:
        return False
    error = stdev(now) / len(now) ** 0.5  # too large: too few images to say
    return error <= _CHANCE / 2 and fmean(sorted(before)[-RECENT:]) >= 0.5 + 3 * _CHANCE


def vanishing_gradient(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """The generator's gradient norm is a hundredth of its 90th percentile so far."""
    before = [row["grad_g"] for row in earlier if "grad_g" in row]
    now = [row["grad_g"] for row in recent if "grad_g" in row]
    if len(before) < RECENT or len(now) < RECENT:
        return None
    # not the median: a slowly vanishing gradient would shift it
    usual = sorted(before)[int(0.9 * (len(before) - 1))]
    if max(now) >= _VANISHED * usual:
        return None
    return Alarm(
        "gradient",
        f"the generator's gradient has vanished (norm {fmean(now):.2g}, before {usual:.2g})",
        (
            "a loss that does not saturate (--loss.name non-saturating)", "--loss.name hinge",
            "--loss.name rasgan", "a lower --d_optimizer.lr", "a gradient penalty (--loss.r1 1)",
        ),
    )  # fmt: skip


def mode_collapse(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """Samples vary much less than real images and varied enough before. (Samples of a generator
    that has just started vary little, too.)"""
    shares = [
        row["spread_fake"] / row["spread_real"]
        for row in (*earlier, *recent)
        if row.get("spread_real", 0) > 0 and "spread_fake" in row
    ]
    if len(shares) < 2 * RECENT:
        return None
    now, best = max(shares[-RECENT:]), max(shares[:-RECENT])
    if now >= _COLLAPSED or best < _COLLAPSED or now >= best / 2:
        return None
    return Alarm(
        "collapse",
        f"mode collapse: the variation among samples has dropped to {now:.0%} of that among real "
        f"images (best so far: {best:.0%})",
        (
            "minibatch standard deviation (--discriminator.minibatch_stddev 4)",
            "a gradient penalty (--loss.gp 10)", "--loss.r1 1", "a lower --g_optimizer.lr",
            "a larger --batch", "an earlier checkpoint",
        ),
    )  # fmt: skip


MONITORS = (discriminator_wins, discriminator_guesses, vanishing_gradient, mode_collapse)


def alarms(rows: Sequence[Row], config: Config) -> list[Alarm]:
    """Return the alarms that the newest rows raise, with the remedies that are possible for the
    run's configuration and change it."""
    if len(rows) < RECENT:
        return []
    found = (monitor(rows[-RECENT:], rows[:-RECENT]) for monitor in MONITORS)
    return [
        replace(alarm, remedies=tuple(one for one in alarm.remedies if _is_possible(one, config)))
        for alarm in found
        if alarm
    ]


def _is_possible(remedy: str, config: Config) -> bool:
    options = dict(re.findall(r"--([\w.]+) ([^\s)]+)", remedy))
    if not options:
        return True
    try:
        with_it = override(config, options)
        check_compatible(with_it)
    except UserError:
        return False
    return with_it != config


def stop_reason(rows: Sequence[Row], options: StopOptions) -> str:
    """Return why a rule of `options` ends the run with these rows; empty: none does.

    A rule counts the rows of its last so many thousand images, at least `RECENT`; the run must be
    older than that.
    """
    if options.chance_kimg:
        before, now = _split(rows, options.chance_kimg, "separation")
        if only_guesses(now, before):
            return (
                f"for {options.chance_kimg:g} kimg the discriminator has only guessed "
                f"({fmean(now):.0%} of real images score above fakes; stop.chance_kimg)"
            )
    if options.loss_kimg:
        before, now = _split(rows, options.loss_kimg, "loss_d")
        if before and len(now) >= RECENT and all(0 <= loss < options.loss for loss in now):
            return (
                f"for {options.loss_kimg:g} kimg the discriminator's loss has been below "
                f"{options.loss:g} ({fmean(now):.2g}; stop.loss_kimg)"
            )
    return ""


def _split(rows: Sequence[Row], kimg: float, name: str) -> tuple[list[float], list[float]]:
    """Return the values of the rows before the last `kimg` thousand images, and since."""
    found = [(row["seen"], row[name]) for row in rows if name in row]
    start = found[-1][0] - kimg * 1000 if found else 0.0
    before = [value for seen, value in found if seen <= start]
    return before, [value for seen, value in found if seen > start]
