"""`--preset auto`: from the data, the machine and the time to a preset with overrides.

`choose` is pure; what it decides by is in `training.planning.auto_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from pipeline.contract import UserError, count_of
from training.config import Config, EvaluateOptions
from training.networks.sizes import count_doublings
from training.options.resolve import drop_label_conditions, override, resolve, unflatten
from training.planning.auto_table import (
    ALONE,
    AUTO_TABLE,
    AVERAGE_SHARE,
    DAY,
    EVALUATED,
    FALLING_KIMG,
    FEW_ADA,
    FEW_DRAWINGS,
    LABEL_KIMG,
    LAST_RATE,
    LEAST_EVALUATED,
    LEAST_SHARE,
    NOISE,
    PLAIN_PASSES,
    POLICY,
    REASONS,
    SMALL,
    SPARE,
    AutoRow,
)
from training.planning.explanation import explain
from training.planning.inputs import CLUSTERS, AutoInputs, gather_inputs, measure_speed
from training.streaming.dataset import ShardDataset, open_shard_dataset

NAME = "auto"


@dataclass(frozen=True)
class Choice:
    """A preset, overrides for it by dotted key, and an `explanation` in three lines."""

    preset: str
    options: Mapping[str, str]
    explanation: tuple[str, str, str]


def choose(
    inputs: AutoInputs, given: Mapping[str, str] | None = None, row: AutoRow | None = None
) -> Choice:
    """Choose the overrides for a dataset, machine and time, by `row` (None: the one for them); the
    explanation is of these together with those that are `given` on the command line.

    Raises:
        UserError: there are too few images, or no network supports their size.
    """
    if inputs.samples < 16:
        raise UserError(
            f"--preset auto: {count_of(inputs.samples, 'image')}; at least 16 are needed"
        )
    given = given or {}
    row = scale_row(row or _find_row(inputs), inputs)
    hours = min(inputs.hours or DAY, (inputs.kimg or inf) / row.kimg_per_hour)
    kimg = max(float(f"{hours * row.kimg_per_hour:.3g}"), row.batch / 1000)
    height = _height(inputs, max(SMALL, row.height))
    options = {
        "resolution": str(height),
        "batch": str(row.batch),
        # with --hours the time ends the run: a faster machine continues at the last rates
        "total_kimg": f"{kimg * (SPARE if inputs.hours else 1):g}",
        **row.settings,
        "g_optimizer.lr": f"{row.lr:g}",
        "d_optimizer.lr": f"{row.lr:g}",
        "precision": _precision(inputs),
        "augment.noise": f"{NOISE if inputs.without_noise else 0:g}",
    }
    if row.scheduled:
        options |= _schedule(inputs, kimg, given.get("burn_in.kimg", ""))
    elif row.for_drawings:
        options |= _for_drawings(inputs)
    for own, other in (("ada", "policy"), ("policy", "ada")):  # only one is possible
        if f"augment.{own}" in given:
            options[f"augment.{other}"] = "[]"
    if row.alone:
        options["discriminator.features_kimg"] = f"{kimg * (inputs.alone or row.alone):.3g}"
    if row.gamma:
        pixels = height * height * inputs.width // inputs.height
        options["loss.r1"] = f"{row.gamma * pixels / row.batch:.3g}"
    # preparing evaluations takes a minute
    first = kimg * EVALUATED if hours >= LEAST_EVALUATED else 0.0
    options["evaluate.kimg"] = f"{min(EvaluateOptions().kimg, first):.3g}"
    options = _without_replaced(options, row.preset, given)
    return Choice(row.preset, options, explain(inputs, row, kimg, {**options, **given}))


def _without_replaced(
    options: Mapping[str, str], preset: str, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the options without those of networks of `preset` that the command line replaces; then
    neither network has a condition, as the one must fit the other."""
    plain = resolve(preset, {})
    names = {"generator": plain.generator.name, "discriminator": plain.discriminator.name}
    replaced = [name for name in names if given.get(f"{name}.name", names[name]) != names[name]]
    if not replaced:
        return dict(options)
    own = {key: value for key, value in options.items() if key.split(".")[0] not in replaced}
    if "discriminator" not in replaced:
        own["discriminator.condition"] = "none"
    return own | {"generator.condition": "none"}


def _for_drawings(inputs: AutoInputs) -> dict[str, str]:
    """Return the labels and the augmentation of networks that learn pixels."""
    options = {"augment.ada": FEW_ADA} if inputs.samples < FEW_DRAWINGS else {}
    if inputs.labels_tell:
        return options
    if inputs.few_kinds:
        return options | {"data.label": f"clusters:{CLUSTERS}"}
    return options | {"generator.condition": "none", "discriminator.condition": "none"}


def _schedule(inputs: AutoInputs, kimg: float, given: str) -> dict[str, str]:
    """Return the options that depend on the number of images that training will make; `given`: the
    command line's own thousand images over which rates fall, or empty."""
    conditional = inputs.labels > 1 and kimg / inputs.labels >= LABEL_KIMG
    falls = float(given) > 0 if given else kimg >= FALLING_KIMG
    return {
        "generator.condition": "norm" if conditional else "none",
        "discriminator.condition": "projection" if conditional else "none",
        "augment.policy": POLICY if kimg * 1000 / inputs.samples > PLAIN_PASSES else "[]",
        "ema.half_life_kimg": f"{min(20.0, max(1.0, kimg * AVERAGE_SHARE)):g}",
        "burn_in.kimg": f"{kimg if falls else 0:g}",
        "burn_in.lr": f"{LAST_RATE if falls else 1:g}",
    }


def choose_measured(source: ShardDataset, asked: Config, options: Mapping[str, str]) -> Choice:
    """Choose for the dataset at `source`, this machine and the time in `asked`. The speed of what
    the table suggests, with the overrides of the command line (`options`), is measured first: the
    learning rates and the average depend on the number of images.

    Raises:
        UserError: as in `choose`, `gather_inputs` and `resolve`.
    """
    inputs = gather_inputs(source, asked, asked.total_kimg if "total_kimg" in options else 0.0)
    if inputs.processes > 1:  # they would measure each other
        return choose(inputs, options)
    measured: list[tuple[AutoRow, AutoInputs]] = []
    for _ in range(2):
        row = _find_row(inputs)
        first = choose(inputs, options)
        config = resolve(first.preset, {**first.options, **options})
        height = config.resolution or source.height
        width = source.width * height // source.height
        shape = replace(source.image_shape, height=height, width=width)
        planned = scale_row(row, replace(inputs, pace=None)).kimg_per_hour
        config = drop_label_conditions(config, source.classes)
        speed, alone = measure_speed(config, shape, ALONE if row.alone else 0.0)
        inputs = replace(inputs, pace=speed / planned, alone=alone)
        measured.append((row, inputs))
        if _find_row(inputs) == row:
            return choose(inputs, options)
    # the time suffices for the larger networks only by the speed of the smaller ones
    row, inputs = min(measured, key=lambda one: AUTO_TABLE.index(one[0]))
    return choose(inputs, options, row)


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


def _find_row(inputs: AutoInputs) -> AutoRow:
    hours = (inputs.hours or inf) * (inputs.pace or 1.0)  # a fast machine does the work of more
    own = [
        row
        for row in AUTO_TABLE
        if row.device == inputs.device
        and row.hours <= min(hours, (inputs.kimg or inf) / row.kimg_per_hour)
    ]
    drawn = [row for row in own if row.for_drawings and inputs.drawn]
    rows = drawn or [row for row in own if not row.for_drawings]
    # rows for larger images than these only cost time, unless their networks are wider
    fitting = [row for row in rows if row.height <= max(SMALL, inputs.height)]
    return (fitting or rows)[-1]


def resolve_first(preset: str, options: Mapping[str, str]) -> Config:
    """Return the configuration with the overrides of the command line, before the data are known:
    for `auto` that of the first preset of the table that has these keys.

    Raises:
        UserError: the preset or a key does not exist, or a value is invalid.
    """
    refused: list[UserError] = []
    for name in REASONS if preset == NAME else (preset,):
        try:
            return resolve(name, options)
        except UserError as error:
            refused.append(error)
    raise refused[0]


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

    asked = resolve_first(NAME, options)
    resolution = asked.resolution if "resolution" in options else 0
    source = open_shard_dataset(location, resolution, asked.data)
    run = find_run(run_name or f"{source.index.name}-{NAME}")
    if run.has_results:
        before = unflatten(read_config(run)["config"], str(run.config))
        chosen = (
            "auto: as chosen when the run was started"
            if before.preset == NAME
            else f"auto: the run was started with --preset {before.preset}, which it keeps"
        )
        return override(before, options), (chosen,)
    choice = choose_measured(source, asked, options)
    config = replace(resolve(choice.preset, {**choice.options, **options}), preset=NAME)
    changed = [key for key, value in choice.options.items() if options.get(key, value) != value]
    first, second, last = choice.explanation
    return config, (
        first,
        second,
        f"{last}; {', '.join(changed)} from the command line" if changed else last,
    )
