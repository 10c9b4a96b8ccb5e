"""MNIST, CIFAR and image folders: torchvision reads the same files, and
its pixels and labels are the ones that were imported."""

from __future__ import annotations

import gzip
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from pipeline.contract import UserError
from tests.helpers.import_files import png, write
from tests.pipeline.importers.conftest import Imported, Take

RNG = np.random.default_rng


def check(done: Imported, truth: Any, name: str, labels: list[list[str]]) -> None:
    """Compare images called `name N` with torchvision's samples in order."""
    assert len(done.rows) == len(truth) == len(labels)
    for number, label in enumerate(labels):
        title = f"{name} {number}"
        np.testing.assert_array_equal(done.pixels[title], np.asarray(truth[number][0]))
        assert done.labels[title] == label


# MNIST


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


IMAGES = RNG(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
DIGITS = np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 9], np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST/raw"
    for split, part in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        write(raw / f"{split}-images-idx3-ubyte", idx(IMAGES[part]))
        write(raw / f"{split}-labels-idx1-ubyte", idx(DIGITS[part]))
    return raw


def test_mnist(tmp_path: Path, take: Take, mnist: Path) -> None:
    train = take(mnist, split="train")
    check(train, datasets.MNIST(str(tmp_path), train=True), "train-images-idx3-ubyte",
          [[str(digit)] for digit in DIGITS[:8]])  # fmt: skip
    check(take(mnist, split="test"), datasets.MNIST(str(tmp_path), train=False),
          "t10k-images-idx3-ubyte", [[str(digit)] for digit in DIGITS[8:]])  # fmt: skip
    both = take(mnist)
    assert both.found == "MNIST (idx): t10k-images-idx3-ubyte, train-images-idx3-ubyte"
    assert both.result.images == 12


def test_mnist_gzipped_in_a_zip_and_one_file(tmp_path: Path, take: Take, mnist: Path) -> None:
    whole = take(mnist, split="train").pixels
    for path in list(mnist.iterdir()):
        write(mnist / f"{path.name}.gz", gzip.compress(path.read_bytes()))
    assert take(mnist).result.images == 12  # the packed files are copies
    for path in mnist.glob("*ubyte"):
        path.unlink()
    packed = take(mnist / "train-images-idx3-ubyte.gz")
    assert [row["labels"] for row in packed.rows.values()] == [[str(one)] for one in DIGITS[:8]]
    for number in range(8):
        np.testing.assert_array_equal(
            packed.pixels[f"train-images-idx3-ubyte.gz {number}"],
            whole[f"train-images-idx3-ubyte {number}"],
        )
    shutil.make_archive(str(tmp_path / "kaggle"), "zip", mnist)
    assert take(tmp_path / "kaggle.zip").result.images == 12


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("images-idx3", idx(IMAGES[:8])[:-1], "truncated: has 7 images, 8 by its header"),
        ("images-idx3", b"\0\0\x0d\x03" + bytes(12), "damaged: not an IDX file of bytes"),
        ("images-idx3", b"\0\0", "damaged: not an IDX file of bytes"),
        ("labels-idx1", idx(DIGITS[:8])[:-1], "damaged: 7 labels, 8 by its header, for 8 images"),
        ("labels-idx1", idx(DIGITS[:7]), "damaged: 7 labels, 7 by its header, for 8 images"),
        ("labels-idx1", b"", "damaged: not an IDX file of bytes"),
    ],
)
def test_damaged_mnist(take: Take, mnist: Path, name: str, data: bytes, problem: str) -> None:
    (mnist / f"train-{name}-ubyte").write_bytes(data)
    done = take(mnist)
    assert done.problems == [problem]
    train = 8 if name == "labels-idx1" else 7 if problem.startswith("truncated") else 0
    assert done.result.images == 4 + train


def test_mnist_without_labels_says_so(take: Take, mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte").unlink()
    done = take(mnist, split="train")
    assert done.problems == ["not_found: no file of labels, train-labels-idx1-ubyte"]
    assert done.result.images == 8


def test_two_datasets_with_the_file_names_of_mnist(tmp_path: Path, take: Take, mnist: Path) -> None:
    root = tmp_path / "in"
    mnist = mnist.parent.rename(root) / "raw"
    fashion = root / "FashionMNIST/raw"
    write(fashion / "train-images-idx3-ubyte.gz", gzip.compress(idx(IMAGES[::-1][:3])))
    write(fashion / "train-labels-idx1-ubyte", idx(np.array([9, 8, 9], np.uint8)))
    copy = root / "train-images.idx3-ubyte"  # as Kaggle has every file twice
    shutil.copy(mnist / "train-images-idx3-ubyte", copy)
    listed = take(root, split="train").listed
    labels = [row["labels"][0] for row in listed if "FashionMNIST" in row["url"]]
    assert (len(listed), labels) == (8 + 3, ["9", "8", "9"])
    (root / "labels").mkdir()
    (fashion / "train-labels-idx1-ubyte").rename(root / "labels/train-labels-idx1-ubyte")
    done = take(root, split="train")
    assert done.problems == [
        "parse_error: several files of labels, train-labels-idx1-ubyte; put one beside the images"
    ]
    assert sum(row["labels"] != [] for row in done.listed) == 8


def test_a_gzipped_file_that_ends_early(take: Take, mnist: Path) -> None:
    packed = gzip.compress((mnist / "train-images-idx3-ubyte").read_bytes())
    write(mnist / "train-images-idx3-ubyte.gz", packed[:-9])
    (mnist / "train-images-idx3-ubyte").unlink()
    done = take(mnist)
    assert done.problems[0].startswith("damaged: EOFError: ")
    assert done.result.images == 4


# CIFAR

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PIXELS = RNG(1).integers(0, 256, (18, 3 * 32 * 32), dtype=np.uint8)
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


class Cifar10(datasets.CIFAR10):
    """Without the checksums of the real files."""

    train_list: ClassVar[Any] = [[name, None] for name in BATCHES[:5]]
    test_list: ClassVar[Any] = [["test_batch", None]]
    meta: ClassVar[Any] = {**datasets.CIFAR10.meta, "md5": None}


def python_2_pickle(data: np.ndarray, labels: list[int], files: list[str]) -> bytes:
    """What Python 2 writes for a batch, as in the real files: all texts are byte strings."""
    numbers = b"".join(b"K" + bytes([one]) for one in labels)
    names = b"".join(b"U" + bytes([len(one)]) + one.encode() for one in files)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR"
        b"(K\1K%c\115\0\x0c\x86cnumpy\ndtype\n(U\2u1K\0K\1tR(K\3U\1|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T" % len(data)
    )
    array += data.nbytes.to_bytes(4, "little") + data.tobytes() + b"tb"
    return (
        b"\x80\2}(U\4data"
        + array
        + b"U\6labels]("
        + numbers
        + b"eU\x09filenames]("
        + names
        + b"eu."
    )


def part(number: int) -> slice:
    return slice(3 * number, 3 * number + 3)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """The version for Python, as Python 2 and 3 pickle it, and the binary one."""
    python, binary = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-10-batches-bin"
    labels = [number % 10 for number in range(18)]
    for number, name in enumerate(BATCHES):
        chunk, named = PIXELS[part(number)], labels[part(number)]
        files = [f"{name}_{n}.png" for n in named]
        values = {"data": chunk, "labels": named, "filenames": files}
        old = python_2_pickle(chunk, named, files)
        write(python / name, old if number % 2 == 0 else pickle.dumps(values, protocol=2))
        rows = (bytes([label]) + row.tobytes() for label, row in zip(named, chunk, strict=True))
        write(binary / f"{name}.bin", b"".join(rows))
    write(python / "batches.meta", pickle.dumps({"label_names": NAMES, "num_vis": 3072}, 2))
    write(binary / "batches.meta.txt", "\n".join(NAMES) + "\n\n")
    return tmp_path


def test_cifar_10(take: Take, cifar: Path) -> None:
    labels = [[NAMES[number % 10]] for number in range(18)]
    python = take(cifar / "cifar-10-batches-py")
    binary = take(cifar / "cifar-10-batches-bin")
    assert python.found == "CIFAR-10 (Python): 6 files"
    assert binary.found == "CIFAR-10 (binary): 6 files"
    train, test = Cifar10(str(cifar), train=True), Cifar10(str(cifar), train=False)
    for number, (pixels, label) in enumerate([*train, *test]):
        name, place = BATCHES[number // 3], number % 3
        title = f"{name}_{number % 10}.png"
        np.testing.assert_array_equal(python.pixels[title], np.asarray(pixels))
        np.testing.assert_array_equal(binary.pixels[f"{name}.bin {place}"], np.asarray(pixels))
        assert python.labels[title] == binary.labels[f"{name}.bin {place}"] == labels[number]
        assert labels[number] == [train.classes[label]]
    assert take(cifar / "cifar-10-batches-bin", split="test").result.images == 3
    assert take(cifar / "cifar-10-batches-bin/test_batch.bin").labels["test_batch.bin 0"] == ["dog"]


@pytest.mark.parametrize("kind", ["py", "bin"])
def test_cifar_10_as_it_is_downloaded(tmp_path: Path, take: Take, cifar: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        archive.add(cifar / f"cifar-10-batches-{kind}", f"cifar-10-batches-{kind}")
    assert take(tmp_path / "cifar.tar.gz").result.images == 18
    packed = (tmp_path / "cifar.tar.gz").read_bytes()
    write(tmp_path / "cut.tar.gz", packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"cut\.tar\.gz: EOFError"):
        take(tmp_path / "cut.tar.gz")


def test_cifar_100(tmp_path: Path, take: Take) -> None:
    names = [f"fine {number}".replace(" ", "_") for number in range(100)]
    rows = (bytes([3, 40 + n]) + PIXELS[n].tobytes() for n in range(5))
    write(tmp_path / "b/train.bin", b"".join(rows))
    write(tmp_path / "b/fine_label_names.txt", "\n".join(names))
    values = {b"data": PIXELS[:5], b"fine_labels": list(range(40, 45)), b"coarse_labels": [3] * 5}
    write(tmp_path / "p/train", pickle.dumps(values))
    write(tmp_path / "p/meta", pickle.dumps({"fine_label_names": names}))
    for folder, title in (("b", "train.bin"), ("p", "train")):
        done = take(tmp_path / folder)
        assert done.labels == {f"{title} {n}": [f"fine_{40 + n}"] for n in range(5)}
        for n in range(5):
            truth = PIXELS[n].reshape(3, 32, 32).transpose(1, 2, 0)
            np.testing.assert_array_equal(done.pixels[f"{title} {n}"], truth)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (write, (self.path, b"run"))


def test_code_in_a_pickle_does_not_run(tmp_path: Path, take: Take, cifar: Path) -> None:
    folder = cifar / "cifar-10-batches-py"
    write(folder / "data_batch_1", pickle.dumps({"data": Trap(tmp_path / "trap")}))
    done = take(folder)
    assert not (tmp_path / "trap").exists()
    (problem,) = done.problems
    assert problem.startswith("damaged: not a pickle of CIFAR (UnpicklingError: contains ")
    assert done.result.images == 15


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02K\x01r" + (1 << 24).to_bytes(4, "little") + b".", b"K\x01p9999999\n.",
     b"\x80\x02" + b"]" * 2_500_000 + b"."],
    ids=["LONG_BINPUT", "PUT", "many values"],
)  # fmt: skip
def test_a_small_pickle_takes_no_gigabytes(take: Take, cifar: Path, data: bytes) -> None:
    write(cifar / "cifar-10-batches-py/data_batch_1", data)
    done = take(cifar / "cifar-10-batches-py")
    assert done.result.images == 15
    assert "needs too much memory" in done.problems[0]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"data": PIXELS[:3], "labels": [1, 2]}, "not one label for each of its 3 images"),
        ({"data": PIXELS[:3, :99].copy(), "labels": [1]}, "not an array of images"),
        ({"data": PIXELS[:3].astype(float), "labels": [1]}, "not an array of images"),
        ({"data": [[1]], "labels": [1]}, "no array of images in it"),
        ([1], "not a pickle of CIFAR"),
    ],
)
def test_damaged_cifar_for_python(take: Take, cifar: Path, values: Any, problem: str) -> None:
    write(cifar / "cifar-10-batches-py/data_batch_1", pickle.dumps(values, 2))
    done = take(cifar / "cifar-10-batches-py")
    assert done.result.images == 15
    (found,) = done.problems
    assert found.startswith(f"damaged: {problem}")


def test_damaged_binary_cifar(take: Take, cifar: Path) -> None:
    folder = cifar / "cifar-10-batches-bin"
    write(folder / "data_batch_2.bin", (folder / "data_batch_2.bin").read_bytes()[:-5])
    (folder / "batches.meta.txt").unlink()
    done = take(folder)
    assert done.problems == [
        "not_found: no file of class names; the labels are numbers",
        "truncated: the file ends within image 2",
    ]
    assert done.result.images == 17
    assert done.labels["data_batch_1.bin 2"] == ["2"]


# image folders


def test_image_folder(tmp_path: Path, take: Take) -> None:
    for number, name in enumerate(("b/0.png", "a/1.png", "a/sub/2.png", "c d/3.png")):
        write(tmp_path / "in" / name, png(number))
    truth = datasets.ImageFolder(str(tmp_path / "in"))
    done = take(tmp_path / "in")
    assert done.found == "image folder: 4 images, 3 labels"
    for path, number in truth.samples:
        name = Path(path).name
        assert done.labels[name][0] == truth.classes[number]
        np.testing.assert_array_equal(done.pixels[name], np.asarray(Image.open(path)))
