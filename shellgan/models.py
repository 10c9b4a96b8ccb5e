"""A trained generator: samples, interpolation, projection, evaluation, export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from PIL import Image

from pipeline.contract import UserError, project_root
from shellgan.arguments import (
    MAX_SEED,
    check_choice,
    check_count,
    check_image_numbers,
    check_label,
    check_truncation,
)
from shellgan.datasets import Dataset, absolute_location
from shellgan.images import Pixels, ProjectedImage, read_pixels
from training.evaluate import FEWEST
from training.evaluation.comparison import ComparisonOptions, EvaluationResult, compare
from training.exports.writing import FORMATS, ExportOptions, export_generator
from training.latent.cli import latents_and_labels
from training.latent.interpolation import Curve
from training.latent.projection import Schedule, choose_distance, project
from training.latent.route import find_route
from training.latent.sampling import sample_ws
from training.machine.device import choose_device
from training.pretrained.inference import TrainedGenerator, load_generator
from training.runs import find_run
from training.translation import DIRECTIONS, Direction, as_floats, translate

if TYPE_CHECKING:
    from shellgan.explorers import Explorer
    from shellgan.runs import Run


class Model:
    """A trained generator. `labels` are the names of its classes, `seen` the number of images it
    was trained on; `height`, `width` and `channels` are those of its images."""

    def __init__(self, trained: TrainedGenerator, spec: str, root: Path) -> None:
        self.trained, self._spec, self._root = trained, spec, root
        self.name, self.labels, self.seen = trained.name, trained.labels, trained.seen
        shape = trained.shape
        self.height, self.width, self.channels = shape.height, shape.width, shape.channels

    def sample(
        self,
        n: int = 1,
        *,
        numbers: Sequence[int] = (),
        truncation: float = 1.0,
        label: str | int | None = None,
        seed: int = 0,
    ) -> Pixels:
        """Generate `n` images, or those with the image `numbers`, which are the same in the
        explorer: uint8 (n, height, width, channels), RGBA premultiplied.

        Args:
            n: number of images; not used with `numbers`.
            numbers: image numbers, from 0 to 2**32 - 1.
            truncation: psi: 1 is full variety, 0 the mean image; from -100 to 100.
            label: the name or number of a class (None: image i has class i modulo their number).
            seed: of the latents of `n` images.

        Raises:
            UserError: a value is out of range, or the generator has no such label.
        """
        numbers = check_image_numbers(numbers)
        n, seed = check_count("n", n, 0), check_count("seed", seed, 0, MAX_SEED)
        truncation = check_truncation(truncation)
        space = self.trained.space
        ws, labels = sample_ws(self.trained, n, numbers, check_label(label, self.trained), seed)
        return space.generate(space.truncate(ws, truncation), labels)

    def interpolate(
        self,
        numbers: Sequence[int],
        steps: int = 10,
        *,
        truncation: float = 1.0,
        label: str | int | None = None,
        curve: Curve | None = None,
        closed: bool = False,
    ) -> Pixels:
        """Generate the images on the way from each image number to the next, `steps` per pair, and
        the last one; with `closed`, the way leads back to the first. Images as in `sample`.

        Args:
            curve: linear, spherical or a spline (None: lerp in w, slerp in z).

        Raises:
            UserError: a value is out of range, there are fewer than two numbers, or the generator
                has no such label.
        """
        numbers = check_image_numbers(numbers, 2)
        steps, truncation = check_count("steps", steps, 1), check_truncation(truncation)
        if curve is not None:
            check_choice("curve", curve, get_args(Curve))
        chosen = check_label(label, self.trained) or 0
        latents, labels = latents_and_labels(self.trained, numbers, chosen)
        route = find_route(self.trained.space, latents, labels, curve=curve, closed=closed)
        count = route.pairs * steps + (0 if closed else 1)
        return route.images(np.arange(count, dtype=np.float64) / steps, truncation)

    def project(
        self,
        image: str | Path | Image.Image | Pixels,
        *,
        steps: int = 1000,
        w_plus: bool = False,
        distance: Literal["features", "pixels"] = "features",
        label: str | int | None = None,
        seed: int = 0,
        on_step: Callable[[int, float], None] | None = None,
        encoder: bool = False,
    ) -> ProjectedImage:
        """Find the latents whose image is nearest to `image`: a file, or an upright image, as an
        array uint8 (height, width, channels) or a PIL image. Its central crop is used.

        Args:
            steps: of the optimisation; more are better and slower.
            w_plus: find a w for each layer, which is closer to the image and less natural.
            distance: by the features of a network, or by pixels at several sizes.
            on_step: called with the number of the step and the distance.
            encoder: start at the latent of the run's encoder, not at the mean.

        Raises:
            UserError: it is not an image, a value is out of range, the generator has no such
                label, or the run no encoder.
        """
        steps, seed = check_count("steps", steps, 1), check_count("seed", seed, 0, MAX_SEED)
        check_choice("distance", distance, ("features", "pixels"))
        if encoder and self.trained.encoder is None:
            raise UserError("encoder: the run has none; train with method.name bigan or vae-gan")
        space = self.trained.space
        target = as_floats(read_pixels(image, self.trained.shape, "crop")[None], space.device)
        number = torch.tensor([check_label(label, self.trained) or 0], device=space.device)
        found = project(
            space, target, choose_distance(distance, space.device), number, Schedule(steps),
            w_plus, seed, on_step, encoder,
        )  # fmt: skip
        pixels = ((found.image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return ProjectedImage(
            pixels[0].permute(1, 2, 0).cpu().numpy(), found.ws.float().cpu().numpy(),
            found.distance, found.initial_distance,
        )  # fmt: skip

    def translate(
        self,
        images: Sequence[str | Path | Image.Image | Pixels],
        direction: Direction = "a-to-b",
    ) -> Pixels:
        """Translate images with a run that has learned to translate between two sets: uint8 (n,
        height, width, channels).

        Args:
            images: files, or upright images as arrays uint8 (height, width, channels) or PIL
                images, of any size; they are resized as those of the run were.
            direction: from the run's first set of images to its second, or back.

        Raises:
            UserError: the run does not translate, or one cannot be read as an image.
        """
        check_choice("direction", direction, DIRECTIONS)
        generator = self.trained.translator(direction)
        shape, fit = self.trained.shape, self.trained.config.data.fit
        found = np.empty((len(images), shape.height, shape.width, shape.channels), np.uint8)
        for row, image in zip(found, images, strict=True):
            row[...] = read_pixels(image, shape, fit)
        device = next(generator.parameters()).device
        return translate(generator, as_floats(found, device)) if len(images) else found

    def evaluate(
        self,
        dataset: Dataset | str | Path | None = None,
        *,
        samples: int = 1000,
        real: int = 5000,
        features: str = "efficientnet_lite0",
        seed: int = 0,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> EvaluationResult:
        """Compare generated with real images; `estimates` of the result has each metric by name,
        with its standard deviation and the baseline of real images.

        Args:
            dataset: the real images, as `open_dataset` returns or takes (None: those of the run).
            samples: number of generated images, at least 50.
            real: maximum number of real images, at least 100 (0: all).
            features: the feature network: `efficientnet_lite0` or `torchvision:MODEL`.
            on_progress: called with the part of the work, what is done of it, and its total.

        Raises:
            UserError: a number is out of range, the real images are not available or too few, or
                the run no longer has the checkpoint that was loaded.
        """
        samples = check_count("samples", samples, FEWEST)
        seed = check_count("seed", seed, 0, MAX_SEED)
        real = check_count("real", real, 2 * FEWEST if real else 0)

        @contextmanager
        def show(what: str) -> Iterator[Callable[[int, int], None]]:
            yield lambda done, total: on_progress(what, done, total) if on_progress else None

        where = self.trained.dataset["location"] if dataset is None else dataset
        data = None
        if isinstance(where, str | Path):
            location = absolute_location(where, self._root) if str(where) else None
        else:
            location = where.location
            data = where.reading_options(self.trained.config.data)
        device = self.trained.space.device
        options = ComparisonOptions(
            location, samples, real, features, None, 0, seed, device, show, data=data
        )
        with project_root(self._root):
            return compare([self._spec], options)[0]

    def export(
        self,
        folder: str | Path,
        formats: Sequence[str] = ("safetensors",),
        *,
        title: str = "",
        tolerance: float = 1e-3,
    ) -> list[Path]:
        """Write the generator for other programs, with a model card; return the files.

        Args:
            folder: relative to the current folder.
            formats: `safetensors`, `onnx`, `nvlabs`, `rosinality`, or `page`, which generates
                images in the browser.
            title: of the page.
            tolerance: the largest difference of a pixel, in [-1, 1], between ONNX and PyTorch.

        Raises:
            UserError: a format is unknown, the folder contains a run or cannot be written, or a
                package is missing.
        """
        names = [formats] if isinstance(formats, str) else list(formats)
        for name in names:
            check_choice("formats", name, FORMATS)
        target = Path(folder).absolute()
        with project_root(self._root):
            options = ExportOptions(tolerance, title)
            files = export_generator(self._trained_on_cpu(), target, names, options)
        return [target / name for name in (*files, "README.md")]

    def explore(self, *, port: int = 0, title: str = "", in_frame: bool = False) -> Explorer:
        """Serve the explorer page on this machine, from a thread, until the result is closed.

        Args:
            port: to listen on (0: a free one).
            title: of the page (empty: from the dataset's name).
            in_frame: notebooks, also on Colab, may show the page in a frame.

        Raises:
            UserError: the port is in use.
        """
        from shellgan.explorers import Explorer

        with project_root(self._root):
            return Explorer(self.trained, port, title, in_frame)

    def _trained_on_cpu(self) -> TrainedGenerator:
        trained = deepcopy(self.trained)
        for network in (trained.generator, trained.encoder, trained.back):
            if network is not None:
                network.cpu()
        return trained


def load(run: Run | str | Path, *, root: str | Path | None = None, device: str = "auto") -> Model:
    """Load the generator of a run, of an exported folder, or of a pickle of StyleGAN2-ADA.

    Args:
        run: a run, its name, or a folder (a `Path`, or a text with a slash); `RUN@best` and
            `RUN@200` (kimg) select a checkpoint.
        root: the project's folder, which contains `runs` (None: that of the run, or the current
            folder).
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: there is no such run, checkpoint or device.
    """
    root = getattr(run, "root", None) if root is None else root
    folder = Path(root).absolute() if root is not None else Path.cwd()
    spec = str(getattr(run, "folder", run))
    check_choice("device", device, ("auto", "cpu", "cuda", "mps"))
    with project_root(folder):
        is_path = isinstance(run, Path) or spec.endswith(".pkl")
        spec = str(folder / (spec if is_path else find_run(spec).folder))
        trained = load_generator(spec, choose_device(device))
        if (trained.folder / "checkpoints").is_dir():  # a later one must not replace it
            spec = f"{trained.folder}@{trained.seen / 1000:.15g}"
        return Model(trained, spec, folder)
