"""`countersign login`: a person at this command line (docs/sign-in.md)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import os
import secrets
import sys
import time
import webbrowser
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import typer

from gateway.cli.admin_api import TIMEOUT_S, check_url, fail, is_loopback_url, visible
from gateway.cli.credentials import (
    Credential,
    credentials_path,
    load_credential,
    save_credential,
)
from gateway.cli.exits import Exit

CLIENT_ID: Final = "countersign-cli"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
WAIT_S: Final = 300.0
STRONG: Final = {"acr": "strong", "max_age": "300"}
"""A passkey, or as sure a sign-in at a provider, of the last five minutes."""
_SLOWER_S: Final = 5

Url = Annotated[str | None, typer.Option("--url", help="The gateway. By default COUNTERSIGN_URL.")]


def login(
    url: Url = None,
    device: Annotated[
        bool, typer.Option("--device", help="Sign in with a browser on another machine.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser, or only say where.")
    ] = True,
    strong: Annotated[
        bool, typer.Option("--strong", help="Prove it anew with a passkey, as publishing asks.")
    ] = False,
) -> None:
    """Sign in at the gateway; later commands act as you, until that is over.

    `COUNTERSIGN_TOKEN` goes before it where it is set.
    """
    gateway = check_url(url)
    if device:
        answer = _by_device(gateway, strong=strong)
    else:
        answer = _by_browser(gateway, open_it=browser, strong=strong)
    credential = Credential(
        token=str(answer["access_token"]),
        person=str(answer["person"]),
        expires_at=int(time.time()) + int(answer["expires_in"]),
    )
    before = load_credential(gateway)
    keep(gateway, credential)
    if before is not None:  # nobody has it any more, so nobody could end it
        revoke(gateway, before)
    hours = max(1, round(int(answer["expires_in"]) / 3600))
    say(f"signed in as {visible(credential['person'])} for about {hours} h")
    if os.environ.get("COUNTERSIGN_TOKEN"):
        say("COUNTERSIGN_TOKEN is set and goes before this; unset it to act as who signed in")


def keep(gateway: str, credential: Credential | None) -> None:
    """Keep a credential, or forget the one that is kept.

    Exits where its file cannot be written; the session is ended then, so that none is left.
    """
    try:
        save_credential(gateway, credential)
    except OSError as error:
        if (live := credential or load_credential(gateway)) is not None:
            revoke(gateway, live)
        fail(
            Exit.ERROR,
            f"`{credentials_path()}` cannot be written: {error.strerror}; "
            "name another folder with XDG_CONFIG_HOME",
        )


def revoke(gateway: str, credential: Credential) -> bool:
    """End a session at its gateway; whether that was done."""
    status, _ = post_form(gateway, "/signin/revoke", {"token": credential["token"]})
    return status == httpx.codes.OK


# --- by a browser on this machine (RFC 8252, RFC 7636)


def _by_browser(gateway: str, *, open_it: bool, strong: bool) -> dict[str, Any]:
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    with _Listener(("127.0.0.1", 0), _Callback) as listener:
        redirect_uri = f"http://127.0.0.1:{listener.server_address[1]}/callback"
        asked = {
            "redirect_uri": redirect_uri,
            "code_challenge": challenge.decode().rstrip("="),
            "state": state,
        } | (STRONG if strong else {})
        page = f"{gateway}/signin/cli?{urlencode(asked)}"
        say(f"open this page to sign in:\n  {page}")
        if open_it:
            webbrowser.open(page)
        answer = listener.wait(WAIT_S)
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        fail(Exit.AUTH, "the browser came back with another sign-in; run the command again")
    if answer.get("iss") != gateway:
        fail(
            Exit.AUTH,
            "it goes by another address than COUNTERSIGN_URL: give its `public_url`, as written",
        )
    form = {
        "grant_type": "authorization_code",
        "client_id": CLIENT_ID,
        "code": answer.get("code", ""),
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
    }
    status, body = post_form(gateway, "/signin/token", form)
    if status != httpx.codes.OK:
        fail(Exit.AUTH, visible(str(body.get("error_description", "no credential was given"))))
    return body


class _Listener(http.server.HTTPServer):
    """Takes one answer of the browser, on loopback."""

    def __init__(self, address: tuple[str, int], handler: type[_Callback]) -> None:
        super().__init__(address, handler)
        self.answer: dict[str, str] | None = None

    def wait(self, seconds: float) -> dict[str, str]:
        """Return the parameters that the browser brought; exits where it brings none."""
        until = time.monotonic() + seconds
        self.timeout = 1
        while self.answer is None:
            if time.monotonic() > until:
                fail(Exit.AUTH, "nobody signed in; run the command again")
            self.handle_request()
        return self.answer


class _Callback(http.server.BaseHTTPRequestHandler):
    """The redirect URI. Anything else that asks, such as for an icon, finds nothing."""

    server: _Listener
    timeout = 1.0  # browsers connect ahead of need, and say nothing there

    def do_GET(self) -> None:
        """Take the answer."""
        parts = urlsplit(self.path)
        if parts.path != "/callback":
            self.send_error(404)
            return
        self.server.answer = {name: one[0] for name, one in parse_qs(parts.query).items()}
        page = b"<!DOCTYPE html><title>Countersign</title><p>Go back to your command line.</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Content-Security-Policy", "default-src 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by its base
        """Say nothing: the path holds the code."""


# --- by a browser anywhere (RFC 8628)


def _by_device(gateway: str, *, strong: bool) -> dict[str, Any]:
    status, asked = post_form(gateway, "/oauth/device_authorization", {"client_id": CLIENT_ID})
    if status != httpx.codes.OK:
        fail(Exit.ERROR, "the gateway lets no device sign in now; try again later")
    page = str(asked["verification_uri"])
    if strong:
        page = f"{gateway}/signin?{urlencode({'next': '/device'} | STRONG)}"
    say(
        f"open {visible(page)} on any device and type this code:\n"
        f"  {visible(str(asked['user_code']))}"
    )
    interval = float(asked.get("interval", _SLOWER_S))
    until = time.monotonic() + min(float(asked["expires_in"]), 2 * WAIT_S)
    form = {
        "grant_type": DEVICE_GRANT,
        "client_id": CLIENT_ID,
        "device_code": str(asked["device_code"]),
    }
    while True:
        if time.monotonic() > until:
            fail(Exit.AUTH, "nobody signed in; run the command again")
        time.sleep(interval)
        status, body = post_form(gateway, "/signin/token", form)
        if status == httpx.codes.OK:
            return body
        error = body.get("error")
        if error == "slow_down":
            interval += _SLOWER_S
        elif error != "authorization_pending":
            fail(Exit.AUTH, visible(str(body.get("error_description", "it was refused"))))


def post_form(gateway: str, path: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Send a form to a gateway; return the status and the JSON. Exits where there is no answer."""
    try:
        reply = httpx.post(
            f"{gateway}{path}",
            data=dict(form),
            timeout=TIMEOUT_S,
            trust_env=not is_loopback_url(gateway),
        )
        body = reply.json()
    except httpx.HTTPError as error:
        fail(Exit.ERROR, f"the gateway cannot be reached ({type(error).__name__}); is it running?")
    except ValueError:
        fail(Exit.ERROR, "the answer is not from a gateway; check the address")
    return reply.status_code, body if isinstance(body, dict) else {}


def say(text: str) -> None:
    """Tell the person; stdout is for data."""
    print(text, file=sys.stderr, flush=True)
