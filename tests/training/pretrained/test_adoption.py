"""A run that starts from a pickle has the sizes and conditions of the networks in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.fake_nvlabs import write_pickle
from tests.helpers.small_shards import SmallShards
from training.config import Config
from training.fit import main
from training.networks import ImageShape, build_discriminator, build_generator
from training.options.architectures import StyleGan2Discriminator, StyleGan2Generator
from training.options.resolve import pickle_to_start_from
from training.pretrained.adoption import resolve_from_pickle
from training.runs import find_run, read_config
from training.streaming.dataset import open_shard_dataset

SIZES = {"channel_base": 96, "channel_max": 12, "conv_clamp": 256}
SHORT = (
    "--total-kimg", "0.016", "--batch", "8", "--threads", "1", "--precision", "fp32",
    "--device", "cpu", "--record.grid", "4", "--evaluate.kimg", "0",
)  # fmt: skip


def tensors(network: torch.nn.Module) -> dict[str, Any]:
    named = {name: [list(value.shape), "parameter"] for name, value in network.named_parameters()}
    return named | {name: [list(value.shape), "buffer"] for name, value in network.named_buffers()}


def write(path: Path, classes: int = 0, parts: tuple[str, ...] = ("G", "D", "G_ema")) -> Path:
    """A pickle of networks for 16 px with sizes of no preset."""
    shape = ImageShape(16, 16, 3, classes)
    generator = StyleGan2Generator(
        z_dim=20, w_dim=24, mapping_layers=3, condition="embedding" if classes else "none",
        architecture="resnet", **SIZES,
    )  # fmt: skip
    discriminator = StyleGan2Discriminator(
        condition="projection" if classes else "none", mbstd_channels=2, architecture="skip",
        mapping_layers=2, **SIZES,
    )  # fmt: skip
    made = {
        "G": tensors(build_generator(generator, shape)),
        "D": tensors(build_discriminator(discriminator, shape)),
    }
    made["G_ema"] = made["G"]
    attributes = {"b4.mbstd": {"group_size": 8}, "mapping": {"w_avg_beta": 0.998}}
    write_pickle(path, {name: made[name] for name in parts}, attributes=attributes)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(shards: SmallShards, *options: str) -> int:
    return main(["--shards", str(shards.manifest), *SHORT, *options])


def used(run: str) -> dict[str, Any]:
    config: dict[str, Any] = read_config(find_run(run))["config"]
    return config


@pytest.mark.slow
def test_sizes_and_conditions_come_from_the_file(
    here: Path, small_shards: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(here / "net.pkl", 2)
    shards = small_shards(labels=("cone", "whelk"))
    assert fit(shards, "--init-from", str(path), "--dry-run") == 0
    out = capfd.readouterr().out
    assert "net.pkl: StyleGAN2 of 16×16 px, 3 channels, 2 labels, z_dim 20, w_dim 24" in out
    assert "(preset stylegan2-ada)" in out
    assert fit(shards, "--init-from", str(path)) == 0
    out = capfd.readouterr().out
    assert f"initial weights loaded from {path}\n" in out  # nothing is missing or unused
    config = used(f"{shards.name}-stylegan2-ada")
    expected = {
        "resolution": 16, "data.channels": 3, "labels": "required", "generator.z_dim": 20,
        "generator.w_dim": 24, "generator.mapping_layers": 3, "generator.condition": "embedding",
        "generator.channel_base": 96, "generator.channel_max": 12, "generator.conv_clamp": 256,
        "generator.architecture": "resnet", "generator.mapping_lr_multiplier": 0.02,
        "generator.w_avg_beta": 0.998, "discriminator.condition": "projection",
        "discriminator.architecture": "skip", "discriminator.mbstd_channels": 2,
        "discriminator.mbstd_group_size": 8, "discriminator.mapping_layers": 2,
        "discriminator.channel_base": 96, "discriminator.channel_max": 12,
    }  # fmt: skip
    assert {key: config[key] for key in expected} == expected
    path.unlink()  # a run that has checkpoints does not need the file again
    assert fit(shards, "--init-from", str(path), "--total-kimg", "0.032") == 0
    assert "resuming at 0.016 kimg" in capfd.readouterr().out


@pytest.mark.slow
def test_a_file_with_the_average_only_gives_the_discriminator_its_sizes(
    here: Path, small_shards: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(here / "net.pkl", parts=("G_ema",))
    shards = small_shards()
    start = ("--init-from", str(path), "--preset", "stylegan2-64-economical", "--run", "one")
    assert fit(shards, *start) == 0
    assert f"loaded from {path}; missing in it: discriminator\n" in capfd.readouterr().out
    config = used("one")
    assert (config["discriminator.channel_base"], config["discriminator.channel_max"]) == (96, 12)
    assert (config["generator.resample"], config["discriminator.resample"]) == ("filter",) * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--generator.z_dim", "64"), "generator.z_dim: 64 on the command line, but 20 in "),
        (("--data.channels", "1"), "data.channels: 1 on the command line, but 3 in "),
        (("--discriminator.architecture", "orig"), "discriminator.architecture: orig on the"),
        (("--generator.name", "dcgan"), "generator.name: dcgan on the command line"),
        (("--preset", "dcgan64"), "the generator of preset dcgan64 is dcgan; use --preset styleg"),
        (("--generator.condition", "embedding"), "generator.condition: embedding on the command"),
    ],
)
def test_a_value_that_contradicts_the_file_is_one_line(
    here: Path,
    small_shards: Callable[..., Any],
    capfd: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    path = write(here / "net.pkl")
    assert fit(small_shards(), "--init-from", str(path), *options) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def adopt(shards: SmallShards, **options: str) -> tuple[Config, str]:
    config, why = resolve_from_pickle(str(shards.manifest), None, "net.pkl", None, options)
    return config, "".join(why)


def test_equal_and_adjustable_values_are_accepted(
    here: Path, small_shards: Callable[..., Any]
) -> None:
    write(here / "net.pkl")
    config, _ = adopt(
        small_shards(), **{"generator.z_dim": "20", "discriminator.mbstd_group_size": "4"}
    )
    assert config.discriminator.mbstd_group_size == 4  # type: ignore[union-attr]


@pytest.mark.slow
def test_shards_of_another_size(
    here: Path, small_shards: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Larger ones are reduced, smaller ones are refused with the fix, which works."""
    path = write(here / "net.pkl")
    larger, smaller = small_shards(size=32, name="larger"), small_shards(size=8, name="smaller")
    config, _ = adopt(larger)
    assert open_shard_dataset(str(larger.manifest), config.resolution, config.data).height == 16
    assert fit(smaller, "--init-from", str(path), "--dry-run") == 2
    captured = capfd.readouterr()
    assert "StyleGAN2 of 16×16 px" in captured.out
    assert "8×8 px" in captured.err
    assert "--data.fit crop" in captured.err
    config, _ = adopt(smaller, **{"data.fit": "crop"})
    assert open_shard_dataset(str(smaller.manifest), config.resolution, config.data).height == 16
    assert fit(smaller, "--init-from", str(path), "--resolution", "8") == 0
    out = capfd.readouterr().out
    assert "this run has 8 px: only layers of sizes in both are used" in out
    assert "not used:" in out


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"not a pickle"])
def test_a_damaged_file_is_one_line(
    here: Path, small_shards: Callable[..., Any], capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    (here / "net.pkl").write_bytes(content)
    assert fit(small_shards(), "--init-from", "net.pkl", "--dry-run") == 2
    error = capfd.readouterr().err
    assert error.startswith("error: net.pkl: ")
    assert error.count("\n") == 1


def test_a_discriminator_of_another_structure_is_one_line(
    here: Path, small_shards: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    generator = StyleGan2Generator(z_dim=8, w_dim=8, mapping_layers=1, **SIZES)
    made = tensors(build_generator(generator, ImageShape(8, 8, 3)))
    other = {"b8.conv.weight": [[3, 3], "parameter"]}
    write_pickle(here / "net.pkl", {"G_ema": made, "D": other})
    assert fit(small_shards(size=8), "--init-from", "net.pkl", "--dry-run") == 2
    assert "D does not have the structure of StyleGAN2's disc" in capfd.readouterr().err
    write_pickle(here / "net.pkl", {"G_ema": made}, attributes={"": {"activation": "swish"}})
    assert fit(small_shards(size=8, name="b"), "--init-from", "net.pkl", "--dry-run") == 2
    assert "G_ema does not have the structure" in capfd.readouterr().err


def test_a_preset_may_name_the_file(here: Path, small_shards: Callable[..., Any]) -> None:
    write(here / "net.pkl")
    (here / "mine.toml").write_text('extends = "stylegan2-ada"\ninit_from = "net.pkl"\n')
    start = pickle_to_start_from("mine.toml", {})
    assert start == "net.pkl"
    config, _ = resolve_from_pickle(
        str(small_shards().manifest), None, start, "mine.toml", {"seed": "3"}
    )
    assert (config.preset, config.seed, config.generator.z_dim) == ("mine.toml", 3, 20)
