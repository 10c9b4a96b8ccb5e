"""CycleGAN against closed forms: its networks, its losses, its batches, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.contract import UserError
from tests.helpers.small_shards import SmallShards, number_of
from tests.helpers.training_runs import fit_here, metrics
from tests.training.methods.test_further_networks import configuration
from training import project, sample, translate, walk
from training.config import Config
from training.machine.distributed import SINGLE_PROCESS
from training.methods.cyclegan import CycleganLoss
from training.networks import ImageShape, build_discriminator, build_generator
from training.networks.base import DiscriminatorOutput
from training.networks.further import FurtherNetwork
from training.networks.pairs import TwoDiscriminators
from training.networks.patchgan import receptive_field
from training.options.resolve import resolve
from training.options.translation import PatchganDiscriminator, TranslatorGenerator
from training.pair_loader import PairLoader
from training.planning.forecast import count_parameters
from training.pretrained.inference import load_generator
from training.state import new_state
from training.streaming.dataset import open_training_sets
from training.translation import DIRECTIONS, there_and_back

CPU, SHAPE = torch.device("cpu"), ImageShape(16, 16, 3)
ZEROS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("generator", "millions"),
    [({"blocks": 9}, 11.378), ({"blocks": 6}, 7.838), ({"upsample": "nearest"}, 11.378)],
)
def test_generators_have_the_published_parameters(
    generator: dict[str, Any], millions: float
) -> None:
    with torch.device("meta"):
        made = build_generator(TranslatorGenerator(**generator), ImageShape(256, 256, 3))
    assert count_parameters(made) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_the_discriminator_has_the_published_parameters() -> None:
    with torch.device("meta"):
        made = build_discriminator(PatchganDiscriminator(), ImageShape(256, 256, 3))
    assert count_parameters(made) / 1e6 == pytest.approx(2.765, abs=5e-4)


@pytest.mark.parametrize(("layers", "side"), [(3, 70), (2, 34), (1, 16)])
def test_a_logit_sees_a_patch_of_this_size(layers: int, side: int) -> None:
    options = PatchganDiscriminator(width=2, layers=layers, norm="none", init="default")
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    made = build_discriminator(options, ImageShape(128, 128, 3))
    logits = made(images, ZEROS[:1]).logits
    edge = int(logits.shape[1] ** 0.5)
    (gradient,) = torch.autograd.grad(logits[0, edge * (edge // 2) + edge // 2], images)
    rows = gradient[0].abs().sum(dim=(0, 2)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == side == receptive_field(layers)


@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_translations_have_the_shape_and_range_of_images(upsample: Any) -> None:
    made = build_generator(
        TranslatorGenerator(width=4, blocks=1, upsample=upsample), ImageShape(16, 24, 3)
    )
    images = made(torch.randn(2, 3, 16, 24), ZEROS[:2])
    assert images.shape == (2, 3, 16, 24)
    assert images.abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 12)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(UserError, match=f"^resolution: {width}×{height} px is not supported"):
        build_generator(TranslatorGenerator(width=4), ImageShape(height, width, 3))
    with pytest.raises(UserError, match=r"^discriminator\.layers: 3 halvings"):
        build_discriminator(PatchganDiscriminator(), ImageShape(height, width, 3))


# The losses


class Shifted(nn.Module):
    """Adds a number to images."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, images: Tensor, _labels: Tensor) -> Tensor:
        return images + self.by


class Constant(nn.Module):
    """Gives each of two patches the same logit."""

    joint_batch = False

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def accepts_interleaved(self, _count: int) -> bool:
        return True

    def forward(self, images: Tensor, _labels: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.new_full((len(images), 2), self.logit), images)


def losses_of(there: float, back: float, **more: Any) -> CycleganLoss:
    """The losses with G(a) = a + there, F(b) = b + back, D_B = 0.25 and D_A = 0.5."""
    config = configuration("cyclegan", **more)
    state = new_state(config, SHAPE, CPU)
    given: dict[str, Any] = {"generator": Shifted(there), "discriminator": Constant(0.25)}
    for name, network in given.items():
        setattr(state, name, network)
    state.further = {
        "generator_back": FurtherNetwork(Shifted(back), "generator", True),
        "discriminator_back": FurtherNetwork(Constant(0.5), "discriminator"),
    }
    return CycleganLoss(config, state, CPU, SINGLE_PROCESS, torch.Generator())


def test_inverse_generators_have_no_cycle_loss() -> None:
    loss, pairs = losses_of(0.25, -0.25), torch.rand(4, 6, 16, 16)
    fake = loss.generate(pairs, ZEROS)
    # (F(b), G(a)) for a pair (a, b)
    torch.testing.assert_close(fake[:, :3], pairs[:, 3:] - 0.25)
    torch.testing.assert_close(fake[:, 3:], pairs[:, :3] + 0.25)
    _, stats = loss.generator(pairs, fake, (ZEROS, ZEROS), pairs)
    assert float(stats["cycle"]) == pytest.approx(0, abs=1e-6)
    assert float(stats["identity"]) == pytest.approx(0.5, abs=1e-6)


def test_losses_are_those_of_the_paper() -> None:
    more = {"loss": {"name": "lsgan", "adversarial": 2.0}}
    loss, pairs = losses_of(0.25, 0.5, **more), torch.rand(4, 6, 16, 16)
    fake = loss.generate(pairs, ZEROS)
    total, stats = loss.generator(pairs, fake, (ZEROS, ZEROS), pairs)
    assert float(stats["cycle"]) == pytest.approx(2 * 0.75, abs=1e-5)
    adversarial = (0.25 - 1) ** 2 + (0.5 - 1) ** 2
    assert total.item() == pytest.approx(adversarial + 10 * 1.5 + 5 * 0.75, abs=1e-4)
    ((d_loss, _),) = loss.discriminator(pairs, fake, (ZEROS, ZEROS), pairs)
    squares = (0.25 - 1) ** 2 + 0.25**2 + (0.5 - 1) ** 2 + 0.5**2
    assert d_loss.item() == pytest.approx(squares / 2, abs=1e-5)


def test_each_discriminator_sees_its_set() -> None:
    options = PatchganDiscriminator(width=4, layers=1)
    first, second = (build_discriminator(options, SHAPE) for _ in range(2))
    pairs = torch.randn(2, 6, 16, 16)
    logits = TwoDiscriminators(first, second)(pairs, ZEROS[:2]).logits
    expected = [first(pairs[:, :3], ZEROS[:2]).logits, second(pairs[:, 3:], ZEROS[:2]).logits]
    torch.testing.assert_close(logits, torch.cat(expected, dim=1))


def test_augmentation_sees_single_images() -> None:
    loss, pairs, seen = losses_of(0.0, 0.0), torch.rand(4, 6, 16, 16), list[Tensor]()
    augment: Any = lambda images, _p, _random: seen.append(images) or images  # noqa: E731
    loss.augmentation = augment
    loss._forward(pairs, ZEROS)
    assert seen[0].shape == (8, 3, 16, 16)
    torch.testing.assert_close(seen[0][0::2], pairs[:, :3])
    torch.testing.assert_close(seen[0][1::2], pairs[:, 3:])


# Two sets of shards


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SmallShards, SmallShards]:
    monkeypatch.chdir(tmp_path)
    return SmallShards(tmp_path, name="a"), SmallShards(tmp_path, (20, 10), name="b")


TWO = (
    "--preset", "cyclegan64", "--generator.blocks", "1", "--discriminator.layers", "1",
    "--total-kimg", "0.064", "--replay.size", "4", "--record.sample_kimg", "0.032",
    "--g_optimizer.decay_from_kimg", "0.032", "--g_optimizer.decay_kimg", "0.064",
)  # fmt: skip


def run(name: str, sets: tuple[SmallShards, SmallShards], *more: str) -> int:
    """The tiny run; its exit status."""
    from tests.helpers.training_runs import TINY
    from training.fit import main

    tiny = [*TINY]
    at = tiny.index("--generator.z_dim")
    del tiny[at : at + 2]
    first, second = (str(one.manifest) for one in sets)
    return main(["--shards", first, "--shards-b", second, "--run", name, *tiny, *TWO, *more])


def pair_config(second: SmallShards, **data: Any) -> Config:
    options = {"data.shards_b": str(second.manifest), "batch": "8", "resolution": "16"}
    return resolve("cyclegan64", options | {"data.mirror": "false"} | data)


def test_both_sets_are_read_in_orders_of_their_own(sets: tuple[SmallShards, SmallShards]) -> None:
    first, second = sets
    config = pair_config(second)
    source = open_training_sets(first.manifest, config)

    def numbers(seen: int, count: int) -> list[tuple[int, int]]:
        with PairLoader(source, config, seen) as loader:
            batches = [next(loader).images.permute(0, 2, 3, 1).numpy() for _ in range(count)]
        return [
            (number_of(pair[..., :3]), number_of(pair[..., 3:]))
            for batch in batches
            for pair in batch
        ]

    whole = numbers(0, 13)
    assert {a for a, _ in whole[:100]} == set(range(100))
    for epoch in (whole[:30], whole[30:60]):
        assert {b for _, b in epoch} == set(range(30))
    assert [b for _, b in whole[:30]] != [b for _, b in whole[30:60]]
    assert numbers(48, 3) == whole[48:72]


def test_a_run_resumes_exactly_translates_and_has_no_latents(
    sets: tuple[SmallShards, SmallShards], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("whole", sets) == 0
    assert run("parts", sets, "--total-kimg", "0.04") == 0
    assert run("parts", sets) == 0
    whole, parts = tmp_path / "runs/whole", tmp_path / "runs/parts"
    assert metrics(whole)[-1] == metrics(parts)[-1]
    described = json.loads((whole / "config.json").read_text())
    assert (described["dataset"]["name"], described["dataset_b"]["name"]) == ("a", "b")
    with Image.open(whole / "samples/0000000064.png") as grid:
        assert grid.size == (6 * 16, 16)
    states = [load_generator(name, CPU) for name in ("whole", "parts")]
    for direction in DIRECTIONS:
        weights = [one.translator(direction).state_dict() for one in states]
        assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    _translate_and_check(tmp_path, states[0])
    capsys.readouterr()
    for command, more in (
        (sample, []), (walk, ["--out", "w.gif"]), (project, ["in/0.png"]),
    ):  # fmt: skip
        assert command.main(["whole", *more]) == 2
        assert "use `python -m training.translate whole IMAGE`" in capsys.readouterr().err


def _translate_and_check(folder: Path, trained: Any) -> None:
    """Files are what the networks make of the images; others are left out or refused."""
    images = folder / "in"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(images / f"{number}.png")
    (images / "broken.png").write_bytes(b"no image")
    for direction in DIRECTIONS:
        out = folder / direction
        assert translate.main(
            ["whole", str(images), "--direction", direction, "--out", str(out)]
        ) == 1  # fmt: skip
        assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png"]
        there = trained.translator(direction)
        expected = there_and_back(there, there, pixels)[:, 1]
        for number in range(2):
            found = np.asarray(Image.open(out / f"{number}.png")).astype(int)
            assert np.abs(found - expected[number]).max() <= 1
    assert translate.main(["whole", str(images / "broken.png")]) == 2
    assert translate.main(["whole", str(folder / "missing")]) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shards-b", "none"], "none"),
        (["--preset", "dcgan64", "--generator.blocks", "1"], "generator.blocks"),
    ],
)
def test_bad_input_is_one_line(
    sets: tuple[SmallShards, SmallShards], more: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("bad", sets, *more) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_sets_that_do_not_fit_are_refused(
    sets: tuple[SmallShards, SmallShards], tmp_path: Path
) -> None:
    first, second = sets
    config = pair_config(second)
    with pytest.raises(UserError, match=r"^data\.shards_b: .* give the second one with --shards-b"):
        open_training_sets(first.manifest, replace(config, data=replace(config.data, shards_b="")))
    large = SmallShards(tmp_path, (20,), size=32, name="large")
    config = replace(pair_config(large), resolution=0)
    with pytest.raises(UserError, match=r"^--shards-b .*large: images of 32×32 px, those of"):
        open_training_sets(first.manifest, config)
    clear = SmallShards(tmp_path, (20,), channels=4, name="clear")
    with pytest.raises(UserError, match="clear: images with transparency"):
        open_training_sets(clear.manifest, pair_config(second))
    gray = SmallShards(tmp_path, (20,), channels=1, name="gray")
    found = open_training_sets(first.manifest, pair_config(gray))
    assert found.second is not None
    assert found.second.channels == 3


def test_a_run_of_another_kind_does_not_translate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit_here("plain", SmallShards(tmp_path), "--total-kimg", "0.016") == 0
    capsys.readouterr()
    assert translate.main(["plain", "image.png"]) == 2
    assert "generates images from latents" in capsys.readouterr().err
