from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from gateway.core.errors import CredentialError
from gateway.http.signin_cli import DEVICE_GRANT
from tests.unit.people.authenticator import Authenticator
from tests.unit.people.conftest import ORIGIN, Browser, World
from tests.unit.people.test_passkey_sign_in import register, use

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().strip("=")
REDIRECT = "http://127.0.0.1:49152/callback"
ASKED = {"redirect_uri": REDIRECT, "code_challenge": CHALLENGE, "state": "s"}


async def allow(browser: Browser, **change: str) -> httpx.Response:
    """Allow a command line on this machine, on its page."""
    return await browser.post("/signin/cli", csrf=await browser.csrf(), **ASKED | change)


async def ask_token(browser: Browser, **fields: str) -> httpx.Response:
    """Ask as a command line does: without cookies and without an origin."""
    browser.http.cookies.clear()
    return await browser.post("/signin/token", {}, client_id="countersign-cli", **fields)


async def redeem(world: World, code: str, **change: str) -> httpx.Response:
    fields = {"code": code, "code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    return await ask_token(world.browser(), grant_type="authorization_code", **fields | change)


def code_of(answer: httpx.Response) -> str:
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


async def begin_device(world: World) -> dict[str, Any]:
    answer = await world.browser("203.0.113.5").post(
        "/oauth/device_authorization", {}, client_id="countersign-cli"
    )
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def poll(world: World, device: dict[str, Any]) -> httpx.Response:
    world.clock.now_s += 6
    return await ask_token(
        world.browser(), grant_type=DEVICE_GRANT, device_code=device["device_code"]
    )


@pytest.mark.req("TOK-08")
async def test_a_command_line_acts_as_who_allowed_it(world: World, browser: Browser) -> None:
    await browser.sign_in()
    page = await browser.get(f"/signin/cli?{urlencode(ASKED)}")
    assert "ann" in page.text
    assert "form-action 'self' http://127.0.0.1:49152" in page.headers["content-security-policy"]
    answer = await allow(browser)
    back = urlsplit(answer.headers["location"])
    assert answer.headers["location"].startswith(REDIRECT)
    assert parse_qs(back.query)["iss"] == [ORIGIN]
    body = (await redeem(world, code_of(answer))).json()
    assert (body["person"], body["expires_in"]) == ("ann", 28_800)
    human = await world.admit(f"Bearer {body['access_token']}")
    assert (human.id, human.roles, human.acr) == ("ann", ("approver",), "session")
    assert [one["kind"] for one in world.records("human.sign_in")] == ["browser", "cli"]


@pytest.mark.req("TOK-08")
async def test_a_credential_ends_by_time_by_revocation_and_by_suspension(
    world: World, browser: Browser
) -> None:
    async def credential() -> str:
        await browser.sign_in()
        token: str = (await redeem(world, code_of(await allow(browser)))).json()["access_token"]
        await world.admit(f"Bearer {token}")
        return token

    async def is_refused(token: str) -> bool:
        try:
            await world.admit(f"Bearer {token}")
        except CredentialError as error:
            return error.code == "token_invalid"
        return False

    first = await credential()
    world.clock.now_s += 28_800
    assert await is_refused(first)
    second = await credential()
    assert (await browser.post("/signin/revoke", {}, token=second)).status_code == 200
    assert (await browser.post("/signin/revoke", {}, token="csh_unknown")).status_code == 200
    assert await is_refused(second)
    assert len(world.records("human.sign_out")) == 1
    third = await credential()
    world.humans.drop("ann")
    assert await is_refused(third)
    assert world.refused == [("authenticate", "token_invalid")] * 3


@pytest.mark.req("TOK-08")
async def test_what_was_allowed_before_signing_out_gives_nothing_after(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    code, device = code_of(await allow(browser)), await begin_device(world)
    said = {"code": device["user_code"], "answer": "allow"}
    assert (await browser.post("/device", csrf=await browser.csrf(), **said)).status_code == 200
    await browser.post("/signout", csrf=await browser.csrf())
    assert (await redeem(world, code)).json()["error"] == "access_denied"
    assert (await poll(world, device)).json()["error"] == "access_denied"
    assert [one["kind"] for one in world.records("human.sign_in")] == ["browser"]


@pytest.mark.req("TOK-08")
async def test_cookies_are_no_credentials_nor_credentials_cookies(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    token = (await redeem(world, code_of(await allow(browser)))).json()["access_token"]
    for given in (f"Bearer {browser.session}", f"Bearer csh_{browser.session}"):
        with pytest.raises(CredentialError):
            await world.admit(given)
    browser.http.cookies.clear()
    browser.http.cookies.set("__Host-countersign", token, domain="gw.example")
    assert (await browser.get("/account")).status_code == 303


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"redirect_uri": f"{REDIRECT}x"},
        {"code": "another"},
        {"client_id": "another"},
        {"grant_type": "password"},
    ],
)
async def test_a_code_is_for_who_asked_only(
    world: World, browser: Browser, change: dict[str, str]
) -> None:
    await browser.sign_in()
    code = code_of(await allow(browser))
    fields = {"code": code, "code_verifier": VERIFIER, "redirect_uri": REDIRECT}
    fields |= {"client_id": "countersign-cli", "grant_type": "authorization_code"} | change
    answer = await world.browser().post("/signin/token", {}, **fields)
    assert answer.status_code in (400, 401)
    assert "access_token" not in answer.json()


@pytest.mark.req("TOK-08")
async def test_a_code_is_good_once_and_for_a_minute(world: World, browser: Browser) -> None:
    await browser.sign_in()
    code = code_of(await allow(browser))
    assert (await redeem(world, code)).status_code == 200
    assert (await redeem(world, code)).json()["error"] == "invalid_grant"
    late = code_of(await allow(browser))
    world.clock.now_s += 60
    assert (await redeem(world, late)).status_code == 400
    suspended = code_of(await allow(browser))
    world.humans.drop("ann")
    assert (await redeem(world, suspended)).json()["error"] == "access_denied"


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:49152.evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:1@evil.example/callback"},
        {"redirect_uri": "http://localhost:49152/callback"},
        {"redirect_uri": ""},
        {"code_challenge": "short"},
        {"state": ""},
        {"state": "s" * 300},
    ],
)
async def test_a_code_goes_to_this_machine_only(browser: Browser, change: dict[str, str]) -> None:
    await browser.sign_in()
    assert (await browser.get(f"/signin/cli?{urlencode(ASKED | change)}")).status_code == 400
    assert (await allow(browser, **change)).status_code == 400


@pytest.mark.req("TOK-08")
async def test_nobody_allows_without_their_own_form(world: World, browser: Browser) -> None:
    first = await browser.get(f"/signin/cli?{urlencode(ASKED)}")
    assert first.headers["location"].startswith("/signin?next=%2Fsignin%2Fcli%3F")
    assert (await browser.post("/signin/cli", csrf="x", **ASKED)).status_code == 403
    await browser.sign_in()
    csrf = await browser.csrf()
    evil = {"origin": "https://evil.example"}
    assert (await browser.post("/signin/cli", evil, csrf=csrf, **ASKED)).status_code == 403
    assert (await browser.post("/device", evil, csrf=csrf, code="x")).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_device_waits_until_somebody_allows_it(world: World, browser: Browser) -> None:
    device = await begin_device(world)
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", device["user_code"])
    assert (await poll(world, device)).json()["error"] == "authorization_pending"
    code = device["user_code"].lower().replace("-", " ")
    signed_out = await browser.get(f"/device?user_code={code}")
    assert signed_out.headers["location"].startswith("/signin?next=%2Fdevice")
    await browser.sign_in()
    assert 'name="user_code"' in (await browser.get("/device")).text
    page = await browser.get(f"/device?user_code={code}")
    assert "203.0.113.5" in page.text
    csrf = await browser.csrf()
    done = await browser.post("/device", csrf=csrf, code=device["user_code"], answer="allow")
    assert "signed in" in done.text
    body = (await poll(world, device)).json()
    assert (await world.admit(f"Bearer {body['access_token']}")).id == "ann"
    assert (await poll(world, device)).json()["error"] == "expired_token"
    again = await browser.post("/device", csrf=csrf, code=device["user_code"], answer="allow")
    assert again.status_code == 404
    assert "look at your command line" in again.text


@pytest.mark.req("TOK-08")
async def test_a_device_that_is_refused_or_late_gets_nothing(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    csrf = await browser.csrf()
    device = await begin_device(world)
    await browser.post("/device", csrf=csrf, code=device["user_code"], answer="refuse")
    assert (await poll(world, device)).json()["error"] == "access_denied"
    assert (await poll(world, device)).json()["error"] == "expired_token"
    late = await begin_device(world)
    world.clock.now_s += 600
    assert (await browser.get(f"/device?user_code={late['user_code']}")).status_code == 404
    assert (await poll(world, late)).json()["error"] == "expired_token"


@pytest.mark.req("TOK-08")
async def test_a_device_that_hurries_is_slowed_down(world: World) -> None:
    device = await begin_device(world)
    await poll(world, device)
    world.clock.now_s -= 5  # one second after the last
    hurried = await poll(world, device)
    assert hurried.json()["error"] == "slow_down"
    assert (await poll(world, device)).json()["error"] == "slow_down"  # 6 s are too few by now


@pytest.mark.req("TOK-08")
async def test_guessing_codes_of_devices_is_bounded(world: World, browser: Browser) -> None:
    await browser.sign_in()
    answers = [await browser.get("/device?user_code=BBBB-BBBB") for _ in range(11)]
    assert [one.status_code for one in answers] == [404] * 10 + [429]


async def test_another_client_gets_no_device_code(world: World) -> None:
    answer = await world.browser().post("/oauth/device_authorization", {}, client_id="other")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    broken = await world.browser().post("/oauth/device_authorization", {})
    assert (broken.status_code, broken.json()["error"]) == (400, "invalid_request")


async def test_devices_that_wait_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.signin_cli.DEVICES_MAX", 1)
    await begin_device(world)
    answer = await world.browser().post(
        "/oauth/device_authorization", {}, client_id="countersign-cli"
    )
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


async def test_too_many_requests_of_a_command_line_are_told_to_slow_down(world: World) -> None:
    stranger = world.browser("198.51.100.3")
    for _ in range(60):
        await stranger.post("/signin/token", {}, grant_type="x")
    answer = await stranger.post("/signin/token", {}, grant_type="x")
    assert (answer.status_code, answer.json()["error"]) == (429, "slow_down")


@pytest.mark.req("POL-07")
async def test_a_command_line_that_needs_a_strong_sign_in_gets_none_of_a_password(
    world: World, browser: Browser
) -> None:
    await browser.sign_in()
    wanted = urlencode(ASKED | {"acr": "strong", "max_age": "300"})
    sent = await browser.get(f"/signin/cli?{wanted}")
    assert sent.status_code == 303
    to = parse_qs(urlsplit(sent.headers["location"]).query)
    assert (to["acr"], to["max_age"]) == (["strong"], ["300"])
    assert to["next"] == [f"/signin/cli?{wanted}"]
    device = Authenticator()
    await register(browser, device)
    fresh = world.browser()
    await use(fresh, device)
    assert (await fresh.get(f"/signin/cli?{wanted}")).status_code == 200
    world.clock.now_s += 301
    assert (await fresh.get(f"/signin/cli?{wanted}")).status_code == 303
    assert (await fresh.get(f"/signin/cli?{urlencode(ASKED)}")).status_code == 200
