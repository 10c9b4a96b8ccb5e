"""Sizes and conditions of a run that starts from a pickle: those of the networks in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.contract import UserError, count_of, parse_config
from training.config import Config, DataOptions
from training.options.resolve import (
    flatten,
    merge,
    nest_dotted,
    override,
    preset_path,
    read_preset,
    resolve,
    unflatten,
)
from training.pretrained.nvlabs import read_nvlabs_pickle
from training.pretrained.published import (
    KINDS,
    PublishedGenerator,
    describe,
    describe_discriminator,
)
from training.runs import find_run, read_config
from training.streaming.dataset import open_shard_dataset

Table = dict[str, Any]


def resolve_from_pickle(
    location: str, run_name: str | None, start: str, preset: str | None, options: Mapping[str, str]
) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration of a run that starts from the pickle `start`, and what was taken
    from the file.

    The layers are: defaults < preset (None: that of the file's architecture) < file < command line
    (`options`). A run that has checkpoints keeps its configuration, without the file.

    Raises:
        UserError: as in `resolve`; the file cannot be used, or an option contradicts it.
    """
    if recorded := _recorded(location, run_name, preset, options):
        return recorded, ()
    published = read_nvlabs_pickle(Path(start))
    found = describe(published)
    name = preset or found.kind.preset
    plain = parse_config(Config, read_preset(preset_path(name)), name)
    if plain.generator.name != found.options.name:
        raise UserError(
            f"init_from: {start} contains networks of {found.kind.title}, but the generator of "
            f"preset {name} is {plain.generator.name}; use --preset {found.kind.preset}"
        )
    sections = _sections(found)
    discriminator = describe_discriminator(published, found)
    if plain.discriminator.name == discriminator["name"]:
        sections["discriminator"] = discriminator
    of_file = parse_config(Config, merge(asdict(plain), sections), start)
    given = override(of_file, options)
    _refuse_conflicts(start, found, list(_keys(sections)), flatten(of_file), flatten(given))
    config = resolve(name, options, sections)
    return config, (_sentence(start, name, found, config),)


def _recorded(
    location: str, run_name: str | None, preset: str | None, options: Mapping[str, str]
) -> Config | None:
    """Return the configuration of the run, with the overrides, if it has checkpoints."""
    names = [run_name] if run_name else _default_names(location, preset, options)
    for run in map(find_run, names):
        if run.has_results:
            before = unflatten(read_config(run)["config"], str(run.config))
            return override(before, options)
    return None


def _default_names(location: str, preset: str | None, options: Mapping[str, str]) -> Iterator[str]:
    """Return the names that the run may have without `--run`."""
    data = parse_config(DataOptions, nest_dotted(options).get("data", {}), "command line: data")
    try:
        name = open_shard_dataset(location, 0, data).index.name
    except UserError:
        return  # reported when the run is prepared, with the size of the images
    for one in [preset] if preset else [kind.preset for kind in KINDS]:
        yield f"{name}-{Path(one).stem}"


def _sections(found: PublishedGenerator) -> Table:
    """Return the sections of the configuration that the generator determines."""
    sections: Table = {
        "resolution": found.shape.height,
        "generator": found.table,
        "data": {"channels": found.shape.channels},
    }
    return sections | ({"labels": "required"} if found.shape.classes else {})


def _keys(sections: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of sections."""
    for key, value in sections.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _refuse_conflicts(
    start: str, found: PublishedGenerator, keys: list[str], wanted: Table, given: Table
) -> None:
    """Raise if the command line has another value for a key that the file determines.

    `resolution` may differ: layers of the sizes that both have get their weights.
    """
    for key in keys:
        is_free = key in ("labels", "resolution") or key.split(".")[-1] in found.kind.adjustable
        if not is_free and given.get(key) != wanted[key]:
            raise UserError(
                f"{key}: {given.get(key)} on the command line, but {wanted[key]} in {start}; "
                f"leave out --{key}, which the file determines"
            )


def _sentence(start: str, preset: str, found: PublishedGenerator, config: Config) -> str:
    """Return what was taken from the file."""
    shape, options = found.shape, config.generator
    labels = count_of(shape.classes, "label") if shape.classes else "no labels"
    names = ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max")
    sizes = (f"{name} {getattr(options, name)}" for name in names if hasattr(options, name))
    other = ""
    if config.resolution != shape.height:
        other = f"; this run has {config.resolution} px: only layers of sizes in both are used"
    return (
        f"{start}: {found.kind.title} of {shape.width}×{shape.height} px, "
        f"{count_of(shape.channels, 'channel')}, {labels}, {', '.join(sizes)} (preset {preset})"
        f"{other}"
    )
