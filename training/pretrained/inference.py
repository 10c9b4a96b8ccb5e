"""A trained generator of a run or an exported folder, for sampling."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.contract import UserError, describe_os_error, open_regular, short_reason
from training import best_checkpoint
from training.checkpoint_check import check_fit, check_weights
from training.checkpoint_check import tensors as checked
from training.config import Config
from training.latent.space import LatentSpace, build_latent_space
from training.networks import Generator, ImageShape, build_discriminator, build_generator
from training.networks.further import build_further, has_further_networks
from training.options.architectures import StyleGan2Discriminator, code_count
from training.options.resolve import replace_known, unflatten
from training.pretrained.nvlabs import read_nvlabs_pickle
from training.pretrained.published import describe
from training.runs import Run, find_run, parse_run_spec, read_config

WEIGHTS = "model.safetensors"
"""The weights in an exported folder; its `config.json` has the format of a run's."""
WEIGHTS_BACK = "model_back.safetensors"
"""Those of the generator from set B to set A, of a run that translates images."""


@dataclass(frozen=True)
class TrainedGenerator:
    """`generator` is the averaged generator in evaluation mode; `latent` the distribution of its
    latents; `labels` the names of its classes; `dataset` and `config` the contents of
    `config.json`, `config` being typed; `seen` the number of images it was trained on."""

    generator: Generator
    latent: str
    labels: tuple[str, ...]
    seen: int
    shape: ImageShape
    config: Config
    dataset: dict[str, Any]
    folder: Path
    encoder: nn.Module | None = None
    """The averaged encoder, if the run has trained one."""
    back: Generator | None = None
    """The averaged generator from set B to set A, if `generator` translates A to B."""
    dataset_b: dict[str, Any] | None = None
    """The properties of set B, as `dataset` of set A."""

    @property
    def classes(self) -> int:
        return len(self.labels)

    @property
    def conditional(self) -> bool:
        """Whether labels have an effect on the images."""
        return self.classes > 0 and self.config.generator.condition != "none"

    @property
    def is_translator(self) -> bool:
        """Whether `generator` translates images, and has no latents."""
        return self.config.method.sets > 1

    @property
    def set_names(self) -> tuple[str, str]:
        """The names of both sets of a run that translates images."""
        second = self.dataset_b or {}
        return str(self.dataset["name"]), str(second.get("name", "B"))

    def require_latents(self) -> None:
        """Raise if there are no latents.

        Raises:
            UserError: the generator translates images.
        """
        if self.is_translator:
            raise UserError(
                f"{self.folder}: translates images and has no latents; use "
                f"`python -m training.translate {self.name} IMAGE`"
            )

    def translator(self, direction: str) -> Generator:
        """Return the generator of a direction, `a-to-b` or `b-to-a`.

        Raises:
            UserError: the run does not translate images, or not in this direction.
        """
        if not self.is_translator:
            raise UserError(
                f"{self.folder}: generates images from latents and translates none; train with "
                "--preset cyclegan64, --shards A and --shards-b B"
            )
        if direction == "a-to-b":
            return self.generator
        if self.back is None:
            raise UserError(f"{self.folder}: exported without the generator of {direction}")
        return self.back

    @property
    def space(self) -> LatentSpace:
        """The latent space.

        Raises:
            UserError: the generator translates images.
        """
        self.require_latents()
        return build_latent_space(self.generator, self.latent, self.classes, self.encoder)

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def load_generator(run_name: str, device: torch.device) -> TrainedGenerator:
    """Load the generator of the run's newest complete checkpoint, of an exported folder, or of a
    pickle of StyleGAN2 or StyleGAN3 (`FILE.pkl`).

    `RUN@best` is the run's best checkpoint by its evaluations, `RUN@200` that at 200 kimg.

    Raises:
        UserError: there is no such run or checkpoint.
    """
    if run_name.endswith(".pkl"):
        return _published(Path(run_name), device)
    run_name, which = parse_run_spec(run_name)
    run = find_run(run_name)
    described = read_config(run)
    config, dataset = unflatten(described["config"], str(run.config)), described["dataset"]
    labels = tuple(dataset["labels"])
    values = _read(run, described, which)
    shape = ImageShape(dataset["height"], dataset["width"], dataset["channels"], len(labels))
    generator = build_fitting(config.generator, shape, values["average"], str(run.folder))
    further: dict[str, Any] = {}
    for name in ("encoder", "generator_back"):
        network = load_further_network(name, config, shape, values, str(run.folder))
        further[name] = network if network is None else network.to(device)
    return TrainedGenerator(
        generator.to(device), config.latent, labels, values["seen"], shape, config, dataset,
        run.folder, further["encoder"], further["generator_back"], described["dataset_b"],
    )  # fmt: skip


def _published(path: Path, device: torch.device) -> TrainedGenerator:
    published = read_nvlabs_pickle(path)
    found = describe(published)
    options, shape = found.options, found.shape
    weights = published.start()["average"]
    generator = build_fitting(options, shape, weights, str(path)).to(device)
    labels = tuple(str(number) for number in range(shape.classes))
    discriminator = StyleGan2Discriminator(condition="projection" if labels else "none")
    dataset = {
        "name": path.stem, "location": "", "digest": "", "samples": 0, "labels": list(labels),
        "height": shape.height, "width": shape.width, "channels": shape.channels,
    }  # fmt: skip
    config = Config(generator=options, discriminator=discriminator)
    return TrainedGenerator(generator, config.latent, labels, 0, shape, config, dataset, path)


def build_fitting(
    options: Any, shape: ImageShape, weights: Mapping[str, torch.Tensor], where: str
) -> Generator:
    """Build the generator of the options with the weights, in evaluation mode on the CPU.

    Raises:
        UserError: the weights do not fit the options; the message names `where`.
    """
    try:
        with torch.device("meta"):  # on the meta device, because the options come from outside
            sketch = build_generator(replace_known(options, spectral=False), shape)
        need, given = (
            sum(tensor.numel() for tensor in tensors.values())
            for tensors in (sketch.state_dict(), weights)
        )
        if need > 2 * given:
            raise ValueError(f"the generator has {need} parameters, the file {given}")
        generator = build_generator(options, shape)
        check_fit(weights, generator.state_dict(), "the weights")
        generator.load_state_dict(dict(weights))
    except (ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise UserError(f"{where}: {str(error).splitlines()[-1].strip()}") from None
    return generator.eval().requires_grad_(False)


def load_further_network(
    name: str, config: Config, shape: ImageShape, state: Mapping[str, Any], where: str
) -> nn.Module | None:
    """Build the moving average of a further network of a run, on the CPU, in evaluation mode, from
    the `state` in a checkpoint. Return None if the run's method has no network of this name, or if
    the state is that of an exported generator, without further networks.

    Raises:
        UserError: the weights do not fit the configuration; the message names `where`.
    """
    if state.keys() == {"average", "seen"} or not has_further_networks(config):
        return None
    further = build_further(
        config, shape, build_generator(config.generator, shape),
        build_discriminator(config.discriminator, shape, code_count(config.generator)),
    )  # fmt: skip
    if name not in further:
        return None
    network, weights = further[name].network, state.get(f"{name}_average")
    try:
        weights = checked(weights, f"state.{name}_average")
        check_fit(weights, network.state_dict(), name)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _read(run: Run, described: dict[str, Any], which: str) -> dict[str, Any]:
    """Return the state in a checkpoint; of an exported folder only `average` and `seen`."""
    exported = run.folder / WEIGHTS
    if exported.exists():
        if which != "newest":
            raise UserError(
                f"{run.folder}@{which}: an exported folder has no checkpoints; leave out @{which}"
            )
        state = {"average": _exported(exported), "seen": int(described.get("seen", 0))}
        back = run.folder / WEIGHTS_BACK
        return state | ({"generator_back_average": _exported(back)} if back.exists() else {})
    values = best_checkpoint.load_named(run.checkpoints, which, "cpu", check_weights)
    found: dict[str, Any] = values["state"]
    return found


def _exported(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: reading it needs pip install 'shellgan[export]'") from None
    try:
        os.close(open_regular(path))
        return load_file(path, device="cpu")
    except OSError as error:
        raise UserError(describe_os_error(error)) from None
    except Exception as error:  # noqa: BLE001 (a damaged file can fail in any way)
        raise UserError(f"{path}: incomplete ({short_reason(error)})") from None
