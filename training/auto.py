"""`--preset auto`: from the data, the machine and the time to a preset and options on it.

`choose` is pure; the decisions are rows of `SIZES` and a few numbers below it, each with what it
rests on, so that another measurement changes a row and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipeline.contract import UserError, build
from training import checkpoint
from training.config import Config
from training.resolve import dotted, merge, resolve, unflat

NAME = "auto"


@dataclass(frozen=True)
class Facts:
    """What a choice depends on.

    `height` is that of the images to train on at most; `labels` how many there are (0: none);
    `device` cpu, cuda or mps; `hours` that may be used (0: no limit).
    """

    samples: int
    height: int
    labels: int
    device: str
    hours: float


@dataclass(frozen=True)
class Size:
    """A row of the table: on `device`, from `hours` on, networks of `width` for images of up to
    `height` px, `batch` images a step, and how many thousand images an hour that makes."""

    device: str
    hours: float
    height: int
    width: int
    batch: int
    kimg_per_hour: float
    evidence: str


SIZES = (
    Size("cpu", 0.0, 64, 32, 16, 500, "200 images/s on one idle core, 140 on a busy one"),
    Size("cpu", 4.0, 64, 64, 16, 190, "19.2 s/kimg, DCGAN-64 on two cores"),
    Size("cpu", 12.0, 128, 64, 16, 37, "98 s/kimg, DCGAN-128 on two cores"),
    Size("mps", 0.0, 64, 64, 32, 1000, "not measured"),
    Size("mps", 4.0, 128, 64, 32, 300, "not measured"),
    Size("cuda", 0.0, 64, 64, 64, 4000, "not measured"),
    Size("cuda", 1.0, 128, 64, 64, 1500, "not measured"),
    Size("cuda", 8.0, 256, 64, 32, 400, "not measured"),
)
"""Of each device from the least time to the most; the last row that fits counts."""
PRESET = "dcgan64-ada"
"""The networks, the loss and the optimisers, which the rows scale."""
PLAIN_PASSES = 20.0
"""How often the discriminator may see each image until augmentation is worth its cost: on 2,383
photographs r_t of PRESET hung about 0.6 when each had been seen 20 times (48 kimg), on 383 of them
it passed 0.6 after 18 (7 kimg)."""
ADA_SHARE = 0.25
"""The share of the images to come in which the augmentation's p may go from 0 to 1."""
AVERAGE_SHARE = 0.02
"""The share of them that is the half-life of the generator's average, from 1 to 10 kimg."""
SMALL = 64


@dataclass(frozen=True)
class Choice:
    """A preset, dotted `options` on it, and three lines that say `why`."""

    preset: str
    options: Mapping[str, str]
    why: tuple[str, str, str]


def choose(facts: Facts) -> Choice:
    """The preset and options for `facts`.

    Raises:
        UserError: the images are too few to learn anything from.
    """
    if facts.samples < 16:
        raise UserError(f"--preset auto: {facts.samples} images; at least 16 are needed")
    size = _size(facts)
    height = min(facts.height, max(SMALL, size.height))
    kimg = round(facts.hours * size.kimg_per_hour, 1) if facts.hours else 0.0
    if not kimg:
        kimg = 24 * size.kimg_per_hour
    passes = kimg * 1000 / facts.samples
    options = {
        "resolution": str(height),
        "batch": str(min(size.batch, facts.samples)),
        "total_kimg": f"{kimg:g}",
        "generator.width": str(size.width),
        "discriminator.width": str(size.width),
        "ema.half_life_kimg": f"{min(10.0, max(1.0, kimg * AVERAGE_SHARE)):g}",
        "precision": "fp32" if facts.device == "mps" else "bf16",
    }
    if passes > PLAIN_PASSES:
        options["augment.ada"] = "bgc"
        options["augment.ada_kimg"] = f"{max(1.0, min(500.0, kimg * ADA_SHARE)):g}"
    else:
        options["augment.ada"] = "[]"
    return Choice(PRESET, options, _why(facts, size, height, kimg, passes))


def _size(facts: Facts) -> Size:
    hours = facts.hours or float("inf")
    rows = [row for row in SIZES if row.device == facts.device and row.hours <= hours]
    # a row for larger images than there are only costs time, unless its networks are wider
    fitting = [row for row in rows if row.height <= max(SMALL, facts.height)]
    return (fitting or rows)[-1]


def _why(facts: Facts, size: Size, height: int, kimg: float, passes: float) -> tuple[str, str, str]:
    time = f"in {facts.hours:g} hours" if facts.hours else "in a day (no --hours were given)"
    scaled = f" of {facts.height}" if height < facts.height else ""
    labels = f", by {facts.labels} labels" if facts.labels else ""
    if passes > PLAIN_PASSES:
        repeat = (
            f"each of {facts.samples} images is seen about {passes:.0f} times: adaptive "
            "augmentation keeps the discriminator from knowing them by heart"
        )
    else:
        repeat = (
            f"{facts.samples} images are seen about {passes:.0f} times each: no augmentation is "
            "needed, which saves its cost"
        )
    return (
        f"auto: {facts.device}, {time}, makes about {kimg:g} thousand images of {height}{scaled} px"
        f" with networks of width {size.width} (speed: {size.evidence})",
        f"auto: {repeat}",
        f"auto: preset {PRESET}{labels}, batch {size.batch}: small steps learn most in little time",
    )


def resolve_auto(
    location: str, run_name: str | None, options: Mapping[str, str]
) -> tuple[Config, tuple[str, ...]]:
    """The configuration for the shards at `location`, with the command line's `options` on it, and
    lines that say why.

    A run that has results keeps what was chosen for it when it was begun.

    Raises:
        UserError: as `resolve`; no such shards; or another value than the run was begun with.
    """
    from training.data import open_source
    from training.device import choose_device
    from training.runs import find_run, read_config

    asked = resolve(PRESET, options)
    source = open_source(location, asked.resolution if "resolution" in options else 0)
    run = find_run(run_name or f"{source.index.name}-{NAME}")
    if run.config.exists() and checkpoint.listed(run.checkpoints):
        before = unflat(read_config(run)["config"], str(run.config))
        again = merge(asdict(before), dotted(options))
        return build(Config, again, "command line"), ("auto: as chosen when the run was begun",)
    choice = choose(
        Facts(
            source.index.nsamples, source.height, source.classes,
            choose_device(asked.device).type, asked.max_hours,
        )
    )  # fmt: skip
    return replace(resolve(choice.preset, {**choice.options, **options}), preset=NAME), choice.why
