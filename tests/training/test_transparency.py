"""Transparency in training: compositing, augmentation, frozen networks, decoding, files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.imaging.alpha import OPAQUE, over, premultiply
from training.augmentation import Augmentation, diffaugment
from training.augmentation.transforms import POLICIES, transform
from training.extractor import load_extractor
from training.grid import encode, on_background, save_image, shown
from training.image_shape import ImageShape
from training.latent.neighbours import as_images, choose_embedding
from training.latent.projection import choose_distance
from training.metrics.feature_networks import load_lite0
from training.metrics.feature_networks import on_background as seen_over
from training.networks import build_discriminator
from training.networks.frozen import frozen_features, perceptual_distance
from training.options.algorithm import AugmentOptions
from training.options.efficient import ProjectedDiscriminator
from training.streaming.decode import decode_any, decode_fitted, decode_into
from training.transparency import composite, fill, join_alpha, split_alpha

CPU = torch.device("cpu")


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight(count: int = 4, side: int = 32) -> np.ndarray:
    """Straight RGBA: a coloured square with a soft edge; outside, colours that nobody must see."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 4), np.uint8)
    alpha = np.zeros((side, side), np.uint8)
    alpha[8:24, 8:24], alpha[9:23, 9:23] = 100, OPAQUE
    pixels[..., 3] = alpha
    return pixels


def images(count: int = 4, side: int = 32) -> Tensor:
    return as_images(premultiply(straight(count, side)))


def test_the_composite_is_that_of_the_pixels() -> None:
    pixels = premultiply(straight())
    found = composite(as_images(pixels), torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1))
    wanted = as_images(over(pixels, (255, 0, 51)))
    torch.testing.assert_close(found, wanted, atol=2 / 255, rtol=0)
    assert composite(wanted, 0.0) is wanted


def test_colours_and_alpha_are_split_and_joined() -> None:
    colours, alpha = split_alpha(images())
    torch.testing.assert_close(join_alpha(colours, alpha), images())
    plain = torch.from_numpy(straight()).permute(0, 3, 1, 2).float()
    wanted = (plain[:, :3] / 127.5 - 1) * plain[:, 3:] / 255
    torch.testing.assert_close(colours, wanted, atol=1.1 / 255, rtol=0)


def test_blank_is_transparent_in_rgba_and_gray_in_colour() -> None:
    keep = torch.zeros(4, 1, 32, 32)
    assert bool((fill(images(), keep) == -1).all())
    assert not fill(images()[:, :3], keep).any()


# Augmentation


@pytest.mark.parametrize("name", ["brightness", "contrast", "lumaflip", "hue", "saturation"])
def test_adaptive_colour_transforms_leave_alpha_alone(name: str) -> None:
    before = images()
    after = transform(before, frozenset({name}), 1.0, random(), random(1))
    assert torch.equal(after[:, 3], before[:, 3])
    assert not torch.allclose(after[:, :3], before[:, :3])
    assert torch.equal(after[:, :, 0, 0], torch.full((4, 4), -1.0))  # still nothing to see


def test_colour_transforms_of_opaque_images_are_those_of_colour() -> None:
    colour = torch.rand(6, 3, 16, 16, generator=random()) * 2 - 1
    opaque = torch.cat([colour, torch.ones(6, 1, 16, 16)], dim=1)
    for chosen in (frozenset(POLICIES["color"]), frozenset({"noise"})):
        with_alpha = transform(opaque, chosen, 1.0, random(), random(1))
        if "noise" not in chosen:  # its numbers are drawn for every channel
            without = transform(colour, chosen, 1.0, random(), random(1))
            torch.testing.assert_close(with_alpha[:, :3], without, atol=1e-5, rtol=1e-5)
        assert torch.equal(with_alpha[:, 3], opaque[:, 3])
    found, wanted = (diffaugment.augment(one, ["color"], random()) for one in (opaque, colour))
    torch.testing.assert_close(found[:, :3], wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[:, 3], opaque[:, 3])


def test_diffaugment_changes_visible_colours_only() -> None:
    before = images()
    after = diffaugment.augment(before, ["color"], random())
    torch.testing.assert_close(after[:, 3], before[:, 3])
    hidden = before[:, 3] == -1
    assert float((after[:, :3] + 1).abs().amax(dim=1)[hidden].max()) < 1e-6
    assert not torch.allclose(after[:, :3], before[:, :3])


@pytest.mark.parametrize("policy", ["translation", "cutout"])
def test_diffaugment_moves_alpha_with_the_colours_and_fills_with_nothing(policy: str) -> None:
    before = images()
    before[:, :3] = before[:, 3:]  # white: colours are alpha
    after = diffaugment.augment(before, [policy], random(5))
    assert torch.equal(after[:, :3], after[:, 3:].expand(-1, 3, -1, -1))
    assert not torch.equal(after, before)
    assert bool((after[:, 3].amin(dim=(1, 2)) == -1).all())
    assert float(after.abs().max()) <= 1


def test_warping_leaves_no_halo() -> None:
    """Colours beside the edge stay those of the object, because they are premultiplied."""
    pixels = straight(8)
    pixels[..., :3] = np.where(pixels[..., 3:] > 0, (200, 90, 20), (0, 255, 0))
    moved = transform(
        as_images(premultiply(pixels)), frozenset(POLICIES["bg"]), 1.0, random(), random(2)
    )
    colours, alpha = (moved[:, :3] + 1) / 2, (moved[:, 3:] + 1) / 2
    seen = (alpha > 0.1).expand(-1, 3, -1, -1)
    wanted = (alpha * (torch.tensor([200, 90, 20]) / 255).view(1, 3, 1, 1))[seen]
    torch.testing.assert_close(colours[seen], wanted, atol=0.02, rtol=0)


def test_all_transforms_are_differentiable_in_alpha() -> None:
    made = Augmentation(AugmentOptions(policy=("color", "translation", "cutout"), ada="bgcfnc"))
    made.seed(0)
    before = images().requires_grad_()
    made(before, 0.8, random()).square().sum().backward()
    assert before.grad is not None
    assert bool(before.grad[:, 3].any())
    assert bool(before.grad.isfinite().all())


# Frozen networks


@pytest.mark.parametrize("colour", [0.0, 0.5, 1.0])
def test_alpha_gets_a_gradient_through_frozen_features_whatever_the_colour(colour: float) -> None:
    """A black object over a black background has none: the backgrounds must vary."""
    torch.manual_seed(0)
    alpha = torch.full((4, 1, 64, 64), 0.5, requires_grad=True)
    rgba = torch.cat([2 * colour * alpha - 1] * 3 + [2 * alpha - 1], dim=1)
    assert rgba.shape[1] == 4
    sum(maps.square().mean() for maps in frozen_features(rgba)).backward()  # type: ignore[union-attr]
    assert alpha.grad is not None
    assert bool((alpha.grad.abs().amax(dim=(1, 2, 3)) > 1e-9).all())

    fixed = torch.full((4, 3, 1, 1), colour)
    alpha.grad = None
    rgba = torch.cat([2 * colour * alpha - 1] * 3 + [2 * alpha - 1], dim=1)
    maps = frozen_features(rgba, backgrounds=fixed)
    sum(one.square().mean() for one in maps).backward()  # type: ignore[union-attr]
    assert float(alpha.grad.abs().max()) < 1e-9


def test_the_projected_discriminator_trains_alpha() -> None:
    torch.manual_seed(0)
    shape = ImageShape(64, 64, 4)
    d = build_discriminator(ProjectedDiscriminator(width=8, size=64), shape)
    rgba = images(4, 64).requires_grad_()
    d(rgba, torch.zeros(4, dtype=torch.int64)).logits.sum().backward()
    assert rgba.grad is not None
    assert bool(rgba.grad[:, 3].any())


def test_a_reconstruction_is_compared_over_the_same_background() -> None:
    torch.manual_seed(0)
    assert float(perceptual_distance(images(4, 64), images(4, 64))) < 1e-6


def test_metrics_see_the_stated_background() -> None:
    pixels = torch.from_numpy(premultiply(straight(4, 64))).permute(0, 3, 1, 2)
    plain = load_lite0(CPU)
    network = seen_over(plain, 4, "#3366ff")
    flat = torch.from_numpy(over(premultiply(straight(4, 64)), (0x33, 0x66, 0xFF)))
    assert np.array_equal(network.features(pixels), plain.features(flat.permute(0, 3, 1, 2)))
    assert network.identity != seen_over(plain, 4, "#ffffff").identity
    assert seen_over(plain, 3, "#ffffff") is plain


def test_projection_tells_a_hole_from_an_object_of_the_background() -> None:
    distance = choose_distance("features", CPU)
    hole = images(1, 64)
    white = hole.clone()
    white[:, :, 30:40, 30:40] = 1.0
    hole[:, :, 30:40, 30:40] = -1.0
    assert float(distance(hole, hole)) < 1e-6
    assert float(distance(hole, white)) > 1e-3
    extractor = load_extractor(CPU)
    over_white = [composite(one, 1.0) for one in (hole, white)]
    assert float(extractor.distance(*over_white)) < 1e-6
    assert choose_embedding("features", CPU)(hole).shape == (1, 1280)


# Decoding


def saved(pixels: np.ndarray, form: str, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form, **(
        {"lossless": True, "exact": True} if form == "WEBP" else {}
    ))  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_samples_are_decoded_to_premultiplied_colours(form: str) -> None:
    pixels, out = straight()[0], np.empty((32, 32, 4), np.uint8)
    data = saved(pixels, form)
    decode_into(out, data, form.lower(), (32, 32))
    assert np.array_equal(out, premultiply(pixels))
    decode_any(out, data, form.lower(), (32, 32))
    assert np.array_equal(out, premultiply(pixels))

    half, colour = np.empty((16, 16, 4), np.uint8), np.empty((32, 32, 3), np.uint8)
    decode_into(half, data, form.lower(), (32, 32))
    wanted = premultiply(pixels).reshape(16, 2, 16, 2, 4).mean((1, 3))
    assert np.abs(half - wanted).max() <= 1
    decode_fitted(half, data, form.lower(), "stretch")
    assert (half[..., :3] <= half[..., 3:].astype(int) + 1).all()
    decode_into(colour, data, form.lower(), (32, 32))
    assert np.abs(colour.astype(int) - over(premultiply(pixels), (255, 255, 255))).max() <= 1


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("JPEG", "RGB")])
def test_images_without_alpha_are_opaque(form: str, mode: str) -> None:
    data = saved(straight()[0][..., :3], form, mode)
    out = np.empty((32, 32, 4), np.uint8)
    extension = {"JPEG": "jpg"}.get(form, form.lower())
    for decode in (decode_into, decode_any):
        decode(out, data, extension, (32, 32))
        assert (out[..., 3] == OPAQUE).all()
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.abs(out[..., :3].astype(int) - wanted).max() <= 1


# Files


def test_images_are_written_with_straight_alpha(tmp_path: Path) -> None:
    pixels = premultiply(straight()[0])
    for name in ("a.png", "a.jpg"):
        save_image(tmp_path / name, pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
        assert np.abs(premultiply(np.asarray(image)).astype(int) - pixels).max() <= 1
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "RGB"
        assert min(image.getpixel((0, 0))) > 240  # JPEG spreads the noise of the edge
    assert on_background(pixels, "#00ff00")[0, 0].tolist() == [0, 255, 0]
    assert shown(pixels).shape == (32, 32, 3)
    assert Image.open(io.BytesIO(encode(pixels, "WEBP"))).mode == "RGBA"
