"""The explorer: what its server answers, and what a browser makes of its page."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.processes import child_env
from training.explore import main
from training.explorer.generator_info import title_of
from training.latent.cli import latents_and_labels
from training.pretrained.inference import load_generator


@contextmanager
def exploring(run: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command as a process of its own; its address."""
    command = [sys.executable, "-m", "training.explore", str(run), "--port", "0", *more]
    process = subprocess.Popen(
        [*command, "--no-browser", "--device", "cpu"], env=child_env(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "http://127.0.0.1:" in said, process.communicate()
        yield said.split()[1], process
    finally:
        process.kill()
        process.communicate()


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=240) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def body(values: np.ndarray, labels: list[int]) -> bytes:
    parts = [np.uint32(len(labels)), np.array(labels, "<i4"), values.astype("<f4")]
    return b"".join(part.tobytes() for part in parts)


def torch_pictures(run: Path, numbers: list[int], label: int, psi: float) -> np.ndarray:
    trained = load_generator(str(run), torch.device("cpu"))
    latents, labels = latents_and_labels(trained, numbers, label)
    space = trained.space
    return space.generate(space.truncate(space.map(latents, labels), psi), labels)


@pytest.mark.parametrize("kind", ["stylegan2"])
def test_the_server_draws_what_pytorch_draws(
    kind: str, run_of: Callable[..., Path], small_shards: Callable[..., Any],
) -> None:  # fmt: skip
    shards = small_shards(size=16)
    run = run_of(kind, str(shards.manifest))
    trained = load_generator(str(run), torch.device("cpu"))
    latents, _ = latents_and_labels(trained, [5, 6], 0)
    with exploring(run) as (url, process):
        facts = json.loads(ask(url + "generator.json")[1])
        assert facts["title"] == "This shell does not exist"
        assert facts["nearest"]
        ws = np.frombuffer(ask(url + "map", body(latents.numpy(), [0, 0]))[1], "<f4")
        wanted = trained.space.map(latents, torch.zeros(2, dtype=torch.int64))
        np.testing.assert_allclose(ws, wanted.numpy().ravel(), atol=1e-5)
        drawn = np.frombuffer(ask(url + "draw", body(ws, [0, 0]))[1], np.uint8)
        pictures = torch_pictures(run, [5, 6], 0, 1.0)
        assert pictures.std() > 10
        assert abs(drawn.reshape(pictures.shape).astype(int) - pictures).max() <= 1
        status, found = ask(url + "nearest", body(ws[: len(ws) // 2], [0]))
        assert status == 200
        near = json.loads(found)
        assert len(near) == 6
        assert near == sorted(near, key=lambda one: one["distance"])
        assert near[0]["image"].startswith("data:image/png;base64,")
        # what is no request is refused, and the server goes on
        rubbish = (
            b"",
            b"x" * 7,
            body(ws, [0, 0])[:-1],
            body(ws, [0, 9]),
            body(ws * np.nan, [0, 0]),
        )
        for wrong in rubbish:
            assert ask(url + "draw", wrong)[0] == 400
        assert ask(url + "draw", b"\0" * 50_000)[0] == 400
        assert ask(url, Host="evil.example")[0] == 400
        assert ask(url + "draw", body(ws, [0, 0]), Origin="https://evil.example")[0] == 403
        assert ask(url + "../config.json")[0] == 404
        assert ask(url)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_tiles_that_left_the_window_ask_for_nothing(
    run_of: Callable[..., Path], browser: Any,
    small_shards: Callable[..., Any],
) -> None:  # fmt: skip
    """The gallery waits for the chosen picture; what it wanted may have scrolled away by then."""
    run = run_of("stylegan2", str(small_shards(size=16, channels=3).manifest), 3)
    with exploring(run) as (url, _):
        browser.open(url)
        browser.js("""
            const wanted = new Set([{}]), asked = [], note = async () => asked.push(1);
            const view = { idle: async () => wanted.clear(), failed: note, now: () => ({}) };
            const explorer = { wsOf: note, draw: note };
            const gallery = { busy: false, batch: 2, wanted, view, explorer };
            import("./gallery.js")
              .then(({ Gallery }) => Gallery.prototype.work.call(gallery))
              .then(() => { globalThis.asked = asked.length; });
            0""")
        browser.until("globalThis.asked !== undefined")
        assert browser.js("globalThis.asked") == 0


@pytest.mark.parametrize("kind", ["labelled", "stylegan2"])
def test_the_page(
    kind: str, run_of: Callable[..., Path], browser: Any,
    small_shards: Callable[..., Any],
) -> None:  # fmt: skip
    """A number is the picture that PyTorch draws of it; the gallery has no end; every control
    changes the picture; nothing is asked of another host."""
    channels = 1 if kind == "labelled" else 3
    run = run_of(kind, str(small_shards(size=16, channels=channels).manifest), channels)
    with exploring(run) as (url, _):
        browser.look(1200, 800, "light")
        browser.open(url + "#n=7&psi=0.6&label=1")
        browser.until("document.querySelectorAll('.tile.drawn').length >= 12")
        wanted = torch_pictures(run, [7, 8], 1, 0.6)
        assert abs(on_canvas(browser, "#picture") - wanted[0]).max() <= 1
        assert abs(on_canvas(browser, ".tile canvas") - wanted[1]).max() <= 1
        assert browser.js("document.title") == "This shell does not exist"
        browser.js("location.hash = '#n=7&psi=0.6'; 0")
        browser.until("document.getElementById('label').value === '-1'")
        browser.js("location.hash = '#n=7&psi=0.6&label=1'; 0")
        browser.until("document.getElementById('label').value === '1'")
        settle(browser)

        before = browser.js("document.querySelectorAll('.tile').length")
        browser.js("scrollTo(0, document.documentElement.scrollHeight)")
        browser.until(f"document.querySelectorAll('.tile').length > {before}")
        browser.js("scrollTo(0, 0)")

        seen = [on_canvas(browser, "#picture")]
        changes = (
            "at('psi').value = 1; at('psi').oninput()",
            "at('direction-0').value = facts.reach * 3; at('direction-0').oninput()",
            "at('number').value = 99; at('number').onchange()",
            "document.querySelectorAll('.tile')[3].click()",
            "at('mixing').open = true; at('share').value = 0.8; at('share').oninput()",
            "at('another').click()",
        )
        browser.js("globalThis.at = (id) => document.getElementById(id); "
                   "globalThis.facts = explorer.facts; 0")  # fmt: skip
        for change in changes:
            drawn = browser.js("Number(document.body.dataset.drawn)")
            browser.js(change + "; 0")
            browser.until(f"Number(document.body.dataset.drawn) > {drawn}")
            settle(browser)
            now = on_canvas(browser, "#picture")
            assert any((now != old).any() for old in seen[-1:]), change
            seen.append(now)

        browser.js("at('walk').click(); 0")
        drawn = browser.js("Number(document.body.dataset.drawn)")
        browser.until(f"Number(document.body.dataset.drawn) > {drawn + 5}")
        # The click that stops it comes while the generator is at work.
        browser.js("globalThis.map = explorer.backend.map; explorer.known.clear(); "
                   "explorer.backend.map = async (...all) => { at('walk').click(); "
                   "explorer.backend.map = map; return map(...all); }; 0")  # fmt: skip
        browser.until("explorer.backend.map === map")
        settle(browser)
        assert browser.js("at('trouble').hidden && at('walk').textContent === 'Walk'")
        stopped = on_canvas(browser, "#picture")
        browser.js("at('number').onchange(); 0")
        settle(browser)
        assert (on_canvas(browser, "#picture") == stopped).all()

        browser.js("at('near').click(); 0")
        browser.until("document.querySelectorAll('#real-images img').length === 6")
        for width, scheme in ((1200, "dark"), (390, "light")):
            browser.look(width, 800, scheme)
            settle(browser)
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
            picture = Image.open(io.BytesIO(browser.screenshot())).convert("L")
            corner = picture.getpixel((picture.width - 6, 4))
            assert isinstance(corner, int)
            assert (corner < 60) == (scheme == "dark")
        assert browser.js("at('trouble').hidden")
        assert browser.complaints() == []
        assert {address.partition("#")[0][: len(url)] for address in browser.asked() if not
                address.startswith("data:")} == {url}  # fmt: skip


def settle(browser: Any) -> None:
    """Wait until nothing was drawn for some frames."""
    browser.js(
        "(async () => { let last, same = 0; while (same < 3) { "
        "await new Promise((done) => setTimeout(done, 60)); "
        "same = last === document.body.dataset.drawn ? same + 1 : 0; "
        "last = document.body.dataset.drawn; } })()"
    )


def on_canvas(browser: Any, selector: str) -> np.ndarray:
    """The pixels (height, width, 3) of a canvas."""
    width, height, values = browser.js(
        f"(() => {{ const c = document.querySelector({json.dumps(selector)}); const d = "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
        "return [c.width, c.height, Array.from(d)]; })()"
    )
    return np.array(values).reshape(height, width, 4)[:, :, :3]


def test_mistakes_are_one_line(
    run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = str(run_of("dcgan"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (["nowhere"], "no run there"),
            ([run, "--port", "70000"], "--port 70000"),
            ([run, "--port", port], f"--port {port}"),
            ([run, "--shards", str(tmp_path)], "neither a .tar nor shards.json"),
            ([run, "--nearest", "off", "--shards", "x"], "--shards: --nearest off searches no"),
        ):
            assert main([*arguments, "--no-browser"]) == 2
            err = capsys.readouterr().err.splitlines()
            assert said in err[-1]
            assert all("nearest training images are not" in line for line in err[:-1])


def test_transparent_images_are_shown_on_a_checkerboard(
    run_of: Callable[..., Path], browser: Any
) -> None:
    run = run_of("dcgan", "", 4)
    with exploring(run) as (url, _):
        browser.look(1200, 800, "light")
        browser.open(url + "#n=7")
        browser.until("document.querySelectorAll('.tile.drawn').length >= 2")
        (wanted,) = torch_pictures(run, [7], 0, 1.0)
        flat = browser.js(
            "(() => { const c = document.querySelector('#picture'); return Array.from("
            "c.getContext('2d').getImageData(0, 0, c.width, c.height).data); })()"
        )
        seen = np.array(flat).reshape(16, 16, 4)
        assert np.array_equal(seen[..., 3], wanted[..., 3])  # alpha
        assert 10 < wanted[..., 3].mean() < 245
        multiplied = seen[..., :3] * seen[..., 3:] / 255
        assert np.abs(multiplied - np.minimum(wanted[..., :3], wanted[..., 3:])).max() <= 2
        style = "getComputedStyle(document.querySelector('{}')).backgroundImage"
        for canvas in ("#picture", ".tile canvas"):
            assert "conic-gradient" in browser.js(style.format(canvas))
        assert browser.complaints() == []


def test_titles() -> None:
    for name in ("shells", "shells-64", "shells2", "shells_v2-64px"):
        assert title_of(name) == "This shell does not exist"
    assert title_of("sea-shells") == "This sea shell does not exist"
    for name in ("glass", "fish", "img2ds", "cifar10", "2024-s", "butterflies", "boxes", "gas", ""):
        assert title_of(name) == "This image does not exist"
