"""`--preset auto`: from the data, the machine and the time to a preset with overrides.

`choose` is pure. The decisions are the rows of `AUTO_TABLE` and a few constants below it, each with
its evidence, so that a new measurement changes a row and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from pipeline.contract import UserError, count_of, format_duration, parse_config
from training import checkpoint
from training.config import Config, EvaluateOptions
from training.networks.sizes import count_doublings
from training.options.resolve import (
    drop_label_conditions,
    merge,
    nest_dotted,
    resolve,
    unflatten,
)  # fmt: skip
from training.planning.inputs import AutoInputs, gather_inputs, measure_speed
from training.streaming.dataset import ShardDataset, open_shard_dataset

NAME = "auto"


@dataclass(frozen=True)
class AutoRow:
    """A row of the table: on `device`, from `hours` on, a generator of `width` for images of up
    to `height` px, whose frozen feature network sees `discriminator_size` px, with `batch`
    images per step and learning rate `lr`; and its speed in kimg per hour."""

    device: str
    hours: float
    height: int
    width: int
    discriminator_size: int
    batch: int
    lr: float
    kimg_per_hour: float
    evidence: str


AUTO_TABLE = (
    AutoRow("cpu", 0.0, 64, 16, 128, 16, 3e-3, 180, "25 s of one core a thousand images"),
    AutoRow("cpu", 6.0, 64, 32, 128, 16, 2e-3, 90, "40 s of one core, by the parts' times"),
    AutoRow("cpu", 24.0, 128, 32, 128, 16, 1e-3, 40, "not measured"),
    AutoRow("mps", 0.0, 64, 32, 128, 32, 5e-4, 400, "not measured"),
    AutoRow("mps", 4.0, 128, 32, 128, 32, 5e-4, 150, "not measured"),
    AutoRow("cuda", 0.0, 64, 64, 128, 64, 2e-4, 2000, "not measured"),
    AutoRow("cuda", 1.0, 128, 64, 128, 64, 2e-4, 1000, "not measured"),
    AutoRow("cuda", 8.0, 256, 64, 224, 64, 2e-4, 300, "not measured"),
)
"""For each device, from the shortest to the longest time; the last matching row counts. Learning
rates: at batch 16 and width 16, FD on 2,383 photographs after 8 minutes on one core was 87 at
2e-4 (the published rate, for batch 64), 71 at 6e-4, 65 at 1.5e-3 and 55 at 3e-3."""
LEAST_SHARE = 4
"""Minimum number of images of a batch per process: batch norms use the statistics of its own."""
PRESET = "projected64"
"""The networks, loss and optimisers, which the rows scale."""
PLAIN_PASSES = 4.0
"""The discriminator may see each image this often before augmentation is worth its cost: on
2,383 photographs seen 7 times each, all three transforms gave a better FD than two or none."""
POLICY = '["color", "translation", "cutout"]'
LABEL_KIMG = 100.0
"""Thousand images per label that make a condition worthwhile: with 5 labels and 16 kimg in
total, FD was 78 with conditions and 71 without."""
AVERAGE_SHARE = 0.02
"""Half-life of the generator's average as a fraction of the images, from 1 to 20 kimg."""
LAST_RATE = 0.1
"""Learning rate factor at the end of the time, along half a cosine."""
_EVALUATED, _LEAST_EVALUATED = 0.1, 0.5
"""Interval between two evaluations as a fraction of the images; hours from which there are any."""
SMOOTH, NOISE = 0.2, 0.02
"""From this fraction of smooth pixels on, real and generated images get slight constant noise (2.5
gray levels), so that no discriminator tells them apart by noise that nobody sees: on drawn shells
19 kimg with it gave the FD of 39 without it."""
PLAIN = 0.5
"""Below this fraction of plain images, backgrounds are reported as uneven."""
SMALL = 64
_DAY, _SIMILAR = 24.0, 1.5
"""A measured speed that differs by at most this factor from the planned one is not reported."""


@dataclass(frozen=True)
class Choice:
    """Overrides for `PRESET` by dotted key, and an `explanation` in three lines."""

    options: Mapping[str, str]
    explanation: tuple[str, str, str]


def choose(inputs: AutoInputs) -> Choice:
    """Choose the overrides for a dataset, machine and time.

    Raises:
        UserError: there are too few images, or no network supports their size.
    """
    if inputs.samples < 16:
        raise UserError(
            f"--preset auto: {count_of(inputs.samples, 'image')}; at least 16 are needed"
        )
    size = scale_row(_size(inputs), inputs)
    kimg = float(f"{(inputs.hours or _DAY) * size.kimg_per_hour:.3g}")
    passes = kimg * 1000 / inputs.samples
    conditional = inputs.labels > 1 and kimg / inputs.labels >= LABEL_KIMG
    options = {
        "resolution": str(_height(inputs, max(SMALL, size.height))),
        "batch": str(size.batch),
        # with --hours the time ends the run: a faster machine continues at the last rates
        "total_kimg": f"{kimg * (10 if inputs.hours else 1):g}",
        "generator.width": str(size.width),
        "generator.condition": "norm" if conditional else "none",
        "discriminator.condition": "projection" if conditional else "none",
        "discriminator.size": str(size.discriminator_size),
        "augment.policy": POLICY if passes > PLAIN_PASSES else "[]",
        "g_optimizer.lr": f"{size.lr:g}",
        "d_optimizer.lr": f"{size.lr:g}",
        "ema.half_life_kimg": f"{min(20.0, max(1.0, kimg * AVERAGE_SHARE)):g}",
        "burn_in.kimg": f"{kimg:g}",
        "burn_in.lr": f"{LAST_RATE:g}",
        "precision": _precision(inputs),
        "augment.noise": f"{NOISE if inputs.smooth >= SMOOTH else 0:g}",
    }
    # preparing evaluations takes a minute
    first = kimg * _EVALUATED if (inputs.hours or _DAY) >= _LEAST_EVALUATED else 0.0
    options["evaluate.kimg"] = f"{min(EvaluateOptions().kimg, first):.3g}"
    return Choice(options, _why(inputs, size, kimg, options))


def choose_measured(source: ShardDataset, asked: Config, options: Mapping[str, str]) -> Choice:
    """Choose for the dataset at `source`, this machine and the time in `asked`. The speed of what
    the table suggests, with the overrides of the command line (`options`), is measured first: the
    learning rates and the average depend on the number of images.

    Raises:
        UserError: as in `choose`, `gather_inputs` and `resolve`.
    """
    inputs = gather_inputs(source, asked)
    first = choose(inputs)
    if inputs.processes > 1:
        return first  # they would measure each other, and choose differently
    config = resolve(PRESET, {**first.options, **options})
    height = config.resolution or source.height
    shape = replace(source.image_shape, height=height, width=source.width * height // source.height)
    planned = scale_row(_size(inputs), inputs).kimg_per_hour
    pace = measure_speed(drop_label_conditions(config, source.classes), shape) / planned
    return choose(replace(inputs, pace=pace))


def scale_row(row: AutoRow, inputs: AutoInputs) -> AutoRow:
    """Return `row`, which is for one process, for all processes of a run.

    On GPUs, one per process, the batch grows with the number of processes, the learning rate with
    the square root of the batch (Malladi et al. 2022, for Adam), and the planned speed like the
    number. On a CPU the processes share its cores, so only `LEAST_SHARE` makes the batch larger.
    The batch is at most the number of images.

    Raises:
        UserError: there are too few images for that many processes.
    """
    processes = inputs.processes
    if inputs.samples < LEAST_SHARE * processes:
        raise UserError(
            f"--preset auto: {count_of(inputs.samples, 'image')} for {processes} processes, each "
            f"needs at least {LEAST_SHARE}; start at most {inputs.samples // LEAST_SHARE}"
        )
    devices = processes if inputs.device == "cuda" else 1
    batch = min(max(row.batch * devices, LEAST_SHARE * processes), inputs.samples)
    batch -= batch % processes
    lr = row.lr * max(1.0, batch / row.batch) ** 0.5
    speed = row.kimg_per_hour * devices * (inputs.pace or 1.0)
    return replace(row, batch=batch, lr=lr, kimg_per_hour=speed)


def _precision(inputs: AutoInputs) -> str:
    if inputs.bf16:
        return "bf16"
    return "fp16" if inputs.device == "cuda" else "fp32"


def _height(inputs: AutoInputs, most: int) -> int:
    """Return the largest height up to `most` that keeps the images' aspect and that networks
    support."""
    for height in range(min(inputs.height, most), 7, -1):
        width, rest = divmod(inputs.width * height, inputs.height)
        if not rest and count_doublings(height, width):
            return height
    raise UserError(
        f"--preset auto: no network supports images of {inputs.width}×{inputs.height} px or a "
        "smaller size; build shards of another size, for example 64 or 96×64 px"
    )


def _size(inputs: AutoInputs) -> AutoRow:
    hours = inputs.hours or float("inf")
    hours *= inputs.pace or 1.0  # a fast machine does the work of more hours
    rows = [row for row in AUTO_TABLE if row.device == inputs.device and row.hours <= hours]
    # rows for larger images than these only cost time, unless their networks are wider
    fitting = [row for row in rows if row.height <= max(SMALL, inputs.height)]
    return (fitting or rows)[-1]


def _why(
    inputs: AutoInputs, size: AutoRow, kimg: float, options: Mapping[str, str]
) -> tuple[str, str, str]:
    height, passes = int(options["resolution"]), kimg * 1000 / inputs.samples
    hours = count_of(inputs.hours, "hour") if inputs.hours else "a day (no --hours were given)"
    scaled = f" of {inputs.height}" if height < inputs.height else ""
    augmented = (
        "augmented (color, translation, cutout) against overfitting"
        if options["augment.policy"] == POLICY
        else "no augmentation is needed"
    )
    ignored = (
        f"; conditional on its {inputs.labels} labels"
        if options["generator.condition"] != "none"
        else f"; too short for its {inputs.labels} labels, which are not used"
        if inputs.labels > 1
        else ""
    )
    shared = f" over {inputs.processes} processes" if inputs.processes > 1 else ""
    took = f"{3600 / size.kimg_per_hour:.3g} s/kimg"
    speed = (
        f"at {took}, measured on this machine"
        if inputs.pace
        else f"if this machine takes {took} (a reference figure: {size.evidence})"
    )
    noise = "; slight noise on all, as they have none" if float(options["augment.noise"]) else ""
    ground = (
        " (for drawings, try --preset shells64)"
        if inputs.plain >= PLAIN
        else " (the others need more time; a recipe can make them uniform)"
    )
    return (
        f"auto: {inputs.device}, in {hours}, makes about {kimg:g} thousand images of "
        f"{height}{scaled} px with a generator of width {size.width}, {speed}",
        f"auto: {inputs.samples} images, {inputs.plain:.0%} with a plain border{ground},"
        f" are seen about {passes:.0f} times each: {augmented}{ignored}{noise}",
        f"auto: preset {PRESET}, batch {options['batch']}{shared}, rates {size.lr:.3g} falling to "
        "a tenth: "
        "a projected discriminator learns most in little time and needs no gamma",
    )


def compare_speed(config: Config, seconds_per_kimg: float, seen: int) -> str:
    """Return a line for the user if the measured speed is far from the one that `--preset auto`
    planned with; otherwise, and for runs that have `seen` images before, an empty text."""
    kimg = config.burn_in.kimg
    if config.preset != NAME or seen or not kimg:
        return ""
    planned = (config.max_hours or _DAY) * 3600 / kimg
    if planned / _SIMILAR <= seconds_per_kimg <= planned * _SIMILAR:
        return ""
    took = kimg * seconds_per_kimg
    advice = (
        f"with --hours {took / 3600:.2g} they would fall to the end"
        if seconds_per_kimg > planned
        else "after that, training goes on at the last rates"
    )
    return (
        f"auto: {seconds_per_kimg:.3g} s/kimg were measured, {planned:.3g} were planned; the "
        f"learning rates fall over {kimg:g} kimg, which take {format_duration(took)}; {advice}"
    )


def resolve_auto(
    location: str, run_name: str | None, options: Mapping[str, str]
) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration for the shards at `location`, with the overrides of the command
    line, and its explanation.

    A run that has results keeps the choice it was started with.

    Raises:
        UserError: as in `resolve`; the shards do not exist; or a value differs from the run's.
    """
    from training.runs import find_run, read_config

    asked = resolve(PRESET, options)
    resolution = asked.resolution if "resolution" in options else 0
    source = open_shard_dataset(location, resolution, asked.data)
    run = find_run(run_name or f"{source.index.name}-{NAME}")
    if run.config.exists() and checkpoint.list_checkpoints(run.checkpoints):
        before = unflatten(read_config(run)["config"], str(run.config))
        again = merge(asdict(before), nest_dotted(options))
        return parse_config(Config, again, "command line"), (
            "auto: as chosen when the run was started",
        )
    choice = choose_measured(source, asked, options)
    config = replace(resolve(PRESET, {**choice.options, **options}), preset=NAME)
    changed = [key for key, value in choice.options.items() if options.get(key, value) != value]
    first, second, last = choice.explanation
    return config, (
        first,
        second,
        f"{last}; {', '.join(changed)} from the command line" if changed else last,
    )
