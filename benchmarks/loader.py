"""CPU time of the loader per training image, compared with common loaders.

The same JPEG images (quality 95, 4:4:4), shuffled, in batches of 32 flipped, normalised float32
tensors; no worker processes. Each loader runs in a separate process on one thread; the CPU time of
that process is measured, best of three passes. mosaicml-streaming and litdata are measured if
installed. `--json` prints as the last line:

- `ratio_webdataset_64`, `ratio_webdataset_256`: the usual webdataset pipeline (decode with Pillow,
  ToTensor, normalise) divided by this project's, streamed from local shards, nothing cached;
- `ratio_best_peer_64`: the fastest other loader divided by this project's;
- `cached_ms_64`: this project's with the decoded images in memory;
- `ratio_foreign_64`, `ratio_foreign_256`: this project's from the same tars without their index,
  divided by that with it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

BATCH = 32
SETS = {64: (6000, 1000), 256: (900, 150)}
"""Size in px → number of images, images per shard."""


def draw(number: int, size: int) -> bytes:
    """Return an image with smooth parts, edges and a little grain, as JPEG."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).astype(np.int16)
    row, column = np.mgrid[:size, :size] / size
    inside = (row - 0.5) ** 2 + (column - 0.5) ** 2 < random.uniform(0.04, 0.2)
    pixels[inside] = 255 - pixels[inside]
    pixels += random.normal(0, 4, pixels.shape).astype(np.int16)
    data: bytes = simplejpeg.encode_jpeg(
        np.clip(pixels, 0, 255).astype(np.uint8), quality=95, colorsubsampling="444"
    )
    return data


def have(module: str) -> bool:
    """Return True if an optional loader is installed."""
    return importlib.util.find_spec(module) is not None


def write_mosaic(folder: Path, images: list[bytes]) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "bytes"}) as writer:
        for data in images:
            writer.write({"image": data})


def write_litdata(folder: Path, images: list[bytes]) -> None:
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes="8MB")
    for number, data in enumerate(images):
        writer[number] = data
    writer.done()
    writer.merge()


def write_set(folder: Path, size: int) -> None:
    """Write the images as shards with an index, as a folder of files, and as a zip."""
    count, each = SETS[size]
    images = [draw(number, size) for number in range(count)]
    (folder / "files" / "all").mkdir(parents=True)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for number, data in enumerate(images):
            archive.writestr(f"{number:06d}.jpg", data)
            (folder / "files" / "all" / f"{number:06d}.jpg").write_bytes(data)
    entries = []
    for shard, start in enumerate(range(0, count, each)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(start, min(start + each, count)):
                for ending, data in (("jpg", images[number]), ("json", b"{}")):
                    info = tarfile.TarInfo(f"{number:06d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        path = folder / f"set-{shard:06d}.tar"
        path.write_bytes(buffer.getvalue())
        entries.append({
            "url": path.name, "nsamples": min(each, count - start), "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        })  # fmt: skip
    if have("streaming"):
        write_mosaic(folder / "mosaic", images)
    if have("litdata"):
        write_litdata(folder / "litdata", images)
    index = {
        "__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "set", "shardlist": entries,
        "resolution": [size, size], "channels": 3, "format": "jpg", "labels": [], "digest": "set",
    }  # fmt: skip
    (folder / "shards.json").write_text(json.dumps(index))


Batches = Iterator[torch.Tensor]


def ours(location: str | Path, memory_gb: float, fit: str = "") -> Batches:
    from training.config import Config, DataOptions
    from training.data import Loader
    from training.micro_batches import ToFloat
    from training.streaming.dataset import open_shard_dataset

    to_float = ToFloat(torch.device("cpu"), channels_last=True)
    options = DataOptions(memory_gb=memory_gb, mirror=True, fit=fit)  # type: ignore[arg-type]
    config = Config(batch=BATCH, data=options)
    with Loader(open_shard_dataset(location, 0, options), config) as loader:
        for batch in loader:
            yield to_float(batch.images)


def _transform() -> Callable[[Any], torch.Tensor]:
    from torchvision import transforms

    return transforms.Compose([  # type: ignore[no-any-return]
        transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3),
    ])  # fmt: skip


def _tars(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def usual_webdataset(folder: Path) -> Batches:
    import webdataset as wds

    change = _transform()
    data = (
        wds.WebDataset(_tars(folder), shardshuffle=100, empty_check=False)
        .shuffle(1000).decode("pil").to_tuple("jpg").map_tuple(change).batched(BATCH)
    )  # fmt: skip
    while True:
        for (batch,) in data:
            yield batch


def _flip_and_scale(images: list[Any]) -> torch.Tensor:
    pixels = np.stack(images)
    flips = np.random.random(len(pixels)) < 0.5
    pixels[flips] = pixels[flips, :, ::-1]
    moved = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return moved.to(torch.float32).div_(127.5).sub_(1)


def fast_webdataset(folder: Path) -> Batches:
    import webdataset as wds

    data = (
        wds.WebDataset(_tars(folder), shardshuffle=100, empty_check=False)
        .shuffle(1000).to_tuple("jpg").map_tuple(simplejpeg.decode_jpeg)
    )  # fmt: skip
    while True:
        images = iter(data)
        while batch := [image for (image,) in itertools.islice(images, BATCH)]:
            yield _flip_and_scale(batch)


def wids_set(folder: Path) -> Batches:
    import wids

    change = _transform()
    data = wids.ShardListDataset(str(folder / "shards.json"), keep=True)
    while True:
        order = torch.randperm(len(data)).tolist()
        # its own sampler stays within a shard; so do we, otherwise it would open one per sample
        order.sort(key=lambda number: number // data.shards[0]["nsamples"])
        for start in range(0, len(order), BATCH):
            yield torch.stack([change(data[i][".jpg"]) for i in order[start : start + BATCH]])


def image_folder(folder: Path) -> Batches:
    from torchvision.datasets import ImageFolder

    data = ImageFolder(str(folder / "files"), _transform())
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True)
    while True:
        for batch, _ in loader:
            yield batch


def zip_file(folder: Path) -> Batches:
    """A zip of images read by name in random order, as StyleGAN's loader does, but decoded with
    simplejpeg instead of Pillow."""
    archive = zipfile.ZipFile(folder / "set.zip")
    names = archive.namelist()
    while True:
        order = torch.randperm(len(names)).tolist()
        for start in range(0, len(order), BATCH):
            some = (archive.read(names[number]) for number in order[start : start + BATCH])
            yield _flip_and_scale([simplejpeg.decode_jpeg(data) for data in some])


def _decoded(form: str) -> Callable[[bytes], Any]:
    """How another loader's sample is decoded: with Pillow and torchvision as in its guides, or
    with simplejpeg as uint8."""
    if form == "uint8":
        return simplejpeg.decode_jpeg  # type: ignore[no-any-return]
    change = _transform()
    return lambda data: change(Image.open(io.BytesIO(data)).convert("RGB"))


def _stacked(form: str) -> Callable[[list[Any]], torch.Tensor]:
    return _flip_and_scale if form == "uint8" else torch.stack


def mosaic(folder: Path, form: str) -> Batches:
    """mosaicml-streaming from a local folder, with its default shuffling."""
    from streaming import StreamingDataset

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            return decode(super().__getitem__(at)["image"])

    decode = _decoded(form)
    data = Images(local=str(folder / "mosaic"), shuffle=True, batch_size=BATCH)
    loader: Any = torch.utils.data.DataLoader(data, BATCH, collate_fn=_stacked(form))
    while True:
        yield from loader


def litdata(folder: Path, form: str) -> Batches:
    """litdata's StreamingDataset from a local folder, shuffled."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            return decode(super().__getitem__(at))

    decode = _decoded(form)
    data = Images(str(folder / "litdata"), shuffle=True)
    loader = StreamingDataLoader(data, batch_size=BATCH, collate_fn=_stacked(form))
    while True:
        yield from loader


LOADERS: dict[str, Callable[[Path], Batches]] = {
    "ours, streamed": lambda folder: ours(folder, 0.0),
    "ours, in memory": lambda folder: ours(folder, 2.0),
    "ours, tars without an index": lambda folder: ours(f"{folder}/set-*.tar", 0.0),
    "ours, tars without an index, crop": lambda folder: ours(f"{folder}/*.tar", 0.0, "crop"),
    "webdataset as documented": usual_webdataset,
    "webdataset, simplejpeg, uint8": fast_webdataset,
    "wids": wids_set,
    "torchvision ImageFolder": image_folder,
    "zip, simplejpeg, uint8": zip_file,
}
if have("streaming"):
    LOADERS["mosaicml-streaming"] = lambda folder: mosaic(folder, "PIL")
    LOADERS["fast mosaicml-streaming (simplejpeg, uint8)"] = lambda folder: mosaic(folder, "uint8")
if have("litdata"):
    LOADERS["litdata"] = lambda folder: litdata(folder, "PIL")
    LOADERS["fast litdata (simplejpeg, uint8)"] = lambda folder: litdata(folder, "uint8")


PEERS = [name for name in LOADERS if not name.startswith("ours")]


def run(name: str, folder: Path, count: int) -> float:
    """Return CPU milliseconds per image over `count` images, after one warm-up pass."""
    torch.set_num_threads(1)
    batches = LOADERS[name](folder)

    def take() -> float:
        start, seen = time.process_time(), 0
        while seen < count:
            seen += len(next(batches))
        return (time.process_time() - start) / seen * 1000

    take()
    return min(take() for _ in range(3))


def measured(name: str, folder: Path, size: int) -> float:
    """Call `run` in a separate process."""
    told = subprocess.run(
        [sys.executable, __file__, "--child", name, str(folder), str(SETS[size][0])],
        capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if told.returncode:
        raise SystemExit(f"{name}: {told.stderr[-2000:]}")
    return float(told.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="a JSON object as the last line")
    parser.add_argument("--only", type=int, choices=SETS, help="one size")
    parser.add_argument(
        "--loaders", default="", metavar="A,B", help="those whose names begin so (default: all)"
    )
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.child:
        name, folder, count = known.child
        print(run(name, Path(folder), int(count)))
        return
    wanted = tuple(known.loaders.split(","))
    names = [name for name in LOADERS if name.startswith(wanted) or name == "ours, streamed"]
    cost: dict[int, dict[str, float]] = {}
    for size in [known.only] if known.only else SETS:
        with tempfile.TemporaryDirectory(prefix="loader-") as place:
            write_set(Path(place), size)
            cost[size] = {name: measured(name, Path(place), size) for name in names}
        mine = cost[size]["ours, streamed"]
        print(f"{size} px: CPU ms an image, and times ours")
        for name, value in cost[size].items():
            print(f"  {name:44}{value:8.3f}{value / mine:8.2f}")
    if known.json:
        found: dict[str, float] = {}
        for size, values in cost.items():
            mine = values["ours, streamed"]
            found[f"streamed_ms_{size}"] = mine
            if "webdataset as documented" in values:
                found[f"ratio_webdataset_{size}"] = values["webdataset as documented"] / mine
            if peers := [value for name, value in values.items() if name in PEERS]:
                found[f"ratio_best_peer_{size}"] = min(peers) / mine
            if "ours, tars without an index" in values:
                found[f"ratio_foreign_{size}"] = values["ours, tars without an index"] / mine
            if "ours, in memory" in values:
                found[f"cached_ms_{size}"] = values["ours, in memory"]
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
