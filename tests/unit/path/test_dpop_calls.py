"""Bound tokens on the call path (RFC 9449 §7): each wire, and what a thief tries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.adapters.keys.jose_tokens import JoseVerifier
from gateway.authenticator import Authenticator
from gateway.core.oauth.dpop_nonce import STEP_S, Nonces
from gateway.core.refusal import Refusal
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST, Claims
from tests.fixed import NOW_S
from tests.unit.path.world import (
    HOLD,
    KEY,
    PERMIT,
    URL,
    Reply,
    World,
    build_claims,
    build_modern,
    modern_headers,
    sign,
)
from tests.unit.tokens.proofs import Holder

pytestmark = pytest.mark.req("TOK-05")

HOLDER, THIEF = Holder(), Holder()
NONCE = Nonces(b"n" * 32).current(NOW_S)
BODY = build_modern("tools/call", "billing__lookup", b'{"order":"o1"}')
REST = "/v1/tools/billing__lookup/call"
REST_BODY = b'{"arguments":{"order":"o1"}}'
_tokens = itertools.count()


def bind(holder: Holder = HOLDER, **changes: Any) -> bytes:  # noqa: ANN401 - any field
    claims = replace(build_claims(), jti=f"bound-{next(_tokens)}", jkt=holder.jkt, **changes)
    return sign(claims)


def headers_of(
    token: bytes,
    method: str = "POST",
    path: str = "/mcp",
    holder: Holder = HOLDER,
    **claims: Any,  # noqa: ANN401 - JSON
) -> dict[str, str]:
    said = {"nonce": NONCE, "token": token, **claims}
    proof = holder.prove(method, URL + path, NOW_S, **said)
    return {"authorization": f"DPoP {token.decode()}", "dpop": proof.decode()}


async def call(world: World, headers: Mapping[str, str], path: str = "/mcp") -> Reply:
    given = {**modern_headers("tools/call", "billing__lookup"), **headers}
    return await world.request("POST", path, BODY, given)


def challenge_of(reply: Reply) -> str:
    return reply.headers.get("www-authenticate", "")


@pytest.fixture
async def world() -> World:
    return World({"billing.lookup": PERMIT, "billing.refund": HOLD})


async def test_a_bound_token_with_its_proof_is_a_call(world: World) -> None:
    reply = await call(world, headers_of(bind()))
    assert reply.status == 200, reply.body
    assert world.sent == [("billing.lookup", b'{"order":"o1"}')]
    assert "dpop-nonce" not in reply.headers


async def test_every_entry_takes_a_bound_token(world: World) -> None:
    token = bind()
    rest = await world.request("POST", REST, REST_BODY, headers_of(token, path=REST))
    listed = await world.request("GET", "/v1/tools", b"", headers_of(token, "GET", "/v1/tools"))
    listing = {**modern_headers("tools/list"), **headers_of(token)}
    shown = await world.request("POST", "/mcp", build_modern("tools/list", "", b"{}"), listing)
    looked = await world.request("GET", "/v1/calls/x", b"", headers_of(token, "GET", "/v1/calls/x"))
    assert [rest.status, listed.status, shown.status, looked.status] == [200, 200, 200, 404]
    assert looked.code == "call_unknown"
    assert len(world.sent) == 1


async def test_a_session_of_the_older_wire_is_opened_and_closed_with_proofs(world: World) -> None:
    token = bind()
    hello = (
        b'{"jsonrpc":"2.0","id":0,"method":"initialize",'
        b'"params":{"protocolVersion":"2025-11-25","capabilities":{}}}'
    )
    opened = await world.request("POST", "/mcp", hello, headers_of(token))
    session = {
        "mcp-session-id": opened.headers["mcp-session-id"],
        "mcp-protocol-version": "2025-11-25",
    }
    closed = await world.request("DELETE", "/mcp", b"", {**session, **headers_of(token, "DELETE")})
    assert (opened.status, closed.status) == (200, 204)


async def test_a_held_call_needs_its_proof_once(world: World) -> None:
    await world.launch()
    token, path = bind(), "/v1/tools/billing__refund/call"
    body = b'{"arguments":{"amount":1}}'
    reply = await world.request("POST", path, body, headers_of(token, path=path))
    assert reply.status == 202, reply.body


async def refused(world: World, headers: Mapping[str, str], path: str = "/mcp") -> tuple[str, str]:
    """Send a call that must not be sent on; return its one record's reason and the challenge."""
    reply = await call(world, headers, path)
    assert (reply.status, world.sent) == (401, [])
    return str(world.only_record()["reason"]), challenge_of(reply)


async def test_a_bound_token_as_bearer_is_refused(world: World) -> None:
    token = bind()
    reason, challenge = await refused(world, {"authorization": f"Bearer {token.decode()}"})
    assert reason == "proof_missing"
    assert challenge.startswith('DPoP error="invalid_dpop_proof", resource_metadata="')
    assert challenge.endswith('algs="ES256 Ed25519 EdDSA"')


async def test_a_bound_token_as_bearer_is_refused_beside_a_good_proof_too(world: World) -> None:
    headers = headers_of(bind())
    bearer = headers["authorization"].replace("DPoP", "Bearer")
    assert (await refused(world, {**headers, "authorization": bearer}))[0] == "proof_missing"


async def test_a_bound_token_without_a_proof_is_refused(world: World) -> None:
    headers = {"authorization": f"DPoP {bind().decode()}"}
    assert (await refused(world, headers))[0] == "proof_missing"


async def test_a_bearer_token_as_dpop_is_refused(world: World) -> None:
    reason, challenge = await refused(world, headers_of(sign(build_claims())))
    assert reason == "token_unbound"
    assert challenge.startswith('DPoP error="invalid_token"')


@pytest.mark.parametrize(
    "claims",
    [
        {"holder": THIEF},
        {"method": "GET"},
        {"path": "/mcp/billing"},
        {"path": "/v1/tools"},
        {"token": b"another"},
        {"iat": NOW_S - 61},
        {"iat": NOW_S + 61},
        {"htu": "https://evil.example/mcp"},
    ],
)
async def test_a_proof_that_does_not_fit_the_request_is_refused(
    world: World, claims: dict[str, Any]
) -> None:
    token = bind()
    other = claims.pop("token", token)
    headers = headers_of(other, **claims)
    headers["authorization"] = f"DPoP {token.decode()}"
    reason, challenge = await refused(world, headers)
    assert reason == "proof_invalid"
    assert challenge.startswith('DPoP error="invalid_dpop_proof"')


async def test_an_overheard_request_cannot_be_sent_again(world: World) -> None:
    headers = headers_of(bind())
    assert (await call(world, headers)).status == 200
    again = await call(world, headers)
    assert (again.status, len(world.sent)) == (401, 1)
    assert world.records()[-1]["reason"] == "proof_replayed"


async def test_two_proofs_are_refused_before_anybody_is_believed(world: World) -> None:
    headers = headers_of(bind())
    pairs = [*modern_headers("tools/call", "billing__lookup").items(), *headers.items()]
    pairs.append(("dpop", headers["dpop"]))
    reply = await world.request("POST", "/mcp", BODY, pairs)
    assert (reply.status, world.sent) == (400, [])
    assert world.only_record()["reason"] == "header_mismatch"


async def test_two_proofs_in_one_header_are_refused(world: World) -> None:
    headers = headers_of(bind())
    assert (await refused(world, {**headers, "dpop": headers["dpop"] * 2}))[0] == "proof_invalid"


async def test_a_huge_proof_is_refused(world: World) -> None:
    headers = headers_of(bind(), padding="x" * 5_000)
    assert (await refused(world, headers))[0] == "proof_invalid"


@pytest.mark.parametrize("path", ["/mcp", REST])
async def test_a_caller_without_a_nonce_is_given_one(world: World, path: str) -> None:
    token = bind()
    body = BODY if path == "/mcp" else REST_BODY
    given = modern_headers("tools/call", "billing__lookup") if path == "/mcp" else {}
    headers = {**given, **headers_of(token, path=path, nonce=None)}
    reply = await world.request("POST", path, body, headers)
    assert (reply.status, world.sent) == (401, [])
    assert challenge_of(reply).startswith('DPoP error="use_dpop_nonce"')
    nonce = reply.headers["dpop-nonce"]
    headers = {**given, **headers_of(token, path=path, nonce=nonce)}
    assert (await world.request("POST", path, body, headers)).status == 200


async def test_the_last_nonce_still_works_and_the_reply_has_the_new_one(world: World) -> None:
    world.clock.pass_s(STEP_S)
    now_s = NOW_S + STEP_S
    token = bind(issued_at=now_s, expires_at=now_s + 100)
    reply = await call(world, headers_of(token, iat=now_s))
    assert (reply.status, len(reply.headers["dpop-nonce"])) == (200, 22)
    assert reply.headers["dpop-nonce"] != NONCE


async def test_an_expired_bound_token_is_told_in_the_scheme_that_was_used(world: World) -> None:
    token = bind(issued_at=NOW_S - 500, expires_at=NOW_S - 200)
    reason, challenge = await refused(world, headers_of(token))
    assert reason == "token_expired"
    assert challenge.startswith('DPoP error="invalid_token"')
    assert challenge.endswith('algs="ES256 Ed25519 EdDSA"')


async def test_a_proof_is_no_token(world: World) -> None:
    headers = headers_of(bind())
    assert (await refused(world, {"dpop": headers["dpop"]}))[0] == "token_missing"


async def test_a_proof_beside_a_bearer_token_is_not_looked_at(world: World) -> None:
    token = sign(build_claims())
    reply = await call(world, {"authorization": f"Bearer {token.decode()}", "dpop": "nonsense"})
    assert reply.status == 200


async def test_a_gateway_that_judges_no_proofs_believes_no_bound_token(world: World) -> None:
    verifier = JoseVerifier([KEY], issuer=URL, audience=URL, environment="test")
    blind = Authenticator(tokens=verifier, barred=world.barred, clock=world.clock)
    claims: Claims = replace(build_claims(), jkt=HOLDER.jkt)
    raw = world.raw(claims=claims)
    assert blind.authenticate(raw, SCOPE_CALL) == Refusal("authenticate", "proof_missing")
    assert SCOPE_LIST in claims.scopes
