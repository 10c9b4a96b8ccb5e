"""Signs in a run's rows that training goes wrong, told in words with what helps.

Pure functions of the rows. The remedies are those that practitioners give (Chintala's GAN hacks,
the tutorials' lists) by the names that they have here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Row = dict[str, Any]

RECENT = 5
"""Rows that must all show a sign: one row may be chance."""
_WON = 0.97
_VANISHED = 0.01
_COLLAPSED = 0.3


@dataclass(frozen=True)
class Alarm:
    """`kind` is a short name, `text` a sentence or two for a person."""

    kind: str
    text: str


def discriminator_wins(recent: Sequence[Row], _earlier: Sequence[Row]) -> Alarm | None:
    """D tells real from fake without fail, and the generator's samples never fool it."""
    if not all({"d_real", "d_fake_before"} <= row.keys() for row in recent):
        return None
    real, fake = fmean(r["d_real"] for r in recent), fmean(r["d_fake_before"] for r in recent)
    if real < _WON or fake > 1 - _WON:
        return None
    return Alarm(
        "discriminator",
        f"the discriminator wins (D(x) {real:.2f}, D(G(z)) {fake:.2f}): the generator has little "
        "to learn from. Smooth its labels (--label_real 0.9), give it a lower learning rate "
        "(--d_optimizer.lr), penalise its gradient (--loss.r1 1), or augment what it sees "
        "(--augment.policy color,translation)",
    )


def vanishing_gradient(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """The generator's gradient is a hundredth of what it was at its better times (90th
    percentile)."""
    before = [row["grad_g"] for row in earlier if "grad_g" in row]
    now = [row["grad_g"] for row in recent if "grad_g" in row]
    if len(before) < RECENT or len(now) < RECENT:
        return None
    # not the median: a gradient that fades slowly would take it along
    usual = sorted(before)[int(0.9 * (len(before) - 1))]
    if max(now) >= _VANISHED * usual:
        return None
    return Alarm(
        "gradient",
        f"the generator's gradient has vanished (norm {fmean(now):.2g}, before {usual:.2g}). A "
        "loss that does not saturate helps (--loss.name non-saturating, hinge or rasgan), so does "
        "a weaker discriminator (--d_optimizer.lr lower, --loss.r1 1)",
    )


def mode_collapse(recent: Sequence[Row], earlier: Sequence[Row]) -> Alarm | None:
    """Samples differ from each other much less than real images do, and once differed enough: a
    generator that has only begun makes samples that are alike, too."""
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
        f"samples become alike: they differ from each other {now:.0%} as much as real images do, "
        f"it was {best:.0%}. That is mode collapse; minibatch standard deviation "
        "(--discriminator.minibatch_stddev 4), a gradient penalty (--loss.gp 10 or --loss.r1 1), "
        "a lower --g_optimizer.lr or a larger --batch help; so does an earlier checkpoint",
    )


MONITORS = (discriminator_wins, vanishing_gradient, mode_collapse)


def alarms(rows: Sequence[Row]) -> list[Alarm]:
    """What the newest rows show."""
    if len(rows) < RECENT:
        return []
    found = (monitor(rows[-RECENT:], rows[:-RECENT]) for monitor in MONITORS)
    return [alarm for alarm in found if alarm]
