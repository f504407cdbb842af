"""A real browser for tests: Debian's Chromium, headless, over its debugging pipe.

Keys and clicks go in as a person's do (`Input.*`), not as calls of a page's own functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

PROGRAM: Final = "chromium"
TIMEOUT_S: Final = 30.0
_PAUSE_S: Final = 0.05
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # containers have no user namespaces to build one of
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
)


class BrowserError(Exception):
    """The browser did not do what it was asked to."""


class Browser:
    """One page of one browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._pending = b""
        self._last = 0
        target = self._call("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, None)
        self._session: str = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Send one command of the DevTools protocol to the page; return its result."""
        return self._call(method, params, self._session)

    def open(self, url: str) -> None:
        """Go to a URL, as if it was typed in."""
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            raise BrowserError(f"{url}: {error}")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - JSON
        """Return the value of a JavaScript expression; None while a page is being changed."""
        with contextlib.suppress(BrowserError):
            found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
            return found["result"].get("value")
        return None

    def wait_for(self, expression: str) -> None:
        """Return as soon as an expression is true."""
        until = time.monotonic() + TIMEOUT_S
        while not self.evaluate(f"!!({expression})"):
            if time.monotonic() > until:
                text = self.evaluate("document.body && document.body.innerText")
                raise BrowserError(f"waited for `{expression}` at {self.url}:\n{text}")
            select.select([], [], [], _PAUSE_S)

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self.evaluate("location.href"))

    @property
    def text(self) -> str:
        """What a person reads on it."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, selector: str) -> None:
        """Click in the middle of an element, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"document.readyState === 'complete' && !!{found}")
        self.evaluate(f"{found}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({_rect(found)})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def write(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def forget(self) -> None:
        """Forget all cookies."""
        self.call("Network.clearBrowserCookies")

    def _call(self, method: str, params: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + TIMEOUT_S
        while True:
            reply = self._receive(until, method)
            if reply.get("id") == self._last:
                if "error" in reply:
                    raise BrowserError(f"{method}: {reply['error']['message']}")
                result: dict[str, Any] = reply["result"]
                return result

    def _receive(self, until: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._reading], [], [], max(0, until - time.monotonic()))
            piece = os.read(self._reading, 65_536) if ready else b""
            if not piece:
                raise BrowserError(f"{method}: the browser does not answer")
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


def _rect(found: str) -> str:
    return f"{found}.getBoundingClientRect()"


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser without a past; end it, and what it started, by its pid."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise BrowserError(f"no `{PROGRAM}` on the path: apt-get install {PROGRAM}")
    there, ours_out = _pipe()
    ours_in, back = _pipe()
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        shell = ["/bin/bash", "-c", f'exec "$@" 3<&{there} 4>&{back}', "bash"]
        process = subprocess.Popen(
            [*shell, program, *_FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(there, back),
            cwd=Path(profile),
            env={"PATH": os.environ["PATH"], "HOME": profile},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _close(there, back)
        try:
            yield Browser(ours_in, ours_out)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(ours_in, ours_out)


def _pipe() -> tuple[int, int]:
    """Open a pipe clear of 3 and 4, where Chromium reads its commands and answers them."""
    low = os.pipe()
    reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in low)
    _close(*low)
    return reading, writing


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
