"""The layers of a configuration: defaults < preset < command line; and the rules for resuming a
run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.contract import UserError, parse_config, read_toml, suggestion
from training.config import MAY_CHANGE_ON_RESUME, Config
from training.options.validation import check_compatible

Table = dict[str, Any]
PRESETS = Path(str(files("training") / "presets"))
DEFAULT_PRESET = "dcgan64"


def preset_names() -> list[str]:
    """Return the names of the included presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def preset_path(name: str, folder: Path | None = None) -> Path:
    """Return the file of preset `name`: an included preset, or a path that ends in .toml, relative
    to `folder` (default: the current one).

    Raises:
        UserError: there is no such preset.
    """
    path = (folder or Path()) / name if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"preset {name}: not found; choose from {', '.join(preset_names())}"
            f"{suggestion(path.stem, preset_names())}"
        )
    return path


def read_preset(path: Path, children: tuple[Path, ...] = ()) -> Table:
    """Return the sections of a preset, on top of those of the preset named by its key `extends`.

    Raises:
        UserError: a file is missing or is not TOML, or presets extend each other in a cycle.
    """
    if path.resolve() in children:
        raise UserError(
            f"{children[0]}: extends: presets extend each other in a cycle; remove one `extends`"
        )
    own = read_toml(path)
    parent = own.pop("extends", "")
    if not parent:
        return own
    if not isinstance(parent, str):
        raise UserError(
            f"{path}: extends: must be the name of a preset or a path that ends in .toml"
        )
    try:
        below = preset_path(parent, path.parent)
    except UserError as error:
        raise UserError(f"{path}: extends: {error}") from None
    inherited = read_preset(below, (*children, path.resolve()))
    inherited.pop("about", None)  # the parent's description of itself
    return merge(inherited, own)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Merge the keys of `over` into `base`, section by section.

    A section with another `name` is another kind: the keys of `base` for the old kind are dropped.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            other_kind = key in ("generator", "discriminator", "method") and (
                value.get("name", below.get("name")) != below.get("name")
            )
            merged[key] = dict(value) if other_kind else merge(below, value)
        else:
            merged[key] = value
    return merged


def nest_dotted(options: Mapping[str, str]) -> Table:
    """Convert dotted names to sections: `{"data.memory_gb": "1"}` → `{"data": {"memory_gb": 1}}`.

    A value is parsed as TOML; otherwise it is a string, and `a,b` a list of strings.
    """
    sections: Table = {}
    for name, text in options.items():
        section = sections
        *path, last = name.split(".")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"--{name}: {part} is not a section")
        section[last] = _value(text)
    return sections


def _value(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.split(",") if "," in text else text
    return values["value"] if values.keys() == {"value"} else text  # otherwise it could add lines


def resolve(
    preset: str, options: Mapping[str, str], between: Mapping[str, Any] | None = None
) -> Config:
    """Return the configuration of `preset` with the overrides of the command line (`options`, by
    dotted key).

    Sections `between` are above the preset and below the command line.

    Raises:
        UserError: an unknown preset or key, or a value out of range; the message names it.
    """
    path = preset_path(preset)
    sections = merge({"preset": preset}, read_preset(path))
    parse_config(Config, sections, str(path))
    sections = merge(sections, between or {})
    config = parse_config(Config, merge(sections, nest_dotted(options)), "command line")
    check_compatible(config)
    return config


def override(config: Config, options: Mapping[str, str]) -> Config:
    """Return a configuration with the overrides of the command line, by dotted key; whether they
    go together is not checked.

    Raises:
        UserError: an unknown key, or a value out of range; the message names it.
    """
    return parse_config(Config, merge(asdict(config), nest_dotted(options)), "command line")


def pickle_to_start_from(preset: str | None, options: Mapping[str, str]) -> str:
    """Return the pickle that `init_from` names on the command line or in the preset; empty: none.

    Raises:
        UserError: there is no such preset.
    """
    start = options.get("init_from", "")
    if not start and preset:
        start = str(read_preset(preset_path(preset)).get("init_from", ""))
    return start if start.endswith(".pkl") else ""


def drop_label_conditions(config: Config, classes: int) -> Config:
    """Return `config` without its conditions on labels, if it allows that and there are no
    labels."""
    if classes or config.labels == "required":
        return config
    return replace(
        config,
        generator=replace_known(config.generator, condition="none"),
        discriminator=replace_known(
            config.discriminator, condition="none", classifier=False, semi_supervised=False
        ),
        data=replace(config.data, labelled=0),
    )


def replace_known(options: Any, **values: Any) -> Any:
    """Return the options with those of `values` whose keys they have."""
    known = {one.name for one in fields(options)}
    return replace(options, **{key: value for key, value in values.items() if key in known})


def flatten(config: Config) -> dict[str, Any]:
    """Return every key of `config` by its dotted name, with JSON values."""
    return dict(_flatten("", asdict(config)))


def _flatten(prefix: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def may_change_on_resume(name: str) -> bool:
    """Return True if the key `name` may change when a run is resumed."""
    return name in MAY_CHANGE_ON_RESUME or name.split(".")[0] in MAY_CHANGE_ON_RESUME


def check_resumable(before: Mapping[str, Any], config: Config, where: Path) -> None:
    """Raise if a run with the flat configuration `before` cannot be resumed with another one.

    Raises:
        UserError: a key that affects the result differs; the message names it and both values.
    """
    if not before.get("threads"):  # it was not given and may have changed, so it can be given now
        before = {**before, "threads": config.threads}
    for name, value in flatten(config).items():
        if (
            not may_change_on_resume(name)
            and name != "preset"
            and name in before
            and before[name] != value
        ):
            raise UserError(
                f"{where}: {name} is {before[name]!r} in the run, {value!r} in the command; use "
                "the same value or a new --run"
            )


def unflatten(values: Mapping[str, Any], where: str) -> Config:
    """Return the configuration for a flat dictionary `values`.

    Raises:
        UserError: a key is unknown or a value invalid; the message names `where`.
    """
    sections: Table = {}
    for name, value in values.items():
        section = sections
        *path, last = name.split(".")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"{where}: {name}: {part} is not a section")
        section[last] = value
    return parse_config(Config, sections, where)
