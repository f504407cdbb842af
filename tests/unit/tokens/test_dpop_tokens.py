"""Tokens bound to a key at the token endpoint (RFC 9449 §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from msgspec.structs import replace

from gateway.core.oauth.dpop import Possession
from gateway.core.oauth.dpop_nonce import STEP_S
from gateway.http.token_proof import judge_possession
from tests.unit.tokens.proofs import Holder

if TYPE_CHECKING:
    import httpx

    from tests.unit.tokens.conftest import World

pytestmark = pytest.mark.req("TOK-05")

URL = "https://gateway.test"
TOKEN_URL = URL + "/oauth/token"
HOLDER = Holder()
FORM = {"grant_type": "client_credentials"}
BOT = ("bot", "bot-secret")


def prove(world: World, holder: Holder = HOLDER, **claims: Any) -> str:  # noqa: ANN401 - JSON
    now_s = world.clock.now_s
    said = {"nonce": world.nonces.current(now_s), **claims}
    return holder.prove("POST", TOKEN_URL, now_s, **said).decode()


async def ask(world: World, *proofs: str, auth: tuple[str, str] = BOT) -> httpx.Response:
    headers = [("DPoP", proof) for proof in proofs]
    return await world.client.post("/oauth/token", data=FORM, headers=headers, auth=auth)


async def test_a_proof_binds_the_token_to_its_key(world: World) -> None:
    reply = await ask(world, prove(world))
    body = reply.json()
    assert (reply.status_code, body["token_type"]) == (200, "DPoP")
    claims = world.verifier.verify(body["access_token"].encode(), world.clock.now_s)
    assert claims.jkt == HOLDER.jkt
    payload = body["access_token"].split(".")[1]
    assert orjson.loads(_decoded(payload))["cnf"] == {"jkt": HOLDER.jkt}


async def test_without_a_proof_the_token_is_a_bearer_token(world: World) -> None:
    reply = await ask(world)
    assert reply.json()["token_type"] == "Bearer"
    assert "cnf" not in orjson.loads(_decoded(reply.json()["access_token"].split(".")[1]))


def _decoded(part: str) -> bytes:
    import base64  # noqa: PLC0415 - one use

    return base64.urlsafe_b64decode(part + "==")


async def test_without_a_nonce_the_client_is_given_one_and_gets_on_with_it(world: World) -> None:
    first = await ask(world, prove(world, nonce=None))
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    nonce = first.headers["DPoP-Nonce"]
    assert first.headers["cache-control"] == "no-store"
    assert (await ask(world, prove(world, nonce=nonce))).status_code == 200


async def test_the_last_nonce_still_works_and_the_new_one_comes_with_the_token(
    world: World,
) -> None:
    nonce = world.nonces.current(world.clock.now_s)
    world.clock.now_s += STEP_S
    reply = await ask(world, prove(world, nonce=nonce))
    assert reply.status_code == 200
    assert reply.headers["DPoP-Nonce"] == world.nonces.current(world.clock.now_s) != nonce


async def test_a_proof_is_good_for_one_token_and_the_refusal_is_recorded(world: World) -> None:
    proof = prove(world)
    assert (await ask(world, proof)).status_code == 200
    again = await ask(world, proof)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")
    record = world.records[-1]
    assert (record["type"], record["reason"]) == ("token.refused", "proof_replayed")


@pytest.mark.parametrize(
    "claims",
    [
        {"htm": "GET"},
        {"htu": URL + "/mcp"},
        {"htu": "https://other.test/oauth/token"},
        {"iat": 1},
        {"jti": None},
    ],
)
async def test_a_proof_of_something_else_gets_no_token(
    world: World, claims: dict[str, Any]
) -> None:
    reply = await ask(world, prove(world, **claims))
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_dpop_proof")
    assert [record["type"] for record in world.records] == ["token.refused"]


async def test_two_proofs_are_no_proof(world: World) -> None:
    reply = await ask(world, prove(world), prove(world))
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")
    assert world.refused == [("read", "request_invalid")]


async def test_an_empty_header_is_a_bad_proof_and_not_none(world: World) -> None:
    assert (await ask(world, "")).json()["error"] == "invalid_dpop_proof"


async def test_a_stranger_with_a_good_proof_is_a_stranger_and_fills_no_memory(
    world: World,
) -> None:
    proof = prove(world)
    reply = await ask(world, proof, auth=("bot", "wrong"))
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
    assert (await ask(world, proof)).status_code == 200


async def test_an_agent_that_must_prove_a_key_gets_no_bearer_token(world: World) -> None:
    bot = world.without_edges()[2]
    world.connect(*world.without_edges()[:2], replace(bot, dpop=True))
    reply = await ask(world)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_dpop_proof")
    record = world.records[-1]
    assert (record["type"], record["reason"]) == ("token.refused", "proof_missing")
    assert (await ask(world, prove(world))).json()["token_type"] == "DPoP"


async def test_a_run_may_demand_that_its_tokens_are_bound(world: World) -> None:
    run = (await world.launch(dpop=True)).json()
    auth = (run["run_id"], run["run_credential"])
    assert (await ask(world, auth=auth)).json()["error"] == "invalid_dpop_proof"
    assert (await ask(world, prove(world), auth=auth)).json()["token_type"] == "DPoP"


async def test_a_run_that_demands_nothing_leaves_it_to_the_agent(world: World) -> None:
    run = (await world.launch()).json()
    assert (await ask(world, auth=(run["run_id"], run["run_credential"]))).status_code == 200


async def test_a_full_memory_of_proofs_is_told_as_busy(world: World) -> None:
    assert world.proofs is not None
    world.proofs._used = _Full()  # type: ignore[assignment]  # noqa: SLF001 - filled
    reply = await ask(world, prove(world))
    assert (reply.status_code, reply.json()["error"]) == (503, "temporarily_unavailable")


class _Full:
    def remember(self, _name: bytes, _until_s: int, _now_s: int) -> str:
        return "full"


def test_where_no_proofs_are_taken_one_is_refused() -> None:
    shown = Possession(proof=b"x", method="POST", path="/oauth/token")
    failure = judge_possession(None, shown, 0).failure
    assert failure is not None
    assert failure.error == "invalid_dpop_proof"


async def test_metadata_says_what_signs_proofs_and_assertions(world: World) -> None:
    server = (await world.client.get("/.well-known/oauth-authorization-server")).json()
    assert server["dpop_signing_alg_values_supported"] == ["ES256", "Ed25519", "EdDSA"]
    assert "private_key_jwt" in server["token_endpoint_auth_methods_supported"]
    algorithms = server["token_endpoint_auth_signing_alg_values_supported"]
    assert algorithms == ["ES256", "RS256", "Ed25519", "EdDSA"]
    resource = (await world.client.get("/.well-known/oauth-protected-resource/mcp")).json()
    assert resource["dpop_signing_alg_values_supported"] == ["ES256", "Ed25519", "EdDSA"]
