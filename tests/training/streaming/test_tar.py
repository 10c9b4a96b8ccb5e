"""Our reading of tars against the standard library's."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath

import numpy as np
import pytest

from pipeline.contract.tar import DamagedTar, members, samples

LONG = "f" * 90 + "/" + "n" * 120 + ".jpg"


def packed(names: list[str], form: int, big: int = 3000) -> tuple[bytes, dict[str, bytes]]:
    random, buffer = np.random.default_rng(0), io.BytesIO()
    content = {name: random.bytes(int(random.integers(0, big))) for name in names}
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue(), content


def read(data: bytes) -> dict[str, bytes]:
    return {
        name: data[extent.offset : extent.offset + extent.size]
        for name, extent in members(lambda size, offset: data[offset : offset + size], len(data))
    }


@pytest.mark.parametrize("big", [300, 200_000])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_finds_what_tarfile_wrote(form: int, big: int) -> None:
    names = [f"a/b{n}.jpg" for n in range(40)] + ["Muschel ö.jpg", "one.two.three"]
    if form != tarfile.USTAR_FORMAT:
        names.append(LONG)
    data, content = packed(names, form, big)
    assert read(data) == content


def test_samples_are_neighbours_with_one_key() -> None:
    names = ["d.x/k1.jpg", "d.x/k1.seg.png", "d.x/k2.jpg", "k2.JPG", ".hidden", "k3.cls"]
    data, content = packed(names, tarfile.USTAR_FORMAT)
    found = samples(lambda size, offset: data[offset : offset + size], len(data))
    assert [sample.key for sample in found] == ["d.x/k1", "d.x/k2", "k2", "k3"]
    assert list(found[0].members) == ["jpg", "seg.png"]
    assert list(found[2].members) == ["jpg"]
    for name, sample in zip(("d.x/k1.jpg", "d.x/k2.jpg"), found, strict=False):
        assert PurePosixPath(name).suffix == ".jpg"
        assert sample.members["jpg"].size == len(content[name])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_archive_is_refused_wherever_it_is_cut(share: float) -> None:
    data, _ = packed([f"{n}.jpg" for n in range(30)], tarfile.USTAR_FORMAT)
    end = len(data.rstrip(b"\0"))
    for size in (int(end * share), int(end * share) // 512 * 512):
        cut = data[:size]
        with pytest.raises(DamagedTar):
            read(cut)


def test_a_changed_header_is_refused() -> None:
    data, _ = packed(["a.jpg", "b.jpg"], tarfile.USTAR_FORMAT)
    with pytest.raises(DamagedTar, match="wrong header checksum at byte 512"):
        read(data[:520] + b"?" + data[521:])
