"""A headless Chromium to look at pages with, over the DevTools protocol: no driver, no download."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = (1200, 800)

# The innermost visible element whose text is this one, clicked as a person does it: not while it is still faded in.
CLICK = """
(words => {
  const moving = document.getAnimations().map(animation => animation.effect.target);
  const shown = element => element.getClientRects().length > 0;
  const found = [...document.querySelectorAll("button, a, summary, [role=menuitem], [role=tab], li, span, div")]
    .filter(element => element.textContent.trim() === words && shown(element)).pop();
  if (!found || moving.some(other => other.contains(found))) return false;
  found.click();
  return true;
})(%s)
"""


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._calls, self._events = socket, 0, []
        self._call("Page.enable")
        self.resize(*SIZE)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """The window's size in CSS pixels, as a desktop or as a telephone lays pages out."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme: str) -> None:
        """The colour scheme that the reader prefers: light or dark."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def listen(self) -> None:
        """Take note of what goes wrong from here on: see `complaints`."""
        for domain in ("Log", "Runtime", "Network"):
            self._call(f"{domain}.enable")
        self._events.clear()

    def complaints(self) -> list[str]:
        """What was logged as an error or warning, thrown, or not loaded since `listen`."""
        self.value("0")  # what came before this answer has arrived
        found = []
        for event in self._events:
            method, said = event["method"], event["params"]
            if method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
                found.append(said["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(argument.get("value")) for argument in said["args"]))
            elif method == "Runtime.exceptionThrown":
                found.append(said["exceptionDetails"]["text"])
            elif method == "Network.loadingFailed":
                found.append(f"{said['type']} was not loaded: {said['errorText']}")
        return found

    def requests(self) -> list[str]:
        """The addresses of everything that was asked for since `listen`, the page's own among them."""
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        return base64.b64decode(
            self._call(
                "Page.printToPDF", printBackground=True, preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69
            )["data"]
        )

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """All words on the page."""
        return self.value("document.body ? document.body.innerText : ''")

    def value(self, script: str) -> Any:
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def shows(self, *words: str, seconds: float = 60) -> None:
        """Wait until all these words are there."""
        self._until(lambda: all(word in self.text() for word in words), seconds, words)

    def click(self, words: str, seconds: float = 60) -> None:
        self._until(lambda: self.value(CLICK % json.dumps(words)), seconds, words)

    def shoot(self, path: Path) -> None:
        """A PNG of what is seen."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _until(self, condition, seconds: float, what: Any) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"no {what} on the page:\n{self.text()}"
            time.sleep(0.1)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=180))
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return message["result"]
            if "method" in message:
                self._events.append(message)


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with one empty page; it ends with the block. Its sockets need a short path, and are removed with it."""
    scratch = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
    process = subprocess.Popen(
        [
            PROGRAM,
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",  # the graph of a run is drawn with WebGL
            f"--user-data-dir={profile}",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            "about:blank",
        ],
        env={**os.environ, "TMPDIR": scratch.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_page_address(profile / "DevToolsActivePort"), max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        scratch.cleanup()


def _page_address(file: Path) -> str:
    """Where the empty page listens, once the browser has said on which port it does."""
    deadline = time.monotonic() + 120
    while True:
        try:
            port = int(file.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as reply:
                return next(page["webSocketDebuggerUrl"] for page in json.loads(reply.read()) if page["type"] == "page")
        except (OSError, IndexError, ValueError, StopIteration):
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.05)
