"""What codes and refresh tokens become, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.oauth.client_documents import Document
from gateway.core.policy.decision import Decision, Deny, Permit, Reason
from gateway.core.tokens.grants import find_excess
from gateway.http.authorizations import GRACE_S
from tests.unit.tokens.proofs import Holder

if TYPE_CHECKING:
    from tests.unit.authorize.conftest import World

pytestmark = pytest.mark.req("TOK-02")

URL = "https://gateway.test"
VERIFIER = "v" * 43
PERMIT = Permit((), (), "sha256:" + "0" * 64)
DESK_BACK = "https://desk.example/back"


async def redeemed(world: World, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    reply = await world.redeem(await world.code(**changes))
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def test_a_code_becomes_a_token_of_a_run_on_behalf_of_the_person(world: World) -> None:
    reply = await world.redeem(await world.code())
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    body = reply.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    claims = world.claims(body["access_token"])
    assert (claims.subject, claims.client_id) == ("bot", "editor")
    assert (claims.on_behalf_of, claims.origin) == ("ann", "consent")
    assert claims.grants == world.apps.launcher("editor").grants  # type: ignore[union-attr]
    run = await world.runs.get_run(claims.run_id)
    assert run is not None
    assert run.deadline == world.clock.now_s + 8 * 3_600
    assert world.types() == ["authorization.grant", "run.create", "token.issue"]


async def test_what_a_person_unticks_is_not_in_the_token(world: World) -> None:
    body = await redeemed(world, keep=("shop.read",))
    claims = world.claims(body["access_token"])
    by_tool = {(grant.server, grant.tool): grant for grant in claims.grants}
    assert ("mail", "*") not in by_tool
    assert by_tool[("shop", "*")].effects == ("read",)
    assert by_tool[("shop", "refund")].max_calls == 0
    granted = next(r for r in world.records if r["type"] == "authorization.grant")
    assert granted["narrowed"] is True
    assert granted["allow"] == [{"server": "shop", "tool": "*", "effects": ["read"]}]
    giver = world.apps.launcher("editor")
    assert giver is not None
    assert find_excess(giver.grants, claims.grants) is None


async def test_a_resource_of_one_server_gives_that_server_alone(world: World) -> None:
    query = world.query(resource=f"{URL}/mcp/mail")
    reply = await world.redeem(await world.code(query), resource=f"{URL}/mcp/mail")
    claims = world.claims(reply.json()["access_token"])
    assert [grant.server for grant in claims.grants] == ["mail"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:3001/callback"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_grant"),
        ({"resource": f"{URL}/mcp/shop"}, "invalid_target"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"code": "0" * 43}, "invalid_grant"),
        ({"code": ""}, "invalid_grant"),
        ({"scope": "tools:all"}, "invalid_scope"),
    ],
)
async def test_a_code_is_good_only_for_what_it_was_made_for(
    world: World, changes: dict[str, str], error: str
) -> None:
    code = await world.code()
    sent = {"code": code} | changes
    reply = await world.redeem(sent.pop("code"), None, **sent)
    assert (reply.status_code, reply.json()["error"]) == (400, error)
    assert "run.create" not in world.types()


async def test_a_code_presented_wrongly_is_spent(world: World) -> None:
    code = await world.code()
    assert (await world.redeem(code, code_verifier="w" * 43)).status_code == 400
    assert (await world.redeem(code)).status_code == 400
    assert "run.create" not in world.types()


async def test_a_code_lives_a_minute(world: World) -> None:
    code = await world.code()
    world.clock.now_s += 60
    reply = await world.redeem(code)
    assert reply.json()["error"] == "invalid_grant"


async def test_a_code_of_another_app_is_unknown_and_stays_good(world: World) -> None:
    code = await world.code()
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": DESK_BACK,
        "code_verifier": VERIFIER,
    }
    reply = await world.token(form, ("desk", "desk-secret"))
    assert reply.json()["error"] == "invalid_grant"
    assert (await world.redeem(code)).status_code == 200


async def test_a_code_used_twice_ends_what_came_of_it(world: World) -> None:
    code = await world.code()
    first = (await world.redeem(code)).json()
    second = await world.redeem(code)
    assert second.json()["error"] == "invalid_grant"
    run_id = world.claims(first["access_token"]).run_id
    assert run_id in world.ended
    refused = [r for r in world.records if r["type"] == "authorization.refused"]
    assert [(r["reason"], r["run"]) for r in refused] == [("code_reused", run_id)]
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_spent_code_sent_again_and_again_fills_no_log(world: World) -> None:
    code = await world.code()
    await world.redeem(code)
    await world.redeem(code)
    length = len(world.records)
    for _ in range(5):
        assert (await world.redeem(code)).status_code == 400
    wrong = await world.code()
    length += 1  # its grant
    for _ in range(5):
        assert (await world.redeem(wrong, code_verifier="w" * 43)).status_code == 400
    assert len(world.records) == length


async def test_of_many_who_redeem_a_code_at_once_nobody_keeps_a_token(world: World) -> None:
    code = await world.code()
    replies = await asyncio.gather(*(world.redeem(code) for _ in range(8)))
    good = [reply.json() for reply in replies if reply.status_code == 200]
    assert len(good) <= 1
    assert all(world.claims(body["access_token"]).run_id in world.ended for body in good)


async def test_policy_may_refuse_what_a_person_granted(world: World) -> None:
    code = await world.code()
    world.decision = Deny((Reason("not_today"),), "sha256:" + "0" * 64)
    reply = await world.redeem(code)
    assert (reply.status_code, reply.json()["error"]) == (400, "access_denied")
    assert world.types()[-1] == "run.refused"


async def test_a_confidential_app_has_to_prove_itself(world: World) -> None:
    query = world.query(client_id="desk", redirect_uri=DESK_BACK)
    back = (await world.answer(query)).headers["location"]
    code = back.partition("code=")[2].partition("&")[0]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": DESK_BACK,
        "code_verifier": VERIFIER,
    }
    assert (await world.token(form | {"client_id": "desk"})).status_code == 401
    assert (await world.token(form, ("desk", "wrong"))).status_code == 401
    good = await world.token(form, ("desk", "desk-secret"))
    assert good.status_code == 200
    body = form | {"client_id": "desk", "client_secret": "desk-secret"}
    assert (await world.token(body)).json()["error"] == "invalid_grant"  # known, but used


async def test_a_public_app_with_a_secret_is_not_believed(world: World) -> None:
    code = await world.code()
    assert (await world.redeem(code, client_secret="made-up")).status_code == 401


@pytest.mark.parametrize("client_id", ["editor", "https://apps.example/" + "x" * 20_000])
async def test_who_only_says_a_public_name_is_refused_as_a_stranger(
    world: World, client_id: str
) -> None:
    form = {"grant_type": "authorization_code", "client_id": client_id, "code": "made-up"}
    refused = len(world.refused)
    for _ in range(3):
        assert (await world.token(form)).json()["error"] == "invalid_grant"
    assert world.refused[refused:] == [("authenticate", "invalid_grant")] * 3
    assert world.types() == []


@pytest.mark.parametrize("grant_type", ["client_credentials"])
async def test_an_app_has_no_authority_of_its_own(world: World, grant_type: str) -> None:
    reply = await world.token({"grant_type": grant_type}, ("desk", "desk-secret"))
    assert reply.json()["error"] == "unauthorized_client"


async def test_codes_and_refresh_tokens_are_kept_as_hashes_only(world: World) -> None:
    code = await world.code()
    body = (await world.redeem(code)).json()
    dump = await world.state.run(
        lambda connection: "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    )
    assert "authorization_codes" in dump
    assert code not in dump
    assert body["refresh_token"] not in dump
    lines = b"".join(world.audit.lines).decode()
    assert code not in lines
    assert body["refresh_token"] not in lines


# Refreshing


async def test_a_refresh_gives_another_token_of_the_same_run(world: World) -> None:
    first = await redeemed(world)
    world.clock.now_s += 400
    reply = await world.refresh(first["refresh_token"])
    assert reply.status_code == 200
    second = reply.json()
    assert second["refresh_token"] != first["refresh_token"]
    one = world.verifier.verify(first["access_token"].encode(), world.clock.now_s - 400)
    two = world.claims(second["access_token"])
    assert (one.run_id, one.root_jti) == (two.run_id, two.root_jti)
    assert one.jti != two.jti


async def test_a_refresh_token_used_twice_ends_the_run(world: World) -> None:
    first = await redeemed(world)
    second = (await world.refresh(first["refresh_token"])).json()
    issued = world.types().count("token.issue")
    world.clock.now_s += GRACE_S
    again = await world.refresh(first["refresh_token"])
    assert again.json()["error"] == "invalid_grant"
    assert world.types().count("token.issue") == issued
    assert world.claims(second["access_token"]).run_id in world.ended
    assert (await world.refresh(second["refresh_token"])).status_code == 400
    reasons = [r["reason"] for r in world.records if r["type"] == "authorization.refused"]
    assert reasons == ["refresh_reused"]


async def test_of_many_refreshes_at_once_all_get_the_same_next_token(world: World) -> None:
    first = await redeemed(world)
    replies = await asyncio.gather(*(world.refresh(first["refresh_token"]) for _ in range(8)))
    bodies = [reply.json() for reply in replies]
    assert {reply.status_code for reply in replies} == {200}
    assert len({body["refresh_token"] for body in bodies}) == 1
    assert len({body["access_token"] for body in bodies}) == 8
    assert len({world.claims(body["access_token"]).run_id for body in bodies}) == 1
    assert not world.ended
    world.clock.now_s += GRACE_S
    assert (await world.refresh(bodies[0]["refresh_token"])).status_code == 200


async def test_an_app_that_lost_the_answer_gets_the_same_next_token_for_a_moment(
    world: World,
) -> None:
    first = await redeemed(world)
    lost = (await world.refresh(first["refresh_token"])).json()
    world.clock.now_s += GRACE_S - 1
    again = (await world.refresh(first["refresh_token"])).json()
    assert again["refresh_token"] == lost["refresh_token"]
    world.clock.now_s += 1
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert world.ended


async def test_a_token_whose_successor_was_used_ends_the_run_at_once(world: World) -> None:
    first = await redeemed(world)
    second = (await world.refresh(first["refresh_token"])).json()
    assert (await world.refresh(second["refresh_token"])).status_code == 200
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"
    assert world.ended


async def test_a_thief_within_the_moment_ends_the_run_with_the_next_refresh(world: World) -> None:
    first = await redeemed(world)
    app = (await world.refresh(first["refresh_token"])).json()
    thief = (await world.refresh(first["refresh_token"])).json()
    world.clock.now_s += 290
    assert (await world.refresh(thief["refresh_token"])).status_code == 200
    world.clock.now_s += GRACE_S
    assert (await world.refresh(app["refresh_token"])).json()["error"] == "invalid_grant"
    assert world.ended


async def test_a_clock_set_back_gives_a_spent_token_no_more_time(world: World) -> None:
    first = await redeemed(world)
    await world.refresh(first["refresh_token"])
    world.clock.now_s -= 5
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refresh_can_narrow_scopes_and_never_widen(world: World) -> None:
    query = world.query(scope="tools:list")
    first = (await world.redeem(await world.code(query))).json()
    assert first["scope"] == "tools:list"
    wider = await world.refresh(first["refresh_token"], scope="tools:list tools:call")
    assert wider.json()["error"] == "invalid_scope"
    assert (await world.refresh(first["refresh_token"])).json()["scope"] == "tools:list"


async def test_a_refresh_is_for_the_same_resource(world: World) -> None:
    first = await redeemed(world)
    other = await world.refresh(first["refresh_token"], resource=f"{URL}/mcp/mail")
    assert other.json()["error"] == "invalid_target"


async def test_a_refresh_token_of_another_app_is_unknown(world: World) -> None:
    first = await redeemed(world)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    reply = await world.token(form, ("desk", "desk-secret"))
    assert reply.json()["error"] == "invalid_grant"
    assert (await world.refresh(first["refresh_token"])).status_code == 200


async def test_a_refresh_ends_with_the_run(world: World) -> None:
    first = await redeemed(world)
    world.clock.now_s += 8 * 3_600
    assert (await world.refresh(first["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refused_refresh_costs_the_app_nothing(world: World) -> None:
    first = await redeemed(world)
    permit, world.decision = world.decision, Deny((Reason("not_now"),), "sha256:" + "0" * 64)
    assert (await world.refresh(first["refresh_token"])).status_code == 400
    world.decision = permit
    assert (await world.refresh(first["refresh_token"])).status_code == 200


@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
async def test_runs_have_no_codes(world: World, grant_type: str) -> None:
    first = await redeemed(world)
    run_id = world.claims(first["access_token"]).run_id
    run = await world.runs.get_run(run_id)
    assert run is not None
    reply = await world.token({"grant_type": grant_type}, (run_id, "0" * 43))
    assert reply.status_code == 401  # the run's credential was told to nobody


async def test_an_app_of_a_document_gets_tokens_without_another_fetch(world: World) -> None:
    url, back = "https://apps.example/client.json", "https://apps.example/back"
    world.documents.documents[url] = Document(url, "Cozy", "apps.example", (back,))
    query = world.query(client_id=url, redirect_uri=back)
    location = (await world.answer(query, keep=("shop.read",))).headers["location"]
    code = location.partition("code=")[2].partition("&")[0]
    reply = await world.redeem(code, client_id=url, redirect_uri=back)
    assert reply.status_code == 200
    assert world.claims(reply.json()["access_token"]).client_id == url
    refreshed = await world.refresh(reply.json()["refresh_token"], client_id=url)
    assert refreshed.status_code == 200
    assert world.documents.fetched == [url]


# Registration


async def test_an_app_that_registered_itself_can_be_consented_to(world: World) -> None:
    back = "http://localhost:9/cb"
    body = {
        "redirect_uris": [back],
        "client_name": "Late\u202e Comer",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
    }
    reply = await world.client.post("/oauth/register", json=body)
    assert reply.status_code == 201
    made = reply.json()
    assert made["client_name"] == "Late Comer"
    assert "client_secret" not in made
    assert world.types() == ["client.register"]
    query = world.query(client_id=made["client_id"], redirect_uri=back)
    page = await world.ask(query)
    assert "nobody here has checked who it is" in page.text
    location = (await world.answer(query, keep=("shop.read",))).headers["location"]
    code = location.partition("code=")[2].partition("&")[0]
    given = await world.redeem(code, client_id=made["client_id"], redirect_uri=back)
    assert given.status_code == 200
    assert [app.id for app in await world.store.find_apps()] == [made["client_id"]]


async def test_a_registered_app_may_have_a_secret(world: World) -> None:
    body = {"redirect_uris": ["https://late.example/cb"]}
    made = (await world.client.post("/oauth/register", json=body)).json()
    auth = (made["client_id"], made["client_secret"])
    reply = await world.token({"grant_type": "client_credentials"}, auth)
    assert reply.json()["error"] == "unauthorized_client"
    wrong = await world.token({"grant_type": "client_credentials"}, (made["client_id"], "x"))
    assert wrong.status_code == 401


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "invalid_client_metadata"),
        ([], "invalid_client_metadata"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/#f"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/"] * 17}, "invalid_redirect_uri"),
        (
            {"redirect_uris": ["https://a.example/"], "grant_types": ["implicit"]},
            "invalid_client_metadata",
        ),
        (
            {
                "redirect_uris": ["https://a.example/"],
                "token_endpoint_auth_method": "private_key_jwt",
            },
            "invalid_client_metadata",
        ),
        ({"redirect_uris": ["https://a.example/" + "x" * 6_000]}, "invalid_client_metadata"),
    ],
)
async def test_what_no_app_can_be_is_not_registered(world: World, body: object, error: str) -> None:
    reply = await world.client.post("/oauth/register", json=body)
    assert (reply.status_code, reply.json()["error"]) == (400, error)
    assert world.records == []


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"redirect_uris": ["https://a.example/"], "client_name": "x" * 257}, "`$.client_name`"),
        ({"client_name": "x"}, "`redirect_uris`"),
        ({"redirect_uris": "https://a.example/"}, "`$.redirect_uris`"),
    ],
)
async def test_what_does_not_fit_is_named(world: World, body: object, place: str) -> None:
    reply = await world.client.post("/oauth/register", json=body)
    assert (reply.status_code, place in reply.json()["error_description"]) == (400, True)


async def test_only_so_many_apps_register(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http.authorize_register.APPS_MAX", 1)
    body = {"redirect_uris": ["https://late.example/cb"]}
    statuses = [
        (await world.client.post("/oauth/register", json=body)).status_code for _ in range(3)
    ]
    assert statuses == [201, 503, 503]


async def test_the_metadata_tells_interactive_clients_where_to_go(world: World) -> None:
    said = (await world.client.get("/.well-known/oauth-authorization-server")).json()
    assert said["response_types_supported"] == ["code"]
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["authorization_response_iss_parameter_supported"] is True
    assert said["client_id_metadata_document_supported"] is True
    assert said["registration_endpoint"] == f"{URL}/oauth/register"
    assert said["grant_types_supported"] == [
        "client_credentials",
        "authorization_code",
        "refresh_token",
    ]
    assert "none" in said["token_endpoint_auth_methods_supported"]


# Keys


async def test_a_bound_app_gets_bound_tokens_only(world: World) -> None:
    holder, query = Holder(), world.query(client_id="bound")
    code = await world.code(query)
    reply = await world.redeem(code, client_id="bound")
    assert reply.json()["error"] == "invalid_dpop_proof"
    bound = await world.redeem(code, holder, client_id="bound")
    assert bound.json()["token_type"] == "DPoP"
    claims = world.claims(bound.json()["access_token"])
    run = await world.runs.get_run(claims.run_id)
    assert (claims.jkt, run and run.dpop) == (holder.jkt, True)


async def test_a_refresh_token_of_a_bound_token_needs_its_key(world: World) -> None:
    holder, thief = Holder(), Holder()
    first = (await world.redeem(await world.code(), holder)).json()
    for other in (thief, None):
        reply = await world.refresh(first["refresh_token"], other)
        assert reply.json()["error"] == "invalid_dpop_proof"
    second = await world.refresh(first["refresh_token"], holder)
    assert world.claims(second.json()["access_token"]).jkt == holder.jkt


async def test_a_code_may_be_bound_to_a_key_from_the_start(world: World) -> None:
    holder, thief = Holder(), Holder()
    code = await world.code(world.query(dpop_jkt=holder.jkt))
    for other in (thief, None):
        assert (await world.redeem(code, other)).json()["error"] == "invalid_dpop_proof"
    assert (await world.redeem(code, holder)).status_code == 200


async def test_what_is_no_thumbprint_binds_nothing(world: World) -> None:
    reply = await world.ask(world.query(dpop_jkt="x"))
    assert "error=invalid_request" in reply.headers["location"]


# What else gets nothing


@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
async def test_agents_have_neither_codes_nor_refresh_tokens(world: World, grant_type: str) -> None:
    reply = await world.token({"grant_type": grant_type}, ("clerk", "clerk-secret"))
    assert reply.json()["error"] == "unauthorized_client"


async def test_a_code_gives_no_scope_that_was_not_consented_to(world: World) -> None:
    code = await world.code(world.query(scope="tools:list"))
    reply = await world.redeem(code, scope="tools:call")
    assert reply.json()["error"] == "invalid_scope"


async def test_policy_may_refuse_the_token_of_a_run_that_it_permitted(world: World) -> None:
    code, asked = await world.code(), []

    def decide() -> Decision:
        asked.append(1)
        return PERMIT if len(asked) == 1 else Deny((Reason("late"),), PERMIT.revision)

    world.decide = decide
    assert (await world.redeem(code)).json()["error"] == "access_denied"
    assert world.types()[-2:] == ["run.create", "token.refused"]


async def test_without_a_log_nobody_registers(world: World) -> None:
    world.audit.poison()
    body = {"redirect_uris": ["https://late.example/cb"]}
    reply = await world.client.post("/oauth/register", json=body)
    assert reply.status_code == 503
    assert await world.store.find_apps() == []


async def test_a_run_of_a_person_who_is_stopped_is_not_begun(world: World) -> None:
    code = await world.code()
    world.stopped.add("ann")
    reply = await world.redeem(code)
    assert reply.status_code == 400
    assert "token.issue" not in world.types()
