"""A wrong argument of the API raises UserError, which names it; user scripts type-check."""

from __future__ import annotations

import contextlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shellgan
from tests.helpers.processes import PROJECT, child_env
from tests.helpers.small_shards import SmallShards
from tests.helpers.untrained_runs import make_run

REFERENCE = Path(__file__).parents[2] / "docs" / "api-reference.md"
PIXELS = np.zeros((1, 16, 16, 3), np.uint8)
Call = Callable[[shellgan.Model, shellgan.Dataset, Path], Any]
OF_MODELS: dict[str, Call] = {
    "n: -1 is not an integer": lambda m, d, p: m.sample(-1),
    "numbers: 'a' is not an integer from 0 to 4294967295": lambda m, d, p: m.sample(numbers="a"),
    "seed: -1": lambda m, d, p: m.sample(seed=-1),
    "truncation: nan": lambda m, d, p: m.sample(truncation=float("nan")),
    "steps: 0": lambda m, d, p: m.interpolate([1, 2], steps=0),
    "curve: 'lerb' is unknown; .* lerp": lambda m, d, p: m.interpolate([1, 2], curve="lerb"),
    "distance: 'x'": lambda m, d, p: m.project(PIXELS[0], distance="x"),
    "images: float64": lambda m, d, p: m.project(PIXELS[0].astype(float), distance="pixels"),
    "steps: 0 is": lambda m, d, p: m.project(PIXELS[0], steps=0),
    "samples: 1 is": lambda m, d, p: m.evaluate(d, samples=1),
    "real: 1 is": lambda m, d, p: m.evaluate(d, real=1),
    "nothing": lambda m, d, p: m.evaluate(p / "nothing"),
    "formats: 'onxx' is unknown; .* mean onnx": lambda m, d, p: m.export(p / "out", "onxx"),
    "device: 'gpu' is unknown": lambda m, d, p: shellgan.load("shells", root=p, device="gpu"),
    "images: uint8": lambda m, d, p: shellgan.to_pil(PIXELS[0]),
    "images: empty": lambda m, d, p: shellgan.to_grid(PIXELS[:0]),
    "columns: -1": lambda m, d, p: shellgan.to_grid(PIXELS, -1),
}  # fmt: skip
OF_DATA: dict[str, Call] = {
    "resolution": lambda m, d, p: shellgan.open_dataset(d.location, resolution=-1),
    "data.fit: .*'crop'": lambda m, d, p: shellgan.open_dataset(d.location, fit="x"),
    "data.channels": lambda m, d, p: shellgan.open_dataset(d.location, channels=2),
    "seed": lambda m, d, p: shellgan.open_dataset(d.location, seed=-1),
    "state_dict: seen": lambda m, d, p: d.load_state_dict(d.state_dict() | {"seen": "a"}),
    "options: <object": lambda m, d, p: shellgan.train(d, options={"batch": object()}),
    "preset .*none.toml": lambda m, d, p: shellgan.train(d, Path("none.toml")),
    "cannot be written": lambda m, d, p: shellgan.Recipe("a", {}).save(p),
    "where: empty": lambda m, d, p: shellgan.import_images("", shellgan.Recipe("a", {}), root=p),
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder = tmp_path_factory.mktemp("given")
    make_run(folder / "runs" / "shells", "labelled")
    SmallShards(folder)
    model = shellgan.load("shells", root=folder, device="cpu")
    return model, shellgan.open_dataset("manifests/small", root=folder), folder


@pytest.mark.parametrize(("message", "call"), (OF_MODELS | OF_DATA).items())
def test_wrong_arguments(given: tuple[Any, ...], message: str, call: Call) -> None:
    with pytest.raises(shellgan.UserError, match=message):
        call(*given)


def test_numbers_of_numpy_and_one_format_are_fine(given: tuple[Any, ...], tmp_path: Path) -> None:
    model = given[0]
    assert np.array_equal(model.sample(numbers=np.arange(2)), model.sample(numbers=range(2)))
    assert tmp_path / "model.safetensors" in model.export(tmp_path, "safetensors")


def test_folders_of_runs_are_below_the_root(given: tuple[Any, ...], tmp_path: Path) -> None:
    root = given[2]
    options = {
        "total_kimg": 0.008, "batch": np.int64(8), "resolution": 16, "generator.width": 4,
        "discriminator.width": 4, "threads": 1, "device": "cpu",
    }  # fmt: skip
    with contextlib.chdir(tmp_path):
        for run in ("mine/first", Path("mine/second")):
            trained = shellgan.train(given[1], "shells64", run=run, options=options)
            assert trained.folder == root / run
            assert shellgan.load(run, root=root, device="cpu").seen == 8
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import numpy as np
import shellgan
from torch.utils.data import DataLoader

class Losses(shellgan.Callback):
    def on_row(self, row: dict[str, object]) -> None:
        print(row["loss_d"])

recipe = shellgan.Recipe.load("shells").replace(select={"min_side": 128})
found: shellgan.CrawlResult = shellgan.crawl(recipe, root="project")
dataset = shellgan.open_dataset("manifests/shells", root="project")
image, label = next(iter(dataset))
print(image.shape, label + 1, len(dataset), dataset.statistics.bytes / 1e6)
loader = DataLoader(dataset, batch_size=8)
run: shellgan.Run = shellgan.train(dataset, "auto", hours=1, callbacks=[Losses], on_message=print)
model = shellgan.load(run)
images = model.sample(4, truncation=0.7, label="cone")
wider: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = images.astype(np.int64)
reveal_type(model.evaluate(dataset).estimates["fd"].value)
dataset.nothing
"""


@pytest.mark.slow
def test_a_script_type_checks(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        # the options of `make check`, so that they share their cache
        [sys.executable, "-m", "mypy", "--no-error-summary",
         "--config-file", PROJECT / "pyproject.toml",
         "--cache-dir", PROJECT / ".mypy_cache", "script.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=child_env(MYPYPATH=str(PROJECT)),
    )  # fmt: skip
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == [
        'note: Revealed type is "float"',
        'error: "Dataset" has no attribute "nothing"  [attr-defined]',
    ], done


def test_the_reference_has_every_name_and_every_name_a_docstring() -> None:
    listed = re.findall(
        r"^\.\. (?:auto\w+|py:data):: shellgan\.(\w+)$", REFERENCE.read_text(), re.M
    )
    assert sorted(listed) == sorted(shellgan.__all__)
    missing = []
    for name in set(shellgan.__all__) - {"__version__"}:
        owner = getattr(shellgan, name)
        members = vars(owner).items() if inspect.isclass(owner) else ()
        missing += [name] if not owner.__doc__ else []
        missing += [
            f"{name}.{member}" for member, value in members
            if not member.startswith("_") and not inspect.getdoc(value)
            and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        ]  # fmt: skip
    assert missing == []
