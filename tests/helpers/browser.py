"""A browser to look at pages with."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any


def find_chromium() -> str | None:
    """The path of Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """Headless Chromium, driven over its debugging protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        from websockets.sync.client import connect

        flags = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
            "--no-first-run", "--disable-background-networking", "--disable-sync",
            f"--user-data-dir={profile}", "--window-size=1200,800",
        )  # fmt: skip
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [program, *flags, "about:blank"], stdout=quiet, stderr=quiet
        )
        try:
            port = _until(lambda: _port(profile / "DevToolsActivePort"))
            address = f"http://127.0.0.1:{port}/json"
            page = _until(lambda: next((t for t in _json(address) if t["type"] == "page"), None))
            self._socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        except BaseException:
            self._process.kill()
            raise
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=240))
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
            self.events.append(said)

    def look(self, width: int, height: int, scheme: str) -> None:
        """The window's size in CSS pixels; `scheme` is light or dark."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=width < 500,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        self.command("Page.navigate", url="about:blank")  # the page before asks nothing any more
        self.js("0")
        self.events.clear()
        self.command("Page.navigate", url=url)

    def js(self, code: str) -> Any:
        """The value of an expression, awaited."""
        found = self.command(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str) -> None:
        _until(lambda: self.js(code))

    def screenshot(self) -> bytes:
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[str]:
        """Exceptions and warnings of the page, but for what the tests' reading of pixels causes."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        said = [json.dumps(event)[:500] for event in self.events if event["method"] in kinds]
        return [text for text in said if "Multiple readback" not in text]

    def asked(self) -> list[str]:
        """The addresses of all requests."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)


def _until(found: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("not within four minutes")


def _port(path: Path) -> str:
    return path.read_text().split()[0] if path.exists() and path.read_text().strip() else ""


def _json(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)
