"""The matrix of attacks on identity and tokens (TOK-10), against a served gateway.

Each is tried for real. Calls are answered 401 or 403; at the token endpoint the standards want 400
(RFC 6749 §5.2, RFC 8693 §2.2.2). Nothing reaches the upstream, and one record is written. `pytest
-s` prints the table.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.adapters.keys.jose_tokens import sign_token
from gateway.adapters.keys.token_keys import generate_token_key, load_token_key
from gateway.core.tokens.clients import hash_secret
from gateway.core.tokens.token import Claims, Grant
from tests.e2e.callers import Agent
from tests.e2e.conftest import Build, Start
from tests.e2e.served import Served
from tests.e2e.site import secret_of
from tests.e2e.stub import Stub
from tests.unit.tokens.proofs import Holder

pytestmark = pytest.mark.req("TOK-10")

CALL: Final = "/v1/tools/stub__echo/call"
ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ECHO: Final = {"server": "stub", "tool": "echo"}

Act = Callable[[], httpx.Response]


class Scene:
    """A gateway, the agents `helper` and `scribe` (whom it may hand on to), and an attacker."""

    def __init__(self, gateway: Served) -> None:
        self.gateway = gateway
        self.url = gateway.site.url
        self.key = load_token_key(gateway.site.folder / "keys" / "tokens.pem")

    # What is honestly come by

    def run(self, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        return self.gateway.create_run(**{"grants": [ECHO], **body})

    def token(self, **run: Any) -> str:  # noqa: ANN401 - JSON
        created = self.run(**run)
        return self.gateway.token(created["run_id"], created["run_credential"])

    def own(self, agent: str = "scribe") -> str:
        return self.gateway.token(agent, secret_of(agent))

    def child(self, parent: str, **form: str) -> str:
        reply = self.exchange(parent, **form)()
        assert reply.status_code == 200, reply.text
        found: str = reply.json()["access_token"]
        return found

    def nonce(self) -> str:
        proof = Holder().prove("POST", f"{self.url}/oauth/token", time.time())
        reply = self.ask("scribe", DPoP=proof.decode(), grant_type="client_credentials")
        return reply.headers["dpop-nonce"]

    def bound(self, holder: Holder) -> str:
        url = f"{self.url}/oauth/token"
        proof = holder.prove("POST", url, time.time(), nonce=self.nonce())
        reply = self.ask("scribe", DPoP=proof.decode(), grant_type="client_credentials")
        assert reply.json()["token_type"] == "DPoP", reply.text
        found: str = reply.json()["access_token"]
        return found

    # What is tried

    def call(self, token: str, path: str = CALL, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {token}", **headers}
        return self.gateway.http.post(path, json={"arguments": {"value": "x"}}, headers=sent)

    def prove(self, holder: Holder, token: str, **said: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        """Call with a bound token and a proof; `said` changes what the proof says."""
        claims = dict(said)
        method, url = claims.pop("htm", "POST"), claims.pop("htu", self.url + CALL)
        at = claims.pop("iat", time.time())
        bound_to = claims.pop("of", token)
        proof = holder.prove(method, url, at, token=bound_to.encode(), **claims)
        return self.call(token, Authorization=f"DPoP {token}", DPoP=proof.decode())

    def ask(self, who: str, **form: str) -> httpx.Response:
        """Ask for a token; `DPoP` is a header."""
        headers = {"DPoP": form.pop("DPoP")} if "DPoP" in form else {}
        auth = (who, secret_of(who))
        return self.gateway.http.post("/oauth/token", auth=auth, data=form, headers=headers)

    def exchange(self, parent: str, who: str = "scribe", **form: str) -> Act:
        actor = self.own()
        asked = {
            "grant_type": EXCHANGE,
            "subject_token": parent,
            "subject_token_type": ACCESS,
            "actor_token": actor,
            "actor_token_type": ACCESS,
            **form,
        }
        asked = {name: value for name, value in asked.items() if value}
        return lambda: self.ask(who, **asked)

    def forge(self, **changes: Any) -> str:  # noqa: ANN401 - any claim
        """Sign claims with the gateway's own key: only `changes` make them unacceptable."""
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "issuer": self.url,
            "audience": self.url,
            "subject": "helper",
            "client_id": "launcher",
            "jti": "j1",
            "issued_at": now_s - 10,
            "expires_at": now_s + 200,
            "scopes": frozenset({"tools:list", "tools:call"}),
            "grants": (Grant("stub"),),
            "environment": "endtoend",
            "run_id": "r1",
            "root_jti": "r1",
            "sid": "r1",
        }
        key = changes.pop("key", self.key)
        return sign_token(Claims(**claims | changes), key)

    def resign(self, token: str, header: dict[str, Any], secret: bytes | None = None) -> str:
        """Put another header on a token; with `secret`, sign it with HS256."""
        payload = token.split(".")[1]
        head = _encode(json.dumps(header).encode())
        if secret is None:
            return f"{head}.{payload}.{token.split('.')[2]}"
        tag = hmac.digest(secret, f"{head}.{payload}".encode(), hashlib.sha256)
        return f"{head}.{payload}.{_encode(tag)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _altered(token: str, **changes: object) -> str:
    """Change what a token says and keep its signature."""
    head, payload, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"{head}.{_encode(json.dumps({**said, **changes}).encode())}.{signature}"


def _header(scene: Scene, **changes: object) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "at+jwt", "kid": scene.key.kid, **changes}


def _public_pem(scene: Scene) -> bytes:
    pem: bytes = scene.key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


# Each returns the last step, prepared: only that one is watched.


def alg_none(scene: Scene) -> Act:
    head, payload, _ = scene.token().split(".")
    del head
    forged = f"{_encode(json.dumps(_header(scene, alg='none')).encode())}.{payload}."
    return lambda: scene.call(forged)


def hs256_with_the_public_key(scene: Scene) -> Act:
    forged = scene.resign(scene.token(), _header(scene, alg="HS256"), _public_pem(scene))
    return lambda: scene.call(forged)


def a_key_of_the_attacker(scene: Scene) -> Act:
    forged = scene.forge(key=generate_token_key())
    return lambda: scene.call(forged)


def a_kid_that_is_a_path(scene: Scene) -> Act:
    kid = "../../../../dev/null"
    forged = scene.resign(scene.token(), _header(scene, alg="HS256", kid=kid), b"")
    return lambda: scene.call(forged)


def a_key_in_the_header(scene: Scene) -> Act:
    holder = Holder()
    payload = base64.urlsafe_b64decode(scene.token().split(".")[1] + "===")
    forged = holder.sign(_header(scene, jwk=holder.public()), payload).decode()
    return lambda: scene.call(forged)


def expired(scene: Scene) -> Act:
    now_s = int(time.time())
    forged = scene.forge(issued_at=now_s - 300, expires_at=now_s - 1)
    return lambda: scene.call(forged)


def not_yet_valid(scene: Scene) -> Act:
    now_s = int(time.time())
    forged = scene.forge(issued_at=now_s + 61, expires_at=now_s + 300)
    return lambda: scene.call(forged)


def for_another_audience(scene: Scene) -> Act:
    forged = scene.forge(audience="https://bank.example")
    return lambda: scene.call(forged)


def of_another_issuer(scene: Scene) -> Act:
    forged = scene.forge(issuer="https://bank.example")
    return lambda: scene.call(forged)


def of_another_environment(scene: Scene) -> Act:
    forged = scene.forge(environment="production")
    return lambda: scene.call(forged)


def for_another_resource(scene: Scene) -> Act:
    form = {"grant_type": "client_credentials", "resource": "https://bank.example"}
    return lambda: scene.ask("scribe", **form)


def a_forged_run_id(scene: Scene) -> Act:
    forged = _altered(scene.token(), run_id="0" * 32, sid="0" * 32, root_jti="0" * 32)
    return lambda: scene.call(forged)


def a_self_chosen_run_id(scene: Scene) -> Act:
    asked = {"agent": "helper", "grants": [ECHO], "run_id": "0" * 32}
    auth = ("launcher", secret_of("launcher"))
    return lambda: scene.gateway.http.post("/v1/runs", auth=auth, json=asked)


def a_launch_by_an_agent(scene: Scene) -> Act:
    asked = {"agent": "scribe", "grants": [ECHO]}
    auth = ("scribe", secret_of("scribe"))
    return lambda: scene.gateway.http.post("/v1/runs", auth=auth, json=asked)


def a_scope_that_the_token_lacks(scene: Scene) -> Act:
    run = scene.run()
    token = scene.gateway.token(run["run_id"], run["run_credential"], "tools:list")
    return lambda: scene.call(token)


def a_wider_scope_by_exchange(scene: Scene) -> Act:
    run = scene.run()
    parent = scene.gateway.token(run["run_id"], run["run_credential"], "tools:list")
    return scene.exchange(parent, scope="tools:list tools:call")


def wider_details_by_exchange(scene: Scene) -> Act:
    details = json.dumps([{"type": "countersign_tool", "server": "stub", "tool": "transfer"}])
    return scene.exchange(scene.token(), authorization_details=details)


def an_exchange_without_an_actor_token(scene: Scene) -> Act:
    return scene.exchange(scene.token(), actor_token="", actor_token_type="")


def an_exchange_by_another_client(scene: Scene) -> Act:
    return scene.exchange(scene.token(), who="clerk")


def an_exchange_to_an_agent_without_an_edge(scene: Scene) -> Act:
    return scene.exchange(scene.token(), who="clerk", actor_token=scene.own("clerk"))


def a_revoked_parent(scene: Scene) -> Act:
    run = scene.run()
    parent = scene.gateway.token(run["run_id"], run["run_credential"])
    child = scene.child(parent)
    form = {"token": parent}
    auth = (run["run_id"], run["run_credential"])
    assert scene.gateway.http.post("/oauth/revoke", auth=auth, data=form).status_code == 200
    return lambda: scene.call(child)


def a_suspended_agent(scene: Scene) -> Act:
    token = scene.token(agent="other")
    assert scene.call(token).status_code == 200
    body = {"reason": "canary: misbehaves"}
    bearer = {"Authorization": f"Bearer {secret_of('opal')}"}
    path = "/v1/agents/other/suspend"
    reply = scene.gateway.http.post(path, headers=bearer, json=body)
    assert reply.status_code == 200, reply.text
    return lambda: scene.call(token)


def a_killed_agents_child(scene: Scene) -> Act:
    child = scene.child(scene.token(agent="doomed"))
    body = {"kind": "agent", "target": "doomed", "reason": "canary: misbehaves"}
    bearer = {"Authorization": f"Bearer {secret_of('opal')}"}
    reply = scene.gateway.http.post("/v1/kills", headers=bearer, json=body)
    assert reply.status_code == 200, reply.text
    return lambda: scene.call(child)


def siblings_past_the_budget_of_their_root(scene: Scene) -> Act:
    parent = scene.token(budget={"calls": 2})
    siblings = [scene.child(parent) for _ in range(3)]
    assert [scene.call(token).status_code for token in siblings[:2]] == [200, 200]
    return lambda: scene.call(siblings[2])


def siblings_past_the_calls_of_their_parent(scene: Scene) -> Act:
    parent = scene.token(grants=[{**ECHO, "max_calls": 1}])
    siblings = [scene.child(parent) for _ in range(2)]
    assert scene.call(siblings[0]).status_code == 200
    return lambda: scene.call(siblings[1])


def a_token_of_the_upstream(scene: Scene) -> Act:
    foreign = Holder().sign({"alg": "ES256", "typ": "at+jwt", "kid": "up"}, b"{}").decode()
    return lambda: scene.call(foreign)


def a_stolen_bound_token(scene: Scene) -> Act:
    token = scene.bound(Holder())
    return lambda: scene.call(token)


def a_stolen_bound_token_with_the_thiefs_key(scene: Scene) -> Act:
    token = scene.bound(Holder())
    nonce = scene.nonce()
    return lambda: scene.prove(Holder(), token, nonce=nonce)


def a_proof_for_another_method(scene: Scene) -> Act:
    holder = Holder()
    token, nonce = scene.bound(holder), scene.nonce()
    return lambda: scene.prove(holder, token, nonce=nonce, htm="GET")


def a_proof_for_another_url(scene: Scene) -> Act:
    holder = Holder()
    token, nonce = scene.bound(holder), scene.nonce()
    return lambda: scene.prove(holder, token, nonce=nonce, htu=f"{scene.url}/mcp")


def a_proof_for_another_token(scene: Scene) -> Act:
    holder = Holder()
    token, nonce = scene.bound(holder), scene.nonce()
    return lambda: scene.prove(holder, token, nonce=nonce, of="another")


def a_proof_from_a_clock_more_than_60_s_off(scene: Scene) -> Act:
    holder = Holder()
    token, nonce = scene.bound(holder), scene.nonce()
    return lambda: scene.prove(holder, token, nonce=nonce, iat=time.time() - 90)


def a_replayed_proof(scene: Scene) -> Act:
    holder = Holder()
    token, nonce = scene.bound(holder), scene.nonce()
    said = {"nonce": nonce, "jti": "once", "iat": int(time.time())}
    assert scene.prove(holder, token, **said).status_code == 200
    return lambda: scene.prove(holder, token, **said)


TOKEN_ENDPOINT: Final = 400
ATTACKS: Final = [
    (alg_none, 401),
    (hs256_with_the_public_key, 401),
    (a_key_of_the_attacker, 401),
    (a_kid_that_is_a_path, 401),
    (a_key_in_the_header, 401),
    (expired, 401),
    (not_yet_valid, 401),
    (for_another_audience, 401),
    (of_another_issuer, 401),
    (of_another_environment, 401),
    (for_another_resource, TOKEN_ENDPOINT),
    (a_forged_run_id, 401),
    (a_self_chosen_run_id, TOKEN_ENDPOINT),
    (a_launch_by_an_agent, 401),
    (a_scope_that_the_token_lacks, 403),
    (a_wider_scope_by_exchange, TOKEN_ENDPOINT),
    (wider_details_by_exchange, TOKEN_ENDPOINT),
    (an_exchange_without_an_actor_token, TOKEN_ENDPOINT),
    (an_exchange_by_another_client, TOKEN_ENDPOINT),
    (an_exchange_to_an_agent_without_an_edge, TOKEN_ENDPOINT),
    (a_revoked_parent, 401),
    (a_suspended_agent, 403),
    (a_killed_agents_child, 403),
    (siblings_past_the_budget_of_their_root, 403),
    (siblings_past_the_calls_of_their_parent, 403),
    (a_token_of_the_upstream, 401),
    (a_stolen_bound_token, 401),
    (a_stolen_bound_token_with_the_thiefs_key, 401),
    (a_proof_for_another_method, 401),
    (a_proof_for_another_url, 401),
    (a_proof_for_another_token, 401),
    (a_proof_from_a_clock_more_than_60_s_off, 401),
    (a_replayed_proof, 401),
]


NAMES: Final = [attack.__name__ for attack, _ in ATTACKS]


@pytest.fixture(scope="module")
def scene(build_site: Build, start_here: Start, stub: Stub) -> Scene:
    site = build_site(urls={"stub": stub.url})
    clients = [one for one in site.settings["clients"] if one["id"] == "launcher"]
    clients[0]["may_launch"] = ["helper", "other", "doomed"]
    agents = [
        {
            "kind": "agent",
            "id": name,
            "secret_hash": hash_secret(secret_of(name)),
            "grants": [{"server": "stub", "effects": ["read"]}],
            "may_delegate_to": ["scribe"] if name in {"helper", "doomed"} else [],
        }
        for name in ("helper", "scribe", "clerk", "other", "doomed")
    ]
    site.settings["clients"] = [*clients, *agents]
    site.settings["limits"] = {"strangers_per_window_max": 1_000}  # each has a record of its own
    site.write()
    return Scene(start_here(site, step="never").wait_ready())


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = [("attack", "answer", "code", "sent", "records")]
    yield rows
    for row in rows:
        cells = zip(row, (44, 7, 30, 5, 40), strict=True)
        line = "  ".join(cell.ljust(width) for cell, width in cells)
        sys.stdout.write(line.rstrip() + "\n")


@pytest.mark.parametrize(("attack", "status"), ATTACKS, ids=NAMES)
def test_an_attack_gets_a_refusal_a_record_and_nothing_else(
    scene: Scene,
    stub: Stub,
    table: list[tuple[str, ...]],
    attack: Callable[[Scene], Act],
    status: int,
) -> None:
    act = attack(scene)
    sent = stub.calls.total()
    with scene.gateway.adding() as added:
        reply = act()
    body = reply.json()
    told = body.get("code") or body.get("error")
    records = [f"{one['type']}:{one['reason']}" for one in added]
    passed_on = stub.calls.total() - sent
    name = attack.__name__.replace("_", " ")
    table.append((name, str(reply.status_code), str(told), str(passed_on), ", ".join(records)))
    assert (reply.status_code, passed_on, len(records)) == (status, 0, 1), (told, records)
    assert records[0].split(":")[0] in {"call.refused", "token.refused", "run.refused"}


@pytest.mark.req("TOK-10", "TOK-04")
def test_of_fifty_parallel_calls_exactly_as_many_go_as_the_token_has(
    scene: Scene, stub: Stub, table: list[tuple[str, ...]]
) -> None:
    token = scene.token(grants=[{**ECHO, "max_calls": 7}])
    sent = stub.calls["echo"]
    with scene.gateway.adding() as added, ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: scene.call(token), range(50)))
    statuses = sorted(reply.status_code for reply in replies)
    refused = [one for one in added if one["type"] == "call.refused"]
    passed_on = str(stub.calls["echo"] - sent)
    row = ("50 parallel calls, 7 allowed", "403", "calls_exhausted", passed_on, "43 refused")
    table.append(row)
    assert statuses == [200] * 7 + [403] * 43
    assert stub.calls["echo"] == sent + 7
    assert [one["reason"] for one in refused] == ["calls_exhausted"] * 43
    assert sum(one["type"] == "call.intent" for one in added) == 7


def test_no_token_of_an_agent_is_passed_upstream(scene: Scene, stub: Stub) -> None:
    token = scene.token()
    seen = len(stub.headers)
    assert Agent(scene.gateway.http, token, {}).call("stub__echo", {"value": "x"}).status == 200
    for headers in stub.headers[seen:]:
        said = json.dumps(headers).lower()
        assert "authorization" not in said
        assert token.split(".")[2].lower() not in said
