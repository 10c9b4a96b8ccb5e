"""Pickles of StyleGAN3: their images are those of a reference written from the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.contract import UserError
from tests.helpers.fake_nvlabs import write_pickle
from tests.helpers.stylegan3_reference import reference_image
from training.latent.projection import Schedule, pixel_distance, project
from training.networks import ImageShape, build_discriminator, build_generator
from training.options.architectures import StyleGan2Discriminator
from training.options.styled import StyleGan3Generator
from training.pretrained.adoption import resolve_from_pickle
from training.pretrained.finetune import WeightMismatch, load_initial_weights
from training.pretrained.inference import load_generator
from training.pretrained.nvlabs import read_nvlabs_pickle
from training.pretrained.published import describe
from training.state import new_state

CPU = torch.device("cpu")
SIDE, LAYERS, MARGIN = 16, 5, 4


def arguments(rotates: bool) -> dict[str, Any]:
    """Those of the published synthesis, with its names; R's channels are already doubled."""
    factor = 2 if rotates else 1
    return {
        "w_dim": 5, "img_resolution": SIDE, "img_channels": 3, "num_layers": LAYERS,
        "num_critical": 2, "margin_size": MARGIN, "output_scale": 0.25, "num_fp16_res": 4,
        "channel_base": 24 * factor, "channel_max": 5 * factor, "magnitude_ema_beta": 0.9989,
        **({"conv_kernel": 1, "use_radial_filters": True} if rotates else {}),
    }  # fmt: skip


def networks(rotates: bool, classes: int) -> dict[str, Any]:
    """Tensors by their published names."""
    torch.manual_seed(1)
    options = StyleGan3Generator(
        z_dim=6, w_dim=5, channel_base=24, channel_max=5, layers=LAYERS, margin=MARGIN,
        condition="embedding" if classes else "none",
        equivariance="rotation" if rotates else "translation",
    )  # fmt: skip
    shape = ImageShape(SIDE, SIDE, 3, classes)
    discriminator = StyleGan2Discriminator(
        channel_base=64, channel_max=8, condition="projection" if classes else "none"
    )
    found: dict[str, Any] = {
        "D": dict(build_discriminator(discriminator, shape).state_dict()),
        "G_ema": dict(build_generator(options, shape).state_dict()),
    }
    for name, value in found["G_ema"].items():
        if name.endswith("magnitude_ema"):
            value.copy_(torch.rand(()) + 0.5)
        elif name.endswith("bias") or "input.affine" in name or name == "mapping.w_avg":
            value += torch.randn_like(value) * 0.3
    last = f"synthesis.L{LAYERS}_{SIDE}_3"
    found["G_ema"] |= {f"{last}.up_filter": None, f"{last}.down_filter": None}
    found["G"] = found["G_ema"]
    return found


def write(
    path: Path, rotates: bool = False, classes: int = 0, without: str = "", **changed: Any
) -> Path:
    given = {name: one for name, one in networks(rotates, classes).items() if name != without}
    attributes = {
        "": {"conv_clamp": 256, "bias_gain": 0.01, "in_cutoff": np.float64(2), "size": np.ones(2)},
        "synthesis": arguments(rotates) | changed,
        "mapping": {"w_avg_beta": 0.998, "num_ws": LAYERS + 2},
        "b4.mbstd": {"group_size": 4},
    }
    write_pickle(path, given, 4, attributes)
    return path


def test_names_are_the_published_ones() -> None:
    ends = ["affine.bias", "affine.weight", "bias", "down_filter", "magnitude_ema", "up_filter"]
    inputs = ["affine.bias", "affine.weight", "freqs", "phases", "transform", "weight"]
    sizes = ["24_5", "24_4", "24_2", "24_2", "16_2", "16_3"]
    assert networks(False, 0)["G_ema"].keys() == {
        *(f"synthesis.input.{name}" for name in inputs),
        *(f"synthesis.L{n}_{size}.{end}" for n, size in enumerate(sizes) for end in ends),
        *(f"synthesis.L{n}_{size}.weight" for n, size in enumerate(sizes)),
        *(f"mapping.fc{n}.{part}" for n in range(2) for part in ("weight", "bias")),
        "mapping.w_avg",
    }  # fmt: skip


@pytest.mark.parametrize(("rotates", "classes"), [(False, 3), (True, 0)])
def test_images_are_those_of_the_reference(tmp_path: Path, rotates: bool, classes: int) -> None:
    path = write(tmp_path / "net.pkl", rotates, classes)
    trained = load_generator(str(path), CPU)
    assert trained.shape == ImageShape(SIDE, SIDE, 3, classes)
    weights = {
        name: value.double().numpy()
        for name, value in networks(rotates, classes)["G_ema"].items()
        if value is not None
    }
    latents, labels = torch.randn(2, 6), torch.tensor([1, 0])
    for psi, cutoff in ((1.0, None), (0.5, None), (0.7, 3)):
        found = trained.generator(latents, labels, psi, cutoff)
        for number in range(2):
            label = np.eye(3)[int(labels[number])] if classes else None
            wanted = reference_image(
                weights, arguments(rotates), latents[number].double().numpy(), label, psi, cutoff
            )
            assert wanted.std() > 0.01
            np.testing.assert_allclose(found[number].numpy(), wanted, atol=2e-5)


def test_a_file_is_sampled_and_projected_into(tmp_path: Path) -> None:
    trained = load_generator(str(write(tmp_path / "net.pkl")), CPU)
    space, label = trained.space, torch.zeros(1, dtype=torch.int64)
    ws = space.map(torch.randn(1, 6), label)
    assert ws.shape == (1, LAYERS + 2, 5)
    target = space.synthesize(ws, label)
    found = project(space, target, pixel_distance, label, Schedule(30), False)
    assert found.distance < found.initial_distance
    halfway = space.truncate(ws, 0.5)
    torch.testing.assert_close(space.generate(halfway, label), space.generate(halfway, label))


@pytest.mark.parametrize("without", ["", "D"])
def test_a_training_begins_with_a_file(tmp_path: Path, without: str) -> None:
    path = str(write(tmp_path / "net.pkl", rotates=True, without=without))
    config, said = resolve_from_pickle("no shards", "new", path, None, {})
    assert config.preset == "stylegan3-r-512"
    assert config.resolution == SIDE
    generator = config.generator
    assert isinstance(generator, StyleGan3Generator)
    assert (generator.equivariance, generator.channel_base, generator.channel_max) == (
        "rotation", 24, 5
    )  # fmt: skip
    assert "StyleGAN3 of 16×16 px" in said[0]
    if not without:
        state = new_state(config, ImageShape(SIDE, SIDE, 3), CPU)
        assert load_initial_weights(state, path, CPU) == WeightMismatch((), ())
        with pytest.raises(UserError, match=r"^generator\.layers: 7 on the command line, but 5"):
            resolve_from_pickle("no shards", "new", path, None, {"generator.layers": "7"})


@pytest.mark.parametrize("changed", [
    {"first_stopband": 9.0}, {"num_layers": 6}, {"margin_size": 5}, {"filter_size": 4},
    {"lrelu_upsampling": 4}, {"num_layers": "x"},
])  # fmt: skip
def test_a_file_with_other_layers_or_filters_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Its images would be others."""
    path = write(tmp_path / "net.pkl", **changed)
    with pytest.raises(UserError, match=r"G_ema does not have the structure of StyleGAN3's"):
        describe(read_nvlabs_pickle(path))
