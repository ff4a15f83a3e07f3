"""A real browser for tests: finds Chromium, drives it over the DevTools pipe, records what the page does."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium speaks DevTools on the descriptors 3 and 4, which `subprocess` cannot place by number.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find() -> str | None:
    """The Chromium on this machine, or the one that KOFN_CHROMIUM names."""
    named = os.environ.get("KOFN_CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


def require() -> str:
    """The Chromium to test with; without one the test is skipped, but under CI it fails."""
    path = find()
    if path is None:
        reason = "no Chromium on the PATH (install the package chromium, or set KOFN_CHROMIUM)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason + "; CI must run the browser tests")
        pytest.skip(reason)
    return path


class Browser:
    """One headless Chromium with a fresh profile; `with Browser() as browser:` ends it."""

    def __init__(self, timeout: float = 60.0) -> None:
        self.timeout = timeout
        self.events: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="kofn-browser-", ignore_cleanup_errors=True)
        self._sent, self._buffer = 0, b""
        # Launching over descriptor 3 or 4 would clobber the pipe itself, so its ends are moved out of the way first.
        ends = [*os.pipe(), *os.pipe()]
        import fcntl

        theirs_in, self._out, self._in, theirs_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
        for end in ends:
            os.close(end)
        command = [require(), *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(timeout=15)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one DevTools command and wait for its answer; events that come in between are kept."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)

    def wait(self, method: str, session: str) -> dict[str, Any]:
        """The next event of that name, past or to come; it is taken out of `events` only once."""
        while True:
            for event in self.events:
                if event.get("method") == method and event.get("sessionId") == session and "seen" not in event:
                    event["seen"] = True
                    return event
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError("Chromium went away" if ready else f"no answer from Chromium in {self.timeout:g} s")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def open(
        self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light", scripts: bool = True
    ) -> Page:
        """Load a file as a tab of that size and colour scheme, and wait until it stands."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.call(f"{domain}.enable", session)
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.call("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
        if not scripts:
            self.call("Emulation.setScriptExecutionDisabled", session, value=True)
        url = path.resolve().as_uri()
        self.call("Page.navigate", session, url=url)
        self.wait("Page.loadEventFired", session)
        return Page(self, session, target, url)


class Page:
    """One open tab."""

    def __init__(self, browser: Browser, session: str, target: str, url: str) -> None:
        self.browser, self.session, self.target, self.url = browser, session, target, url

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.browser.call(
            "Runtime.evaluate",
            self.session,
            expression=expression,
            userGesture=True,
            returnByValue=True,
            awaitPromise=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def _events(self, *names: str) -> list[dict[str, Any]]:
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [event["params"] for event in mine if event["method"] in names]

    def complaints(self) -> list[str]:
        """Everything the console, the log or the issue list holds: errors, warnings, exceptions, policy breaches."""
        seen = self._events(
            "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded"
        )
        return [json.dumps(event)[:600] for event in seen]

    def requests(self) -> list[str]:
        """Every address the page asked for, but itself and data it carries."""
        urls = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in urls if url.split("#")[0] != self.url and not url.startswith("data:")]

    def key(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.browser.call(
                "Input.dispatchKeyEvent", self.session, type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def screenshot(self, path: Path, *, full: bool = True) -> Path:
        """The page, or what is in view, as a PNG."""
        shot = self.browser.call(
            "Page.captureScreenshot", self.session, format="png", captureBeyondViewport=full, **self._clip(full)
        )
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _clip(self, full: bool) -> dict[str, Any]:
        if not full:
            return {}
        size = self.browser.call("Page.getLayoutMetrics", self.session)["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.browser.call("Page.printToPDF", self.session, printBackground=True)["data"])

    def close(self) -> None:
        """Close the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)
