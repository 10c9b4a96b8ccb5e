"""Runs that translate images: their page, their exports, their evaluation."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from pipeline.contract import UserError
from shellgan.models import load
from tests.helpers.small_shards import SmallShards
from tests.training.explorer.test_explorer import ask
from tests.training.methods.test_further_networks import configuration
from training import checkpoint, evaluate, export, translate
from training.explorer.translator_server import MOST_BYTES, create_translator_app
from training.exports.writing import export_generator
from training.networks import ImageShape
from training.options.resolve import flatten
from training.pretrained.inference import TrainedGenerator, load_generator
from training.state import new_state
from training.translation import DIRECTIONS, as_floats
from training.translation import translate as translate_images

CPU, SHAPE = torch.device("cpu"), ImageShape(16, 16, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run between the sets a and b that nobody trained."""
    root = tmp_path_factory.mktemp("translator")
    config = configuration("cyclegan")
    state = new_state(config, SHAPE, CPU)
    values: dict[str, Any] = {"config": flatten(config)}
    for key, name in (("dataset", "a"), ("dataset_b", "b")):
        shards = SmallShards(root, (60, 50), name=name)
        values[key] = {
            "location": str(shards.manifest), "name": name, "digest": name * 64, "samples": 110,
            "channels": 3, "labels": [], "height": 16, "width": 16,
        }  # fmt: skip
    folder = root / "runs" / "translator"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))
    kept = {**{name: one.state_dict() for name, one in state.networks.items()}, "seen": 12_000}
    checkpoint.save(folder / "checkpoints", 12_000, {"state": kept}, 1)
    return folder


@pytest.fixture(scope="module")
def trained(run: Path) -> TrainedGenerator:
    return load_generator(str(run), CPU)


@pytest.fixture(scope="module")
def url(trained: TrainedGenerator) -> Iterator[str]:
    app = create_translator_app(trained, ["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    listener.close()


def picture(size: tuple[int, int] = (16, 16)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def decoded(text: str) -> np.ndarray[Any, Any]:
    data = base64.b64decode(text.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_the_server_translates_in_both_directions(url: str, trained: TrainedGenerator) -> None:
    image = picture()
    status, answer = ask(url + "translate", encoded(image))
    assert status == 200
    found, pixels = json.loads(answer), np.array(image)
    np.testing.assert_array_equal(decoded(found["image"]), pixels)
    for direction in DIRECTIONS:
        wanted = translate_images(trained.translator(direction), as_floats(pixels[None], CPU))[0]
        assert np.abs(decoded(found[direction]) - wanted).max() <= 1
    assert ask(url + "translate", encoded(image), Origin="https://evil.example")[0] == 403
    # of any size and kind
    for odd in (
        encoded(picture((40, 30)), "GIF"),
        encoded(picture((5, 9)).convert("CMYK"), "TIFF"),
    ):
        status, answer = ask(url + "translate", odd)
        assert status == 200
        assert decoded(json.loads(answer)["a-to-b"]).shape == (16, 16, 3)


def test_the_api_translates_files_and_images(run: Path, tmp_path: Path) -> None:
    model, image = load(run, device="cpu"), picture((20, 30))
    (tmp_path / "one.png").write_bytes(encoded(image))
    found = model.translate([tmp_path / "one.png", image, np.array(image)], "b-to-a")
    assert found.shape == (3, 16, 16, 3)
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert model.translate([]).shape == (0, 16, 16, 3)
    with pytest.raises(UserError, match="direction"):
        model.translate([image], "up")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no latents"):
        model.sample(1)


def test_what_is_no_image_is_refused_in_one_line(url: str) -> None:
    whole = encoded(picture((64, 64)), "JPEG")
    for wrong in (b"", b"no image", whole[:300], b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        status, said = ask(url + "translate", wrong)
        assert status == 400
        assert b"is no image that can be read" in said
        assert b"\n" not in said
    status, said = ask(url + "translate", b"\0" * (MOST_BYTES + 1))
    assert (status, said) == (400, f"more than {MOST_BYTES} bytes".encode())
    assert ask(url + "translate")[0] == 405
    assert ask(url, Host="evil.example")[0] == 400
    assert ask(url + "../config.json")[0] == 404
    facts = json.loads(ask(url + "translator.json")[1])
    assert facts["title"] == "a ↔ b"
    assert facts["most_bytes"] == MOST_BYTES


def test_the_page_translates_what_is_dropped_and_chosen(url: str, browser: Any) -> None:
    browser.open(url)
    browser.until("document.body && document.body.dataset.ready")
    drop = """
        fetch("data:image/png;base64,%s").then((answer) => answer.blob()).then((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "one.png", { type: "image/png" }));
          %s
        }); 0"""
    browser.command("Page.setBypassCSP", enabled=True)
    browser.open(url)
    browser.until("document.body && document.body.dataset.ready")
    data = base64.b64encode(encoded(picture())).decode()
    browser.js(drop % (data, 'dispatchEvent(new DragEvent("drop", { dataTransfer: data }));'))
    browser.until('document.body.dataset.translated === "1"')
    choose = """document.getElementById("file").files = data.files;
          document.getElementById("file").dispatchEvent(new Event("change"));"""
    browser.js(drop % (data, choose))
    browser.until('document.body.dataset.translated === "2"')
    assert browser.js('document.querySelectorAll(".result img").length') == 6
    assert browser.js('document.getElementById("trouble").hidden')
    browser.js(drop % (base64.b64encode(b"no image").decode(), choose))
    browser.until('!document.getElementById("trouble").hidden')
    said = browser.js('document.getElementById("trouble").textContent')
    assert said.startswith("one.png: is no image that can be read")
    browser.command("Page.setBypassCSP", enabled=False)


def test_exports_translate_alike(
    trained: TrainedGenerator, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    files = export_generator(trained, tmp_path / "out", ("safetensors", "onnx"))
    assert {"model.safetensors", "model_back.safetensors", "a-to-b.onnx", "b-to-a.onnx"} < set(
        files
    )
    images = as_floats(np.array(picture())[None], CPU)
    for direction in DIRECTIONS:
        session = onnxruntime.InferenceSession(tmp_path / "out" / f"{direction}.onnx")
        found = session.run(None, {"images": images.numpy()})[0]
        wanted = trained.translator(direction)(images, torch.zeros(1, dtype=torch.int64))
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-3)
    again = load_generator("./out", CPU)
    for direction in DIRECTIONS:
        one, other = (each.translator(direction).state_dict() for each in (trained, again))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("`a`: 110 images", "`b`: 110 images", "training.translate ./out", "a-to-b.onnx"):
        assert part in card
    (tmp_path / "image.png").write_bytes(encoded(picture()))
    assert translate.main(["./out", "image.png", "--direction", "b-to-a"]) == 0
    assert (tmp_path / "out-translated" / "image.png").exists()
    (tmp_path / "out" / "model_back.safetensors").unlink()
    assert translate.main(["./out", "image.png"]) == 0
    assert translate.main(["./out", "image.png", "--direction", "b-to-a"]) == 2
    assert "exported without the generator of b-to-a" in capsys.readouterr().err
    with pytest.raises(UserError, match="--format page: translator translates images; choose from"):
        export_generator(trained, tmp_path / "page", ("page",))
    assert export.main([str(run), "--hub", "me/model"]) == 2


def test_translations_of_a_are_compared_with_b(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(run), "--samples", "60", "--real", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (result,) = found["runs"]
    assert (result["dataset"], result["samples"], result["real"]) == ("b", 60, 100)
    assert evaluate.main([str(run), "--ppl", "10"]) == 2
    assert "has no latents" in capsys.readouterr().err
