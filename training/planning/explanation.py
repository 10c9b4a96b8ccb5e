"""The three lines in which `--preset auto` explains what it chose."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.contract import count_of, format_duration
from training.config import count_clusters
from training.planning.auto_table import REASONS, AutoRow
from training.planning.inputs import PLAIN, AutoInputs


def explain(
    inputs: AutoInputs, row: AutoRow, kimg: float, options: Mapping[str, str]
) -> tuple[str, str, str]:
    """Explain a choice in three lines: time and networks; images; preset and rates.

    `row` is scaled to all processes, `kimg` the thousand images that are planned, and `options` the
    overrides by dotted key, with those of the command line.
    """
    height, passes = int(options["resolution"]) or inputs.height, kimg * 1000 / inputs.samples
    hours = (
        count_of(inputs.hours, "hour")
        if inputs.hours
        else f"about {format_duration(3600 * kimg / row.kimg_per_hour)}"
        if inputs.kimg
        else "a day (no --hours were given)"
    )
    scaled = f" of {inputs.height}" if height < inputs.height else ""
    width = options.get("generator.width")
    networks = f"a generator of width {width}" if width else f"the networks of {row.preset}"
    took = f"{3600 / row.kimg_per_hour:.3g} s/kimg"
    speed = (
        f"at {took}, measured on this machine"
        if inputs.pace
        else f"if this machine takes {took} (a reference figure: {row.evidence})"
    )
    has_noise = float(options["augment.noise"]) > 0
    noise = (
        "; slight noise on all" + ", as they have none" * inputs.without_noise if has_noise else ""
    )
    shared = f" over {inputs.processes} processes" if inputs.processes > 1 else ""
    falls = float(options.get("burn_in.kimg", 0)) > 0
    falling = f" falling to {float(options.get('burn_in.lr', 1)):.0%}" if falls else ""
    return (
        f"auto: {inputs.device}, in {hours}, makes about {kimg:g} thousand images of "
        f"{height}{scaled} px with {networks}, {speed}",
        f"auto: {inputs.samples} images, {inputs.plain:.0%} with a plain border{_advice(inputs)}, "
        f"are seen about {passes:.0f} times each{_what_is_used(inputs, row, options)}{noise}",
        f"auto: preset {row.preset}, batch {options['batch']}{shared}, rates {row.lr:.3g}{falling}:"
        f" {REASONS[row.preset]}",
    )


def _advice(inputs: AutoInputs) -> str:
    if inputs.plain < PLAIN:
        return " (the others need more time; a recipe can make them uniform)"
    unlabelled = not inputs.labels and not inputs.some_unlabelled
    if inputs.without_noise and unlabelled and not inputs.few_kinds:
        return " (drawings? labels would help: class_label = 0 in the recipe uses those of folders)"
    return ""


def _words(text: str) -> str:
    """Return the words of a list on the command line, such as `["a", "b"]`, with commas."""
    return text.strip("[]").replace('"', "").replace(" ", "").replace(",", ", ")


def _what_is_used(inputs: AutoInputs, row: AutoRow, options: Mapping[str, str]) -> str:
    """Return what is said about augmentation and labels."""
    used, ada = _words(options.get("augment.policy", "")), _words(options.get("augment.ada", ""))
    used = f"adaptive: {ada}" if ada else used
    augmented = f"augmented ({used}) against overfitting" if used else "no augmentation is needed"
    if row.for_drawings:
        start = f": {augmented}" if used else ""
        clusters = count_clusters(options.get("data.label", ""))
        if options.get("generator.condition") == "none" or not (clusters or inputs.labels_tell):
            return start + ("; its labels are not used" if inputs.labels > 1 else "")
        instead = f" instead of its {inputs.labels} labels" if inputs.labels else ""
        labels = (
            f"{clusters} clusters of similar images{instead}"
            if clusters
            else f"its {inputs.labels} labels"
        )
        return f"{start}; conditional on {labels}"
    if not row.scheduled:
        return ""
    if options["generator.condition"] != "none":
        return f": {augmented}; conditional on its {inputs.labels} labels"
    if inputs.labels > 1:
        return f": {augmented}; too short for its {inputs.labels} labels, which are not used"
    unused = "; its labels are not used, as some images have none"
    return f": {augmented}{unused if inputs.some_unlabelled else ''}"
