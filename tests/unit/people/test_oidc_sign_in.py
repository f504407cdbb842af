from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import Any

import httpx
import msgspec
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from structlog.testing import capture_logs

from gateway.adapters.state.sql_store import SqlState
from tests.unit.people.conftest import Browser, World


async def begin(browser: Browser, **fields: str) -> str:
    answer = await browser.post("/signin/oidc/corp", next="/next?a=b", **fields)
    assert answer.status_code == 200, answer.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert found is not None
    return html.unescape(found[1])


async def sign_in(
    world: World, browser: Browser, user: str = "ann", **change: str
) -> httpx.Response:
    back = world.idp.approve(await begin(browser), user, **change)
    return await browser.get(back, **{"sec-fetch-site": "cross-site"})


def reasons(world: World) -> list[str]:
    return [one["reason"] for one in world.records("human.refused")]


@pytest.mark.req("TOK-08")
async def test_a_provider_signs_in_whom_the_gateway_knows(world: World, browser: Browser) -> None:
    page = await sign_in(world, browser)
    assert page.status_code == 200
    assert 'content="0; url=/next?a=b"' in page.text  # goes on as from a page of our own
    [record] = world.records("human.sign_in")
    assert (record["method"], record["provider"], record["acr"]) == ("oidc", "corp", "session")
    assert world.who(record["seq"]) == "ann"
    assert (await browser.get("/account")).status_code == 200


@pytest.mark.req("TOK-08")
async def test_what_is_asked_has_pkce_state_and_a_nonce(world: World, browser: Browser) -> None:
    await sign_in(world, browser)
    asked = world.idp.seen
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == "https://gw.example/signin/oidc/corp/callback"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert asked["scope"] == "openid"


async def test_the_verifier_goes_with_the_code(world: World, browser: Browser) -> None:
    url = await begin(browser)
    [row] = await world.state.run(
        lambda connection: list(connection.exec_driver_sql("SELECT body FROM sign_in_tickets"))
    )
    world.idp.approve(url)
    verifier = msgspec.json.decode(row.body)["asked"]["verifier"]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    assert world.idp.seen["code_challenge"] == challenge.decode().rstrip("=")


@pytest.mark.req("TOK-08")
async def test_an_answer_is_good_once(world: World, browser: Browser) -> None:
    back = world.idp.approve(await begin(browser))
    assert (await browser.get(back)).status_code == 200
    assert (await browser.get(back)).status_code == 403
    assert reasons(world) == ["state_unknown"]


@pytest.mark.req("TOK-08")
async def test_an_answer_of_another_browser_signs_nobody_in(world: World, browser: Browser) -> None:
    back = world.idp.approve(await begin(browser), "ada")
    victim = world.browser()
    assert (await victim.get(back)).status_code == 403
    assert victim.session is None
    assert (await browser.get(back)).status_code == 403  # it is used up now


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "change",
    [
        {"state": "another"},
        {"state": ""},
        {"iss": "https://evil.example"},
        {"iss": ""},
        {"code": "another"},
        {"code": ""},
        {"error": "access_denied"},
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    world: World, browser: Browser, change: dict[str, str]
) -> None:
    assert (await sign_in(world, browser, **change)).status_code == 403
    assert len(reasons(world)) == 1
    assert browser.session is None


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["gateway", "another"]},  # and no azp
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nbf": 4_000_000_000},
        {"sub": 3},
        {"sub": None},
        {"azp": "another"},
        {"at_hash": "AAAA"},
    ],
)
async def test_an_id_token_that_does_not_fit_is_refused(
    world: World, browser: Browser, claims: dict[str, Any]
) -> None:
    world.idp.claims = claims
    assert (await sign_in(world, browser)).status_code == 403
    assert reasons(world) == ["provider_answer_invalid"]


@pytest.mark.req("TOK-08")
async def test_only_the_pinned_algorithms_are_believed(world: World, browser: Browser) -> None:
    real = world.idp.key
    world.idp.key = ECKey.generate_key("P-256", parameters={"kid": "1"})  # another key, same kid
    assert (await sign_in(world, browser)).status_code == 403
    world.idp.key, world.idp.alg = OctKey.import_key(str(real.as_dict()["x"])), "HS256"
    assert (await sign_in(world, browser)).status_code == 403
    rsa = RSAKey.generate_key(2048, parameters={"kid": "1"})
    world.idp.key, world.idp.alg = rsa, "PS256"
    world.idp.published = [rsa.as_dict(private=False)]
    world.clock.now_s += 3_601
    assert (await sign_in(world, browser)).status_code == 403
    world.idp.alg = "RS256"
    assert (await sign_in(world, browser)).status_code == 200


async def test_a_new_key_of_the_provider_is_found_and_not_asked_for_too_often(
    world: World, browser: Browser
) -> None:
    await sign_in(world, browser)
    world.idp.key = ECKey.generate_key("P-256", parameters={"kid": "1"})
    world.idp.published = [world.idp.key.as_dict(private=False)]
    assert (await sign_in(world, browser)).status_code == 403  # a minute has not passed
    world.clock.now_s += 61
    assert (await sign_in(world, browser)).status_code == 200
    assert world.idp.asked.count("/jwks") == 2


@pytest.mark.req("TOK-08")
@pytest.mark.parametrize("at", [float("inf"), float("nan"), -1, 10**400, True, "now"])
async def test_a_time_that_can_be_none_is_no_time(
    world: World, browser: Browser, at: object
) -> None:
    world.idp.claims = {"auth_time": at}
    assert (await sign_in(world, browser)).status_code in {200, 403}
    url = await begin(browser, max_age="60")
    back = await browser.get(world.idp.approve(url), **{"sec-fetch-site": "cross-site"})
    assert back.status_code == 403


async def test_keys_are_kept_for_an_hour_whatever_the_clock_is_set_to(
    world: World, browser: Browser
) -> None:
    assert (await sign_in(world, browser)).status_code == 200
    world.clock.set_by(-86_400)
    world.clock.now_s += 61
    new = ECKey.generate_key("P-256", parameters={"kid": "1"})
    world.idp.key, world.idp.published = new, [new.as_dict(private=False)]
    assert (await sign_in(world, browser)).status_code == 200  # the new key is found
    world.idp.published = []
    world.clock.now_s += 3_601
    assert (await sign_in(world, browser)).status_code != 200  # and known no longer


@pytest.mark.req("TOK-08")
async def test_somebody_unknown_is_refused(world: World, browser: Browser) -> None:
    assert (await sign_in(world, browser, "stranger")).status_code == 403
    assert reasons(world) == ["person_unknown"]
    assert "stranger" not in str(world.records())


@pytest.mark.req("TOK-08")
async def test_somebody_unknown_may_be_let_in_without_any_role(state: SqlState) -> None:
    world = World(state, provisions=True)
    browser = world.browser()
    assert (await sign_in(world, browser, "newcomer")).status_code == 200
    assert world.humans.everyone()["newcomer"] == ()
    assert [one["change"] for one in world.records("human.change")] == ["provisioned"]
    assert (await sign_in(world, world.browser(), "gone")).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_step_up_is_by_the_same_person_and_fresh(world: World, browser: Browser) -> None:
    await sign_in(world, browser)
    url = await begin(browser, acr="strong", max_age="60")
    world.idp.claims = {"acr": "urn:mfa"}
    assert (await browser.get(world.idp.approve(url, "ada"))).status_code == 403
    assert (world.idp.seen["acr_values"], world.idp.seen["max_age"]) == ("urn:mfa", "60")
    assert world.idp.seen["prompt"] == "login"
    world.idp.claims = {}
    url = await begin(browser, acr="strong", max_age="60")
    assert (await browser.get(world.idp.approve(url))).status_code == 403
    assert reasons(world) == ["person_other", "assurance_low"]
    for late in ({"auth_time": None}, {"auth_time": world.clock.now_s - 200}, {"auth_time": 9**11}):
        world.idp.claims = {"acr": "urn:mfa", **late}
        url = await begin(browser, acr="strong", max_age="60")
        assert (await browser.get(world.idp.approve(url))).status_code == 403
    world.idp.claims = {"acr": "urn:mfa"}
    before = browser.session
    url = await begin(browser, acr="strong", max_age="60")
    assert (await browser.get(world.idp.approve(url))).status_code == 200
    assert browser.session != before
    assert (await browser.get("/signin?next=/x&acr=strong&max_age=60")).status_code == 303


@pytest.mark.req("TOK-08")
async def test_without_a_word_for_when_no_step_up_is_met(world: World, browser: Browser) -> None:
    world.idp.claims = {"auth_time": None, "amr": ["pwd", 3]}
    await sign_in(world, browser)
    assert (await browser.get("/signin?next=/x&max_age=100000")).status_code == 200


async def test_a_federated_session_changes_no_local_credential(
    world: World, browser: Browser
) -> None:
    await sign_in(world, browser)
    csrf = await browser.csrf()
    assert "Passkeys" not in (await browser.get("/account")).text
    fields = {"csrf": csrf, "old": "", "password": "a long new password"}
    assert (await browser.post("/account/password", **fields)).status_code == 403
    assert (await browser.script("/account/passkeys/options", csrf=csrf)).status_code == 403


@pytest.mark.req("TOK-08")
async def test_a_sign_in_begins_on_our_own_page(browser: Browser) -> None:
    evil = {"origin": "https://evil.example"}
    assert (await browser.post("/signin/oidc/corp", evil)).status_code == 403
    assert (await browser.post("/signin/oidc/other")).status_code == 404
    assert (await browser.get("/signin/oidc/other/callback")).status_code == 404


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://idp.example/token"},
        {"jwks_uri": None},
    ],
)
async def test_a_provider_whose_metadata_does_not_fit_is_not_used(
    world: World, browser: Browser, metadata: dict[str, Any]
) -> None:
    world.idp.metadata = metadata
    answer = await browser.post("/signin/oidc/corp", next="/")
    assert answer.status_code == 503
    assert "metadata" in answer.text


async def test_a_provider_that_is_down_is_told_as_such(world: World, browser: Browser) -> None:
    world.idp.status = 500
    with capture_logs() as logs:
        assert (await browser.post("/signin/oidc/corp", next="/")).status_code == 503
    assert [line["event"] for line in logs] == ["identity_provider_unavailable"]
    world.idp.status = 200
    url = await begin(browser)
    world.idp.published = "none"  # type: ignore[assignment]  # no list of keys
    assert (await browser.get(world.idp.approve(url))).status_code == 503


@pytest.mark.parametrize("gone", ["known no longer", "file away"])
async def test_a_client_secret_that_does_not_do_is_told_to_whoever_runs_the_gateway(
    world: World, browser: Browser, gone: str
) -> None:
    url = await begin(browser)
    if gone == "file away":
        world.idp_secret_fault = "secret file `/run/x` cannot be read; provide it"
    else:
        world.idp.knows_gateway = False
    with capture_logs() as logs:
        page = await browser.get(world.idp.approve(url), **{"sec-fetch-site": "cross-site"})
    assert page.status_code == 503
    assert "client secret" in page.text
    assert "/run/x" not in page.text
    assert logs[-1]["event"] == "identity_provider_unavailable"
    assert [line["problem"] for line in logs if line["event"] == "identity_provider_secret"] == (
        [world.idp_secret_fault] if world.idp_secret_fault else []
    )


async def test_without_local_accounts_there_is_nothing_but_the_provider(state: SqlState) -> None:
    world = World(state, local=False)
    browser = world.browser()
    page = (await browser.get("/signin")).text
    assert "Corp" in page
    assert "password" not in page
    for path in ("/signin/password", "/claim", "/account/password"):
        assert (await browser.post(path)).status_code in (404, 405)
    assert (await sign_in(world, browser)).status_code == 200
