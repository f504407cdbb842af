"""`countersign login` where browser, gateway or its own file are not as it hopes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli import build, login
from gateway.cli.credentials import credentials_path, load_credential, save_credential

Answer = tuple[int, dict[str, Any]]


class Gateway:
    """Answers forms as a test says: path → what to say, one after the other."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.forms: list[dict[str, str]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                gateway.forms.append(dict(parse_qsl(raw.decode())))
                status, body = gateway.answers[self.path].pop(0)
                text = json.dumps(body).encode() if body else b"<html>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = Gateway()
    monkeypatch.setenv("COUNTERSIGN_URL", made.url)
    yield made
    made.stop()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(arguments[0]), list(arguments))


@pytest.fixture
def browse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    """Let a browser open the page that it is given, and come back as a test says."""

    def use(way_back: Callable[[str], str]) -> None:
        def open_page(page: str) -> bool:
            asked = {name: one[0] for name, one in parse_qs(urlsplit(page).query).items()}
            icon = asked["redirect_uri"].replace("/callback", "/favicon.ico")
            back = f"{asked['redirect_uri']}?{way_back(asked['state'])}"

            def visit() -> None:
                assert httpx.get(icon, trust_env=False).status_code == 404
                assert "Go back" in httpx.get(back, trust_env=False).text

            threading.Thread(target=visit).start()
            return True

        monkeypatch.setattr("webbrowser.open", open_page)

    return use


TOKEN = (200, {"access_token": "csh_x", "token_type": "Bearer", "expires_in": 60, "person": "ann"})


@pytest.mark.req("TOK-08")
def test_a_code_is_redeemed_with_its_verifier_and_kept_for_the_owner(
    gateway: Gateway, browse: Callable[[Callable[[str], str]], None]
) -> None:
    gateway.answers = {"/signin/token": [TOKEN]}
    browse(lambda state: f"code=c&state={state}&iss={gateway.url}")
    done = run("login")
    assert done.exit_code == 0, done.output
    assert gateway.forms[0]["code"] == "c"
    assert len(gateway.forms[0]["code_verifier"]) == 43
    kept = load_credential(gateway.url)
    assert kept is not None
    assert kept["token"] == "csh_x"
    assert credentials_path().stat().st_mode & 0o077 == 0


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    ("back", "said"),
    [
        ("code=c&state=other&iss=URL", "another sign-in"),
        ("code=c&state=%C3%A9&iss=URL", "another sign-in"),
        ("code=c&state=STATE&iss=https://e", "its `public_url`"),
        ("code=c&state=STATE&iss=URL:443", "its `public_url`"),
        ("code=c&state=STATE", "its `public_url`"),
    ],
)
def test_an_answer_to_another_sign_in_is_not_redeemed(
    gateway: Gateway, browse: Callable[[Callable[[str], str]], None], back: str, said: str
) -> None:
    browse(lambda state: back.replace("STATE", state).replace("URL", gateway.url))
    done = run("login")
    assert (done.exit_code, gateway.forms, said in done.output) == (4, [], True), done.output
    assert load_credential(gateway.url) is None


@pytest.mark.req("TOK-08")
def test_a_connection_on_which_nobody_speaks_does_not_keep_the_browser_waiting(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.answers = {"/signin/token": [TOKEN]}
    ahead: list[socket.socket] = []

    def open_page(page: str) -> bool:
        asked = {name: one[0] for name, one in parse_qs(urlsplit(page).query).items()}
        place = urlsplit(asked["redirect_uri"])
        ahead.append(socket.create_connection(("127.0.0.1", place.port or 0)))
        back = {"code": "c", "state": asked["state"], "iss": gateway.url}
        visit = partial(httpx.get, asked["redirect_uri"], params=back, trust_env=False, timeout=20)
        threading.Thread(target=visit).start()
        return True

    monkeypatch.setattr("webbrowser.open", open_page)
    watch = threading.Timer(15, lambda: ahead[0].close())  # noqa: PLW0108 - there is none yet
    watch.start()
    done = run("login")
    assert (done.exit_code, watch.is_alive()) == (0, True), done.output
    watch.cancel()
    ahead[0].close()


def test_a_code_that_the_gateway_does_not_honour_is_told(
    gateway: Gateway, browse: Callable[[Callable[[str], str]], None]
) -> None:
    refusal = {"error": "invalid_grant", "error_description": "no\x1b[2J"}
    gateway.answers = {"/signin/token": [(400, refusal)]}
    browse(lambda state: f"code=c&state={state}&iss={gateway.url}")
    done = run("login")
    assert done.exit_code == 4
    assert "\x1b" not in done.output


def test_nobody_signing_in_ends_the_wait(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "WAIT_S", -1.0)
    done = run("login", "--no-browser")
    assert (done.exit_code, "nobody signed in" in done.output) == (4, True)
    gateway.answers = {"/oauth/device_authorization": [_device()]}
    assert run("login", "--device").exit_code == 4


def _device() -> Answer:
    body = {"device_code": "d", "user_code": "BBBB-CCCC", "verification_uri": "http://x/device"}
    return 200, body | {"expires_in": 60, "interval": 0}


@pytest.mark.req("TOK-08")
def test_a_device_asks_again_slower_until_it_is_answered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    gateway.answers = {
        "/oauth/device_authorization": [_device()],
        "/signin/token": [
            (400, {"error": "authorization_pending"}),
            (400, {"error": "slow_down"}),
            TOKEN,
        ],
    }
    assert run("login", "--device").exit_code == 0
    assert waits == [0.0, 0.0, 5.0]
    gateway.answers = {
        "/oauth/device_authorization": [_device(), (503, {"error": "temporarily_unavailable"})],
        "/signin/token": [(400, {"error": "access_denied"})],
    }
    assert run("login", "--device").exit_code == 4
    assert run("login", "--device").exit_code == 1


def test_what_is_no_gateway_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.answers = {"/oauth/device_authorization": [(200, {})]}
    assert run("login", "--device").exit_code == 1
    assert run("login", "--url", "http://gateway.example").exit_code == 2
    monkeypatch.setenv("COUNTERSIGN_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in run("login", "--device").output


@pytest.mark.req("TOK-08")
def test_a_logout_forgets_here_even_where_the_gateway_fails(gateway: Gateway) -> None:
    save_credential(gateway.url, {"token": "t", "person": "ann", "expires_at": 2**40})
    save_credential("https://other", {"token": "o", "person": "ann", "expires_at": 2**40})
    gateway.answers = {"/signin/revoke": [(503, {"error": "x"})]}
    assert run("logout").exit_code == 1
    assert load_credential(gateway.url) is None
    assert load_credential("https://other") is not None


@pytest.mark.req("TOK-08")
def test_signing_in_anew_ends_the_session_that_was_kept_before(
    gateway: Gateway, browse: Callable[[Callable[[str], str]], None]
) -> None:
    save_credential(gateway.url, {"token": "before", "person": "ann", "expires_at": 2**40})
    gateway.answers = {"/signin/token": [TOKEN], "/signin/revoke": [(200, {"ended": True})]}
    browse(lambda state: f"code=c&state={state}&iss={gateway.url}")
    assert run("login", "--strong").exit_code == 0
    assert gateway.forms[-1] == {"token": "before"}
    kept = load_credential(gateway.url)
    assert kept is not None
    assert kept["token"] == "csh_x"


@pytest.mark.parametrize("given", ["", "a generated secret"])
def test_a_credential_that_goes_before_the_one_of_a_sign_in_is_told(
    gateway: Gateway,
    browse: Callable[[Callable[[str], str]], None],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    monkeypatch.setenv("COUNTERSIGN_TOKEN", given)
    gateway.answers = {"/signin/token": [TOKEN]}
    browse(lambda state: f"code=c&state={state}&iss={gateway.url}")
    done = run("login")
    assert (done.exit_code, "unset it" in done.output) == (0, bool(given))


@pytest.mark.req("TOK-08")
def test_a_session_that_cannot_be_kept_is_ended(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "countersign").touch()  # no folder, so nothing can be written into it
    monkeypatch.setattr("time.sleep", lambda _: None)
    begun = {"verification_uri": "u", "user_code": "c", "device_code": "d", "expires_in": 60}
    gateway.answers = {
        "/oauth/device_authorization": [(200, begun)],
        "/signin/token": [TOKEN],
        "/signin/revoke": [(200, {"ended": True})],
    }
    ended = run("login", "--device")
    assert (ended.exit_code, "XDG_CONFIG_HOME" in ended.output) == (1, True)
    assert gateway.forms[-1] == {"token": "csh_x"}


@pytest.mark.req("TOK-08")
def test_a_logout_of_nobody_writes_nothing(gateway: Gateway) -> None:
    assert run("logout").exit_code == 0
    assert not credentials_path().parent.exists()


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("{gateway}/?x=y", 2, "set COUNTERSIGN_URL"),
        ("https://xn--\\ud800", 2, "set COUNTERSIGN_URL"),
        ("{gateway}/elsewhere", 1, "not from a gateway"),
        ("{gateway}/below", 1, "COUNTERSIGN_URL is its address alone"),
    ],
)
def test_an_address_that_is_no_gateways_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, url: str, code: int, said: str
) -> None:
    gateway.answers = {
        "/elsewhere/v1/kills/lift": [(404, {"detail": "Not Found"})],
        "/below/v1/kills/lift": [(404, {"code": "path_unknown", "detail": "no such path"})],
    }
    monkeypatch.setenv("COUNTERSIGN_URL", url.format(gateway=gateway.url))
    monkeypatch.setenv("COUNTERSIGN_TOKEN", "t")
    told = run("kill", "off", "--all", "--reason", "over")
    assert (told.exit_code, said in told.output) == (code, True), told.output


@pytest.mark.parametrize("content", ["", "[]", "{", '{"URL": 3}', '{"URL": {"token": "x"}}'])
def test_a_credentials_file_that_cannot_be_read_holds_none(gateway: Gateway, content: str) -> None:
    path = credentials_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content.replace("URL", gateway.url))
    path.chmod(0o600)
    assert load_credential(gateway.url) is None
    save_credential(gateway.url, {"token": "t", "person": "a", "expires_at": int(time.time()) - 1})
    assert load_credential(gateway.url) is None  # it is over


def test_without_a_folder_of_its_own_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert credentials_path() == Path.home() / ".config" / "countersign" / "credentials.json"
