from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.unit.people.authenticator import PRESENT, Authenticator
from tests.unit.people.conftest import Browser, World


async def register(browser: Browser, key: Authenticator) -> httpx.Response:
    """Add a passkey to the account of who is signed in."""
    csrf = await browser.csrf()
    options = await browser.script("/account/passkeys/options", csrf=csrf)
    assert options.status_code == 200, options.text
    credential = key.create(options.json())
    return await browser.script(
        "/account/passkeys", csrf=csrf, label="My key", credential=credential
    )


async def use(browser: Browser, key: Authenticator, **change: Any) -> httpx.Response:  # noqa: ANN401 - JSON
    options = (await browser.script("/signin/passkey/options")).json()
    credential = key.get(options) | change
    return await browser.script("/signin/passkey", next="/oauth/authorize", credential=credential)


@pytest.fixture
async def key(world: World) -> Authenticator:
    """Return a passkey of ann's."""
    browser, made = world.browser(), Authenticator()
    await browser.sign_in()
    answer = await register(browser, made)
    assert answer.json() == {"next": "/account?done=passkey"}
    return made


@pytest.mark.req("TOK-08")
async def test_a_passkey_signs_in_strongly(
    world: World, browser: Browser, key: Authenticator
) -> None:
    answer = await use(browser, key)
    assert answer.json() == {"next": "/oauth/authorize"}
    record = world.records("human.sign_in")[-1]
    assert (record["method"], record["acr"]) == ("passkey", "strong")
    assert (await browser.get("/signin?next=/x&acr=strong")).status_code == 303
    assert "My key" in (await browser.get("/account")).text
    assert (await use(browser, key)).status_code == 200  # again, the counter went up


@pytest.mark.req("TOK-08")
async def test_the_options_name_nobody(browser: Browser) -> None:
    options = (await browser.script("/signin/passkey/options")).json()
    assert options["userVerification"] == "required"
    assert options["rpId"] == "gw.example"
    assert not options.get("allowCredentials")


@pytest.mark.req("TOK-08")
async def test_an_assertion_is_good_once(browser: Browser, key: Authenticator) -> None:
    options = (await browser.script("/signin/passkey/options")).json()
    credential = key.get(options)
    assert (await browser.script("/signin/passkey", credential=credential)).status_code == 200
    again = await browser.script("/signin/passkey", credential=credential)
    assert (again.status_code, again.json()["code"]) == (403, "passkey_invalid")


@pytest.mark.req("TOK-08")
async def test_a_challenge_of_another_browser_is_of_no_use(
    world: World, browser: Browser, key: Authenticator
) -> None:
    options = (await world.browser().script("/signin/passkey/options")).json()
    answer = await browser.script("/signin/passkey", credential=key.get(options))
    assert answer.status_code == 403
    assert world.records("human.refused")[-1]["reason"] == "challenge_unknown"


@pytest.mark.req("TOK-08")
async def test_a_challenge_does_not_live_long(
    world: World, browser: Browser, key: Authenticator
) -> None:
    options = (await browser.script("/signin/passkey/options")).json()
    world.clock.now_s += 301
    answer = await browser.script("/signin/passkey", credential=key.get(options))
    assert answer.status_code == 403


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("lie", ["origin", "flags", "counter", "rp", "signature", "handle"])
async def test_an_assertion_that_lies_is_refused(
    world: World, browser: Browser, key: Authenticator, lie: str
) -> None:
    assert (await use(browser, key)).status_code == 200
    if lie == "origin":
        key.origin = "https://gw.example.evil.example"
    elif lie == "flags":  # somebody was there, and nobody looked who
        key.flags = PRESENT
    elif lie == "counter":  # a copy of the authenticator
        key.counter -= 1
    elif lie == "rp":
        key._rp_id = "evil.example"  # noqa: SLF001 - an authenticator that lies
    elif lie == "signature":
        stranger = Authenticator()
        stranger.credential_id, stranger.counter = key.credential_id, key.counter
        key = stranger
    else:
        key.handle = "AAAA"
    answer = await use(browser, key)
    assert (answer.status_code, answer.json()["code"]) == (403, "passkey_invalid")
    assert world.records("human.refused")[-1]["reason"] == "passkey_invalid"
    assert len(world.records("human.sign_in")) == 2


@pytest.mark.req("TOK-08")
async def test_a_passkey_that_nobody_registered_is_refused(
    world: World, browser: Browser, key: Authenticator
) -> None:
    assert (await use(browser, Authenticator())).status_code == 403
    world.humans.drop("ann")
    assert (await use(browser, key)).status_code == 403
    reasons = [one["reason"] for one in world.records("human.refused")]
    assert reasons == ["passkey_unknown", "passkey_unknown"]


async def test_an_authenticator_without_a_counter_is_fine(
    browser: Browser, key: Authenticator
) -> None:
    for _ in range(2):
        key.counter = -1
        assert (await use(browser, key)).status_code == 200


@pytest.mark.req("TOK-08")
async def test_a_counter_is_moved_on_once(world: World, key: Authenticator) -> None:
    [stored] = await world.accounts.passkeys("ann")
    moved = [
        await world.accounts.count_up(stored.credential_id, before=0, after=5) for _ in range(2)
    ]
    assert moved == [True, False]


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("path", ["/signin/passkey/options", "/signin/passkey"])
async def test_scripts_of_other_pages_get_nothing(browser: Browser, path: str) -> None:
    browser.own = {"origin": "https://evil.example"}
    assert (await browser.script(path)).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_new_passkey_needs_this_very_session(world: World, browser: Browser) -> None:
    assert (await browser.script("/account/passkeys/options", csrf="")).status_code == 403
    await browser.sign_in()
    csrf = await browser.csrf()
    assert (await browser.script("/account/passkeys/options", csrf="0" * 64)).status_code == 403
    options = (await browser.script("/account/passkeys/options", csrf=csrf)).json()
    await browser.sign_in()  # a new session; the challenge is of the old one
    credential = Authenticator().create(options)
    answer = await browser.script(
        "/account/passkeys", csrf=await browser.csrf(), label="x", credential=credential
    )
    assert answer.status_code == 403
    assert await world.accounts.passkeys("ann") == []


@pytest.mark.req("TOK-08")
async def test_a_passkey_belongs_to_one_person(
    world: World, browser: Browser, key: Authenticator
) -> None:
    await world.give_password("otto")
    await browser.sign_in("otto")
    assert (await register(browser, key)).json()["detail"] == "this passkey is in use already"


async def test_an_old_session_adds_no_passkey(world: World, browser: Browser) -> None:
    await browser.sign_in()
    csrf = await browser.csrf()
    world.clock.now_s += 901
    answer = await browser.script("/account/passkeys/options", csrf=csrf)
    assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_again")
    moved = await browser.post("/account/passkeys/remove", csrf=csrf, id="x")
    assert moved.headers["location"].startswith("/signin?")


async def test_a_passkey_without_verification_is_not_registered(browser: Browser) -> None:
    await browser.sign_in()
    key = Authenticator()
    key.flags = PRESENT
    assert (await register(browser, key)).status_code == 403


async def test_a_removed_passkey_signs_nobody_in(
    world: World, browser: Browser, key: Authenticator
) -> None:
    await browser.sign_in()
    [stored] = await world.accounts.passkeys("ann")
    csrf = await browser.csrf()
    await browser.post("/account/passkeys/remove", csrf=csrf, id=stored.credential_id)
    assert (await use(world.browser(), key)).status_code == 403
    changes = [one["change"] for one in world.records("human.change")]
    assert changes == ["passkey_added", "passkey_removed"]


@pytest.mark.parametrize(
    "credential",
    [
        {},
        {"response": {}},
        {"response": {"clientDataJSON": "e30"}},
        {"response": 3},
        {"response": {"clientDataJSON": "é"}},
        {"response": {"clientDataJSON": "W10"}},
    ],
)
async def test_what_is_no_credential_is_told_so(
    browser: Browser, credential: dict[str, Any]
) -> None:
    answer = await browser.script("/signin/passkey", credential=credential)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_invalid")
    assert (await browser.script("/signin/passkey", credential=3)).status_code == 400
    form = await browser.post("/signin/passkey", credential="x")
    assert form.status_code == 400
