"""Writes the pictures of the docs: `python docs/pictures.py`, after `make demo` and in its folder.

They show what the demo made: the site of its gallery, generated shells, pages of its run, and its
dataset. Chromium photographs the pages. For a picture of another run, or only some of them:

    python docs/pictures.py explore samples --run runs/shells
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.contract import UserError, exit_status  # noqa: E402
from pipeline.demo.gallery import Gallery, serve  # noqa: E402
from tests.helpers.browser import Browser, find_chromium  # noqa: E402
from training.augmentation.transforms import POLICIES, transform, transforms_of  # noqa: E402
from training.grid import make_grid  # noqa: E402

FOLDER = Path(__file__).parent / "pictures"
MAX_BYTES = 200_000
SIDE = 64
COLUMNS = 7
NUMBER = 101
"""The image number that the explorer shows."""


@contextmanager
def open_page(url: str, width: int, height: int) -> Iterator[Browser]:
    """Show a page in a window of this size, in light colours."""
    program = find_chromium()
    if program is None:
        raise UserError("chromium: not found; install it, as with apt install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, Path(profile))
        try:
            browser.look(width, height, "light")
            browser.command("Emulation.setScrollbarsHidden", hidden=True)
            browser.open(url)
            browser.until("document.readyState === 'complete'")
            yield browser
        finally:
            browser.close()


@contextmanager
def run_server(*words: str) -> Iterator[str]:
    """Run a command of the project that serves a page; its address."""
    command = [sys.executable, "-m", *words, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = next(
                (found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))),
                None,
            )
            if address is None:
                raise UserError(f"{' '.join(words)}: no address was printed; see the error above")
            yield address
        finally:
            process.send_signal(signal.SIGINT)


def photograph(browser: Browser) -> Image.Image:
    """Return what the window shows, after all images in it have been loaded."""
    browser.until(
        "[...document.images].filter(one => one.getBoundingClientRect().top < innerHeight)"
        ".every(one => one.complete)"
    )
    browser.js("new Promise(done => setTimeout(done, 500))")  # transitions
    return Image.open(io.BytesIO(browser.screenshot()))


def gallery() -> Image.Image:
    """The site of the gallery."""
    with serve(Gallery(2000, 0)) as served, open_page(served.url, 1024, 1024) as browser:
        return photograph(browser).resize((768, 768), Image.Resampling.LANCZOS)


def samples(run: str) -> Image.Image:
    """The grid of `training.sample`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "samples.png"
        words = ["training.sample", run, "--n", "64", "--out", str(out)]
        subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL)
        return Image.open(out).convert("RGB")


def report(run: str) -> Image.Image:
    """The report of the run."""
    with open_page((Path(run) / "report.html").resolve().as_uri(), 700, 1050) as browser:
        return photograph(browser)


def explore(run: str) -> Image.Image:
    """The explorer with one image."""
    with (
        run_server("training.explore", run) as address,
        open_page(f"{address.rstrip('/')}/#n={NUMBER}", 1080, 620) as browser,
    ):
        browser.until("document.querySelectorAll('button').length > 4")
        return photograph(browser)


def curate() -> Image.Image:
    """The curation page of the dataset `shells`, with the first cluster rejected; in a copy, so
    that nothing is decided for the dataset itself."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("manifests/shells", "data/shells"):
            shutil.copytree(name, Path(copy) / name)
        with (
            run_server("pipeline", "curate", "shells", "--root", copy) as address,
            open_page(address, 1200, 800) as browser,
        ):
            browser.until("document.querySelector('button.bad') !== null")
            browser.js("document.querySelector('section button.bad, .group button.bad').click()")
            return photograph(browser)


def augmentations() -> Image.Image:
    """A shell, and draws of every transform applied to it; draws of the policy `bgc`."""
    shells = sorted(Path("data/demo-gallery").rglob("*.*"))
    shells = [one for one in shells if one.suffix in (".jpg", ".png")]
    rows = [(name, name, 1.0) for name in POLICIES["bgcfnc"]]
    rows += [(f"bgc p={p:g}", "bgc", p) for p in (0.2, 0.5, 0.8)]
    half = (len(rows) + 1) // 2
    left, step = 80, COLUMNS * SIDE + 100
    sheet = Image.new("RGB", (2 * step - 20, half * (SIDE + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, ada, p) in enumerate(rows):
        with Image.open(shells[index * 37 % len(shells)]) as opened:
            small = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        plain = pixels.view(1, SIDE, SIDE, 3).permute(0, 3, 1, 2).float() / 127.5 - 1
        drawn = transform(
            plain.repeat(COLUMNS - 1, 1, 1, 1), transforms_of(ada), p,
            torch.Generator().manual_seed(index), torch.Generator().manual_seed(index),
        )  # fmt: skip
        images = ((torch.cat([plain, drawn]).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        grid = make_grid(images.permute(0, 2, 3, 1).numpy(), COLUMNS)
        x, y = index // half * step, index % half * (SIDE + 4)
        draw.text((x + 2, y + SIDE // 2 - 6), title, "black")
        sheet.paste(Image.fromarray(grid), (x + left, y))
    return sheet


def pictures(run: str) -> dict[str, Callable[[], Image.Image]]:
    """Return the function that makes each picture, by its name."""
    of_run = {one.__name__: partial(one, run) for one in (samples, report, explore)}
    return of_run | {one.__name__: one for one in (gallery, curate, augmentations)}


def save(name: str, picture: Image.Image) -> None:
    """Write the picture as JPEG, with the best quality that is small enough."""
    for quality in (92, 85, 75, 60):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < MAX_BYTES:
            break
    (FOLDER / f"{name}.jpg").write_bytes(buffer.getvalue())
    print(f"docs/pictures/{name}.jpg  {picture.size}  {buffer.tell():,} bytes")


def main() -> int:
    """Write the chosen pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = pictures("")
    parser.add_argument("names", nargs="*", help=f"{', '.join(known)} (default: all)")
    parser.add_argument("--run", default="runs/demo", help="folder of a run (default: runs/demo)")
    args = parser.parse_args()
    for name in args.names or known:
        if name not in known:
            raise UserError(f"{name}: not a picture; choose from {', '.join(known)}")
        save(name, pictures(args.run)[name]())
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
