"""Keys and members of the same tars, by webdataset and by this project."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.contract.tar import DamagedTar, TarSample, read_samples, samples

LONG = "n" * 200
PLAIN = [
    "./0001.jpg", "./0001.cls", "train.v1/0001.jpg", "train.v1/0001.cls", "0001.JPG", "0001.Cls",
    "a.seg.png", "a.png", "b/a.seg.PNG", f"{LONG}.jpg", f"{LONG}.cls", f"d/{LONG}.tar.gz.jpg",
    "README", "folder.d/README", ".hidden", "__meta__/x.json", "__version__", "Muschel ö.jpg",
    "c.", "last.jpg",
]  # fmt: skip
APPLE = ["._0001.jpg", "x/._0001.jpg", "__MACOSX/0001.jpg", "x/__MACOSX/y/0002.jpg", "x/.DS_Store"]


def write(path: Path, names: list[str], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 10
            tar.addfile(info, io.BytesIO(b"%010d" % number))
    return path


def by_webdataset(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    with path.open("rb") as stream:
        files = tar_file_expander([{"url": str(path), "stream": stream}])
        found = list(group_by_keys(files))
    return [
        (one["__key__"], {name: data for name, data in one.items() if not name.startswith("__")})
        for one in found
    ]


def read(path: Path) -> list[TarSample]:
    data = path.read_bytes()
    return samples(lambda size, offset: data[offset : offset + size], len(data))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_and_extensions_are_those_of_webdataset(tmp_path: Path, form: int) -> None:
    path = write(tmp_path / "a.tar", PLAIN, form)
    expected = by_webdataset(path)
    assert list(read_samples(path)) == expected
    assert [key for key, _ in expected] == [
        "./0001", "train.v1/0001", "0001", "a", "b/a", LONG, f"d/{LONG}", "Muschel ö", "c", "last",
    ]  # fmt: skip
    assert set(expected[2][1]) == {"jpg", "cls"}
    assert set(expected[3][1]) == {"seg.png", "png"}


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path)) as sink:
        for number in range(5):
            sink.write({"__key__": f"s{number:03d}", "cls": number, "txt": "a b", "seg.png": b"p"})
    assert list(read_samples(path)) == by_webdataset(path)


def test_files_of_macos_belong_to_no_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [*APPLE, "0001.jpg", *(f"z/{name}" for name in APPLE)])
    assert [sample.key for sample in read(path)] == ["0001"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["1.jpg", "2.jpg", "1.cls", "2.cls"], "the key '1' occurs again .*'1.cls'"),
        (["d/1.jpg", "2.jpg", "d/1.jpg"], "the key 'd/1' occurs again"),
        (["1.jpg", "1.JPG"], "'1.JPG' occurs twice"),
    ],
)
def test_keys_that_are_apart_or_double_are_refused_by_name(
    tmp_path: Path, names: list[str], said: str
) -> None:
    with pytest.raises(DamagedTar, match=said):
        read(write(tmp_path / "a.tar", names))
