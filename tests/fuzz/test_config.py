"""Any configuration of a run: from a preset, the command line or `config.json`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.contract import UserError, write_json
from training.config import Config
from training.fit import parse
from training.options.resolve import flatten, resolve, unflatten
from training.runs import Run, read_config

KEYS = sorted(flatten(Config()))
DATASET = {
    "channels": 3, "digest": "d", "height": 16, "labels": [], "location": "", "name": "small",
    "samples": 3, "width": 16,
}  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(["generator", "data", "", ".", "a.b.c", "generator.name", "batch.x", "loss."]),
    st.text("abz._-0 é", max_size=12),
)
WORDS = st.one_of(
    st.sampled_from([
        "nan", "inf", "-inf", "1e30", "1e400", "-1", "0", "", " ", "١٢", "²", "1_000", "0x10",
        "9" * 5000, "[" * 2000, "[1, [2]]", "{a = 1}", "8\n[batch]", "true", "'x'", '"""', "a,b",
        "stylegan2", "\ud83d", "1979-05-27", "../../x",
    ]),
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.sampled_from(["dcgan64", "stylegan2-64", "shells64"]), st.dictionaries(NAMES, WORDS))
@example("dcgan64", {"batch": "9" * 5000})
@example("dcgan64", {"data.window": "[" * 100_000})
@example("dcgan64", {"generator": "5", "generator.width": "3"})
@example("dcgan64", {"generator.width": "3", "generator": "5"})
@example("dcgan64", {"batch": "8\nseed = 3"})
def test_the_command_line_gives_a_configuration_or_one_line(
    preset: str, options: dict[str, str]
) -> None:
    try:
        config = resolve(preset, options)
    except UserError:
        return
    assert unflatten(flatten(config), "x") == config
    json.dumps(flatten(config), allow_nan=False)


@given(st.lists(st.one_of(WORDS, NAMES.map(lambda name: f"--{name}")), max_size=6))
def test_any_words_are_options_or_refused(words: list[str]) -> None:
    try:
        known, options = parse(["--shards", "x", *words])
        resolve("dcgan64", options)
    except (UserError, SystemExit):
        return
    assert known.shards


@given(st.one_of(st.text(max_size=40), st.binary(max_size=40)))
@example("[" * 100_000)
@example("a = " + "9" * 5000)
@example(b"\xff\xfe")
def test_any_preset_is_read_or_refused(text: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.toml"
        path.write_bytes(text.encode("utf-8", "replace") if isinstance(text, str) else text)
        try:
            resolve(str(path), {})
        except UserError as error:
            said = str(error)
        else:
            said = str(path)
        assert said.startswith(str(path))


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(st.sampled_from(sorted(DATASET)), VALUES),
       st.one_of(st.integers(), VALUES))  # fmt: skip
@example({"generator": 5, "generator.width": 3}, {}, 0)
@example({}, {"samples": 10**400}, 10**400)
def test_any_config_of_a_run_is_read_or_refused(
    config: dict[str, Any], dataset: dict[str, Any], seen: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        write_json(run.config, {"config": config, "dataset": DATASET | dataset, "seen": seen})
        try:
            described = read_config(run)
            unflatten(described["config"], str(run.config))
            f"{described['seen'] / 1000:g} {described['dataset']['samples']:,}"
        except UserError as error:
            assert str(error).startswith(str(run.config))  # noqa: PT017


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "NaN", "\ufeff{}", "null"])
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError):
        read_config(Run(tmp_path))
