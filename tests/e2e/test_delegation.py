"""A person signs in at a real identity provider; an agent acts for them, and a sub-agent for it."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.core.tokens.clients import hash_secret
from tests.e2e.callers import Agent
from tests.e2e.conftest import Build, Start
from tests.e2e.served import Served
from tests.e2e.site import secret_of
from tests.e2e.stub import Stub
from tests.integration.idp.provider import Idp, running_idp

pytestmark = pytest.mark.req("TOK-02")

BACK = "http://127.0.0.1:9/back"
ACCESS, JWT, ID = (
    f"urn:ietf:params:oauth:token-type:{name}" for name in ("access_token", "jwt", "id_token")
)
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "openid agents:act"
NOTE = {"server": "stub", "tool": "masked", "constraints": {"/value": {"prefix": "note-"}}}


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    with running_idp() as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(build_site: Build, start_here: Start, idp: Idp) -> Served:
    """Trust the provider for people, `people` being what agents may do for them."""
    site = build_site()
    clients = [one for one in site.settings["clients"] if one["id"] == "launcher"]
    reads = [{"server": "stub", "effects": ["read"]}]
    people = {
        "kind": "launcher",
        "id": "people",
        "secret_hash": hash_secret(secret_of("people")),
        "may_launch": ["helper"],
        "humans": ["ann", "ben"],
        "grants": [{**NOTE, "max_calls": 3}, *reads],
    }
    agents = [
        {
            "kind": "agent",
            "id": name,
            "secret_hash": hash_secret(secret_of(name)),
            "grants": reads,
            "may_delegate_to": edges,
        }
        for name, edges in (("helper", ["scribe"]), ("scribe", []), ("other", ["scribe"]))
    ]
    site.settings["clients"] = [*clients, people, *agents]
    site.settings["tokens"] = {
        "trusted_issuers": [{"issuer": idp.issuer, "launcher": "people", "audience": site.url}]
    }
    site.write()
    return start_here(site, step="never").wait_ready()


def ask(gateway: Served, who: str, **form: str) -> httpx.Response:
    return gateway.http.post("/oauth/token", auth=(who, secret_of(who)), data=form)


def exchange(gateway: Served, who: str, subject: str, kind: str, **form: str) -> httpx.Response:
    """Exchange as `who`, who is also the actor."""
    return ask(
        gateway,
        who,
        **{
            "grant_type": EXCHANGE,
            "subject_token": subject,
            "subject_token_type": kind,
            "actor_token": gateway.token(who, secret_of(who)),
            "actor_token_type": ACCESS,
            **form,
        },
    )


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def persons_token(idp: Idp, gateway: Served, person: str = "ann") -> str:
    client = idp.register(BACK)
    tokens = idp.user_tokens(
        person, client, BACK, scope="openid agents:act", resource=gateway.site.url
    )
    found: str = tokens["access_token"]
    return found


def show(*tokens: str) -> None:
    """Print tokens side by side; seen with `pytest -s`."""
    read = [claims_of(token) for token in tokens]
    for name in dict.fromkeys(name for claims in read for name in claims):
        cells = [json.dumps(claims[name]) if name in claims else "" for claims in read]
        sys.stdout.write(
            " ".join((name.ljust(22), *(cell[:60].ljust(62) for cell in cells))) + "\n"
        )


def test_a_person_an_agent_and_a_sub_agent_each_hold_less(
    gateway: Served, idp: Idp, stub: Stub
) -> None:
    users = persons_token(idp, gateway)
    reply = exchange(gateway, "helper", users, JWT)
    assert reply.status_code == 200, reply.text
    agents = reply.json()["access_token"]
    detail = {**NOTE, "type": "countersign_tool", "constraints": {"/value": {"one_of": ["note-1"]}}}
    narrower = json.dumps([{**detail, "max_calls": 1}])
    reply = exchange(gateway, "scribe", agents, ACCESS, authorization_details=narrower)
    assert reply.status_code == 200, reply.text
    subs = reply.json()["access_token"]
    show(users, agents, subs)

    user, agent, sub = claims_of(users), claims_of(agents), claims_of(subs)
    assert (user["sub"], agent["sub"], sub["sub"]) == ("ann", "ann", "ann")
    assert agent["act"] == {"sub": "helper"}
    assert sub["act"] == {"sub": "scribe", "act": {"sub": "helper"}}
    assert sub["parent_jti"] == agent["jti"]
    assert sub["root_jti"] == agent["root_jti"] == agent["run_id"]
    assert sub["exp"] <= agent["exp"]

    sent = stub.calls["masked"]
    with gateway.adding() as added:
        scribe = Agent(gateway.http, subs, {})
        assert scribe.call("stub__masked", {"value": "note-2"}).code == "constraint_broken"
        assert scribe.call("stub__masked", {"value": "note-1"}).status == 200
        assert scribe.call("stub__masked", {"value": "note-1"}).code == "calls_exhausted"
        assert scribe.call("stub__echo", {"value": "x"}).code == "tool_unknown"
    assert stub.calls["masked"] == sent + 1
    [intent] = [record for record in added if record["type"] == "call.intent"]
    assert (intent["actor"]["agent"], intent["actor"]["depth"]) == ("scribe", 1)
    assert intent["charge"]["also"] == [sub["jti"]]


def test_the_same_token_of_a_person_gives_the_same_run(gateway: Served, idp: Idp) -> None:
    users = persons_token(idp, gateway)
    runs = {
        claims_of(exchange(gateway, "helper", users, JWT).json()["access_token"])["run_id"]
        for _ in range(2)
    }
    assert len(runs) == 1
    other = persons_token(idp, gateway)
    reply = exchange(gateway, "helper", other, JWT)
    assert claims_of(reply.json()["access_token"])["run_id"] not in runs


def test_an_identity_assertion_is_good_once(gateway: Served, idp: Idp) -> None:
    assertion = idp.id_jag("ben", audience=gateway.site.url, client_id="helper")
    first = ask(gateway, "helper", grant_type=BEARER, assertion=assertion)
    assert first.status_code == 200, first.text
    assert claims_of(first.json()["access_token"])["act"] == {"sub": "helper"}
    with gateway.adding() as added:
        again = ask(gateway, "helper", grant_type=BEARER, assertion=assertion)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert [record["type"] for record in added] == ["token.refused"]


@pytest.mark.req("TOK-04")
def test_the_limits_of_an_assertion_hold(gateway: Served, idp: Idp) -> None:
    def assertion() -> str:
        place: dict[str, Any] = {"audience": gateway.site.url, "client_id": "helper"}
        return idp.id_jag("ben", **place, scope="tools:list", resource=f"{gateway.site.url}/mcp/x")

    reply = ask(gateway, "helper", grant_type=BEARER, assertion=assertion())
    assert reply.status_code == 200, reply.text
    claims = claims_of(reply.json()["access_token"])
    assert (claims["scope"], claims["authorization_details"]) == ("tools:list", [])
    wide = {"grant_type": BEARER, "assertion": assertion(), "scope": "tools:list tools:call"}
    assert ask(gateway, "helper", **wide).json()["error"] == "invalid_scope"


@pytest.mark.parametrize(
    "change",
    [
        {"audience": "https://bank.example"},
        {"client_id": "scribe"},
        {"iss": "https://bank.example"},
        {"header": {"typ": "JWT"}},
        {"user": "eve"},
        {"exp": 1_000_000_000},
        {"exp": 4_000_000_000},
        {"nbf": 4_000_000_000},
        {"sub": ""},
        {"jti": 7},
        {"resource": "https://bank.example"},
        {"scope": "bank:pay"},
        {"authorization_details": []},
    ],
    ids=str,
)
def test_an_assertion_for_somebody_else_gives_nothing(
    gateway: Served, idp: Idp, change: dict[str, Any]
) -> None:
    said: dict[str, Any] = {"audience": gateway.site.url, "client_id": "helper", **change}
    assertion = idp.id_jag(said.pop("user", "ann"), **said)
    with gateway.adding() as added:
        reply = ask(gateway, "helper", grant_type=BEARER, assertion=assertion)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    assert [record["type"] for record in added] == ["token.refused"]


def test_an_agent_acts_only_for_people_and_by_launchers_that_let_it(
    gateway: Served, idp: Idp
) -> None:
    for who, person in (("other", "ann"), ("helper", "eve")):
        users = persons_token(idp, gateway, person)
        assert exchange(gateway, who, users, JWT).json()["error"] == "invalid_grant"


def test_a_persons_token_for_another_service_is_not_taken(gateway: Served, idp: Idp) -> None:
    client = idp.register(BACK)
    tokens = idp.user_tokens(
        "ann", client, BACK, scope="openid agents:act", resource="https://b.example"
    )
    reply = exchange(gateway, "helper", tokens["access_token"], JWT)
    assert reply.json()["error"] == "invalid_request"


def test_an_actor_that_is_not_who_asks_is_refused(gateway: Served, idp: Idp) -> None:
    users = persons_token(idp, gateway)
    others = gateway.token("scribe", secret_of("scribe"))
    reply = exchange(gateway, "helper", users, JWT, actor_token=others)
    assert reply.json()["error"] == "invalid_request"


def test_a_signature_that_does_not_match_is_refused(gateway: Served, idp: Idp) -> None:
    users = persons_token(idp, gateway)
    head, payload, signature = users.split(".")
    forged = f"{head}.{payload}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}"
    assert exchange(gateway, "helper", forged, JWT).json()["error"] == "invalid_request"
    assert exchange(gateway, "helper", "x.y.z", ID).json()["error"] == "invalid_request"


@pytest.mark.req("TOK-02", "TOK-06")
def test_a_handoff_bars_the_giver_and_not_what_it_gave(gateway: Served, idp: Idp) -> None:
    users = persons_token(idp, gateway)
    agents = exchange(gateway, "helper", users, JWT).json()["access_token"]
    subs = exchange(gateway, "scribe", agents, ACCESS, handoff="true").json()["access_token"]
    assert Agent(gateway.http, agents, {}).call("stub__echo", {"value": "x"}).status == 401
    assert Agent(gateway.http, subs, {}).call("stub__echo", {"value": "x"}).status == 200
    assert exchange(gateway, "helper", users, JWT).json()["error"] == "invalid_grant"
