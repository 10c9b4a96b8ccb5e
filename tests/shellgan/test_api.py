"""The Python API: folders, resume, results, and what it does not do."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import shellgan
from tests.helpers.processes import run_python
from tests.helpers.small_shards import SmallShards, number_of

SMALL = {
    "total_kimg": 0.032, "batch": 8, "resolution": 16, "generator.width": 4, "threads": 1,
    "generator.z_dim": 8, "discriminator.width": 4, "record.log_kimg": 0.016, "device": "cpu",
}  # fmt: skip


def test_the_import_is_fast_and_loads_nothing() -> None:
    program = (
        "import sys, time, shellgan\n"
        "assert shellgan.__version__ and 'train' in dir(shellgan)\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'pipeline', 'training'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    assert run_python(program).stdout == "[]\n"


def test_every_name_exists() -> None:
    assert [name for name in shellgan.__all__ if getattr(shellgan, name, None) is None] == []
    with pytest.raises(AttributeError):
        _ = shellgan.nothing


def numbers(samples: Any) -> list[int]:
    return [number_of(image.permute(1, 2, 0)) for image, _ in samples]


@pytest.mark.parametrize("taken", [0, 5, 24, 99, 100, 137])
def test_resume_at_any_sample(tmp_path: Path, taken: int) -> None:
    shards = SmallShards(tmp_path, labels=("cone", "whelk"))
    plain = shellgan.open_dataset(shards.manifest, seed=5)
    whole = [number for _ in range(2) for number in numbers(plain)]
    assert sorted(whole[:100]) == sorted(whole[100:]) == list(range(100))
    assert whole[:100] != whole[100:]

    first = shellgan.open_dataset(shards.manifest, seed=5)
    seen = 0
    while seen < taken:
        for _ in first:
            seen += 1
            if seen == taken:
                break
    again = shellgan.open_dataset(shards.manifest, seed=5)
    again.load_state_dict(first.state_dict())
    assert numbers(again) == whole[taken : (taken // 100 + 1) * 100]


def test_resume_in_a_data_loader(tmp_path: Path) -> None:
    shards = SmallShards(tmp_path)
    first = shellgan.open_dataset(shards.manifest)
    batches = iter(DataLoader(first, batch_size=7))
    for _ in range(3):
        next(batches)
    again = shellgan.open_dataset(shards.manifest)
    again.load_state_dict(first.state_dict())
    rest = [images for images, _ in DataLoader(again, batch_size=7)]
    assert torch.equal(torch.cat(rest), torch.cat([images for images, _ in batches]))


def test_what_cannot_resume_is_refused(tmp_path: Path) -> None:
    shards = SmallShards(tmp_path)
    dataset = shellgan.open_dataset(shards.manifest, seed=1)
    other = shellgan.open_dataset(shards.manifest, seed=2)
    with pytest.raises(shellgan.UserError, match="seed is 1, not 2"):
        other.load_state_dict(dataset.state_dict())
    with pytest.raises(shellgan.UserError, match="use num_workers=0"):
        next(iter(DataLoader(dataset, num_workers=1)))


def test_webdataset_yields_the_same_members(tmp_path: Path) -> None:
    shards = SmallShards(tmp_path, labels=("cone", "whelk"))
    samples = list(shellgan.open_dataset(shards.manifest).as_webdataset())
    assert [sample["__key__"] for sample in samples] == [f"{n:06d}" for n in range(100)]
    assert {"png", "json", "cls"} <= samples[0].keys()
    assert all(isinstance(samples[0][name], bytes) for name in ("png", "cls"))


def test_shards_of_other_tools_below_a_root(tmp_path: Path) -> None:
    """The cache of the index is in the project's folder, not in the current one."""
    root, here = tmp_path / "project", tmp_path / "here"
    (root / "tars").mkdir(parents=True)
    here.mkdir()
    (root / "tars" / "some.tar").write_bytes(SmallShards(tmp_path / "other").tars[0])
    with contextlib.chdir(here):
        dataset = shellgan.open_dataset("tars", root=root)
        assert sorted(numbers(dataset)) == list(range(40))
        run = shellgan.train(dataset, "shells64", options=SMALL)
        assert len(shellgan.load(run).sample(2)) == 2
    assert list(here.iterdir()) == []
    assert run.folder.parent == root / "runs"
    assert (root / "data").is_dir()


class Stop(shellgan.Callback):
    """Ends the training after the second step."""

    steps = 0

    def before_step(self) -> shellgan.Action:
        self.steps += 1
        return shellgan.Action.INTERRUPTED if self.steps > 2 else shellgan.Action.NONE


def test_training_says_why_it_ended_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shards = SmallShards(tmp_path)
    said: list[str] = []
    shown: list[int] = []

    def train(*callbacks: Any) -> shellgan.Run:
        return shellgan.train(
            "manifests/small", "shells64", run="mine", root=tmp_path, options=SMALL,
            callbacks=callbacks, on_message=said.append,
            on_progress=lambda progress: shown.append(progress.seen),
        )  # fmt: skip

    threads = torch.get_num_threads()
    stopped = train(Stop)
    assert (stopped.reason, stopped.seen) == (shellgan.EndReason.INTERRUPTED, 16)
    assert not stopped.is_complete
    done = train()
    assert (done.reason, done.seen, done.folder) == (
        shellgan.EndReason.DONE, 32, tmp_path / "runs" / "mine",
    )  # fmt: skip
    assert shown == [8, 16, 24, 32]
    assert "resuming at 0.016 kimg" in said
    again = train()  # of which nothing is left
    assert again.is_complete
    assert stopped.seconds < again.seconds <= done.seconds
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")
    with pytest.raises(shellgan.UserError, match="no-such: not found"):
        shellgan.train(shards.manifest, "no-such", root=tmp_path)


def test_a_callbacks_error_is_raised_after_a_checkpoint(tmp_path: Path) -> None:
    class Broken(shellgan.Callback):
        def after_step(self) -> None:
            raise RuntimeError("mine")

    shards = SmallShards(tmp_path)
    with pytest.raises(RuntimeError, match="mine"):
        shellgan.train(
            shards.manifest, "shells64", run="r", root=tmp_path, options=SMALL, callbacks=[Broken]
        )
    assert [path.stem for path in (tmp_path / "runs/r/checkpoints").glob("*.pt")] == ["0000000008"]


def test_what_a_row_cannot_hold_is_left_out_with_a_warning(tmp_path: Path) -> None:
    """Otherwise no checkpoint of the run could be used."""

    class Notes(shellgan.Callback):
        def on_row(self, row: dict[str, Any]) -> None:
            row |= {"mine": 0.5, "odd": float("nan"), "phase": "warm", "tensor": torch.ones(1)}

    shards, said = SmallShards(tmp_path), list[str]()
    for kimg in (0.016, 0.032):
        done = shellgan.train(
            shards.manifest, "shells64", run="r", root=tmp_path, callbacks=[Notes],
            options={**SMALL, "total_kimg": kimg, "record.log_kimg": 0.008}, on_message=said.append,
        )  # fmt: skip
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["seen"], row["mine"]) for row in rows] == [(n, 0.5) for n in (8, 16, 24, 32)]
    assert all({"odd", "phase", "tensor"}.isdisjoint(row) for row in rows)
    warnings = [line for line in said if "is left out of the history" in line]
    assert [line.split()[1] for line in warnings] == ["odd", "phase", "tensor"] * 2


def test_models_take_labels_and_refuse_wrong_ones(tmp_path: Path) -> None:
    from tests.helpers.untrained_runs import make_run

    make_run(tmp_path / "runs" / "shells", "labelled")
    model = shellgan.load("shells", root=tmp_path, device="cpu")
    assert (model.labels, model.seen, model.height) == (("cone", "whelk"), 12_000, 16)
    named, numbered = (model.sample(numbers=[7], label=label) for label in ("whelk", 1))
    assert np.array_equal(named, numbered)
    assert not np.array_equal(named, model.sample(numbers=[7], label="cone"))
    assert np.array_equal(model.interpolate([7, 9], 4, label="whelk")[0], named[0])
    assert len(model.interpolate([7, 9], 4, closed=True)) == 8
    for wrong in ({"label": "conus"}, {"numbers": [-1]}):
        with pytest.raises(shellgan.UserError):
            model.sample(**wrong)  # type: ignore[arg-type]
    with pytest.raises(shellgan.UserError, match="no run there"):
        shellgan.load("other", root=tmp_path)
    projected = model.project(shellgan.to_pil(named)[0], steps=2, distance="pixels")
    assert projected.image.shape == (16, 16, 3)


def test_recipes_by_name_file_url_and_values(tmp_path: Path) -> None:
    from tests.helpers.static_site import served

    recipe = shellgan.Recipe.load("shells").replace(
        title='a "quoted" é\x7f\n', select={"min_side": 10}, shards={"resolution": 32}
    )
    assert recipe.values["shards"] == {"class_label": 0, "resolution": 32}
    recipe.save(tmp_path / "mine.toml")
    with served(tmp_path) as url:
        loaded = shellgan.Recipe.load(f"{url}/mine.toml")
        with pytest.raises(shellgan.UserError, match="404"):
            shellgan.Recipe.load(f"{url}/other.toml")
    assert (loaded.name, loaded.values) == ("mine", recipe.values)
    with pytest.raises(shellgan.UserError, match=r"recipe mine: select\.sides"):
        loaded.replace(select={"sides": 1})
    with pytest.raises(shellgan.UserError, match="dataset name"):
        shellgan.Recipe("Not a name", recipe.values)


def test_images_of_a_folder_to_shards(tmp_path: Path) -> None:
    from PIL import Image

    from tests.helpers.small_shards import picture

    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(picture(number, 80)).save(tmp_path / "pictures" / f"{number}.png")
    values = {
        "source": {"kind": "folder", "start": [str(tmp_path / "pictures")]},
        "shards": {"resolution": 16},
    }
    recipe, found = shellgan.Recipe("mine", values), list[str]()
    imported = shellgan.import_images(
        tmp_path / "pictures", recipe, root=tmp_path, on_found=found.append
    )
    assert (imported.images, imported.failed, len(found)) == (3, 0, 1)
    assert shellgan.select(recipe, root=tmp_path).kept == 3
    assert shellgan.shard(recipe, root=tmp_path).samples == 3
    assert len(shellgan.open_dataset("manifests/mine", root=tmp_path)) == 3


def test_the_explorer_is_served_until_it_is_closed(tmp_path: Path) -> None:
    from tests.helpers.untrained_runs import make_run

    make_run(tmp_path / "runs" / "shells", "labelled")
    model = shellgan.load("shells", root=tmp_path, device="cpu")
    for in_frame, frames in ((False, "frame-ancestors 'none'"), (True, "frame-ancestors *")):
        with model.explore(title="Mine", in_frame=in_frame) as explorer:
            page = httpx.get(explorer.url)
            info = httpx.get(f"{explorer.url}generator.json").json()
            forwarded = {"Host": "8972-m-s-1.us.prod.colab.dev"}
            through = httpx.get(explorer.url, headers=forwarded)
            foreign = httpx.get(explorer.url, headers={"Host": "example.org"})
            with pytest.raises(shellgan.UserError, match="in use"):
                model.explore(port=explorer.port)
        assert page.headers["Content-Security-Policy"].endswith(frames)
        assert (info["title"], info["labels"]) == ("Mine", ["cone", "whelk"])
        assert (through.status_code, foreign.status_code) == (200 if in_frame else 400, 400)
        with pytest.raises(httpx.ConnectError):
            httpx.get(explorer.url)


def test_pictures_and_grids_have_straight_alpha_or_a_checkerboard() -> None:
    pixels = np.zeros((3, 16, 16, 4), np.uint8)
    pixels[..., 0] = pixels[..., 3] = 100  # red, premultiplied
    assert shellgan.to_pil(pixels)[0].getpixel((0, 0)) == (255, 0, 0, 100)
    grid = shellgan.to_grid(pixels, columns=3)
    assert (grid.mode, grid.size) == ("RGB", (48, 16))
    assert shellgan.to_grid(pixels[..., :1]).size == (32, 32)


def test_a_recipe_is_proposed_for_a_gallery(gallery: str) -> None:
    recipe = shellgan.Recipe.propose(gallery, "cabinet")
    assert recipe.values["source"]["start"] == [gallery]
    assert (recipe.name, recipe.parse().source.kind) == ("cabinet", "html")
    with pytest.raises(shellgan.UserError, match="404"):
        shellgan.Recipe.propose(f"{gallery}nothing", "cabinet")
