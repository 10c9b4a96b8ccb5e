"""Every kind of StyleGAN2 pickle gives the images and logits of a reference written from the
papers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from tests.helpers import nvlabs_reference as reference
from tests.helpers.fake_nvlabs import write_pickle
from training.networks import build_discriminator
from training.options.architectures import AnyDiscriminatorOptions
from training.pretrained.inference import load_generator
from training.pretrained.nvlabs import read_nvlabs_pickle
from training.pretrained.published import describe, describe_discriminator

CPU = torch.device("cpu")
KINDS = {
    "skip": reference.Spec(),
    "resnet": reference.Spec(architecture="resnet", d_architecture="skip"),
    "orig": reference.Spec(architecture="orig", d_architecture="orig"),
    "conditional": reference.Spec(classes=3, d_layers=3, lr_multiplier=0.01),
    "clamped": reference.Spec(architecture="resnet", clamp=0.8, classes=2),
    "no noise": reference.Spec(noise=False, base=77, most=64, layers=1),
    "gray": reference.Spec(channels=1, group=0, group_channels=2, size=32, base=128),
    "no deviations": reference.Spec(group_channels=0, group=8, size=8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_logits_are_those_of_the_reference(tmp_path: Path, kind: str) -> None:
    spec, path = KINDS[kind], tmp_path / "net.pkl"
    shapes = {
        "G_ema": reference.generator_shapes(spec),
        "D": reference.discriminator_shapes(spec, frozen=kind == "clamped"),
    }
    write_pickle(path, shapes, attributes=reference.attributes(spec))
    published = read_nvlabs_pickle(path)
    torch.manual_seed(0)
    latents = torch.randn(8, spec.z_dim)
    labels = torch.arange(8) % max(1, spec.classes)
    trained = load_generator(str(path), CPU)
    for psi in (1.0, 0.6):
        images = trained.generator(latents, labels, truncation_psi=psi)
        expected = reference.generate(published.weights("G_ema"), spec, latents, labels, psi)
        torch.testing.assert_close(images.double(), expected, rtol=1e-3, atol=1e-3)
    if spec.clamp:  # else the limit would not be tested
        free = reference.generate(
            published.weights("G_ema"), replace(spec, clamp=0.0), latents, labels
        )
        assert not torch.allclose(expected, free, atol=0.1)

    found = describe(published)
    table = describe_discriminator(published, found)
    options = TypeAdapter(AnyDiscriminatorOptions).validate_python(table)
    discriminator = build_discriminator(options, found.shape)
    discriminator.load_state_dict(published.weights("D"))
    inputs = torch.randn(8, spec.channels, spec.size, spec.size)
    answers = discriminator(inputs, labels).logits
    wanted = reference.logits(published.weights("D"), spec, inputs, labels)
    torch.testing.assert_close(answers.double(), wanted, rtol=1e-3, atol=1e-3)
