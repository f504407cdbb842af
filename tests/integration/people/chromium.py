"""A real Chromium, driven over the DevTools protocol on a pipe: no port, no library."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

WAIT_S: Final = 30.0
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP localhost 127.0.0.1",
)
_ON_3_AND_4: Final = """
import os, sys
to_read, from_write = int(sys.argv[1]), int(sys.argv[2])
here = os.dup(to_read), os.dup(from_write)
while min(here) <= 4:
    here = os.dup(to_read), os.dup(from_write)
os.dup2(here[0], 3)
os.dup2(here[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol is on these descriptors, whichever the pipes have here."""


class Chromium:
    """One tab. Every wait is bounded by `WAIT_S`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Send a command and return its result; events on the way are not looked at."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], WAIT_S)
            assert ready, "the browser says nothing"
            chunk = os.read(self._from, 65_536)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, script: str) -> Any:  # noqa: ANN401 - JSON
        """Return what an expression is worth on the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def wait_for(self, text: str) -> None:
        """Return once the page shows a text."""
        end, shown = time.monotonic() + WAIT_S, ""
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # the page is being replaced
                shown = (
                    self.run(
                        "document.readyState === 'complete' ? document.title + ' ' + "
                        "document.body.innerText : ''"
                    )
                    or ""
                )
            if text in shown:
                return
            select.select([], [], [], 0.05)
        where = self.run("location.href")
        raise AssertionError(f"no `{text}` at {where}:\n{shown}")

    def fill(self, **fields: str) -> None:
        """Type into fields, by name."""
        for name, value in fields.items():
            target = f"document.querySelector('[name={name}]:not([type=hidden])')"
            self.run(f"{target}.value = {json.dumps(value)}")

    def click(self, label: str) -> None:
        """Press the first button that has this text."""
        found = self.run(
            "(() => { const all = [...document.querySelectorAll('button')];"
            f" const one = all.find((b) => b.innerText.trim() === {json.dumps(label)});"
            " if (one) one.click(); return Boolean(one); })()"
        )
        assert found, f"no button `{label}`: {self.run('document.body.innerText')}"

    def add_authenticator(self) -> str:
        """Plug a virtual authenticator in that verifies its user; return its id."""
        self.call("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        found = self.call("WebAuthn.addVirtualAuthenticator", options=options)
        return str(found["authenticatorId"])


@contextlib.contextmanager
def running_chromium(folder: Path) -> Iterator[Chromium]:
    """Start Chromium (the Debian package) with a profile of its own, and end it by its pid."""
    program = shutil.which("chromium")
    assert program is not None, "no `chromium` on the path: install the Debian package"
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    ends, profile = (str(to_read), str(from_write)), f"--user-data-dir={folder}/profile"
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, *ends, program, *_FLAGS, profile],
            pass_fds=(to_read, from_write),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(to_read)
    os.close(from_write)
    with process:
        try:
            yield Chromium(to_write, from_read)
        finally:
            process.terminate()
            process.wait(timeout=10)
            os.close(to_write)
            os.close(from_read)
