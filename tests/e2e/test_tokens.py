"""Who may call: tokens that are missing, false, old, foreign, narrow or taken back (GW-10)."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.adapters.keys.jose_tokens import sign_token
from gateway.adapters.keys.token_keys import load_token_key
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST, Claims, Grant
from tests.e2e.callers import Agent
from tests.e2e.conftest import Acme, Build, Start
from tests.e2e.served import Served
from tests.e2e.site import secret_of
from tests.e2e.stub import Stub

pytestmark = pytest.mark.req("GW-10")

REFUND = {"order_id": "ord_5001", "amount_cents": 100, "reason": "damaged"}


@pytest.fixture(scope="module")
def gateway(build_site: Build, start_here: Start) -> Served:
    """A gateway of its own: refusals of strangers are counted over time."""
    return start_here(build_site(), step="never").wait_ready()


def forge(gateway: Served, **changes: object) -> str:
    """Sign claims with the gateway's own key; only `changes` make them unacceptable."""
    now_s = int(time.time())
    claims: dict[str, Any] = {
        "issuer": gateway.site.url,
        "audience": gateway.site.url,
        "subject": "helper",
        "client_id": "launcher",
        "jti": "j1",
        "issued_at": now_s - 10,
        "expires_at": now_s + 200,
        "scopes": frozenset({SCOPE_LIST, SCOPE_CALL}),
        "grants": (Grant("acme"),),
        "environment": "endtoend",
        "run_id": "r1",
        "root_jti": "r1",
        "sid": "r1",
    }
    key = load_token_key(gateway.site.folder / "keys" / "tokens.pem")
    return sign_token(Claims(**claims | changes), key)


def unsigned(token: str) -> str:
    """Return the same payload under `alg: none`."""
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}."


def altered(token: str) -> str:
    """Return the token with one character of the signature changed."""
    head, payload, signature = token.split(".")
    first = "A" if signature[0] != "A" else "B"
    return f"{head}.{payload}.{first}{signature[1:]}"


def bearer(gateway: Served, kind: str) -> dict[str, str]:
    """Return the header of a caller of this kind."""
    now_s = int(time.time())
    tokens = {
        "expired": forge(gateway, issued_at=now_s - 400, expires_at=now_s - 100),
        "foreign": forge(gateway, audience="https://other.example"),
        "unsigned": unsigned(forge(gateway)),
        "altered": altered(forge(gateway)),
        "nonsense": "not-a-token",
    }
    return {} if kind == "none" else {"Authorization": f"Bearer {tokens[kind]}"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("none", "token_missing"),
        ("expired", "token_expired"),
        ("foreign", "token_audience"),
        ("unsigned", "token_invalid"),
        ("altered", "token_invalid"),
        ("nonsense", "token_invalid"),
    ],
)
@pytest.mark.parametrize("surface", ["mcp", "rest"])
def test_a_caller_who_cannot_be_believed_is_told_where_to_get_a_token(
    gateway: Served, acme: Acme, surface: str, kind: str, code: str
) -> None:
    stranger = Agent(gateway.http, "", {})
    stranger.auth = bearer(gateway, kind)
    before = acme.counts()
    with gateway.adding() as added:
        if surface == "mcp":
            answer = stranger.call("acme__refunds_create", REFUND).http
            where = "/.well-known/oauth-protected-resource/mcp"
        else:
            answer = stranger.rest("acme__refunds_create", REFUND)
            where = "/.well-known/oauth-protected-resource"
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == code
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith("Bearer ")
    assert f'resource_metadata="{gateway.site.url}{where}"' in challenge
    assert ('error="invalid_token"' in challenge) == (kind != "none")
    assert [(r["type"], r["stage"], r["reason"]) for r in added] == [
        ("call.refused", "authenticate", code)
    ]
    assert acme.counts() == before


def test_the_challenge_leads_to_the_token_endpoint(gateway: Served) -> None:
    answer = gateway.http.post("/mcp", content=b"{}")
    challenge = answer.headers["www-authenticate"]
    metadata_url = challenge.partition('resource_metadata="')[2].partition('"')[0]
    resource = gateway.http.get(metadata_url).json()
    assert resource["resource"] == gateway.site.url + "/mcp"
    issuer = resource["authorization_servers"][0]
    server = gateway.http.get(issuer + "/.well-known/oauth-authorization-server").json()
    assert server["token_endpoint"] == gateway.site.url + "/oauth/token"
    keys = gateway.http.get(server["jwks_uri"]).json()["keys"]
    assert [(key["kty"], key["alg"], "d" in key) for key in keys] == [("EC", "ES256", False)]


@pytest.mark.parametrize("surface", ["mcp", "rest"])
def test_a_token_without_the_scope_is_told_which_one_it_needs(
    gateway: Served, acme: Acme, surface: str
) -> None:
    agent, before = gateway.agent(scope=SCOPE_LIST), acme.counts()
    assert "acme__refunds_create" in agent.list_names()
    with gateway.adding() as added:
        if surface == "mcp":
            answer = agent.call("acme__refunds_create", REFUND).http
        else:
            answer = agent.rest("acme__refunds_create", REFUND)
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert SCOPE_CALL in answer.headers["www-authenticate"]
    assert [record["reason"] for record in added] == ["scope_insufficient"]
    assert acme.counts() == before


def test_a_token_dies_at_once_with_its_run(gateway: Served, acme: Acme) -> None:
    agent = gateway.agent()
    assert not agent.call("acme__orders_get", {"order_id": "ord_5001"}).result["isError"]
    before = acme.counts()
    basic = ("launcher", secret_of("launcher"))
    ended = gateway.http.post(f"/v1/runs/{agent.run['run_id']}/close", auth=basic)
    assert ended.json()["state"] == "ended"
    reply = agent.call("acme__refunds_create", REFUND)
    assert (reply.status, reply.code) == (401, "token_revoked")
    form = {"grant_type": "client_credentials"}
    again = gateway.http.post(
        "/oauth/token", auth=(agent.run["run_id"], agent.run["run_credential"]), data=form
    )
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert acme.counts() == before


def test_an_agent_with_its_own_secret_only_reads(gateway: Served, acme: Acme) -> None:
    clerk = Agent(gateway.http, gateway.token("clerk", secret_of("clerk")), {})
    assert "acme__notes_add" not in clerk.list_names()
    assert not clerk.call("acme__orders_get", {"order_id": "ord_5001"}).result["isError"]
    before = acme.counts()
    reply = clerk.call("acme__notes_add", {"customer_id": "cus_1001", "body": "hello"})
    unknown = clerk.call("acme__no_such_tool")
    assert reply.code == "tool_unknown"
    for body in (reply.body, unknown.body):
        assert body["error"]["data"]["countersign/refusal"].pop("op")
    assert reply.body == unknown.body
    assert acme.counts() == before


def test_constraints_and_allowed_values_bound_the_arguments(gateway: Served, acme: Acme) -> None:
    limit = {"/amount_cents": {"max": 150}}
    agent = gateway.agent(
        grants=[
            {"server": "acme", "tool": "refunds_create", "constraints": limit},
            {"server": "acme", "tool": "email_send"},
        ],
        allowed_values={"acme.email_send#/to": ["team@acme.example"]},
    )
    mail = {"subject": "canary", "body": "canary"}
    before = acme.counts()
    with gateway.adding() as added:
        refused = [
            agent.call("acme__refunds_create", {**REFUND, "amount_cents": 151}),
            agent.call("acme__refunds_create", {**REFUND, "amount_cents": True}),
            agent.call("acme__email_send", {**mail, "to": "boss@acme.example"}),
            agent.call("acme__orders_get", {"order_id": "ord_5001"}),
        ]
    codes = ["constraint_broken", "arguments_invalid", "constraint_broken", "tool_unknown"]
    assert [reply.code for reply in refused] == codes
    assert [record["reason"] for record in added if record["type"] == "call.refused"] == codes
    assert acme.counts() == before
    assert not agent.call("acme__email_send", {**mail, "to": "team@acme.example"}).result["isError"]
    assert acme.rows("email_outbox") == before["email_outbox"] + 1


def test_concurrent_calls_never_exceed_what_the_grant_counts(gateway: Served, stub: Stub) -> None:
    agent = gateway.agent(grants=[{"server": "stub", "tool": "echo", "max_calls": 5}])
    before = stub.calls["echo"]
    with ThreadPoolExecutor(8) as pool, gateway.adding() as added:
        replies = list(pool.map(lambda n: agent.call("stub__echo", {"value": str(n)}), range(16)))
    ran = [reply for reply in replies if not reply.result.get("isError")]
    codes = {reply.code for reply in replies if reply.result.get("isError")}
    assert (len(ran), codes) == (5, {"calls_exhausted"})
    assert stub.calls["echo"] - before == 5
    kinds = [record["type"] for record in added]
    assert [kinds.count(k) for k in ("call.intent", "call.outcome", "call.refused")] == [5, 5, 11]
