"""The harness's `authorization` mode: our authorization server, by a real browser.

The harness prints the URL that a person has to open. A person's browser opens it here: it signs in
with a password on the gateway's own page, allows the app on the page of consent, and is sent back
to the harness, which redeems the code. Every check has to pass; one that is skipped has not.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from gateway.adapters.audit.audit_reader import read_records
from tests.browser import Browser, open_browser
from tests.conformance.harness import HarnessError, build_command
from tests.conformance.interactive import APP

ROOT: Final = Path(__file__).parents[2]
PERSON: Final = "ann"
ALLOW: Final = 'button[value="allow"]'
SCENARIOS: Final = frozenset(("authorization-server-metadata-endpoint", "authorization-code-grant"))
CHECKS: Final = 3
RUN_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 10
EXPECTED_RECORDS: Final = ("authorization.grant", "run.create", "token.issue")


class Door(NamedTuple):
    """A gateway for people: where it is, and the claim that makes its first admin."""

    url: str
    claim: str
    folder: Path


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def interactive_gateway(
    upstream: str, *redirect_uris: str, env: Mapping[str, str] | None = None
) -> Iterator[Door]:
    """Run a gateway for people in a process of its own; see interactive.py.

    `env`: variables that it gets beside ours.
    """
    with TemporaryDirectory(prefix="conformance-") as folder:
        module = [sys.executable, "-m", "tests.conformance.interactive", folder, upstream]
        command = [*module, *redirect_uris]
        environment = {**os.environ, **(env or {})}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                url, claim = (process.stdout.readline().strip() for _ in range(2))
                if not claim:
                    raise HarnessError("the gateway for people did not start")
                yield Door(url, claim, Path(folder))
            finally:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def set_up_person(browser: Browser, door: Door) -> str:
    """Become the gateway's first admin by its claim; sign out again; return the password."""
    password = secrets.token_urlsafe(16)
    browser.open(door.claim)
    browser.write("#person", PERSON)
    browser.write("#password", password)
    browser.click("main form button")
    browser.wait_for("location.pathname === '/account'")
    browser.forget()
    return password


def sign_in(browser: Browser, password: str) -> None:
    """Sign in on the gateway's page, once the browser has come to it."""
    browser.wait_for("location.pathname === '/signin'")
    browser.write("#person", PERSON)
    browser.write("#password", password)
    browser.click('form[action="/signin/password"] button')


def run_authorization(harness: Path) -> list[str]:
    """Run the mode; return what is at fault, one sentence each."""
    from tests.conformance.run import started  # noqa: PLC0415 - it starts this, too

    port = free_port()
    back = f"http://127.0.0.1:{port}/callback"
    with started("fixture_server") as upstream, interactive_gateway(upstream, back) as door:
        with open_browser() as browser:
            password = set_up_person(browser, door)
            output = _run(harness, door.url, port, browser, password)
        faults = list(find_faults(output))
        types = [record["type"] for record in read_records(door.folder / "audit")]
        faults += [f"the log has no `{kind}`" for kind in EXPECTED_RECORDS if kind not in types]
        return faults


def _run(harness: Path, url: str, port: int, browser: Browser, password: str) -> Path:
    output = harness / "results" / "authorization"
    shutil.rmtree(output, ignore_errors=True)
    asked = ["--url", url, "--client-id", APP, "--resource", f"{url}/mcp"]
    command = build_command(
        harness, "authorization", *asked, "--port", str(port), "-o", str(output)
    )
    log = harness / "authorization.log"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = bytearray()
        try:
            address = _read_until(process, said, f"{url}/oauth/authorize?")
            browser.open(address)
            sign_in(browser, password)
            browser.click(ALLOW)
            browser.wait_for("document.body.innerText.includes('You can close this page')")
            said += process.communicate(timeout=RUN_TIMEOUT_S)[0]
        finally:
            process.kill()
            log.write_bytes(said)
    return output


def _read_until(process: subprocess.Popen[bytes], said: bytearray, start: str) -> str:
    """Return the first line of the harness that starts so."""
    assert process.stdout is not None
    until = time.monotonic() + RUN_TIMEOUT_S
    while True:
        for line in said.decode().splitlines()[:-1]:
            if line.startswith(start):
                return line
        ready, _, _ = select.select([process.stdout], [], [], max(0, until - time.monotonic()))
        piece = process.stdout.read1(65_536) if ready else b""  # type: ignore[attr-defined]
        if not piece:
            raise HarnessError(f"the harness asked nobody to sign in:\n{said.decode()}")
        said += piece


def find_faults(output: Path) -> Iterator[str]:
    """Yield a sentence for each check that did not pass, and for each that did not run."""
    seen: set[str] = set()
    passed = 0
    for path in sorted(output.glob("*/checks.json")):
        checks: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        seen |= {name for name in SCENARIOS if name in path.parent.name}
        for check in checks:
            if check["status"] == "SUCCESS":
                passed += 1
            else:
                message = check.get("errorMessage") or "no reason given"
                yield f"{check['id']} is {check['status']}: {message}"
    for name in sorted(SCENARIOS - seen):
        yield f"scenario `{name}` did not run"
    if passed < CHECKS:
        yield f"{passed} checks passed, not {CHECKS}"
