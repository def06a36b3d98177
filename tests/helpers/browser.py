"""A headless Chromium for tests, driven over its DevTools pipe without a driver or a package."""

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and writes to 4.
LAUNCH = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
LAUNCH += "os.execv(sys.argv[3], sys.argv[3:])"
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13}


def chromium() -> str | None:
    """Return the browser's path, or None if none is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A browser with one page, which must be closed at the end."""

    def __init__(self, profile: Path):
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        # Descriptors above 3 and 4, which the launcher overwrites.
        passed = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
        command = [sys.executable, "-c", LAUNCH, *map(str, passed), chromium(), *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            pass_fds=passed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (theirs_in, theirs_out, *passed):
            os.close(fd)
        self._to, self._from = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._buffer, self._ids, self._session = b"", itertools.count(1), ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")
        self._session = self.send("Target.attachToTarget", **target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = self._from.read1(1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the protocol and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            received = self._receive()
            if received.get("id") == number:
                assert "error" not in received, received
                return received["result"]
            self.events.append(received)

    def open(self, path: Path, *, width: int = 1280, height: int = 900) -> None:
        """Load a file in a window of that size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def run(self, code: str) -> Any:
        """Return the value of an expression in the page, after waiting for a promise."""
        how = {"awaitPromise": True, "returnByValue": True}
        result = self.send("Runtime.evaluate", expression=code, **how)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, *, times: int = 1) -> None:
        """Press a key on the element that has the focus."""
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.send("Browser.close")
        self._process.wait(30)
        self._to.close()
        self._from.close()
