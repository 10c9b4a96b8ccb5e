"""Archives and folders of strangers: one bad member is one failure, and its neighbours arrive."""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.contract import DatasetPaths, UserError, read_jsonl
from pipeline.importers.stage import ImportResult, import_dataset
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records

Import = Callable[[Path], ImportResult]


@pytest.fixture
def good(shop: Any) -> dict[str, bytes]:
    return {one.name: one.data for one in shop.served(3)}


@pytest.fixture
def take(shop: Any, log: Any) -> Import:
    return lambda path: import_dataset(path, shop.dataset, log, recipe=shop.recipe())


def arrived(dataset: DatasetPaths) -> set[bytes]:
    return {read_original(dataset, record) for record in read_records(dataset)}


def failures(dataset: DatasetPaths) -> dict[str, str]:
    return {
        line["url"].rpartition("#")[2].rpartition("/")[2]: f"{line['kind']}: {line['detail']}"
        for line in read_jsonl(dataset.failure_log)
    }


def zip_of(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


# zips


def bitmap(width: int, height: int) -> bytes:
    """A BMP of one colour: it decodes, and shrinks a thousandfold."""
    size = 3 * width * height
    head = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + size, 0, 0, 54, 40, width, height, 1, 24,
                               0, size, 0, 0, 0, 0)  # fmt: skip
    return head + bytes(size)


@pytest.mark.slow
def test_a_small_zip_does_not_unpack_to_gigabytes(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    """60 bitmaps of 48 MB each in some 3 MB: the first few are images, the rest is refused."""
    path = tmp_path / "bomb.zip"
    packer = zlib.compressobj(9, wbits=-15)
    plain = bitmap(4000, 4000)
    packed = packer.compress(plain) + packer.flush()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in good.items():
            archive.writestr(f"a/{name}", data)
    _append_packed(path, {f"b/{n:02}.bmp": (packed, plain) for n in range(60)})
    assert path.stat().st_size < 5 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = take(path)
    assert set(good.values()) <= arrived(shop.dataset)
    assert result.images + result.failed == 63
    assert (
        "too_large: the archive unpacks to more than 100 times its size"
        in failures(shop.dataset).values()
    )
    on_disk = sum(file.stat().st_size for file in shop.dataset.originals_dir.iterdir())
    assert on_disk < 900 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10
    with pytest.raises(OSError):  # it is not written into the folder either
        (tmp_path / "b").stat()


def _append_packed(path: Path, members: dict[str, tuple[bytes, bytes]]) -> None:
    """Add deflated members without packing each again."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, (packed, plain) in members.items():
            archive.writestr(name, packed)
            info = archive.getinfo(name)
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(plain)
            info.CRC = zlib.crc32(plain)
            archive.fp.seek(info.header_offset)  # type: ignore[union-attr]
            archive.fp.write(info.FileHeader(False))  # type: ignore[union-attr]
            archive.fp.seek(archive.start_dir)  # type: ignore[union-attr]


def test_members_of_every_odd_kind(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    path = tmp_path / "odd.zip"
    image = good["0000.jpg"]
    zip_of(path, good | {
        "junk.png": b"nothing", "../../up.jpg": image + b"1", "/etc/absolute.jpg": image + b"2",
        "large.bmp": bytes(70 << 20), "nested.zip": b"PK\3\4", "crc.jpg": image + b"3",
        "crypt.jpg": image + b"4", "way.jpg": image + b"5",
    })  # fmt: skip
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("0001.jpg", good["0001.jpg"])
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"crc.jpg"))
    data[directory + 16 : directory + 20] = b"\1\2\3\4"  # another checksum
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"crypt.jpg"))
    data[directory + 8] |= 1
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"way.jpg"))
    data[directory + 10] = 99  # an unknown way of packing
    path.write_bytes(data)
    result = take(path)
    assert arrived(shop.dataset) == {*good.values(), image + b"1", image + b"2"}
    assert result == ImportResult(5, 0, 7)
    found = failures(shop.dataset)
    assert found["junk.png"].startswith("undecodable")
    assert found["large.bmp"].startswith("too_large: unpacks to 73400320 bytes")
    assert "CRC" in found["crc.jpg"]
    assert found["crypt.jpg"] == "damaged: encrypted"
    assert found["way.jpg"].startswith("damaged: ")
    assert found["link.jpg"] == "wrong_type: a symbolic link"
    assert found["nested.zip"].startswith("damaged: cannot be read as a zip file")
    assert not (tmp_path.parent / "up.jpg").exists()


def test_names_that_are_not_the_unicode_they_say(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    path = tmp_path / "names.zip"
    zip_of(path, good | {"\u00e9\u00e9.jpg": good["0000.jpg"] + b"1", "x.jpg": b"junk"})
    data = path.read_bytes().replace("\u00e9\u00e9".encode(), b"\xff\xfe\xe9\xe9")
    path.write_bytes(data)
    assert take(path) == ImportResult(4, 0, 1)
    assert path.read_bytes() == data


@pytest.mark.parametrize("labels", ["{", "[1]", '{"labels": 5}', "[" * 100_000])
def test_labels_that_cannot_be_read_are_one_line(
    tmp_path: Path, take: Import, good: dict[str, bytes], labels: str
) -> None:
    zip_of(tmp_path / "x.zip", good | {"dataset.json": labels.encode()})
    with pytest.raises(UserError, match=r"x\.zip: dataset\.json: .*correct it or remove it"):
        take(tmp_path / "x.zip")


def test_odd_labels_cost_themselves(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    entries = [["0000.jpg", 1], ["0001.jpg", -1], ["0002.jpg", [0, 1]], 5, ["0000.jpg"]]
    facts = {"labels": entries, "label_names": ["a", "b"]}
    zip_of(tmp_path / "x.zip", good | {"dataset.json": json.dumps(facts).encode()})
    assert take(tmp_path / "x.zip") == ImportResult(3, 0, 2)
    labels = {row["title"]: row["labels"] for row in read_jsonl(shop.dataset.url_manifest)}
    assert labels == {"0000.jpg": ["b"], "0001.jpg": ["-1"], "0002.jpg": ["b"]}


@pytest.mark.parametrize("damage", [b"", b"PK\5\6" + bytes(18), b"nothing of a zip", b"PK\3\4" * 9])
def test_what_is_no_zip_is_one_line(tmp_path: Path, take: Import, damage: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(damage)
    with pytest.raises(UserError, match=r"x\.zip: (cannot be read as a zip|no images)"):
        take(path)


# tars


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_a_tar_with_links_devices_and_odd_metadata(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    path = tmp_path / "x.tar"
    image = good["0000.jpg"]
    tar_of(path, {
        **good,
        "0002.json": b'{"labels": "one", "title": 5}',
        "link.jpg": special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        "hard.jpg": special("hard.jpg", tarfile.LNKTYPE, "0000.jpg"),
        "null.jpg": special("null.jpg", tarfile.CHRTYPE),
        "fifo.jpg": special("fifo.jpg", tarfile.FIFOTYPE),
        "a.jpg": image + b"1", "a.json": b"{",
        "b.jpg": image + b"2", "b.json": b"[" * 100_000,
        "c.jpg": image + b"3", "c.json": b"[5]",
        "d.jpg": image + b"4", "d.cls": b"9" * 5000,
        "e.jpg": image + b"5", "e.cls": b"-7",
        "./dir/f.jpg": image + b"6",
        "g.jpg": b"junk",
        "/abs/../h.jpg": image + b"7",
    })  # fmt: skip
    result = take(path)
    assert arrived(shop.dataset) == {*good.values(), *(image + n for n in (b"5", b"6", b"7"))}
    assert result == ImportResult(6, 0, 9)
    kinds = {name: text.partition(":")[0] for name, text in failures(shop.dataset).items()}
    assert kinds == {
        **dict.fromkeys(["link.jpg", "hard.jpg", "null.jpg", "fifo.jpg"], "wrong_type"),
        **dict.fromkeys(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "parse_error"),
        "g.jpg": "undecodable",
    }
    rows = {row["title"]: row["labels"] for row in read_jsonl(shop.dataset.url_manifest)}
    assert rows["5"] == ["one"]
    assert rows["e"] == ["-7"]


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:124] = b"0000644\0", 2 * b"0000000\0"
    block[124:136], block[136:148], block[156:157] = size, b"00000000000\0", kind
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(b"pax", octal(len(body)), b"x") + body + bytes(-len(body) % 512)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "tail",
    {
        "negative size": header(b"n.jpg", b"\xff" * 12),
        "base-256 size of a petabyte": header(b"n.jpg", b"\x80" + (1 << 50).to_bytes(11)),
        "pax record of length 0": pax(b"0 path=x\n") + header(b"n.jpg", octal(0)),
        "pax size below 0": pax(b"18 size=-100000000\n"[:19]) + header(b"n.jpg", octal(0)),
        "pax size of junk": pax(b"12 size=abc\n") + header(b"n.jpg", octal(0)),
        "long name of 4 GB": header(b"n", b"\x80" + (1 << 32).to_bytes(11), b"L"),
        "name that is no UTF-8": header(b"\xff\xfe\xe9.jpg", octal(4)) + b"junk".ljust(512, b"\0"),
        "junk": b"\x17" * 700,
        "cut off": header(b"n.jpg", octal(5000)) + b"abc",
    }.items(),
    ids=lambda item: item[0],
)
def test_a_tar_that_is_damaged_gives_what_comes_before(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes], tail: tuple[str, bytes]
) -> None:
    (tmp_path / "many").mkdir()
    tar_of(tmp_path / "many/0.tar", dict(good))
    data = (tmp_path / "many/0.tar").read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    (tmp_path / "many/0.tar").write_bytes(data + tail[1])
    (tmp_path / "many/1.tar").write_bytes(b"no tar")
    tar_of(tmp_path / "many/2.tar", {"last.jpg": good["0000.jpg"] + b"1"})
    os.mkfifo(tmp_path / "many/3.tar")
    result = take(tmp_path / "many")
    assert arrived(shop.dataset) == {*good.values(), good["0000.jpg"] + b"1"}
    assert result.failed == len(failures(shop.dataset)) >= 2


# folders


@pytest.mark.timeout(20)
def test_a_folder_with_pipes_links_and_names_that_are_no_unicode(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, data in good.items():
        (folder / name).write_bytes(data)
    image = good["0000.jpg"]
    (folder / os.fsdecode(b"\xff\xe9.jpg")).write_bytes(image + b"1")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "metadata.csv")
    os.mkfifo(folder / "dataset.json")
    (folder / "nowhere.jpg").symlink_to(tmp_path / "not there")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    (folder / "sub/folder.jpg").mkdir()
    with (folder / "vast.jpg").open("wb") as file:
        file.truncate(20 << 30)  # takes no room
    result = take(folder)
    assert arrived(shop.dataset) == {*good.values(), image + b"1"}
    assert result == ImportResult(4, 0, 4)
    found = failures(shop.dataset)
    assert found["pipe.jpg"] == found["nowhere.jpg"] == "wrong_type: not a file"
    assert found["vast.jpg"].startswith("too_large")


def test_rows_of_metadata_that_are_junk(
    tmp_path: Path, shop: Any, take: Import, good: dict[str, bytes]
) -> None:
    folder = tmp_path / "in"
    for form in ("jsonl", "csv"):
        (folder / form).mkdir(parents=True)
        for name, data in good.items():
            (folder / form / name).write_bytes(data + form.encode())
    rows = [
        '{"file_name": "0000.jpg", "label": "a", "title": "half \\ud83d"}', "{", "[]",
        '{"file_name": 5}', "[" * 100_000, '{"label": "b"}', '{"file_name": "0001.jpg"}',
    ]  # fmt: skip
    (folder / "jsonl/metadata.jsonl").write_text("\n".join(rows))  # no newline at its end
    (folder / "csv/metadata.csv").write_bytes(
        b"\xef\xbb\xbffile_name,label\n0000.jpg,\xff\n\0,\n" + b"x" * 200_000 + b",\n0002.jpg,b\n"
    )
    result = take(folder)
    image = {name: data + b"jsonl" for name, data in good.items()}
    also = {name: data + b"csv" for name, data in good.items()}
    assert arrived(shop.dataset) == {
        image["0000.jpg"], image["0001.jpg"], also["0002.jpg"]
    }  # fmt: skip
    assert result == ImportResult(3, 0, 8)
    assert {text.partition(":")[0] for text in failures(shop.dataset).values()} == {"parse_error"}


def test_a_pipe_is_no_dataset(tmp_path: Path, take: Import) -> None:
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(UserError, match="not a file or folder"):
        take(tmp_path / "x.zip")
