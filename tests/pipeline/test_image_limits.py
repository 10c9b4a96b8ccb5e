"""What no image may do: take more memory than is said, take for ever, or stop the others."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contract import DatasetPaths, JsonlAppender, ManifestRow, image_key, read_jsonl
from pipeline.events import EventLog
from pipeline.fetcher import Politeness
from pipeline.imaging import headers
from pipeline.imaging.center_crop import center_square
from pipeline.imaging.formats import image_format, other_format
from pipeline.imaging.images import decode_image
from pipeline.imaging.limits import DecodeBudget, ImageError
from pipeline.options import OriginalsOptions
from pipeline.originals import download as download_stage
from pipeline.originals.download import download
from pipeline.originals.part_tars import read_original
from pipeline.originals.parts import read_records
from pipeline.recipe import Recipe
from pipeline.sources.html_options import HtmlSource
from tests.helpers.faulty_site import encoded, picture
from tests.helpers.static_site import served

ROOT = Path(__file__).parents[2]
POLITENESS = Politeness(rate=500, concurrency=8, allow_private=True, attempts=1)


def png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    size = {0: 1, 2: 3, 6: 4}[colour] * depth // 8 * width + 1
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(rows or bytes(size)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def scene(seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))


def fetch(
    folder: Path, files: dict[str, bytes], **originals: Any
) -> tuple[DatasetPaths, dict[str, str]]:
    """Download files from a real server; the dataset, and the failures: kind and detail by name."""
    site = folder / "site"
    site.mkdir()
    for name, data in files.items():
        (site / name).write_bytes(data)
    dataset = DatasetPaths("images", folder)
    recipe = Recipe(
        source=HtmlSource(start=("http://127.0.0.1/",)), politeness=POLITENESS,
        originals=OriginalsOptions(**originals),
    )  # fmt: skip
    with served(site) as base:
        with JsonlAppender(dataset.url_manifest) as manifest:
            for name in files:
                url = f"{base}/{name}"
                manifest.append(ManifestRow(image_key(url), url).to_json())
        with EventLog(dataset, "test") as log:
            download(recipe, dataset, log)
    return dataset, {
        line["url"].rpartition("/")[2]: f"{line['kind']}: {line['detail']}"
        for line in read_jsonl(dataset.failure_log)
    }


def arrived(dataset: DatasetPaths) -> set[bytes]:
    return {read_original(dataset, record) for record in read_records(dataset)}


def test_a_line_of_ninety_megapixels_is_refused_and_its_neighbours_arrive(tmp_path: Path) -> None:
    files = {f"{n}.jpg": picture(n) for n in range(3)}
    bad = {"wide.png": png(90_000_000, 1), "high.png": png(1, 66_000), "thin.png": png(60_000, 1)}
    assert len(bad["wide.png"]) < 100_000
    dataset, failures = fetch(tmp_path, files | bad)
    assert arrived(dataset) == set(files.values())
    assert failures["wide.png"] == "too_many_pixels: 90000000 × 1: a side is over 65535"
    assert failures["high.png"] == "too_many_pixels: 1 × 66000: a side is over 65535"
    assert failures["thin.png"] == "too_many_pixels: 60000 × 1: an aspect over 1000"


def test_the_recipe_sets_the_limits(tmp_path: Path) -> None:
    files = {"good.jpg": picture(1), "long.png": png(90, 10), "large.png": png(400, 400)}
    dataset, failures = fetch(tmp_path, files, max_side=200, max_aspect=4)
    assert arrived(dataset) == {picture(1)}
    assert failures["long.png"] == "too_many_pixels: 90 × 10: an aspect over 4"
    assert failures["large.png"] == "too_many_pixels: 400 × 400: a side is over 200"


@pytest.mark.parametrize("side", [None, 16])
def test_an_image_over_the_whole_budget_is_refused(tmp_path: Path, side: int | None) -> None:
    files = {"good.jpg": picture(1), "large.png": png(3000, 3000)}
    dataset, failures = fetch(tmp_path, files, decode_megabytes=64, side=side)
    assert len(arrived(dataset)) == 1
    assert failures["large.png"].startswith("too_many_pixels: needs 137 MB to decode, over")
    assert "originals.decode_megabytes = 64" in failures["large.png"]


def test_the_budget_waits_for_memory_and_gives_it_back() -> None:
    budget = DecodeBudget(100)
    inside = threading.Event()
    with budget.hold(60):
        other = threading.Thread(target=lambda: budget.hold(50).__enter__() or inside.set())
        other.start()
        assert not inside.wait(0.2)
    assert inside.wait(200)
    other.join()
    with pytest.raises(ImageError, match="too_many_pixels"), budget.hold(101):
        pass


MEASURE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pipeline.imaging.images import decoded
from pipeline.imaging.properties import measure_image
from pipeline.imaging.limits import ImageLimits, limit_decoding
from pipeline.imaging.center_crop import center_square

def rss(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) >> 10

data = Path(sys.argv[1]).read_bytes()
limit_decoding(300)
limits = ImageLimits(10**8)
def work(number):
    if number % 2:
        return center_square(data, 64, 10**8).width
    with decoded(data, limits, 256) as picture:
        return measure_image(picture).width
before = rss("VmRSS")
with ThreadPoolExecutor(8) as pool:
    assert set(pool.map(work, range(12))) == {3500}
print(rss("VmHWM") - before)
"""


@pytest.mark.parametrize("kind", ["png16", "webp"])
def test_many_threads_stay_within_the_budget(tmp_path: Path, kind: str) -> None:
    """The peak of the memory of a process, by the kernel: 8 threads, 12 images of 12 megapixels,
    each 100 to 250 MB to decode; the budget is 300 MB."""
    path = tmp_path / "image"
    if kind == "png16":
        path.write_bytes(png(3500, 3500, 16, 6))
    else:
        path.write_bytes(encoded(Image.new("RGBA", (3500, 3500), "red"), "WEBP"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert int(done.stdout) < 330


# formats


def test_of_a_tiff_of_several_pages_the_first_is_taken() -> None:
    pages = [scene(1), scene(2)]
    data = encoded(scene(0), "TIFF", save_all=True, append_images=pages)
    found = decode_image(data, max_pixels=10**6)
    assert np.array_equal(found.image, scene(0))
    assert found.notes == ("page 1 of several",)
    assert decode_image(encoded(scene(0), "TIFF"), max_pixels=10**6).notes == ()


def heif_box(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I", len(body) + 4) + body + bytes(64)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (heif_box(b"heic", b"mif1", b"heic"), "HEIC"),
        (heif_box(b"mif1", b"heix"), "HEIC"),
        (heif_box(b"mif1", b"avif"), "AVIF"),
        (heif_box(b"avif", b"mif1"), "AVIF"),
        (b"\xff\x0a\xfa\x1f", "JXL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
        (encoded(scene(), "ICO"), "ICO"),
        (encoded(scene(), "TIFF"), "TIFF"),
        (b"P3\n1 1\n255\n0 0 0\n", "PPM"),
    ],
)
def test_formats_are_known_by_their_first_bytes(data: bytes, name: str) -> None:
    assert image_format(data) == name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"8BPS\0\1", "Photoshop (PSD)"),
        (b"II\xbc\1", "JPEG XR"),
        (b"BPG\xfb", "BPG"),
        (heif_box(b"crx "), "camera raw (CR3)"),
        (heif_box(b"isom", b"mp42"), "MP4 video"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw (CR2)"),
        (encoded(scene(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "camera raw (DNG)"),
        (encoded(scene(), "TGA"), "TGA"),
        (encoded(scene(), "TGA")[:-26], "TGA"),
        (b"qoif", "QOI"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, name: str) -> None:
    assert image_format(data) is None
    assert other_format(data) == name
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels=10**6)
    assert str(caught.value) == f"wrong_type: {name}"


@pytest.mark.parametrize("name", ["HEIC", "JXL"])
def test_a_format_of_a_package_that_is_missing_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(headers._PLUGINS, name, ("no_such_package", name, name.lower()))
    data = heif_box(b"heic") if name == "HEIC" else b"\xff\x0a\xfa\x1f" + bytes(50)
    _, failures = fetch(tmp_path, {"image": data, "good.jpg": picture(1)})
    assert failures == {
        "image": f"wrong_type: {name}; to read it, run pip install 'shellgan[{name.lower()}]', "
        "then retry --kind wrong_type --everything"
    }


@pytest.mark.parametrize(
    ("package", "kind", "options"),
    [("pillow_heif", "HEIF", {"quality": 95}), ("pillow_jxl", "JXL", {"lossless": True})],
)
def test_heic_and_jxl_are_decoded_with_their_package(
    package: str, kind: str, options: dict[str, Any]
) -> None:
    pytest.importorskip(package)
    headers._load_plugin(package)
    image = scene().resize((12, 9)).resize((333, 250), Image.Resampling.BICUBIC)
    data = encoded(image, kind, **options)
    found = decode_image(data, max_pixels=10**6)
    assert (found.format, found.width, found.height) == (kind, 333, 250)
    assert np.abs(np.asarray(found.image, int) - np.asarray(image, int)).mean() < 4
    with pytest.raises(ImageError, match="too_many_pixels"):
        decode_image(data, max_pixels=333 * 249)
    with pytest.raises(ImageError, match="undecodable"):
        decode_image(data[: len(data) // 2], max_pixels=10**6)


def test_an_icon_gives_its_largest_image() -> None:
    image = scene().resize((64, 64))
    for form in ("png", "bmp"):
        data = encoded(image, "ICO", sizes=[(16, 16), (64, 64)], bitmap_format=form)
        found = decode_image(data, max_pixels=10**6)
        assert (found.format, found.width, found.height) == ("ICO", 64, 64)
        assert np.array_equal(found.image, image)
    large = bytearray(encoded(image, "ICO", sizes=[(64, 64)], bitmap_format="bmp"))
    at = struct.unpack_from("<I", large, 6 + 12)[0]
    large[at + 4 : at + 12] = struct.pack("<ii", 30_000, 60_000)  # the entry says 64 × 64
    with pytest.raises(ImageError, match="too_many_pixels: 30000 × 30000"):
        decode_image(bytes(large), max_pixels=10**6)


KINDS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO"]


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_file_is_no_image_in_any_format(kind: str) -> None:
    data = encoded(scene(), kind)
    for share in (0.3, 0.5, 0.9):
        with pytest.raises(ImageError):
            decode_image(data[: int(len(data) * share)], max_pixels=10**6)


def test_a_jpeg_of_thousands_of_scans_is_refused_at_once() -> None:
    data = encoded(scene(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    many = data[:start] + data[start:-2] * 300 + b"\xff\xd9"
    for fails in (
        lambda: decode_image(many, max_pixels=10**6),
        lambda: center_square(many, 16, 10**6),
    ):
        with pytest.raises(ImageError, match="scans"):
            fails()


def test_a_size_that_the_codestream_does_not_have() -> None:
    data = encoded(Image.new("L", (3000, 3000), 7), "JPEG2000")
    place = data.index(b"ihdr") + 4
    lie = data[:place] + struct.pack(">II", 100, 100) + data[place + 8 :]
    with pytest.raises(ImageError, match="undecodable"):
        decode_image(lie, max_pixels=10**6)


@pytest.mark.slow
def test_a_palette_image_that_is_turned_and_converted_in_bands_is_the_same() -> None:
    """Larger than a band, so that the parts must fit together."""
    image = scene().resize((1300, 1700), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = image.convert("RGBA")
    stored.putalpha(image.convert("L"))
    found = decode_image(encoded(stored, "PNG", exif=exif), max_pixels=10**7)
    assert (found.width, found.height) == (1700, 1300)
    white = Image.new("RGB", stored.size, "white")
    whole = Image.composite(image, white, image.convert("L"))
    assert np.array_equal(found.image, whole.transpose(Image.Transpose.ROTATE_270))
    deep = np.linspace(0, 40_000, 1300 * 1700).reshape(1700, 1300).astype(np.uint16)
    found = decode_image(encoded(Image.fromarray(deep), "PNG"), max_pixels=10**7)
    assert np.array_equal(found.image, np.rint(deep / 257.0).astype(np.uint8))


@pytest.mark.slow
def test_a_profile_and_a_text_that_unpack_to_gigabytes_cost_no_memory() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    data = encoded(scene(), "PNG")
    for extra in (b"iCCP" + b"x\0\0" + bomb, b"zTXt" + b"x\0\0" + bomb,
                  b"iTXt" + b"x\0\1\0\0\0" + bomb):  # fmt: skip
        bad = data[:33] + chunk(extra[:4], extra[4:]) + data[33:]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with contextlib.suppress(ImageError):
            assert np.array_equal(decode_image(bad, max_pixels=10**6).image, scene())
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


# the boundary of one image in the download


def test_a_bug_of_ours_in_one_image_costs_that_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = {f"{n}.jpg": picture(n) for n in range(4)}
    real = download_stage.inspect_image

    def examine(row: ManifestRow, *rest: Any) -> Any:
        if row.url.endswith("odd.jpg"):
            raise LookupError("a bug")
        if row.url.endswith("vast.jpg"):
            raise MemoryError
        found = real(row, *rest)
        if row.url.endswith("unwritable.jpg"):
            found.sidecar["odd"] = object()
        return found

    monkeypatch.setattr(download_stage, "inspect_image", examine)
    odd = {name: picture(9) for name in ("odd.jpg", "vast.jpg", "unwritable.jpg")}
    dataset, failures = fetch(tmp_path, good | odd)
    assert arrived(dataset) == set(good.values())
    assert failures["odd.jpg"].startswith("internal: Traceback")
    assert "LookupError: a bug" in failures["odd.jpg"]
    assert failures["vast.jpg"] == "too_many_pixels: out of memory"
    assert failures["unwritable.jpg"].startswith("internal: ")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_full_disk_and_an_interrupt_still_end_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def examine(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(download_stage, "inspect_image", examine)
        with pytest.raises(type(error)):
            fetch(tmp_path, {"1.jpg": picture(1)})
    assert not list(read_jsonl(DatasetPaths("images", tmp_path).failure_log))


def test_text_that_is_no_unicode_goes_through_the_part(tmp_path: Path) -> None:
    dataset = DatasetPaths("images", tmp_path)
    dataset.url_manifest.parent.mkdir(parents=True)
    with served(tmp_path) as base:
        (tmp_path / "1.jpg").write_bytes(picture(1))
        url = f"{base}/1.jpg"
        dataset.url_manifest.write_text(
            f'{{"url": "{url}", "title": "half \\ud83d", "labels": ["\\ud83d"]}}\n'
        )
        recipe = Recipe(source=HtmlSource(start=("http://127.0.0.1/",)), politeness=POLITENESS)
        with EventLog(dataset, "test") as log:
            download(recipe, dataset, log)
    assert arrived(dataset) == {picture(1)}


_PAGE_FAULTS = """
import io, resource
import numpy as np
from PIL import Image
from pipeline.imaging.images import decoded
from pipeline.imaging.properties import measure_image
from pipeline.imaging.limits import ImageLimits, limit_decoding
limit_decoding(256)
file = io.BytesIO()
pixels = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
Image.fromarray(pixels).save(file, "PNG")
for start in (0, 1):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        with decoded(file.getvalue(), ImageLimits(10**6)) as image:
            measure_image(image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 50)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of glibc")
def test_the_memory_of_a_small_image_is_used_again_by_the_next() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PAGE_FAULTS], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(done.stdout) < 20  # of over 200 pages
