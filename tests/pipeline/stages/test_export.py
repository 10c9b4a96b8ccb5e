"""Export and import: other tools' own readers agree, and a round trip loses nothing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torchvision.datasets import ImageFolder

from pipeline.contract import DatasetPaths, UserError, load_index, read_jsonl
from pipeline.contract.tar import read_samples
from pipeline.importers import stage as imports
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.select.stage import select
from pipeline.shards.exports import FORMATS, export
from pipeline.shards.samples import decode
from pipeline.shards.stage import shard


@pytest.fixture
def made(shop: Any, log: Any) -> Any:
    """Two classes, 14 samples in two shards; webp, lossless."""
    shop.add(shop.served(8, labels=("Conus",)))
    shop.add(shop.served(6, 20, labels=("Bursa/b",)))
    recipe = shop.recipe(class_label=0)
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    return shop.dataset


def pixels(dataset: DatasetPaths) -> dict[str, tuple[str, bytes]]:
    """By key: the class name and the pixels."""
    index, paths = load_index(dataset.manifest_dir)
    return {
        key: (
            index.labels[int(files["cls"])],
            decode(files[index.format], index.channels).tobytes(),
        )
        for path in paths
        for key, files in read_samples(Path(path))
    }


def test_torchvision_reads_the_image_folder(made: DatasetPaths, log: Any, tmp_path: Path) -> None:
    result = export(made, "imagefolder", tmp_path / "out", log)
    assert result.samples == 14
    read = ImageFolder(str(tmp_path / "out"))
    assert read.classes == ["Bursa_b", "Conus"]
    truth = pixels(made)
    assert len(read) == 14
    for path, number in read.samples:
        label, values = truth[Path(path).stem]
        assert read.classes[number] == label.replace("/", "_")
        assert np.asarray(read.loader(path)).tobytes() == values


def test_labels_whose_folders_would_be_equal_stay_apart(
    shop: Any, log: Any, tmp_path: Path
) -> None:
    labels = ("Conus sp", "Conus sp.", "conus SP", "A/B", "A_B")
    for number, label in enumerate(labels):
        shop.add(shop.served(2, 20 * number, labels=(label,)))
    recipe = shop.recipe(class_label=0)
    select(recipe, shop.dataset, log)
    shard(recipe, shop.dataset, log, workers=1)
    export(shop.dataset, "imagefolder", tmp_path / "out", log)
    names = load_index(shop.dataset.manifest_dir)[0].labels
    found = {one.name: len(list(one.iterdir())) for one in (tmp_path / "out").iterdir()}
    assert sorted(names) == sorted(labels)
    assert found == {
        f"{number} {name.replace('/', '_').strip('.')}": 2 for number, name in enumerate(names)
    }


def test_the_zip_is_what_stylegans_loader_expects(
    made: DatasetPaths, log: Any, tmp_path: Path
) -> None:
    for name in ("one.zip", "two.zip"):
        export(made, "nvlabs", tmp_path / name, log)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert names[:2] == ["00000/img00000000.png", "00000/img00000001.png"]
        assert set(labels) == set(names)
        assert sorted(labels.values()) == [0] * 6 + [1] * 8
        found = sorted(
            np.asarray(Image.open(io.BytesIO(archive.read(name)))).tobytes() for name in names
        )
    assert found == sorted(values for _, values in pixels(made).values())


def read_as_stylegan(path: Path) -> tuple[list[np.ndarray], np.ndarray | None]:
    """By the rules of StyleGAN's and EDM's readers: every file with an image's ending is a sample,
    in the order of the names; all have the first one's square shape, 1 or 3 channels, CHW; each
    name must be in the labels, which are whole numbers, or there are none at all."""
    Image.init()
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if Path(n).suffix.lower() in Image.EXTENSION)
        assert names
        images = []
        for name in names:
            with archive.open(name) as file:
                values = np.asarray(Image.open(file))
            images.append((values[:, :, None] if values.ndim == 2 else values).transpose(2, 0, 1))
        listed = json.loads(archive.read("dataset.json"))["labels"]
    shape = images[0].shape
    assert shape[0] in (1, 3)
    assert shape[1] == shape[2] == 2 ** int(np.log2(shape[1]))
    assert all(image.shape == shape and image.dtype == np.uint8 for image in images)
    if listed is None:
        return images, None
    labels = np.array([dict(listed)[name] for name in names])
    assert (labels.ndim, labels.dtype.kind) == (1, "i")
    return images, labels


@pytest.mark.parametrize("options", [{"class_label": 0}, {"channels": 1}, {"format": "jpg"}])
def test_stylegans_reader_takes_the_zip(
    made: DatasetPaths, shop: Any, log: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    recipe = shop.recipe(**options)
    select(recipe, made, log)
    shard(recipe, made, log, workers=1)
    export(made, "nvlabs", tmp_path / "out.zip", log)
    images, labels = read_as_stylegan(tmp_path / "out.zip")
    assert len(images) == 14
    assert images[0].shape[0] == options.get("channels", 3)
    assert (labels is None) == ("class_label" not in options)
    if labels is not None:
        assert labels.max() + 1 == len(load_index(made.manifest_dir)[0].labels)


def test_the_hub_layouts_have_their_metadata_and_card(
    made: DatasetPaths, log: Any, tmp_path: Path
) -> None:
    export(made, "huggingface", tmp_path / "folder", log)
    lines = list(read_jsonl(tmp_path / "folder/data/train/metadata.jsonl"))
    assert len(lines) == 14
    assert {line["label"] for line in lines} == {"Conus", "Bursa/b"}
    assert all((tmp_path / "folder/data/train" / line["file_name"]).exists() for line in lines)
    export(made, "huggingface-webdataset", tmp_path / "shards", log)
    tars = sorted((tmp_path / "shards/data").iterdir())
    assert [tar.name for tar in tars] == ["train-00000-of-00002.tar", "train-00001-of-00002.tar"]
    assert [tar.read_bytes() for tar in tars] == [
        Path(path).read_bytes() for path in load_index(made.manifest_dir)[1]
    ]
    for folder in ("folder", "shards"):
        text = (tmp_path / folder / "README.md").read_text()
        head = yaml.safe_load(text.split("---\n")[1])
        assert (head["license"], head["size_categories"]) == ("cc0-1.0", ["n<1K"])
        assert head["configs"][0]["data_files"][0]["split"] == "train"
        assert (tmp_path / folder / "contact.jpg").exists()


@pytest.mark.parametrize("form", ["imagefolder", "nvlabs", "huggingface", "huggingface-webdataset"])
def test_a_round_trip_keeps_pixels_and_classes(
    made: DatasetPaths, shop: Any, log: Any, tmp_path: Path, form: str
) -> None:
    out = tmp_path / ("out.zip" if form == "nvlabs" else "out")
    export(made, form, out, log)
    back = DatasetPaths("back", tmp_path)
    assert import_dataset(out, back, log).images == 14
    again = import_dataset(out, back, log)
    assert (again.images, again.known) == (0, 14)
    recipe = shop.recipe({"near_duplicate_bits": "off"}, class_label=0, crop="none")
    select(recipe, back, log)
    shard(recipe, back, log, workers=1)
    found = sorted(pixels(back).values())
    truth = sorted(pixels(made).values())
    if form == "imagefolder":
        truth = sorted((label.replace("/", "_"), values) for label, values in truth)
    assert found == truth
    if form.startswith("huggingface"):
        assert {line["key"] for line in read_jsonl(back.selection)} == set(pixels(made))


def test_a_killed_import_goes_on(
    made: DatasetPaths, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(made, "imagefolder", tmp_path / "out", log)
    (tmp_path / "out/Conus/broken.png").write_bytes(b"not an image")
    back = DatasetPaths("back", tmp_path)
    add, count = imports._add, iter(range(100))

    def killed(*args: Any) -> bool:
        if next(count) == 9:
            raise KeyboardInterrupt
        return add(*args)

    monkeypatch.setattr(imports, "_add", killed)
    with pytest.raises(KeyboardInterrupt):
        import_dataset(tmp_path / "out", back, log)
    result = import_dataset(tmp_path / "out", back, log)
    assert result == ImportResult(images=5, known=9, failed=1)
    happened = {row["event"]: row["facts"] for row in read_jsonl(made.event_log)}
    assert happened["interrupted import continued"] == {"part": "back-000000", "images": 15}
    keys = [line["key"] for line in read_jsonl(back.url_manifest)]
    assert len(keys) == len(set(keys)) == 15
    assert log.failed == {"undecodable": 1}
    result = import_dataset(tmp_path / "out", back, log)
    assert result == ImportResult(images=0, known=14, failed=0, failed_before=1)


def test_mistakes_are_told_and_leave_nothing(
    made: DatasetPaths, shop: Any, log: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"choose from {', '.join(FORMATS)}"):
        export(made, "lmdb", tmp_path / "out", log)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(made, "imagefolder", tmp_path / "there", log)
    tar = made.shards_dir / "shells-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    for form in FORMATS:
        with pytest.raises(UserError, match="damaged"):
            export(made, form, tmp_path / "out", log)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []
    with pytest.raises(UserError, match="no images in it"):
        import_dataset(tmp_path / "there", DatasetPaths("back", tmp_path), log)
