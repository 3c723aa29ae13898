"""Debian's Chromium, driven by its own protocol over two pipes: real clicks and keys, and what it says on its console."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

#: The program, ``None`` where there is none.
CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
)
#: Runs a command that reads descriptor 3 and writes descriptor 4.
_AT_3_AND_4 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


class Chromium:
    """One browser with one page.  Every method blocks: call it in a thread."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        command = (CHROMIUM, *_FLAGS, f"--user-data-dir={profile}")
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _AT_3_AND_4, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = os.fdopen(ours, "wb", buffering=0), os.fdopen(theirs, "rb")
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        #: What pages said on the console, or threw.
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers to *method*.  Raises AssertionError for an error."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self._noted(said)
        assert "error" not in said, (method, params, said)
        return said["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            piece = os.read(self._in.fileno(), 1 << 16)
            assert piece, "the browser has ended"
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said

    def _noted(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        else:
            self._events.append(said)

    def until_event(self, method: str) -> None:
        """Wait for the next *method* after the last navigation or click."""
        while not any(each.get("method") == method for each in self._events):
            self._noted(self._next())
        self._events.clear()

    def open(self, url: str) -> None:
        """Load the page at *url*."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self.until_event("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of the expression *script*, or what its promise fulfils with."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str, *, loads: bool = True) -> None:
        """Click with the mouse in the middle of what *selector* finds first; if it *loads*, wait for the next page."""
        place = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        self._events.clear()
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        if loads:
            self.until_event("Page.loadEventFired")

    def write(self, text: str) -> None:
        """Type *text* where the focus is."""
        self.call("Input.insertText", text=text)

    def press_tab(self) -> None:
        """Press the key Tab."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def until(self, script: str) -> None:
        """Wait until the expression *script* is true: it is looked at again at each change of the page."""
        self.run(
            "new Promise((done, fail) => { setTimeout(() => fail(new Error('not within 20 s')), 20000);"
            f" const look = () => {{ if ({script}) {{ observer.disconnect(); done(true) }} }};"
            " const observer = new MutationObserver(look);"
            " observer.observe(document, {childList: true, subtree: true, characterData: true, attributes: true}); look() })"
        )

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self._out.write(json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        self._out.close()
        self._process.wait(30)
        self._in.close()
