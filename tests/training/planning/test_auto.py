"""`--preset auto`: choices from facts, and a run that keeps what was chosen for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.contract import UserError
from training import fit
from training.callbacks import EndReason
from training.networks import DISCRIMINATORS, GENERATORS, ImageShape
from training.networks.sizes import doublings
from training.optimizer import set_learning_rate
from training.options.resolve import drop_label_conditions, resolve
from training.planning.advice import speed_remark
from training.planning.auto import choose, choose_measured, resolve_auto
from training.planning.auto_table import AUTO_TABLE, DRAWN, PROJECTED
from training.planning.inputs import (
    AutoInputs,
    explained_by_clusters,
    explained_by_labels,
    flat_fraction,
    measure_speed,
    plain_border_fraction,
    smooth_fraction,
)
from training.planning.inputs import gather_inputs as look
from training.streaming.dataset import open_shard_dataset

TINY = {
    "generator.width": "4", "discriminator.width": "8", "discriminator.pixel_width": "4",
    "discriminator.size": "32", "generator.z_dim": "8", "batch": "8", "device": "cpu",
}  # fmt: skip


DRAWINGS = {"labels": 10, "plain": 1.0, "smooth": 0.5, "telling": 0.6}


@pytest.fixture(autouse=True)
def timed_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.planning.forecast._TIMED_SECONDS", 0.0)


def facts(**values: Any) -> AutoInputs:
    known = {"samples": 2000, "height": 256, "labels": 0, "plain": 0.4, "device": "cpu"}
    size = {"width": values.get("height", 256), "bf16": values.get("device", "cpu") != "mps"}
    return AutoInputs(**{**known, **size, "hours": 0.75, **values})


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("hours", [0.0, 0.1, 0.75, 5.0, 100.0])
@pytest.mark.parametrize("samples", [16, 2000, 1_000_000])
@pytest.mark.parametrize("height", [16, 64, 512])
@pytest.mark.parametrize("kind", ["", "drawings"])
def test_every_choice_is_a_configuration_that_says_why(
    device: str, hours: float, samples: int, height: int, kind: str
) -> None:
    known = DRAWINGS if kind else {}
    choice = choose(facts(device=device, hours=hours, samples=samples, height=height, **known))
    config = resolve(choice.preset, dict(choice.options))
    assert config.resolution <= height
    assert config.batch <= samples
    assert config.precision == ("fp32" if device == "mps" else "bf16")
    assert len(choice.explanation) == 3
    assert all(line.startswith("auto: ") and "\n" not in line for line in choice.explanation)


def test_more_time_makes_larger_networks() -> None:
    widths = [int(choose(facts(hours=hours)).options["generator.width"]) for hours in (0.5, 6)]
    assert widths == [16, 32]
    heights = [choose(facts(hours=hours)).options["resolution"] for hours in (0.5, 1, 6)]
    assert heights == ["64", "128", "128"]
    small = [choose(facts(hours=hours, height=64)).options for hours in (3, 6, 24)]
    assert [options["resolution"] for options in small] == ["64"] * 3
    assert [options["generator.width"] for options in small] == ["16", "32", "32"]


def test_the_time_ends_a_run_and_its_rates_fall_within_it() -> None:
    options = choose(facts(hours=2)).options
    assert options["burn_in.kimg"] == "270"
    assert float(options["total_kimg"]) > 270  # --hours ends it
    endless = choose(facts(hours=0)).options
    assert endless["burn_in.kimg"] == endless["total_kimg"]


def test_the_batch_grows_with_the_number_of_gpus() -> None:
    one, eight = (choose(facts(device="cuda", processes=count)) for count in (1, 8))
    assert (one.options["batch"], eight.options["batch"]) == ("64", "512")
    rates = [float(choice.options["g_optimizer.lr"]) for choice in (one, eight)]
    assert rates[1] == pytest.approx(rates[0] * 8**0.5, rel=1e-4)
    times = [float(choice.options["burn_in.kimg"]) for choice in (one, eight)]
    assert times[1] == pytest.approx(8 * times[0])
    assert "batch 512 over 8 processes" in eight.explanation[2]


def test_processes_share_a_cpu_but_each_gets_enough_images() -> None:
    two, eight = (choose(facts(processes=count)).options for count in (2, 8))
    assert two == choose(facts()).options
    assert (eight["batch"], eight["burn_in.kimg"]) == ("32", two["burn_in.kimg"])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_process_gets_as_many_of_few_images(device: str) -> None:
    choice = choose(facts(device=device, samples=37, processes=8))
    assert choice.options["batch"] == "32"
    with pytest.raises(UserError, match=r"31 images for 8 processes, .* start at most 7"):
        choose(facts(device=device, samples=31, processes=8))


def test_the_number_of_processes_is_that_of_torchrun(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_shard_dataset(small_shards().manifest, 0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert look(source, resolve(PROJECTED, TINY)).processes == 8


def test_images_that_are_seen_often_are_augmented() -> None:
    few, many = (choose(facts(samples=samples)) for samples in (500, 500_000))
    assert "color" in few.options["augment.policy"]
    assert many.options["augment.policy"] == "[]"
    assert "500 images" in few.explanation[1]


def test_labels_become_conditions_where_each_is_seen_often_enough() -> None:
    short, long, one = (
        choose(facts(labels=labels, hours=hours)) for labels, hours in ((5, 0.75), (5, 5), (1, 5))
    )
    assert short.options["generator.condition"] == one.options["generator.condition"] == "none"
    assert long.options["generator.condition"] == "norm"
    assert long.options["discriminator.condition"] == "projection"
    assert "too short for its 5 labels" in short.explanation[1]
    assert "conditional on its 5 labels" in long.explanation[1]


@pytest.mark.parametrize(
    ("width", "height", "hours", "expected"),
    [
        (128, 96, 0.75, 48),
        (256, 192, 100, 96),
        (96, 128, 0.75, 64),
        (640, 384, 0.75, 48),
        (60, 60, 0.75, 56),
        (100, 100, 0.75, 64),
    ],
)
def test_other_ratios_get_the_largest_size_that_networks_have(
    width: int, height: int, hours: float, expected: int
) -> None:
    options = choose(facts(width=width, height=height, hours=hours)).options
    assert options["resolution"] == str(expected)
    shape = ImageShape(expected, width * expected // height, 3)
    assert doublings(shape) > 1


def test_a_size_that_no_network_has_is_refused() -> None:
    with pytest.raises(UserError, match="no network supports images of 97×64 px"):
        choose(facts(width=97, height=64))


@pytest.mark.parametrize(("device", "precision"), [("cuda", "fp16"), ("cpu", "fp32")])
def test_a_device_without_fast_bf16_gets_another_precision(device: str, precision: str) -> None:
    assert choose(facts(device=device, bf16=False)).options["precision"] == precision


def test_a_run_too_short_for_an_evaluation_does_not_prepare_for_one() -> None:
    assert choose(facts(hours=0.4)).options["evaluate.kimg"] == "0"
    assert choose(facts(hours=0.75)).options["evaluate.kimg"] == "13.5"  # after a tenth
    assert choose(facts(hours=100)).options["evaluate.kimg"] == "100"


def test_uneven_backgrounds_are_named() -> None:
    even, uneven = (choose(facts(plain=plain, hours=8.0)).explanation[1] for plain in (0.9, 0.1))
    assert "90% with a plain border, are seen" in even
    assert "10% with a plain border (the others need more time" in uneven
    drawn = choose(facts(**DRAWINGS | {"labels": 0})).explanation[1]
    assert "100% with a plain border (drawings? labels would help: class_label" in drawn


@pytest.mark.parametrize(
    ("samples", "labels", "ada"),
    [(300, 10, ("xint", "scale")), (300, 0, ("xint", "scale")), (1000, 10, ())],
)
def test_few_drawings_are_augmented(samples: int, labels: int, ada: tuple[str, ...]) -> None:
    known = facts(samples=samples, **DRAWINGS | {"labels": labels, "clustered": 0.7})
    choice = choose(known)
    assert resolve(choice.preset, dict(choice.options)).augment.ada == ada
    said = ": augmented (adaptive: xint, scale) against overfitting; conditional on "
    assert (said in choice.explanation[1]) == bool(ada)


@pytest.mark.parametrize("known", [facts(), facts(samples=300, **DRAWINGS)])
@pytest.mark.parametrize("own", [{"augment.ada": "bgc"}, {"augment.policy": "color"}])
def test_an_augmentation_on_the_command_line_replaces_that_of_auto(
    known: AutoInputs, own: dict[str, str]
) -> None:
    choice = choose(known, own)
    augment = resolve(choice.preset, {**choice.options, **own}).augment
    assert (augment.ada, augment.policy) in (("bgc", ()), ((), ("color",)))


def test_drawings_of_a_few_kinds_get_a_network_that_learns_pixels() -> None:
    drawn = choose(facts(**DRAWINGS))
    config = resolve(drawn.preset, dict(drawn.options))
    assert (drawn.preset, config.generator.name, config.loss.r1) == (DRAWN, "dcgan", 1)
    assert (config.augment.noise, config.burn_in.kimg) == (0.02, 0)
    assert config.total_kimg == 3150
    assert config.discriminator.features_kimg == pytest.approx(0.4 * 0.75 * 850, rel=0.01)
    assert "conditional on its 10 labels; slight noise" in drawn.explanation[1]
    assert speed_remark(config, 10.0, 0, 1e9).startswith(
        "from 255 kimg on, discriminators on frozen"
    )
    assert speed_remark(config, 10.0, 300_000, 1e9) == ""
    assert "features never join; train longer, or lower it" in speed_remark(config, 10.0, 0, 200)
    assert speed_remark(resolve(PROJECTED, {}), 10.0, 0, 0) == ""  # no time for a step
    own = choose(facts(**DRAWINGS), {"discriminator.name": "dcgan"}).options
    assert "discriminator.features_kimg" not in own
    prints = {"plain": 0.0, "smooth": 0.0, "telling": 0.42}
    assert choose(facts(**DRAWINGS | prints)).preset == DRAWN
    for other in ({"telling": 0.11}, {"labels": 0}):  # garments cut out, and no labels
        assert choose(facts(**DRAWINGS | other)).preset == PROJECTED
    presets = [choose(facts(**DRAWINGS, hours=hours)).preset for hours in (0.2, 0.3)]
    assert presets == ["shells64", DRAWN]
    options = [choose(facts(**DRAWINGS, hours=hours)).options for hours in (1, 2, 8)]
    assert [one["resolution"] for one in options] == ["64", "128", "128"]
    for key in ("generator.width", "discriminator.pixel_width"):
        assert [one.get(key) for one in options] == [None, "16", None]  # None: as in the preset


@pytest.mark.parametrize("labels", [0, 10])
def test_a_few_kinds_need_no_labels_that_tell_them_apart(labels: int) -> None:
    few = DRAWINGS | {"labels": labels, "telling": 0.1, "clustered": 0.6}
    choice = choose(facts(**few))
    config = resolve(choice.preset, dict(choice.options))
    assert choice.preset == DRAWN
    assert (config.data.label, config.generator.condition) == ("clusters:16", "norm")
    assert "plain border, are seen" in choice.explanation[1]
    instead = " instead of its 10 labels" if labels else ""
    assert f"conditional on 16 clusters of similar images{instead}; slight" in choice.explanation[1]
    for given in ({"data.label": "none"}, {"generator.condition": "none"}):
        assert "conditional" not in choose(facts(**few), given).explanation[1]
    for other in ({"clustered": 0.5}, {"smooth": 0.0}):  # cut out, and photographs
        assert choose(facts(**few | other)).preset == PROJECTED


@pytest.mark.parametrize("labels", [0, 8])
def test_drawings_of_many_kinds_are_learned_without_conditions(labels: int) -> None:
    many = DRAWINGS | {"labels": labels, "telling": 0.1, "clustered": 0.36, "flat": 0.72}
    choice = choose(facts(**many))
    config = resolve(choice.preset, dict(choice.options))
    assert choice.preset == DRAWN
    assert (config.generator.condition, config.discriminator.condition) == ("none", "none")
    assert not config.data.label
    assert "conditional" not in choice.explanation[1]
    assert ("its labels are not used" in choice.explanation[1]) == (labels > 0)
    for other in ({"flat": 0.08}, {"smooth": 0.0}):  # cut out, and photographs
        assert choose(facts(**many | other)).preset == PROJECTED


def test_days_on_a_gpu_train_what_improves_for_days() -> None:
    choice = choose(facts(device="cuda", hours=48, height=256))
    config = resolve(choice.preset, dict(choice.options))
    assert (choice.preset, config.augment.ada) == ("stylegan2-ada", "bgc")
    assert config.loss.r1 == pytest.approx(2e-4 * 256**2 / 32, rel=1e-2)  # Karras et al. 2020a
    assert config.burn_in.kimg == 0
    assert choose(facts(device="cuda", hours=12, height=256)).preset == PROJECTED


def test_labels_explain_what_differs_between_their_images() -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 1, 32, 32, generator=random)
    labels = np.arange(200) % 4
    shift = torch.tensor(labels)[:, None, None, None] * 1.0  # variance 1.25, the noise's is 1
    assert explained_by_labels(noise + shift, labels) == pytest.approx(1.25 / 2.25, abs=0.02)
    many = np.arange(200) % 100
    assert explained_by_labels(noise, many) < 0.02  # η² would be 0.5
    assert explained_by_labels(noise, np.arange(200)) == 0
    assert explained_by_labels(torch.zeros(4, 1, 8, 8), np.array([0, 0, 1, 1])) == 0
    equal = torch.rand(1, 3, 96, 96, generator=random).expand(99, -1, -1, -1) * 255
    assert explained_by_labels(equal, np.arange(99) % 3) == 0  # not the rounding errors


def test_clusters_explain_what_differs_between_kinds() -> None:
    random = torch.Generator().manual_seed(0)
    kinds = torch.randn(5, 3, 32, 32, generator=random) * 20 + 128
    images = kinds[torch.randint(5, (256,), generator=random)]
    noise = torch.randn(256, 3, 32, 32, generator=random) * 20
    assert explained_by_clusters(images) == pytest.approx(1)
    assert explained_by_clusters(images + noise) == pytest.approx(
        0.8 / 1.8, abs=0.05
    )  # five kinds: 4/5
    assert explained_by_clusters(noise + 128) < 0.01
    assert explained_by_clusters(images[:1].expand(256, -1, -1, -1)) == 0
    assert explained_by_clusters(images[:127]) == 0


def test_a_plain_border_is_one_whose_pixels_are_alike() -> None:
    random = torch.Generator().manual_seed(0)
    varied = torch.randint(0, 256, (3, 3, 32, 32), generator=random, dtype=torch.uint8)
    plain = torch.randint(180, 200, (5, 3, 32, 32), generator=random, dtype=torch.uint8)
    plain[:, :, 4:-4, 4:-4] = varied[0, :, 4:-4, 4:-4]  # what is in the middle counts for nothing
    assert plain_border_fraction(torch.cat([varied, plain])) == 5 / 8


def test_images_without_noise_get_slight_noise() -> None:
    drawn, photographs = (choose(facts(smooth=smooth)) for smooth in (0.5, 0.02))
    assert drawn.options["augment.noise"] == "0.02"
    assert "slight noise" in drawn.explanation[1]
    assert photographs.options["augment.noise"] == "0"
    assert "slight noise" not in photographs.explanation[1]


def test_smooth_pixels_are_like_those_around_them() -> None:
    drawn = torch.full((2, 3, 34, 34), 200, dtype=torch.uint8)
    drawn[:, :, :, 17:] = 90  # an edge: two columns of 3×3 surroundings contain both sides
    assert smooth_fraction(drawn) == pytest.approx(30 / 32)
    noise = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0)) * 3
    assert smooth_fraction((drawn + noise).byte()) < 0.01


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_flat_surfaces_are_those_of_objects(size: int, channels: int) -> None:
    random = torch.Generator().manual_seed(0)
    quarter = size // 4
    inside = (..., slice(quarter, -quarter), slice(quarter, -quarter))
    images = torch.full((5, channels, size, size), 255, dtype=torch.uint8)
    assert flat_fraction(images) == 0  # no objects
    images[inside] = torch.randint(
        60, 120, images[inside].shape, generator=random, dtype=torch.uint8
    )
    assert flat_fraction(images) == 0  # noise, on a flat background
    images[0][inside] = 90
    images[1][..., quarter : 2 * quarter, quarter:-quarter] = 90  # half of the object
    assert flat_fraction(images) == pytest.approx(2 / 5)
    images[0][inside] = images[1][inside] = 2  # black; so are dark parts of photographs
    assert flat_fraction(images) == 0


@pytest.mark.parametrize("measure", [smooth_fraction, flat_fraction])
def test_images_of_a_few_pixels_have_no_surroundings(measure: Callable[[Tensor], float]) -> None:
    assert measure(torch.zeros((2, 3, 2, 9), dtype=torch.uint8)) == 0


def test_rows_are_in_order_and_say_what_they_rest_on() -> None:
    for device in ("cpu", "cuda", "mps"):
        for drawn in (False, True) if device == "cpu" else (False,):
            rows = [one for one in AUTO_TABLE if (one.device, one.for_drawings) == (device, drawn)]
            assert rows[0].hours == 0
            assert [row.hours for row in rows] == sorted(row.hours for row in rows)
            assert all(row.evidence for row in rows)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match="at least 16"):
        choose(facts(samples=10))


def test_hours_is_max_hours() -> None:
    _, options = fit.parse(["--shards", "x", "--preset", "auto", "--hours", "2"])
    assert options == {"max_hours": "2"}


def test_the_command_line_overrules(small_shards: Any) -> None:
    shards = small_shards()
    config, why = resolve_auto(str(shards.manifest), None, {**TINY, "seed": "7"})
    assert (config.preset, config.seed, config.batch) == ("auto", 7, 8)
    assert config.resolution == 16
    assert config.augment.policy == ("color", "translation", "cutout")
    assert len(why) == 3
    assert why[2].endswith("; batch, generator.width, discriminator.size from the command line")


@pytest.mark.parametrize(("labelled", "expected"), [(100, 2), (90, 0)])
def test_labels_that_some_images_lack_are_no_conditions(
    small_shards: Any, labelled: int, expected: int
) -> None:
    shards = small_shards(labels=("cone", "whelk"), labelled=labelled)
    asked = resolve(PROJECTED, {"device": "cpu", "max_hours": "5"})
    found = look(open_shard_dataset(str(shards.manifest), 0), asked)
    assert (found.labels, found.some_unlabelled) == (expected, labelled < 100)
    said = choose(found).explanation[1]
    assert ("its labels are not used, as some images have none" in said) == (labelled < 100)


def test_labels_are_counted_over_all_samples(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image without a label beyond those that are looked at, and numbers with gaps."""
    source = open_shard_dataset(str(small_shards(labels=("a", "b")).manifest), 0)
    asked = resolve(PROJECTED, {"device": "cpu"})
    rare = np.zeros(source.index.nsamples, dtype=np.int32)
    rare[-1] = 5
    assert look(replace(source, labels=rare), asked).labels == 2
    rare[-1] = -1
    assert look(replace(source, labels=rare), asked).labels == 0
    monkeypatch.setattr("training.streaming.samples.iter_image_batches", lambda *_: iter(()))
    with pytest.raises(UserError, match="no image can be read"):
        look(source, asked)


@pytest.mark.parametrize(
    "kind",
    [
        {"hours": 0.75}, {"hours": 100.0, "labels": 10, "samples": 100}, {"hours": 0.2, **DRAWINGS},
        DRAWINGS, {**DRAWINGS, "labels": 0, "clustered": 0.9},
        {**DRAWINGS, "labels": 0, "flat": 0.9},
    ],
    ids=["photographs", "labelled", "shortly", "drawings", "clusters", "many-kinds"],
)  # fmt: skip
def test_other_networks_get_no_options_of_the_preset_s_own(kind: dict[str, Any]) -> None:
    """What the preset allows, the choice for it allows too."""
    allowed = 0
    for generator in (None, *GENERATORS):
        for discriminator in (None, *DISCRIMINATORS):
            names = {"generator.name": generator, "discriminator.name": discriminator}
            given = {key: name for key, name in names.items() if name}
            choice = choose(facts(**kind), given)
            try:
                resolve(choice.preset, given)
            except UserError:
                continue
            resolve(choice.preset, {**choice.options, **given})
            allowed += 1
    assert allowed > 3


def test_the_number_of_images_may_be_given() -> None:
    some = choose(facts(hours=0.0, kimg=120.0, height=64))
    assert (some.options["burn_in.kimg"], some.options["generator.width"]) == ("120", "16")
    assert "in about 40:00, makes about 120 thousand images" in some.explanation[0]
    assert "rates 0.003 falling to 10%:" in some.explanation[2]


@pytest.mark.parametrize("limit", [{"kimg": 90.0, "hours": 0.0}, {"hours": 0.5}], ids=str)
def test_the_rates_of_a_short_run_are_constant(limit: dict[str, float]) -> None:
    few = choose(facts(**limit, height=64))
    config = resolve(few.preset, {**few.options, "max_hours": f"{limit['hours']:g}"})
    config = replace(config, preset="auto")
    optimizer = torch.optim.SGD([torch.zeros(1)], config.g_optimizer.lr)
    set_learning_rate(optimizer, config.g_optimizer, 80_000, config.burn_in)
    assert optimizer.param_groups[0]["lr"] == config.g_optimizer.lr
    assert "rates 0.003:" in few.explanation[2]
    assert config.total_kimg == pytest.approx(90 if limit["hours"] == 0 else 900)
    assert speed_remark(config, 1000.0, 0, 1e9) == ""


@pytest.mark.parametrize(("given", "rate"), [("10", "0.1"), ("0", "1")])
def test_a_short_run_obeys_the_command_line_about_its_rates(given: str, rate: str) -> None:
    few = choose(facts(hours=0.1, height=64), {"burn_in.kimg": given})
    assert few.options["burn_in.lr"] == rate
    resolve(few.preset, {**few.options, "burn_in.kimg": given})


def test_a_plan_has_a_batch_at_least() -> None:
    assert choose(facts(hours=1e-9)).options["total_kimg"] == "0.16"  # a batch at least


def test_the_explanation_is_of_the_values_of_the_command_line() -> None:
    given = {"generator.width": "8", "batch": "4", "augment.noise": "0", "augment.policy": "color"}
    first, second, last = choose(facts(smooth=0.5), given).explanation
    assert "a generator of width 8" in first
    assert "augmented (color) against overfitting" in second
    assert "noise" not in second
    assert "batch 4" in last


def test_options_of_any_preset_of_the_table_are_known(small_shards: Any) -> None:
    """Which one is chosen follows from the images, which are read later."""
    location = str(small_shards().manifest)
    with pytest.raises(UserError, match=r"generator\.kernel"):  # of photographs: from the choice
        resolve_auto(location, None, {"generator.kernel": "4", "device": "cpu"})
    with pytest.raises(UserError, match=r"discriminator\.nothing"):
        resolve_auto(location, None, {"discriminator.nothing": "4"})


def test_a_measured_speed_that_is_not_the_planned_one_is_stated() -> None:
    choice = choose(facts(hours=1, samples=2000, height=64))
    assert "this machine takes 20 s/kimg (a reference figure: 25 s of" in choice.explanation[0]
    config = replace(resolve(PROJECTED, {**choice.options, "max_hours": "1"}), preset="auto")
    assert config.burn_in.kimg == 180
    assert speed_remark(config, 190.0, 0, 1e9) == (
        "auto: 190 s/kimg were measured, 20 were planned; the learning rates fall over 180 kimg, "
        "which take 9:30:00; with --hours 9.5 they would fall to the end"
    )
    assert speed_remark(config, 5.0, 0, 1e9).endswith(
        "which take 15:00; after that, training continues at the last rates"
    )
    for speed in (14.0, 20.0, 29.0):
        assert not speed_remark(config, speed, 0, 1e9)
    assert not speed_remark(config, 190.0, 1000, 1e9)  # the hours may be others than at the start
    assert not speed_remark(replace(config, preset=PROJECTED), 190.0, 0, 1e9)
    given = choose(facts(hours=0.5, kimg=20.0)).options | {"total_kimg": "20", "max_hours": "0.5"}
    assert not speed_remark(replace(resolve(PROJECTED, given), preset="auto"), 190.0, 0, 1e9)
    without = resolve(PROJECTED, dict(choose(facts(hours=0.0)).options))
    assert "20 were planned" not in speed_remark(replace(without, preset="auto"), 190.0, 0, 1e9)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_machine_half_as_fast_plans_half_the_images(device: str) -> None:
    planned, slow = (choose(facts(device=device, hours=5, pace=pace)) for pace in (None, 0.5))
    kimg, fewer = (float(choice.options["burn_in.kimg"]) for choice in (planned, slow))
    assert fewer == pytest.approx(kimg / 2, rel=0.01)
    half_lives = [float(choice.options["ema.half_life_kimg"]) for choice in (planned, slow)]
    assert half_lives[1] <= half_lives[0]
    assert "a reference figure" in planned.explanation[0]
    assert "measured on this machine" in slow.explanation[0]


def test_other_networks_are_measured_again(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the speed of the first networks 4 h are 8 of the table, by that of the larger ones 5.3."""
    speeds = {16: 360.0, 32: 120.0}
    monkeypatch.setattr(
        "training.planning.auto.measure_speed",
        lambda config, *_: (speeds[config.generator.width], 0.0),
    )
    config, why = resolve_auto(str(small_shards().manifest), None, {"max_hours": "4"})
    assert (config.generator.width, config.burn_in.kimg) == (16, 1440)
    assert "measured on this machine" in why[0]


def test_a_fast_machine_gets_the_networks_of_more_hours() -> None:
    widths = [choose(facts(hours=3.5, pace=p)).options["generator.width"] for p in (1.0, 2.0)]
    assert widths == ["16", "32"]


def test_the_speed_of_both_parts_of_a_run_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 s a thousand images of pixels alone, 12 s after frozen features have joined."""
    joined = 0.008
    config = resolve(DRAWN, {"discriminator.features_kimg": str(joined), "total_kimg": "0.02"})

    class Timed:
        def __init__(self, _config: Any, state: Any, _device: Any) -> None:
            self.state = state

        def __call__(self, _batches: Any) -> int:
            return int(self.state.seen)

    def seconds(step: Callable[[], int], *_: Any) -> float:
        return 12.0 if step() >= 1000 * joined else 2.0

    monkeypatch.setattr("training.planning.inputs.Step", Timed)
    monkeypatch.setattr("training.planning.inputs.time_steps", seconds)
    config = drop_label_conditions(config, 0)
    shape = ImageShape(64, 64, 3)
    assert measure_speed(config, shape, 0.4) == pytest.approx((900, 0.8))  # 720 alone, 180 joined
    assert measure_speed(config, shape, 0) == (300, 0)


def test_the_plan_is_of_the_speed_of_the_chosen_size(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the speed of 128 px there is not enough time for it, at that of 64 px there is."""
    speeds, inputs = {128: 60.0, 64: 100.0}, facts(hours=2)
    monkeypatch.setattr("training.planning.auto.gather_inputs", lambda *_: inputs)
    monkeypatch.setattr(
        "training.planning.auto.measure_speed", lambda _, shape, *__: (speeds[shape.height], 0.0)
    )
    source = replace(open_shard_dataset(small_shards().manifest, 0), height=256, width=256)
    choice = choose_measured(source, resolve(PROJECTED, {}), {})
    assert (choice.options["resolution"], choice.options["burn_in.kimg"]) == ("64", "200")


@pytest.mark.parametrize("pace", [None, 0.3, 2.0])
@pytest.mark.parametrize("at_least", [row.hours for row in AUTO_TABLE if row.alone])
def test_frozen_features_join_after_the_same_part_of_the_time(
    at_least: float, pace: float | None
) -> None:
    (row,) = [one for one in AUTO_TABLE if one.alone and one.hours == at_least]
    hours = at_least / (pace or 1)
    options = choose(facts(**DRAWINGS, hours=hours, pace=pace)).options
    join, planned = float(options["discriminator.features_kimg"]), float(options["total_kimg"]) / 10
    assert planned == pytest.approx(at_least * row.kimg_per_hour, rel=0.01)
    first, then = (float(found) for found in re.findall(r"([\d.]+) s\b", row.evidence))
    assert join == pytest.approx(planned * (0.4 / first) / (0.4 / first + 0.6 / then), rel=0.02)
    assert 0.6 * planned < join < 0.85 * planned


def test_the_choice_measures_the_speed_of_both_parts(
    small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    inputs = facts(**DRAWINGS, hours=1)
    monkeypatch.setattr("training.planning.auto.gather_inputs", lambda *_: inputs)
    monkeypatch.setattr(
        "training.planning.auto.measure_speed",
        lambda *found: shares.append(found[2]) or (500.0, 0.72),
    )
    source = open_shard_dataset(small_shards().manifest, 0)
    choice = choose_measured(source, resolve(PROJECTED, {}), {})
    assert choice.preset == DRAWN
    assert shares == [0.4]
    assert choice.options["discriminator.features_kimg"] == "360"  # 0.4 h of the hour


@pytest.mark.parametrize("processes", [1, 2])
def test_the_speed_is_measured_where_one_process_trains(
    processes: int, small_shards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.planning.auto.measure_speed", lambda *_: (60.0, 0.0))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    config, why = resolve_auto(str(small_shards().manifest), None, {**TINY, "max_hours": "2"})
    assert config.burn_in.kimg == (120 if processes == 1 else 360)
    assert ("at 60 s/kimg, measured on this machine" in why[0]) == (processes == 1)


@pytest.mark.slow
def test_the_forecast_of_auto_states_the_measured_speed(
    small_shards: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    words = ["--shards", str(small_shards().manifest), "--preset", "auto", "--hours", "10"]
    # any machine is faster than this plan
    assert fit.main([*words, *tiny, "--burn_in.kimg", "0.001", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "s/kimg were measured, 3.6e+07 were planned; the learning rates fall over 0.001" in said


@pytest.mark.parametrize("amx", [True, False])
def test_a_cpu_takes_bf16_where_it_has_units_for_it(
    amx: bool, small_shards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    manifest = str(small_shards().manifest)
    asked = resolve(PROJECTED, {"device": "cpu", "max_hours": "5"})
    assert look(open_shard_dataset(manifest, 0), asked).bf16 == amx
    # a preset with bf16 trains with it, and says what is faster
    monkeypatch.chdir(tmp_path)
    tiny = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    words = ["--shards", manifest, "--preset", PROJECTED, *tiny, "--resolution", "16", "--dry-run"]
    assert fit.main(words) == 0
    assert ("--precision fp32 is faster" in capsys.readouterr().out) != amx


@pytest.mark.slow
def test_a_run_keeps_what_was_chosen(small_shards: Any, tmp_path: Path) -> None:
    """Other hours would be another choice; the run goes on as it was begun."""
    from training import session
    from training.checkpoint import list_checkpoints

    shards, run = small_shards(), str(tmp_path / "run")
    options = {**TINY, "threads": "1", "total_kimg": "0.05", "max_hours": "0.5"}
    config, _ = resolve_auto(str(shards.manifest), run, options)
    assert session.train(config, str(shards.manifest), run).reason is EndReason.DONE
    before = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert before["preset"] == "auto"
    again, why = resolve_auto(
        str(shards.manifest), run, {"total_kimg": "0.1", "max_hours": "3", "device": "cpu"}
    )
    assert why == ("auto: as chosen when the run was started",)
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"preset": "auto"', '"preset": "projected64"'))
    _, said = resolve_auto(str(shards.manifest), run, {"device": "cpu"})
    assert said == ("auto: the run was started with --preset projected64, which it keeps",)
    path.write_text(path.read_text().replace('"preset": "projected64"', '"preset": "auto"'))
    assert (again.ema, again.augment) == (config.ema, config.augment)
    assert (again.total_kimg, again.max_hours) == (0.1, 3)
    assert session.train(again, str(shards.manifest), run).reason is EndReason.DONE
    assert list_checkpoints(tmp_path / "run" / "checkpoints")[0].seen == 104
