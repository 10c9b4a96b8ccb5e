"""Alarms: signs in a run's rows that training goes wrong, with suggestions.

Pure functions of the rows. The suggestions are those of practitioners (Chintala's GAN hacks,
tutorials), with the option names of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Row = dict[str, Any]

RECENT = 5
"""Number of rows that must all show a sign; a single row may be chance."""
_WON = 0.97
_VANISHED = 0.01
_COLLAPSED = 0.3


@dataclass(frozen=True)
class Alarm:
    """An alarm: `kind` is a short name, `text` the message with suggestions."""

    kind: str
    text: str


def discriminator_wins(recent: Sequence[Row], _earlier: Sequence[Row]) -> Alarm | None:
    """D separates real from fake images without error."""
    if not all({"d_real", "d_fake_before"} <= row.keys() for row in recent):
        return None
    real, fake = fmean(r["d_real"] for r in recent), fmean(r["d_fake_before"] for r in recent)
    if real < _WON or fake > 1 - _WON:
        return None
    return Alarm(
        "discriminator",
        f"the discriminator is too strong (D(x) {real:.2f}, D(G(z)) {fake:.2f}), so the generator "
        "gets little gradient; try label smoothing (--label_real 0.9), a lower learning rate "
        "(--d_optimizer.lr), a gradient penalty (--loss.r1 1), or augmentation "
        "(--augment.policy color,translation)",
    )


def vanishing_gradient(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """Return the generator's gradient norm is a hundredth of its 90th percentile so far."""
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
        f"the generator's gradient has vanished (norm {fmean(now):.2g}, before {usual:.2g}); try a "
        "loss that does not saturate (--loss.name non-saturating, hinge or rasgan) or a weaker "
        "discriminator (lower --d_optimizer.lr, --loss.r1 1)",
    )


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
        f"images (best so far: {best:.0%}); try minibatch standard deviation "
        "(--discriminator.minibatch_stddev 4), a gradient penalty (--loss.gp 10 or --loss.r1 1), "
        "a lower --g_optimizer.lr, a larger --batch, or an earlier checkpoint",
    )


MONITORS = (discriminator_wins, vanishing_gradient, mode_collapse)


def alarms(rows: Sequence[Row]) -> list[Alarm]:
    """Return the alarms that the newest rows raise."""
    if len(rows) < RECENT:
        return []
    found = (monitor(rows[-RECENT:], rows[:-RECENT]) for monitor in MONITORS)
    return [alarm for alarm in found if alarm]
