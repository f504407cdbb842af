"""The page, its answers, and where the browser is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest

from gateway.core.errors import CountersignError
from gateway.core.oauth.client_documents import Document

if TYPE_CHECKING:
    from tests.unit.authorize.conftest import World

pytestmark = pytest.mark.req("TOK-02")

BACK = "http://127.0.0.1:3000/callback"
URL = "https://gateway.test"


def sent_back(reply: httpx.Response, to: str = BACK) -> dict[str, str]:
    assert reply.status_code == 303, reply.text
    assert reply.headers["location"].startswith(to + "?")
    return dict(parse_qsl(urlsplit(reply.headers["location"]).query))


async def test_the_page_says_what_the_app_may_do_by_server_and_effect(world: World) -> None:
    reply = await world.ask()
    assert reply.status_code == 200
    text = reply.text
    assert "Let The &lt;Editor&gt; act for you?" in text
    assert "<Editor>" not in text
    assert "<legend>shop</legend>" in text
    assert "<legend>mail</legend>" in text
    for field in ("keep.shop.read", "keep.shop.money", "keep.shop.update", "keep.mail.create"):
        assert f'name="{field}"' in text
    assert 'name="keep.shop.create"' not in text
    assert 'name="keep.shop.money" value="on" checked>' in text
    assert 'name="keep.shop.update" value="on">' in text  # there is no such tool at present
    assert "refund (limited at /amount)" in text
    assert "broken" not in text
    assert "signed in as <strong>ann</strong>" in text
    assert "a program on this computer" in text
    assert "8 hours" in text


async def test_the_page_can_be_framed_by_nobody_and_leads_to_the_app_alone(world: World) -> None:
    policy = (await world.ask()).headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:3000" in policy


async def test_a_consent_becomes_a_code_with_state_and_issuer(world: World) -> None:
    back = sent_back(await world.answer())
    assert back["state"] == "st-1"
    assert back["iss"] == URL
    assert back["code"]
    assert "error" not in back


async def test_a_grant_is_recorded_before_the_code_and_names_nobody_in_clear(world: World) -> None:
    code = await world.code()
    (record,) = world.records
    assert record["type"] == "authorization.grant"
    assert (record["client"], record["agent"]) == ("editor", "bot")
    assert record["narrowed"] is False
    assert "c" in record["by"]
    line = world.audit.lines[-2].decode()
    assert '"ann"' not in line
    assert code not in line


async def test_without_a_record_there_is_no_code(world: World) -> None:
    world.audit.poison()
    reply = await world.answer()
    assert reply.status_code == 503
    assert "location" not in reply.headers


async def test_somebody_not_signed_in_is_sent_to_sign_in_and_back(world: World) -> None:
    reply = await world.ask(who=None)
    assert reply.status_code == 303
    query = world.query()
    assert reply.headers["location"] == "/signin?next=" + quote(
        f"/oauth/authorize?{query}", safe=""
    )


@pytest.mark.parametrize("changes", [{"response_type": "token"}, {"resource": f"{URL}/mcp/no"}])
async def test_nobody_is_sent_on_to_an_app_before_a_sign_in(
    world: World, changes: dict[str, str | None]
) -> None:
    reply = await world.ask(world.query(**changes), who=None)
    assert reply.status_code == 303
    assert reply.headers["location"].startswith("/signin?next=")


async def test_a_browser_from_another_site_takes_one_step_of_our_own_first(world: World) -> None:
    reply = await world.ask(who=None, **{"sec-fetch-site": "cross-site"})
    assert reply.status_code == 200
    assert 'http-equiv="refresh"' in reply.text
    assert (await world.ask(who=None, **{"sec-fetch-site": "same-origin"})).status_code == 303


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": "http://127.0.0.1:3000/other"},
        {"redirect_uri": "https://evil.example/back"},
        {"redirect_uri": "https://editor.example/back/"},
        {"redirect_uri": "https://editor.example:8443/back"},
        {"redirect_uri": None},
        {"client_id": "desk"},
    ],
)
async def test_nobody_is_redirected_for_an_app_or_a_uri_that_is_not_known(
    world: World, changes: dict[str, str | None]
) -> None:
    reply = await world.ask(world.query(**changes))
    assert reply.status_code == 400
    assert "location" not in reply.headers
    assert len(world.refused) == 1


@pytest.mark.parametrize("extra", ["&client_id=editor", "&redirect_uri=" + quote(BACK)])
async def test_a_repeated_name_or_uri_is_no_request(world: World, extra: str) -> None:
    reply = await world.ask(world.query() + extra)
    assert reply.status_code == 400
    assert "location" not in reply.headers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": "tools:call everything"}, "invalid_scope"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"request_uri": "https://evil.example/r"}, "request_not_supported"),
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"prompt": "none"}, "interaction_required"),
        ({"resource": f"{URL}/mcp/elsewhere"}, "access_denied"),
    ],
)
async def test_what_else_is_wrong_is_told_to_the_app(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    back = sent_back(await world.ask(world.query(**changes)))
    assert back["error"] == error
    assert (back["state"], back["iss"]) == ("st-1", URL)
    assert "code" not in back


async def test_a_state_that_is_too_long_is_told_to_the_app_and_not_carried_back(
    world: World,
) -> None:
    assert sent_back(await world.answer(world.query(state="s" * 2_048)))["state"] == "s" * 2_048
    back = sent_back(await world.ask(world.query(state="s" * 2_049)))
    assert (back["error"], "state" in back) == ("invalid_request", False)


async def test_a_repeated_parameter_is_told_to_the_app(world: World) -> None:
    back = sent_back(await world.ask(world.query() + "&scope=tools:call&scope=tools:list"))
    assert back["error"] == "invalid_request"


@pytest.mark.parametrize("query", ["", "%ZZ", "a", "client_id=%ff", "x=" + "y" * 4_000])
async def test_a_query_that_cannot_be_read_is_a_page(world: World, query: str) -> None:
    reply = await world.ask(query)
    assert reply.status_code == 400
    assert "location" not in reply.headers


async def test_a_native_app_may_listen_on_any_port_of_loopback(world: World) -> None:
    other = "http://127.0.0.1:61234/callback"
    reply = await world.answer(world.query(redirect_uri=other))
    assert sent_back(reply, other)["code"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:3000/callback?x=1",
        "http://127.0.0.1:3000/callback#x",
        "http://127.0.0.1:3000@evil.example/callback",
        "http://user@127.0.0.1:3000/callback",
        "http://127.0.0.1.evil.example:3000/callback",
        "http://localhost:3000/callback",
        "https://127.0.0.1:3000/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:3000/callback/..",
        "http://127.0.0.1:3000\\@evil.example/callback",
        "HTTP://127.0.0.1:3000/callback",
    ],
)
async def test_only_the_port_of_loopback_may_differ(world: World, uri: str) -> None:
    reply = await world.ask(world.query(redirect_uri=uri))
    assert reply.status_code == 400


async def test_declining_is_told_to_the_app_and_recorded(world: World) -> None:
    back = sent_back(await world.answer(decision="deny"))
    assert (back["error"], back["state"]) == ("access_denied", "st-1")
    (record,) = world.records
    assert (record["type"], record["reason"]) == ("authorization.refused", "declined")
    assert "c" in record["by"]


async def test_a_form_of_somebody_elses_session_grants_nothing(world: World) -> None:
    reply = await world.answer(csrf="csrf-of-mallory")
    assert reply.status_code == 403
    assert "location" not in reply.headers
    assert [record["reason"] for record in world.records] == ["form_foreign"]


async def test_a_form_without_a_session_is_sent_to_sign_in(world: World) -> None:
    form = {"request": world.query(), "csrf": "x", "decision": "allow"}
    reply = await world.client.post("/oauth/authorize", data=form)
    assert reply.status_code == 303
    assert reply.headers["location"].startswith("/signin?")


async def test_a_form_that_cannot_be_read_is_refused(world: World) -> None:
    reply = await world.client.post("/oauth/authorize", json={}, headers={"who": "ann"})
    assert reply.status_code == 400


async def test_nothing_ticked_is_asked_again(world: World) -> None:
    reply = await world.answer(keep=())
    assert reply.status_code == 200
    assert "Leave at least one thing ticked" in reply.text


async def test_what_was_never_offered_cannot_be_ticked(world: World) -> None:
    reply = await world.answer(keep=("shop.delete", "bank.money"))
    assert reply.status_code == 200
    assert world.records == []


async def test_an_app_acts_only_for_the_people_it_is_for(world: World) -> None:
    query = world.query(client_id="desk", redirect_uri="https://desk.example/back")
    assert (await world.ask(query, who="ann")).status_code == 200
    refused = await world.ask(query, who="bob")
    assert refused.status_code == 403
    assert "location" not in refused.headers
    assert [record["reason"] for record in world.records] == ["person_forbidden"]


async def test_a_resource_of_one_server_asks_for_that_server_alone(world: World) -> None:
    text = (await world.ask(world.query(resource=f"{URL}/mcp/mail"))).text
    assert "<legend>mail</legend>" in text
    assert "<legend>shop</legend>" not in text


async def test_an_app_named_by_its_document_shows_where_it_comes_from(world: World) -> None:
    url = "https://apps.example/client.json"
    back = "https://apps.example/back"
    world.documents.documents[url] = Document(url, "Cozy", "apps.example", (back,))
    query = world.query(client_id=url, redirect_uri=back)
    text = (await world.ask(query)).text
    assert "Let Cozy act for you?" in text
    assert "It comes from <strong>apps.example</strong>" in text
    assert 'name="keep.shop.read"' in text
    assert 'name="keep.shop.money"' not in text


@pytest.mark.parametrize("changes", [{"scope": "everything"}, {"resource": f"{URL}/mcp/nowhere"}])
async def test_a_link_leads_on_to_an_app_that_named_itself_only_by_a_press(
    world: World, changes: dict[str, str]
) -> None:
    back = "https://evil.example/back"
    made = {"redirect_uris": [back], "token_endpoint_auth_method": "none"}
    registered = (await world.client.post("/oauth/register", json=made)).json()["client_id"]
    described = "https://evil.example/client.json"
    world.documents.documents[described] = Document(described, "Cozy", "evil.example", (back,))
    for app in (registered, described):
        reply = await world.ask(world.query(client_id=app, redirect_uri=back, **changes))
        assert (reply.status_code, reply.headers.get("location")) == (400, None)
        assert f'<a href="{back}?error=' in reply.text
        assert "Go on to evil.example" in reply.text


async def test_nothing_is_fetched_for_strangers(world: World) -> None:
    query = world.query(client_id="https://apps.example/client.json")
    reply = await world.ask(query, who=None)
    assert reply.headers["location"].startswith("/signin?")
    assert world.documents.fetched == []


async def test_a_document_that_cannot_be_had_ends_in_a_page(world: World) -> None:
    reply = await world.ask(world.query(client_id="https://apps.example/client.json"))
    assert reply.status_code == 400
    assert "could not be fetched" in reply.text


async def test_a_state_that_cannot_be_used_grants_nothing(world: World) -> None:
    await world.state.close()
    with pytest.raises(CountersignError):
        await world.store.find_apps()
    reply = await world.answer()
    assert reply.status_code == 503
