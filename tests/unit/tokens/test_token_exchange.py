"""An agent hands a part of its authority to another agent (RFC 8693)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from gateway.core.tokens.clients import Agent, hash_secret
from gateway.core.tokens.jwt_claims import encode
from gateway.core.tokens.token import Claims
from tests.fixed import NOW_S
from tests.unit.tokens.conftest import BOT, LAUNCHER, URL, World, basic
from tests.unit.tokens.conftest import HELPER as HELPING
from tests.unit.tokens.proofs import Holder

TYPE = "urn:ietf:params:oauth:token-type:access_token"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
REFUND = {"server": "shop", "tool": "refund", "constraints": {"/amount": {"max": 500}}}
HELPER = ("helper", "helper-secret")
DETAIL = {"type": "countersign_tool", "server": "shop", "tool": "refund"}


async def launched(world: World, **changes: object) -> tuple[str, str, str]:
    """Return a run's id and credential, and a token of it."""
    grants = [{**REFUND, "max_calls": 3}, {"server": "shop", "effects": ["read"]}]
    run = (await world.launch(grants=grants, **changes)).json()
    reply = await world.token(run["run_id"], run["run_credential"])
    return run["run_id"], run["run_credential"], reply.json()["access_token"]


async def helpers_token(world: World) -> str:
    token: str = (await world.token("helper", "helper-secret")).json()["access_token"]
    return token


async def exchange(
    world: World,
    subject: str,
    actor: str,
    who: tuple[str, str] = ("helper", "helper-secret"),
    **form: str,
) -> httpx.Response:
    return await world.token(
        *who,
        **{
            "grant_type": GRANT,
            "subject_token": subject,
            "subject_token_type": TYPE,
            "actor_token": actor,
            "actor_token_type": TYPE,
            **form,
        },
    )


def read(world: World, token: str) -> Claims:
    return world.verifier.verify(token.encode(), NOW_S)


def refused(world: World, reply: httpx.Response, error: str) -> None:
    assert (reply.status_code, reply.json()["error"]) == (400, error)
    assert world.records[-1]["type"] == "token.refused"


@pytest.mark.req("TOK-02")
async def test_the_chain_of_actors_is_in_the_token_and_in_the_log(world: World) -> None:
    run_id, _, parent = await launched(world, on_behalf_of="olga")
    reply = await exchange(world, parent, await helpers_token(world))
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["issued_token_type"] == TYPE
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 300)
    child, above = read(world, body["access_token"]), read(world, parent)
    payload = encode(child)
    assert payload["sub"] == "olga"
    assert payload["act"] == {"sub": "helper", "act": {"sub": "bot"}}
    assert (payload["run_id"], payload["root_jti"], payload["sid"]) == (run_id,) * 3
    assert (payload["parent_jti"], payload["depth"]) == (above.jti, 1)
    assert child.grants == above.grants
    record = world.records[-1]
    assert (record["type"], record["agent"]) == ("token.issue", "helper")
    assert (record["parent"], record["actors"], record["depth"]) == (above.jti, ["bot"], 1)


@pytest.mark.req("TOK-02")
async def test_a_child_can_be_asked_for_narrower(world: World) -> None:
    _, _, parent = await launched(world)
    detail = {**DETAIL, "constraints": {"/amount": {"max": 20}}, "max_calls": 1}
    reply = await exchange(
        world,
        parent,
        await helpers_token(world),
        scope="tools:call",
        authorization_details=json.dumps([detail]),
    )
    child = read(world, reply.json()["access_token"])
    assert child.scopes == {"tools:call"}
    [grant] = child.grants
    assert (grant.constraints["/amount"].max, grant.max_calls) == (20, 1)


@pytest.mark.req("TOK-02", "TOK-04")
@pytest.mark.parametrize(
    "wider",
    [
        {"tool": "*"},
        {"tool": "delete"},
        {"server": "bank"},
        {"constraints": {"/amount": {"max": 501}}, "max_calls": 1},
        {"constraints": {}, "max_calls": 1},
        {"constraints": {"/amount": {"max": 5}}},
        {"constraints": {"/amount": {"max": 5}}, "max_calls": 4},
    ],
)
async def test_a_child_cannot_be_asked_for_wider(world: World, wider: dict[str, Any]) -> None:
    _, _, parent = await launched(world)
    details = json.dumps([{**DETAIL, **wider}])
    reply = await exchange(world, parent, await helpers_token(world), authorization_details=details)
    refused(world, reply, "invalid_authorization_details")


@pytest.mark.req("TOK-02", "TOK-04")
async def test_a_scope_that_the_parent_lacks_is_refused(world: World) -> None:
    run_id, credential, _ = await launched(world)
    listing = (await world.token(run_id, credential, scope="tools:list")).json()["access_token"]
    actor = await helpers_token(world)
    refused(world, await exchange(world, listing, actor, scope="tools:call"), "invalid_scope")
    child = read(world, (await exchange(world, listing, actor)).json()["access_token"])
    assert child.scopes == {"tools:list"}


@pytest.mark.req("TOK-04")
async def test_a_child_does_not_outlive_its_parent(world: World) -> None:
    _, _, parent = await launched(world)
    world.clock.now_s = NOW_S + 200
    reply = await exchange(world, parent, await helpers_token(world))
    assert reply.json()["expires_in"] == 100


@pytest.mark.req("TOK-04")
async def test_policy_sees_only_roles_that_the_whole_chain_has(world: World) -> None:
    _, _, parent = await launched(world)
    reply = await exchange(world, parent, await helpers_token(world))
    child = read(world, reply.json()["access_token"])
    assert child.roles == ("support",)  # the helper's own `finance` is not picked up on the way
    world.connect(LAUNCHER, replace(BOT, roles=("support", "audit")), HELPING)
    _, _, parent = await launched(world)
    reply = await exchange(world, parent, await helpers_token(world))
    assert read(world, reply.json()["access_token"]).roles == ("support",)  # nor is one kept


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize("left_out", ["actor_token", "actor_token_type", "subject_token"])
async def test_an_exchange_without_an_actor_token_is_refused(world: World, left_out: str) -> None:
    _, _, parent = await launched(world)
    reply = await exchange(world, parent, await helpers_token(world), HELPER, **{left_out: ""})
    refused(world, reply, "invalid_request")
    assert left_out in reply.json()["error_description"]


@pytest.mark.req("TOK-02")
async def test_an_agent_that_nobody_named_cannot_act(world: World) -> None:
    _, _, parent = await launched(world)
    actor = await helpers_token(world)
    # the helper has no edge back to the bot
    refused(world, await exchange(world, actor, parent), "invalid_request")


@pytest.mark.req("TOK-02")
async def test_a_run_may_name_the_agent_it_is_handed_to(world: World) -> None:
    world.connect(*world.without_edges())
    _, _, parent = await launched(world)
    actor = await helpers_token(world)
    refused(world, await exchange(world, parent, actor), "invalid_request")
    _, _, named = await launched(world, may_act="helper")
    reply = await exchange(world, named, actor)
    assert encode(read(world, reply.json()["access_token"]))["may_act"] == {"sub": "helper"}


@pytest.mark.req("TOK-02")
async def test_the_giver_may_ask_as_its_run_and_a_third_may_not(world: World) -> None:
    run_id, credential, parent = await launched(world)
    actor = await helpers_token(world)
    assert (await exchange(world, parent, actor, (run_id, credential))).status_code == 200
    other_run, other_credential, _ = await launched(world)
    for third in (("bot-2", "bot-2-secret"), (other_run, other_credential)):
        reply = await exchange(world, parent, actor, third)
        assert reply.json()["error"] in {"invalid_request", "invalid_client"}
        assert reply.status_code in {400, 401}


@pytest.mark.req("TOK-02")
async def test_authority_is_handed_on_as_often_as_its_run_allows(world: World) -> None:
    _, _, parent = await launched(world, max_depth=0)
    refused(world, await exchange(world, parent, await helpers_token(world)), "invalid_grant")


@pytest.mark.req("TOK-02")
async def test_nobody_acts_twice_in_one_chain(world: World) -> None:
    _, _, parent = await launched(world, may_act="bot")
    own = (await world.token("bot", "bot-secret")).json()["access_token"]
    refused(world, await exchange(world, parent, own, ("bot", "bot-secret")), "invalid_request")


@pytest.mark.req("TOK-02")
async def test_nobody_who_acted_before_in_a_chain_acts_in_it_again(world: World) -> None:
    world.connect(LAUNCHER, BOT, replace(HELPING, may_delegate_to=("bot",)))
    _, _, parent = await launched(world)
    child = (await exchange(world, parent, await helpers_token(world))).json()["access_token"]
    own = (await world.token("bot", "bot-secret")).json()["access_token"]
    reply = await exchange(world, child, own, ("bot", "bot-secret"))
    refused(world, reply, "invalid_request")
    assert "acts in this chain already" in reply.json()["error_description"]


@pytest.mark.req("TOK-02")
async def test_a_run_does_not_hand_on_what_its_agent_handed_on(world: World) -> None:
    aide = Agent(id="aide", grants=BOT.grants, secret_hash=hash_secret("aide-secret"))
    world.connect(LAUNCHER, BOT, replace(HELPING, may_delegate_to=("aide",)), aide)
    run_id, credential, parent = await launched(world)
    child = (await exchange(world, parent, await helpers_token(world))).json()["access_token"]
    actor = (await world.token("aide", "aide-secret")).json()["access_token"]
    refused(world, await exchange(world, child, actor, (run_id, credential)), "invalid_request")
    assert (await exchange(world, child, actor, HELPER)).status_code == 200


def prove(world: World, holder: Holder) -> dict[str, str]:
    nonce = world.nonces.current(NOW_S)
    return {"DPoP": holder.prove("POST", f"{URL}/oauth/token", NOW_S, nonce=nonce).decode()}


async def bound(world: World, who: tuple[str, str], holder: Holder) -> str:
    """Return a token of somebody, bound to a key of theirs."""
    form = {"grant_type": "client_credentials"}
    headers = {**basic(*who), **prove(world, holder)}
    reply = await world.client.post("/oauth/token", data=form, headers=headers)
    token: str = reply.json()["access_token"]
    return token


async def exchange_bound(
    world: World, run: tuple[str, str], subject: str, actor: str, holder: Holder
) -> httpx.Response:
    form = {
        "grant_type": GRANT,
        "subject_token": subject,
        "subject_token_type": TYPE,
        "actor_token": actor,
        "actor_token_type": TYPE,
    }
    headers = {**basic(*run), **prove(world, holder)}
    return await world.client.post("/oauth/token", data=form, headers=headers)


@pytest.mark.req("TOK-02", "TOK-05")
async def test_a_bound_token_is_handed_on_by_its_key_to_the_key_of_who_acts(world: World) -> None:
    givers, helpers = Holder(), Holder()
    run = (await launched(world))[:2]
    parent, actor = await bound(world, run, givers), await bound(world, HELPER, helpers)
    reply = await exchange_bound(world, run, parent, actor, givers)
    assert (reply.status_code, reply.json()["token_type"]) == (200, "DPoP")
    assert read(world, reply.json()["access_token"]).jkt == helpers.jkt


@pytest.mark.req("TOK-02", "TOK-05")
async def test_a_bound_token_is_not_handed_on_by_the_proof_of_another_key(world: World) -> None:
    run = (await launched(world))[:2]
    helpers, thief = Holder(), Holder()
    parent, actor = await bound(world, run, Holder()), await bound(world, HELPER, helpers)
    for other in (thief, helpers):
        reply = await exchange_bound(world, run, parent, actor, other)
        refused(world, reply, "invalid_dpop_proof")


@pytest.mark.req("TOK-02", "TOK-05")
async def test_a_bound_token_is_not_handed_on_to_who_shows_no_key(world: World) -> None:
    givers = Holder()
    run = (await launched(world))[:2]
    parent = await bound(world, run, givers)
    reply = await exchange_bound(world, run, parent, await helpers_token(world), givers)
    refused(world, reply, "invalid_request")
    assert "so must the actor be" in reply.json()["error_description"]


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize("which", ["subject_token", "actor_token"])
async def test_a_token_that_is_not_valid_is_not_exchanged(world: World, which: str) -> None:
    _, _, parent = await launched(world)
    reply = await exchange(
        world, parent, await helpers_token(world), HELPER, **{which: parent[:-8] + "A" * 8}
    )
    refused(world, reply, "invalid_request")


@pytest.mark.req("TOK-02")
async def test_what_was_revoked_is_not_exchanged(world: World) -> None:
    _, _, parent = await launched(world)
    actor = await helpers_token(world)
    world.killed.add("bot")
    refused(world, await exchange(world, parent, actor), "invalid_request")


@pytest.mark.req("TOK-02", "TOK-11")
async def test_nothing_is_handed_on_in_a_run_that_has_ended(world: World) -> None:
    run_id, _, parent = await launched(world)
    actor = await helpers_token(world)
    await world.runs.end_run(run_id)
    refused(world, await exchange(world, parent, actor), "invalid_grant")


@pytest.mark.req("TOK-02")
async def test_a_handoff_ends_the_givers_part_before_the_token_leaves(world: World) -> None:
    run_id, _, parent = await launched(world)
    actor = await helpers_token(world)
    assert (await exchange(world, parent, actor)).status_code == 200
    assert world.handed_off == []
    assert (await exchange(world, parent, actor, handoff="true")).status_code == 200
    assert world.handed_off == [(run_id, "bot")]


@pytest.mark.req("TOK-02")
async def test_only_access_tokens_are_asked_for_and_given(world: World) -> None:
    _, _, parent = await launched(world)
    actor = await helpers_token(world)
    saml = "urn:ietf:params:oauth:token-type:saml2"
    for name in ("requested_token_type", "subject_token_type", "actor_token_type"):
        refused(
            world, await exchange(world, parent, actor, HELPER, **{name: saml}), "invalid_request"
        )


@pytest.mark.req("TOK-02")
async def test_a_token_for_another_resource_is_not_given(world: World) -> None:
    _, _, parent = await launched(world)
    actor = await helpers_token(world)
    reply = await exchange(world, parent, actor, audience="https://bank.test")
    refused(world, reply, "invalid_target")


@pytest.mark.req("TOK-02")
@pytest.mark.parametrize("word", ["TRUE", "1", "yes"])
async def test_a_handoff_that_is_not_said_clearly_is_refused(world: World, word: str) -> None:
    _, _, parent = await launched(world)
    reply = await exchange(world, parent, await helpers_token(world), handoff=word)
    refused(world, reply, "invalid_request")
    assert world.handed_off == []


@pytest.mark.req("TOK-02")
async def test_a_run_is_handed_only_to_agents_that_its_launcher_may_launch(world: World) -> None:
    grants = [{"server": "shop", "effects": ["read"]}]
    reply = await world.launch(grants=grants, may_act="silent")
    assert (reply.status_code, reply.json()["code"]) == (403, "agent_forbidden")


@pytest.mark.req("TOK-02")
async def test_two_credentials_in_two_headers_are_refused(world: World) -> None:
    both = [
        (name, value)
        for who in ("bot", "helper")
        for name, value in basic(who, f"{who}-secret").items()
    ]
    form = {"grant_type": "client_credentials"}
    reply = await world.client.post("/oauth/token", data=form, headers=both)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")
    assert world.refused[-1] == ("read", "request_invalid")


@pytest.mark.req("POL-03")
async def test_what_an_agent_wrote_into_its_own_grants_is_told(world: World) -> None:
    run = (await world.launch()).json()
    who = (run["run_id"], run["run_credential"])
    whole = (await world.token(*who)).json()["access_token"]
    assert read(world, whole).narrowed == ()
    own = [{**DETAIL, "tool": "find", "effects": ["read"], "max_calls": 1}]
    reply = await world.token(*who, authorization_details=json.dumps(own))
    assert reply.status_code == 200, reply.text
    assert read(world, reply.json()["access_token"]).narrowed == ("tool", "max_calls")
    # A chain that narrowed once stays so, whoever asks for the rest.
    child = await exchange(world, reply.json()["access_token"], await helpers_token(world))
    assert read(world, child.json()["access_token"]).narrowed == ("tool", "max_calls")
    _, _, asked = world.policy.asked[-1]
    assert asked["context"]["token"]["narrowed"] == ["tool", "max_calls"]


@pytest.mark.req("POL-03")
async def test_what_a_launcher_wrote_is_not_the_agents_word(world: World) -> None:
    _, _, parent = await launched(world)
    assert read(world, parent).narrowed == ()
    fewer = [{**DETAIL, "constraints": {"/amount": {"max": 5}}, "max_calls": 1}]
    child = await exchange(
        world, parent, await helpers_token(world), authorization_details=json.dumps(fewer)
    )
    assert child.status_code == 200, child.text
    assert read(world, child.json()["access_token"]).narrowed == ()
