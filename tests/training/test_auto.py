"""`--preset auto`: choices from facts, and a run that keeps what was chosen for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import UserError
from training.auto import SIZES, Facts, choose, resolve_auto
from training.fit import parse
from training.resolve import resolve

TINY = {
    "generator.width": "4", "discriminator.width": "4", "generator.z_dim": "8", "batch": "8",
    "device": "cpu",
}  # fmt: skip


def facts(**values: Any) -> Facts:
    known = {"samples": 2000, "height": 256, "labels": 0, "device": "cpu", "hours": 0.75}
    return Facts(**{**known, **values})


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("hours", [0.0, 0.1, 0.75, 5.0, 100.0])
@pytest.mark.parametrize("samples", [16, 2000, 1_000_000])
@pytest.mark.parametrize("height", [16, 64, 512])
def test_every_choice_is_a_configuration_that_says_why(
    device: str, hours: float, samples: int, height: int
) -> None:
    choice = choose(facts(device=device, hours=hours, samples=samples, height=height))
    config = resolve(choice.preset, dict(choice.options))
    assert config.resolution <= height
    assert config.batch <= samples
    assert config.precision == ("fp32" if device == "mps" else "bf16")
    assert len(choice.why) == 3
    assert all(line.startswith("auto: ") and "\n" not in line for line in choice.why)


def test_more_time_makes_larger_networks() -> None:
    widths = [int(choose(facts(hours=hours)).options["generator.width"]) for hours in (0.5, 6)]
    assert widths == [32, 64]
    heights = [choose(facts(hours=hours)).options["resolution"] for hours in (0.5, 6, 24)]
    assert heights == ["64", "64", "128"]
    assert choose(facts(hours=24, height=64)).options["resolution"] == "64"


def test_images_that_are_seen_often_are_augmented() -> None:
    few, many = (choose(facts(samples=samples)) for samples in (500, 500_000))
    assert few.options["augment.ada"] == "bgc"
    assert many.options["augment.ada"] == "[]"
    assert "500 images" in few.why[1]


def test_rows_are_in_order_and_say_what_they_rest_on() -> None:
    for device in ("cpu", "cuda", "mps"):
        rows = [row for row in SIZES if row.device == device]
        assert rows[0].hours == 0
        assert [row.hours for row in rows] == sorted(row.hours for row in rows)
        assert all(row.evidence for row in rows)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="at least 16"):
        choose(facts(samples=10))


def test_hours_is_max_hours() -> None:
    _, options = parse(["--shards", "x", "--preset", "auto", "--hours", "2"])
    assert options == {"max_hours": "2"}


def test_the_command_line_overrules(small_shards: Any) -> None:
    shards = small_shards()
    config, why = resolve_auto(str(shards.manifest), None, {**TINY, "seed": "7"})
    assert (config.preset, config.seed, config.batch) == ("auto", 7, 8)
    assert config.resolution == 16
    assert config.augment.ada == "bgc"
    assert len(why) == 3


def test_a_run_keeps_what_was_chosen(small_shards: Any, tmp_path: Path) -> None:
    """Other hours would be another choice; the run goes on as it was begun."""
    from training import session
    from training.checkpoint import listed

    shards, run = small_shards(), str(tmp_path / "run")
    options = {**TINY, "threads": "1", "total_kimg": "0.05", "max_hours": "0.5"}
    config, _ = resolve_auto(str(shards.manifest), run, options)
    assert session.train(config, str(shards.manifest), run, _now()) == 0
    before = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert before["preset"] == "auto"
    again, why = resolve_auto(
        str(shards.manifest), run, {"total_kimg": "0.1", "max_hours": "3", "device": "cpu"}
    )
    assert why == ("auto: as chosen when the run was begun",)
    assert (again.ema, again.augment) == (config.ema, config.augment)
    assert (again.total_kimg, again.max_hours) == (0.1, 3)
    assert session.train(again, str(shards.manifest), run, _now()) == 0
    assert listed(tmp_path / "run" / "checkpoints")[0].seen == 104


def _now() -> float:
    import time

    return time.monotonic()
