"""Debian's Chromium without a window, told what to do over its DevTools protocol; it tells each request it makes.

Skips where there is no Chromium; where BASEKAMP_REQUIRE_BROWSER is set that is a failure.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

START_SECONDS = 60


class Page:
    """One page of the browser."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path) -> "Page":
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        until = time.monotonic() + START_SECONDS
        while self.run("document.readyState") != "complete" or self.run("location.href") != path.as_uri():
            assert time.monotonic() < until
            time.sleep(0.05)
        return self

    def run(self, script: str) -> Any:
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def size(self, width: int, height: int) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def media(self, media: str = "", **features: str) -> None:
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", media=media, features=named)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path) -> None:
        told = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    @property
    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened, without the page itself."""
        self.run("1")
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent if event["params"].get("type") != "Document"]

    @property
    def complaints(self) -> list[str]:
        """What the console was told, and exceptions."""
        self.run("1")
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]


@contextmanager
def start_browser(folder: Path) -> Iterator[Page]:
    program = shutil.which("chromium")
    if program is None:
        reason = "no Chromium: apt install chromium"
        (pytest.fail if os.environ.get("BASEKAMP_REQUIRE_BROWSER") else pytest.skip)(reason)
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            page = Page(_address(folder, process))
            yield page
            page.socket.close()
        finally:
            process.kill()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the first page, once the browser has told its port."""
    until, told = time.monotonic() + START_SECONDS, folder / "DevToolsActivePort"
    while not told.exists() or not told.read_text().strip():
        assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.05)
    port = told.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=START_SECONDS) as answer:
        return next(page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page")
