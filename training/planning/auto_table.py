"""The table of `--preset auto`: its decisions as rows and a few constants, each with its evidence,
so that a new measurement changes a row and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PROJECTED, PIXELS, DRAWN, ADAPTIVE = (
    "projected64", "shells64", "shells64-projected", "stylegan2-ada"
)  # fmt: skip
"""The presets whose networks, loss and optimisers the rows scale."""


ALONE = 0.4
"""Part of the time in which the pixel discriminator trains alone. When those on frozen features
joined, drawn shells kept 0.87 of the variance of pixels within a family after 174 kimg alone (0.4
of 45 minutes), and 0.67 after 58. At 128 px and 80 minutes, 0.36 of the time had an FD with noise
of 85, and 0.69 another seed's 109."""


@dataclass(frozen=True)
class AutoRow:
    """A row of the table: on `device`, from `hours` on, for images of up to `height` px, `preset`
    with `batch` images per step, learning rate `lr` and other `settings`; and its speed in kimg per
    hour.

    `for_drawings`: only for drawings and images of a few kinds (`AutoInputs.drawn`).
    `scheduled`: the rates fall within the time, and the average and the augmentation depend on the
    number of images; other presets keep their own. `gamma`: R1's weight γ = `gamma`·height·width /
    batch (Karras et al. 2020a; 0: that of the preset). `alone`: the part of the images that the
    pixel discriminator sees without those on frozen features, which take `ALONE` of the time
    (`features_kimg`; 0: there are none, or both train from the start).
    """

    device: str
    hours: float
    height: int
    batch: int
    lr: float
    kimg_per_hour: float
    evidence: str
    preset: str = PROJECTED
    settings: Mapping[str, str] = field(default_factory=dict)
    for_drawings: bool = False
    scheduled: bool = True
    gamma: float = 0.0
    alone: float = 0.0


def _projected(
    device: str, hours: float, height: int, width: int, size: int, batch: int, lr: float,
    kimg_per_hour: float, evidence: str,
) -> AutoRow:  # fmt: skip
    """A generator of `width`, and a frozen network that sees `size` px."""
    settings = {"generator.width": str(width), "discriminator.size": str(size)}
    return AutoRow(device, hours, height, batch, lr, kimg_per_hour, evidence, PROJECTED, settings)


def _drawn(
    hours: float, height: int, kimg_per_hour: float, evidence: str, preset: str = DRAWN,
    settings: Mapping[str, str] | None = None, alone: float = 0.0,
) -> AutoRow:  # fmt: skip
    return AutoRow(
        "cpu", hours, height, 16, 5e-4, kimg_per_hour, evidence, preset, settings or {},
        for_drawings=True, scheduled=False, alone=alone,
    )  # fmt: skip


_HALF_WIDTH = {"generator.width": "16", "discriminator.pixel_width": "16"}
AUTO_TABLE = (
    _projected("cpu", 0.0, 64, 16, 128, 16, 3e-3, 180, "25 s of one core per thousand images"),
    _projected("cpu", 1.0, 128, 16, 128, 16, 3e-3, 135, "1.3 times the time at 64 px"),
    _projected("cpu", 6.0, 64, 32, 128, 16, 2e-3, 90, "40 s of one core, by the parts' times"),
    _projected("cpu", 6.0, 128, 32, 128, 16, 2e-3, 40, "not measured"),
    _projected("cpu", 24.0, 128, 32, 128, 16, 1e-3, 40, "not measured"),
    _drawn(0.0, 64, 1300, "4.1 s of one core per thousand images", PIXELS),
    _drawn(
        0.25, 64, 420, "4.1 s of one core per thousand images, 26 s with frozen features",
        alone=0.81,
    ),
    _drawn(
        2.0, 128, 180, "12 s of one core per thousand images, 45 s with frozen features",
        settings=_HALF_WIDTH, alone=0.71,
    ),
    _drawn(
        8.0, 128, 130, "30 s of a busy core per thousand images, 88 s with frozen features",
        alone=0.65,
    ),
    _projected("mps", 0.0, 64, 32, 128, 32, 5e-4, 400, "not measured"),
    _projected("mps", 4.0, 128, 32, 128, 32, 5e-4, 150, "not measured"),
    _projected("cuda", 0.0, 64, 64, 128, 64, 2e-4, 2000, "not measured"),
    _projected("cuda", 1.0, 128, 64, 128, 64, 2e-4, 1000, "not measured"),
    _projected("cuda", 8.0, 256, 64, 224, 64, 2e-4, 300, "not measured"),
    AutoRow(
        "cuda", 24.0, 256, 32, 2.5e-3, 200, "not measured", ADAPTIVE, scheduled=False, gamma=2e-4
    ),
)  # fmt: skip
"""For each device, from the shortest to the longest time; the last matching row counts. Learning
rates of the first: at batch 16 and width 16, FD on 2,383 photographs after 8 minutes on one core
was 87 at 2e-4 (the published rate, for batch 64), 71 at 6e-4, 65 at 1.5e-3 and 55 at 3e-3."""
REASONS = {
    PROJECTED: "a projected discriminator learns most in little time and needs no gamma",
    PIXELS: "for drawings, a small network that learns pixels keeps shapes whole",
    DRAWN: "for drawings, learning pixels keeps shapes whole; then frozen features refine patterns",
    ADAPTIVE: "for days on a GPU, as it improves where projected discriminators stop after hours",
}
"""Why a preset is chosen. Of `ADAPTIVE`: users of Projected GAN report no progress after two hours
on varied sets of 1,000 to 2,000 images (FID 75), where StyleGAN2-ADA reached 63 in 15 hours and 38
in 500."""
LEAST_SHARE = 4
"""Minimum number of images of a batch per process: batch norms use the statistics of its own."""
PLAIN_PASSES = 4.0
"""The discriminator may see each image this often before augmentation is worth its cost: on
2,383 photographs seen 7 times each, all three transforms gave a better FD than two or none."""
POLICY = '["color", "translation", "cutout"]'
FEW_DRAWINGS = 1000
"""Fewer drawings are augmented: the discriminator recognised 0.9 to 0.95 of 300 drawn shells and of
568 icons after 30 to 60 kimg, but no more than 0.8 of 2,000 shells."""
FEW_ADA = '["xint", "scale"]'
"""On 300 drawn shells after 12 minutes, FD with noise was 138, and 148 without; the variance of the
pixels within the families was 0.88 of that of real images, and 0.69. It was 0.28 with `translation`
and `cutout`, and 0.08 with `color` too. Of `bgc`, a sixth of the samples had the contrast."""
LABEL_KIMG = 100.0
"""Thousand images per label that make a condition worthwhile: with 5 labels and 16 kimg in
total, FD was 78 with conditions and 71 without."""
AVERAGE_SHARE = 0.02
"""Half-life of the generator's average as a fraction of the images, from 1 to 20 kimg."""
LAST_RATE, FALLING_KIMG = 0.1, 100.0
"""Learning rate factor at the end of the time, along half a cosine, and from how many thousand
images the rates fall. FD of two seeds on garments that were cut out, after 14 kimg: 88 and 81 with
constant rates, 116 and 120 with falling ones. On all garments 46 after 39 kimg with constant rates,
72 after 27 with rates that fell over 31; another seed 41 after 57, and 50 after 58 with rates that
fell over 59. Cut out: 37 after 55, and 41 after 75 with rates that fell over 74; but a run that was
stopped was worse after 25 and 34 than rates that fell over 71. Longer runs were not compared."""
EVALUATED, LEAST_EVALUATED = 0.1, 0.5
"""Interval between two evaluations as a fraction of the images; hours from which there are any."""
NOISE = 0.02
"""Standard deviation of the constant noise on real and generated images where real ones have none
(2.5 gray levels), so that no discriminator tells them apart by noise that nobody sees: on drawn
shells 19 kimg with it gave the FD of 39 without it."""
SMALL = 64
"""Images are at least this high if theirs are, in pixels."""
SPARE = 10
"""With `--hours` a run may make this multiple of the planned images: the time ends it."""
DAY = 24.0
"""Hours that are planned without `--hours`."""
