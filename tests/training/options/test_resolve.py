"""The layers of a configuration, and what a mistake in one of them says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.errors import UserError
from training.config import MAY_CHANGE_ON_RESUME, Config
from training.fit import main, parse
from training.options.efficient import FastganGenerator
from training.options.resolve import (
    check_resumable,
    flatten,
    may_change_on_resume,
    preset_names,
    resolve,
    unflatten,
)


def written(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_defaults_then_preset_then_command_line(tmp_path: Path) -> None:
    preset = written(tmp_path, "batch = 48\nseed = 7\n[loss]\nname = 'hinge'\nr1 = 2.0\n")
    config = resolve(preset, {"seed": "9", "loss.r1": "0.5", "data.window": "2"})
    assert config.total_kimg == Config().total_kimg  # a default
    assert (config.batch, config.loss.name) == (48, "hinge")  # from the preset
    assert (config.seed, config.loss.r1, config.data.window) == (9, 0.5, 2)  # from the command
    assert config.data.mirror is Config().data.mirror


def test_a_preset_extends_another_and_shows_only_its_own_choices(tmp_path: Path) -> None:
    (tmp_path / "middle.toml").write_text(
        "extends = 'dcgan64'\nbatch = 48\n[about]\nsource = 'here'\n[loss]\nr1 = 2.0\n"
    )
    config = resolve(written(tmp_path, "extends = 'middle.toml'\n[loss]\nname = 'hinge'\n"), {})
    parent = resolve("dcgan64", {})
    assert (config.batch, config.loss.r1, config.loss.name) == (48, 2.0, "hinge")
    assert config.generator == parent.generator
    assert config.d_optimizer == parent.d_optimizer
    assert config.about.source == ""  # what a parent says of itself is not inherited


def test_a_network_of_another_kind_inherits_nothing_from_the_parents_one(tmp_path: Path) -> None:
    text = "extends = 'dcgan64'\n[generator]\nname = 'fastgan'\n"
    config = resolve(written(tmp_path, text), {})
    assert config.generator == FastganGenerator()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends = 'own.toml'", "presets extend each other"),
        ("extends = 'nonsense'", "extends: preset nonsense: not found"),
        ("extends = 3", "extends: must be the name"),
    ],
)
def test_a_preset_that_extends_nothing_usable_is_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=said) as caught:
        resolve(path, {})
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("batsch = 3", "batsch: unknown key"),
        ("[data]\nwindows = 3", "data.windows: unknown key"),
        ("batch = 0", "batch: "),
        ("batch = 'many'", "batch: "),
        ("total_kimg = inf", "total_kimg: "),
        ("[g_optimizer]\nbeta1 = 1", "g_optimizer.beta1: "),
        ("[loss]\nname = 'best'", "loss.name: "),
        ("batch = ", "not TOML"),
    ],
)
def test_a_mistake_in_a_preset_is_one_line_naming_file_and_key(
    tmp_path: Path, text: str, key: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        resolve(path, {})
    said = str(caught.value)
    assert said.startswith(path)
    assert key in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bach", "3"], "command line: bach: unknown key"),
        (["--data.window", "none"], "command line: data.window: "),
        (["--preset", "r3gan64", "--generator.widths", "16"], "widths: not a list; write [16]"),
        (["--augment.policy", "colour"], "augment.policy: "),
        (["--batch"], ""),
        (["--batch", "3", "loose"], "loose: not an option"),
        (["--data.window"], "--data.window: a value is missing"),
        (["--preset", "nonsense"], "preset nonsense: not found"),
        (["--seed.deep", "1", "--seed", "1"], "seed"),
        (["--shards", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_on_the_command_line_is_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        status: object = main(["--shards", str(tmp_path / "none"), *arguments])
    except SystemExit as error:  # what argparse does
        status = error.code
    err = capsys.readouterr().err
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_options_may_be_written_with_equals_signs_and_lists() -> None:
    _, options = parse(["--shards", "x", "--augment.policy=color,cutout", "--total-kimg=3"])
    config = resolve("dcgan64", options)
    assert config.augment.policy == ("color", "cutout")
    assert resolve("dcgan64", {"augment.policy": "color"}).augment.policy == ("color",)
    assert config.total_kimg == 3


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_resolves_and_survives_its_flat_form(name: str) -> None:
    config = resolve(name, {})
    assert config.about.source
    assert unflatten(flatten(config), "here") == config


def test_free_keys_exist_and_the_others_may_not_change(tmp_path: Path) -> None:
    names = set(flatten(Config())) | set(asdict(Config()))
    assert names >= MAY_CHANGE_ON_RESUME
    before = flatten(resolve("dcgan64", {}))
    where = tmp_path / "config.json"
    more = {"total_kimg": "20000", "record.keep": "9", "max_hours": "1", "data.cache_gb": "1"}
    check_resumable(before, resolve("dcgan64", more), where)
    for name, value in {"g_optimizer.lr": "0.1", "seed": "1", "data.window": "9"}.items():
        assert not may_change_on_resume(name)
        with pytest.raises(UserError, match=f"config.json: {name} is .* in the run"):
            check_resumable(before, resolve("dcgan64", {name: value}), where)
