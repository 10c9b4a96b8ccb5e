"""What was forgotten is in nothing that is made to be shown or given away."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contract import DatasetPaths, JsonlAppender, UserError, read_jsonl
from pipeline.crawl.manifest_exchange import export_manifest
from pipeline.crawl.stage import crawl
from pipeline.demo.shells import draw
from pipeline.events import EventLog
from pipeline.forgotten import forgotten_path
from pipeline.options import SelectOptions, ShardOptions
from pipeline.originals.download import download
from pipeline.recipe import Recipe
from pipeline.select.foreign import LIST, SHEET
from pipeline.select.preview import preview
from pipeline.select.stage import select
from pipeline.shards.exports import FORMATS, export, staging_folder
from pipeline.shards.forget import forget
from pipeline.shards.stage import shard
from pipeline.sources.folder import FolderSource


@pytest.fixture
def made(tmp_path: Path) -> tuple[Recipe, DatasetPaths]:
    """A dataset of six local images, with a variant and a page of previews."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        draw(1, number, 48).save(pictures / f"{number}.png")
    recipe = Recipe(
        source=FolderSource(start=(pictures,)),
        select=SelectOptions(min_side=16, near_duplicate_bits="off"),
        shards=ShardOptions(resolution=16, samples_per_shard=3),
    )
    dataset = DatasetPaths("mine", tmp_path)
    with EventLog(dataset, "run") as log:
        for stage in (crawl, download, select, shard):
            stage(recipe, dataset, log)
        shard(recipe, dataset, log, variant="again")
        preview(recipe, dataset, log)
    return recipe, dataset


def contents(folder: Path) -> bytes:
    """All bytes of the files in a folder, with those of zips and tars as they are (they store)."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
def test_a_forgotten_url_is_in_no_export_card_preview_or_index(made) -> None:
    recipe, dataset = made
    gone = next(read_jsonl(dataset.selection))
    with EventLog(dataset, "run") as log:
        export(
            dataset, "huggingface-webdataset", staging_folder(dataset), log
        )  # of a killed upload
        for name in (SHEET, LIST):
            (dataset.data_dir / name).write_text(gone["url"])
        forget(recipe, dataset, log, keys=[gone["key"]])
        assert not {SHEET, LIST} & {one.name for one in dataset.data_dir.iterdir()}
        assert not (dataset.manifest_dir / "preview.html").exists()
        assert not staging_folder(dataset).exists()
        out = dataset.root / "out"
        out.mkdir()
        for form in FORMATS:
            assert export(dataset, form, out / form, log).samples == 5
        for name in ("urls.jsonl", "urls.csv"):
            assert export_manifest(dataset, out / name) == 5
        preview(recipe, dataset, log)
    shown = [dataset.manifest_dir, dataset.root / "manifests" / "mine-again"]
    pages = b"".join(
        path.read_bytes()
        for folder in shown
        for path in folder.iterdir()
        if path.suffix in (".md", ".html") or path.name in ("shards.json", "recipe.json")
    )
    for name in ("key", "url"):
        assert gone[name].encode() not in contents(out)
        assert gone[name].encode() not in contents(dataset.shards_dir)
        assert gone[name].encode() not in pages
    kept = next(read_jsonl(dataset.selection))
    assert kept["key"].encode() in contents(out)


@pytest.mark.slow
def test_an_export_before_the_shards_are_made_again_leaves_the_forgotten_out(made) -> None:
    """As after a kill between the request and the new shards."""
    recipe, dataset = made
    gone = next(read_jsonl(dataset.selection))["key"]
    with JsonlAppender(forgotten_path(dataset)) as file:
        file.append({"ts": "", "key": gone, "held": True, "labels": []})
    with EventLog(dataset, "run") as log:
        assert export(dataset, "imagefolder", dataset.root / "a", log).samples == 5
        assert gone.encode() not in b"".join(p.name.encode() for p in dataset.root.rglob("a/*/*"))
        with pytest.raises(UserError, match="contains forgotten images; run forget again"):
            export(dataset, "huggingface-webdataset", dataset.root / "b", log)
        assert not (dataset.root / "b").exists()
        forget(recipe, dataset, log, keys=[gone])
        assert export(dataset, "huggingface-webdataset", dataset.root / "b", log).samples == 5


@pytest.mark.slow
def test_when_all_is_forgotten_no_shard_and_no_card_remain(made) -> None:
    recipe, dataset = made
    with EventLog(dataset, "run") as log:
        forget(recipe, dataset, log, keys=[row["key"] for row in read_jsonl(dataset.url_manifest)])
    for target in (dataset, DatasetPaths("mine-again", dataset.root)):
        assert list(target.shards_dir.iterdir()) == []
        assert not target.shard_index.exists()
        names = {path.name for path in target.manifest_dir.iterdir()}
        assert not names & {"README.md", "card.html", "contact.jpg", "mean.png", "preview.html"}


@pytest.mark.slow
def test_the_store_forgets_too(made) -> None:
    recipe, dataset = made
    store = dataset.root.with_name("store")
    there = DatasetPaths("mine", dataset.root, f"file://{store}")
    mirrored = store / "manifests" / "mine"
    mirrored.mkdir(parents=True)
    for name in ("preview.html", "contact.jpg", "shards.json"):
        (mirrored / name).write_bytes(b"old")
    for part in dataset.originals_dir.glob("mine-*"):
        target = store / "data" / "mine" / "originals" / part.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(part.read_bytes())
    with EventLog(dataset, "run") as log:
        forget(recipe, there, log, keys=[row["key"] for row in read_jsonl(dataset.url_manifest)])
    assert list(mirrored.iterdir()) == []
