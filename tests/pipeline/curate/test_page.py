"""What a browser makes of the page, with 8,000 images."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from pipeline.contract import DatasetPaths, read_jsonl
from pipeline.curate.curator import Curator
from pipeline.curate.image_table import load_image_table
from pipeline.curate.server import create_app
from pipeline.events import EventLog
from pipeline.select.curation import read_curation
from tests.helpers.browser import Browser
from tests.helpers.many_images import add_many_images
from tests.helpers.shop import Shop

COUNT = 8_000
TOKEN = "token-of-the-test"
PAIRS = COUNT // 100


@dataclass
class Opened:
    """The page in a browser, and its dataset."""

    browser: Browser
    dataset: DatasetPaths
    address: str

    def open(self) -> None:
        self.browser.open(f"{self.address}#{TOKEN}")
        self.browser.until("document.body?.dataset.ready === 'yes'")

    def press(self, key: str, **modifiers: bool) -> None:
        """Press a key; `shiftKey=True` holds shift."""
        options = {"key": key, "bubbles": True, "cancelable": True, **modifiers}
        self.browser.js(
            "document.activeElement.dispatchEvent("
            f"new KeyboardEvent('keydown', {str(options).replace('True', 'true')})), 0"
        )

    def choose(self, name: str, value: str) -> None:
        """Choose from a list of the page."""
        select = f"document.getElementById('{name}')"
        self.browser.js(f"({select}.value = '{value}', {select}.onchange(), 0)")

    def text(self, name: str) -> str:
        return str(self.browser.js(f"document.getElementById('{name}').textContent"))

    def wait_for(self, name: str, text: str) -> None:
        self.browser.until(f"document.getElementById('{name}').textContent === '{text}'")

    def wait_until_saved(self) -> None:
        self.browser.until("document.getElementById('saved').textContent.startsWith('saved')")

    def wait_for_thumbnails(self) -> None:
        self.browser.until(
            "[...document.querySelectorAll('.tile:not([hidden]) img')]"
            ".every((image) => image.classList.contains('loaded'))"
        )

    def decided(self) -> dict[str, str]:
        """The recorded decisions by the names of the images' files."""
        names = {row["key"]: row["url"][-10:] for row in read_jsonl(self.dataset.url_manifest)}
        decided = read_curation(self.dataset).by_key
        return {names[key]: one.decision for key, one in decided.items()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, DatasetPaths]]:
    """The address of the page of a dataset, and the dataset."""
    root: Path = tmp_path_factory.mktemp("many")
    dataset = DatasetPaths("many", root)
    add_many_images(dataset, COUNT)
    with EventLog(dataset, "test") as log:
        table = load_image_table(Shop(root).recipe(), dataset, log, use_network=False)
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(Curator(table, dataset), TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", dataset
    server.should_exit = True
    thread.join(30)
    listener.close()


@pytest.fixture
def page(browser: Browser, many: tuple[str, DatasetPaths]) -> Opened:
    address, dataset = many
    browser.look(1200, 800, "light")
    opened = Opened(browser, dataset, address)
    opened.open()
    if opened.text("decided") != "0":  # by another test
        opened.press("a", ctrlKey=True)
        opened.press("c")
        opened.wait_until_saved()
        opened.open()  # nothing to undo
    opened.choose("sort", "order")
    return opened


def test_scrolling_reuses_a_screenful_of_tiles(page: Opened) -> None:
    browser = page.browser
    page.wait_for_thumbnails()
    height = browser.js("document.getElementById('grid').scrollHeight")
    columns = browser.js(
        "new Set([...document.querySelectorAll('.tile')].map((tile) => "
        "tile.getBoundingClientRect().x)).size"
    )
    assert height > COUNT / columns * 100
    most = browser.js("""(async () => {
        const box = document.getElementById('grid');
        let most = 0;
        for (let step = 0; step < 150; step++) {
            box.scrollTop += step % 3 ? 300 : 9000;
            await new Promise(requestAnimationFrame);
            most = Math.max(most, document.querySelectorAll('.tile').length);
        }
        return most;
    })()""")
    assert most < 250  # three screens, not 8,000
    page.wait_for_thumbnails()
    asked = [url for url in browser.asked() if url.endswith("/thumbnails")]
    assert 1 < len(asked) < COUNT / 64  # 64 per request, and what flew past was not loaded
    page.press("End")
    page.wait_for_thumbnails()
    assert page.text("current").startswith(f"32 × 32 px · sharpness {COUNT - 1}")
    assert browser.js("document.getElementById('grid').scrollTop") > height * 0.95
    assert browser.complaints() == []
    assert {url.split("/")[2] for url in browser.asked() if url.startswith("http")} == {
        page.address.split("/")[2]
    }


def test_keys_select_reject_keep_and_undo(page: Opened) -> None:
    before = page.text("kept")
    assert page.text("rejected") == str(PAIRS)  # near duplicates
    page.press("x")  # image 0; the cursor moves on
    page.press("ArrowRight")
    page.press("ArrowRight", shiftKey=True)
    page.press("x")  # images 2 and 3
    page.wait_until_saved()
    assert page.decided() == {f"00000{n}.jpg": "reject" for n in (0, 2, 3)}
    page.wait_for("rejected", str(PAIRS + 3))
    page.press("u")
    page.press("Home")
    page.press("ArrowRight")
    page.press("k")  # image 1, a near duplicate
    page.wait_until_saved()
    assert page.decided() == {"000000.jpg": "reject", "000001.jpg": "keep"}
    page.wait_for("rejected", str(PAIRS))
    page.press("u")
    page.press("u")
    page.press("u")  # nothing left
    page.wait_until_saved()
    assert page.decided() == {}
    assert page.text("kept") == before
    page.press("a", ctrlKey=True)
    page.press("x")
    page.wait_for("rejected", f"{COUNT:,}")
    page.press("u")
    page.wait_for("rejected", str(PAIRS))
    page.wait_until_saved()
    assert page.decided() == {}


def test_one_click_rejects_a_cluster(page: Opened) -> None:
    page.choose("sort", "cluster")
    page.wait_for_thumbnails()
    said = page.browser.js("document.querySelector('.group span').textContent")
    size = int(said.split()[0].replace(",", ""))
    page.browser.js("document.querySelector('.group button.bad').click()")
    page.wait_until_saved()
    decided = page.decided()
    assert set(decided.values()) == {"reject"}
    assert len(decided) == size
    reasons = {one.reason for one in read_curation(page.dataset).by_key.values()}
    assert reasons == {f"one cluster of {size} images"}
    colors = {int(name[:6]) % 64 for name in decided}
    assert len(colors) < 20  # they are alike
    page.press("u")
    page.wait_until_saved()
    assert page.decided() == {}


def test_near_duplicates_are_pairs(page: Opened) -> None:
    page.choose("sort", "pairs")
    page.wait_for_thumbnails()
    assert page.browser.js("document.querySelector('.group b').textContent") == "Pair"
    page.press("End")
    page.wait_for_thumbnails()
    positions = page.browser.js(
        "[...document.querySelectorAll('.tile')].map((tile) => tile.position)"
    )
    assert max(positions) == 2 * PAIRS - 1


@pytest.mark.parametrize(
    ("sort", "first", "last"), [("sharpness", 0, COUNT - 1), ("order", 0, COUNT - 1)]
)
def test_orders(page: Opened, sort: str, first: int, last: int) -> None:
    page.choose("sort", sort)
    for key, number in (("Home", first), ("End", last)):
        page.press(key)
        assert f"sharpness {number} " in page.text("current")
    page.browser.js("document.getElementById('turn').click()")
    page.press("Home")
    assert f"sharpness {last} " in page.text("current")
    page.browser.js("document.getElementById('turn').click()")


def test_labels_are_groups_and_text(page: Opened) -> None:
    page.choose("sort", "label")
    titles = "[...document.querySelectorAll('.group b')].map((title) => title.textContent)"
    assert page.browser.js(titles)[0] == "<b>kind 0</b>"
    page.press("]")
    page.browser.until(f"{titles}.includes('<b>kind 1</b>')")
    assert "<b>kind 1</b>" in page.text("current")
    assert "sharpness 1 " in page.text("current")


def test_decisions_of_another_window_appear(page: Opened) -> None:
    ask = (
        f"fetch('decisions', {{ method: 'POST', headers: {{ 'X-Curate-Token': '{TOKEN}' }}, "
        "body: JSON.stringify({ reject: [7] }) }).then((answer) => answer.text())"
    )
    assert page.browser.js(ask) == "saved"
    page.browser.js("document.dispatchEvent(new Event('visibilitychange')), 0")
    page.wait_for("decided", "1")


def test_similar_images_come_after_the_chosen_one(page: Opened) -> None:
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.press("s")
    page.browser.until("document.getElementById('sort').value === 'similar'")
    assert "sharpness 2 " in page.text("current")
    for _ in range(5):
        page.press("ArrowRight")
        number = int(page.text("current").partition("sharpness ")[2].split()[0])
        assert number % 64 in (1, 2, 3)  # of almost the same colour


def test_the_viewer_shows_details_as_text(page: Opened) -> None:
    page.press(" ")
    page.browser.until("document.getElementById('picture').naturalWidth === 32")
    details = page.text("details")
    assert "https://many.example/000000.jpg" in details
    page.press("x")
    page.wait_until_saved()
    page.browser.until("document.getElementById('details').textContent.includes('rejected by you')")
    page.press("Escape")
    assert page.decided() == {"000000.jpg": "reject"}


def test_the_viewer_shows_no_other_image_if_details_fail(
    page: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    page.press(" ")
    page.browser.until("document.getElementById('picture').naturalWidth === 32")
    monkeypatch.setattr("pipeline.curate.curator.Curator.details", broken)
    page.press("ArrowRight")
    page.browser.until("document.getElementById('note').textContent !== ''")
    page.press("k")  # draws it again
    page.wait_until_saved()
    assert page.text("details") == ""
    assert page.browser.js("document.getElementById('picture').naturalWidth") == 0
    monkeypatch.undo()
    for key, name in (("ArrowLeft", "000000.jpg"), ("ArrowRight", "000001.jpg")):
        page.press(key)
        page.browser.until(f"document.getElementById('details').textContent.includes('{name}')")
        page.browser.until("document.getElementById('picture').naturalWidth === 32")
    page.press("Escape")
    page.browser.events.clear()  # the browser reports the status 500


def test_what_cannot_be_saved_is_taken_back(page: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.curate.curator.record_decisions", full)
    page.press("x")
    page.wait_for("saved", "not saved")
    assert "no space left" in page.text("note")
    assert page.text("rejected") == str(PAIRS)
    monkeypatch.undo()
    page.browser.events.clear()  # the browser reports the status 507
    page.press("u")
    assert page.decided() == {}


def test_without_the_token_the_page_says_what_to_open(
    browser: Browser, many: tuple[str, DatasetPaths]
) -> None:
    browser.open(many[0])
    browser.until("document.getElementById('note')?.textContent.includes('the command printed')")
