"""`/v1/kills`, `/v1/tokens`, `/oauth/revoke` and `/oauth/introspect`, as their callers see them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from msgspec.structs import replace

from gateway.adapters.keys.jose_tokens import JoseIssuer, JoseVerifier
from gateway.adapters.keys.token_keys import LocalSigner, generate_token_key
from gateway.core.errors import CountersignError
from gateway.core.kills.kill import KILLED, REVOKED, Kind
from gateway.core.tokens.clients import Agent, Client, ClientRegistry, Launcher, hash_secret
from gateway.core.tokens.issued import IssuedToken, IssuedTokens, describe_issued, read_issued
from gateway.core.tokens.token import Ancestor, Claims, Run
from gateway.http.client_auth import read_client
from gateway.http.humans import HumanEntry, Humans, build_admit
from gateway.http.kill_admin import KillAdminDeps, build_kill_router
from gateway.http.token_admin import (
    LIST_MAX,
    TokenAdminDeps,
    build_oauth_tokens_router,
    build_token_router,
)
from gateway.kill_switch import KillSwitch
from gateway.wiring.kill import guard_admit
from tests.fixed import NOW_S
from tests.unit.kill.conftest import Place, build_claims

pytestmark = pytest.mark.req("TOK-06")
ROLES = {"ada": ("admin",), "otto": ("operator",), "aud": ("auditor",), "ann": ("approver",)}
URL = "https://gw.example"
CLIENTS = ClientRegistry(
    [
        Launcher(id="lars", secret_hash=hash_secret("s-lars")),
        Launcher(id="other", secret_hash=hash_secret("s-other")),
        Agent(id="worker", secret_hash=hash_secret("s-worker")),
        Agent(id="stranger", secret_hash=hash_secret("s-stranger")),
    ]
)
KEY = generate_token_key()


class Desk:
    """The routes, and what came of them."""

    def __init__(self, place: Place, switch: KillSwitch) -> None:
        self.place, self.switch = place, switch
        self.issued = IssuedTokens()
        self.refused: list[tuple[str, str]] = []
        people = Humans(
            HumanEntry(name, roles, "sha256:" + hashlib.sha256(name.encode()).hexdigest())
            for name, roles in ROLES.items()
        )
        admit = guard_admit(build_admit(people, self._refuse), switch, self._refuse)
        tokens = TokenAdminDeps(
            kills=switch,
            issued=self.issued,
            tokens=JoseVerifier([KEY], issuer=URL, audience=URL, environment="test"),
            barred=switch.barred,
            authenticate=self._authenticate,
            refuse=self._refuse,
            admit=admit,
            clock=place.clock,
            token_max_s=300,
            run_max_s=86_400,
        )
        kills = KillAdminDeps(
            kills=switch,
            admit=admit,
            clock=place.clock,
            is_known=self._is_known,
        )
        api = FastAPI()
        for router in (
            build_kill_router(kills),
            build_token_router(tokens),
            build_oauth_tokens_router(tokens),
        ):
            api.include_router(router)
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url=URL)

    async def _is_known(self, kind: Kind, target: str) -> bool:
        return (kind, target) == ("agent", "worker")

    async def _refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    async def _authenticate(self, form: dict[str, str], request: Request) -> Client | Run | None:
        presented = read_client(form, request)
        if presented is None:
            return None
        if presented.client_id == "run-1":
            return build_run()
        return CLIENTS.authenticate(presented.client_id, presented.secret)

    async def post(self, who: str, path: str, **body: object) -> httpx.Response:
        return await self.client.post(path, json=body, headers=auth(who))

    async def get(self, who: str, path: str) -> httpx.Response:
        return await self.client.get(path, headers=auth(who))

    async def form(self, client: str, path: str, token: str) -> httpx.Response:
        return await self.client.post(path, data={"token": token}, auth=(client, f"s-{client}"))

    async def issue(self, **changes: object) -> tuple[str, Claims]:
        claims = build_claims(**changes)
        self.issued.add(describe_issued(claims))
        return await JoseIssuer(LocalSigner(KEY)).issue(claims), claims


def auth(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {who}"}


def build_run() -> Run:
    return Run(
        id="run-1",
        agent="worker",
        launcher="lars",
        grants=(),
        allowed_values={},
        created_at=NOW_S,
        deadline=NOW_S + 1_000,
        credential_hash="",
    )


@pytest.fixture
async def desk(place: Place) -> Desk:
    return Desk(place, await place.start())


async def test_an_operator_stops_and_lets_go_on_and_an_auditor_looks(desk: Desk) -> None:
    done = await desk.post("otto", "/v1/kills", kind="agent", target="worker", reason="odd")
    assert done.status_code == 200
    told = done.json()
    assert told == {**told, "kind": "agent", "target": "worker", "by": "otto", "known": True}
    assert desk.switch.barred(build_claims()) == KILLED
    seen = (await desk.get("aud", "/v1/kills")).json()
    assert [one["kill"] for one in seen["kills"]] == [told["kill"]]
    assert (seen["stale"], seen["feed_age_ms"]) == (False, 0)
    lifted = await desk.post("ada", "/v1/kills/lift", kind="agent", target="worker", reason="ok")
    assert [one["kill"] for one in lifted.json()["lifted"]] == [told["kill"]]
    again = await desk.post("ada", "/v1/kills/lift", kind="agent", target="worker", reason="ok")
    assert (again.status_code, again.json()["code"]) == (404, "kill_not_found")


async def test_a_kill_may_end_by_itself_and_a_slip_of_the_pen_is_told(desk: Desk) -> None:
    done = await desk.post("otto", "/v1/kills", kind="agent", target="wroker", reason="x", for_s=60)
    assert (done.json()["until"], done.json()["known"]) == (NOW_S + 60, False)


@pytest.mark.parametrize("who", ["aud", "ann"])
async def test_others_stop_nothing(desk: Desk, who: str) -> None:
    for path in ("/v1/kills", "/v1/kills/lift"):
        refused = await desk.post(who, path, kind="all", reason="x")
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
    refused = await desk.post(who, "/v1/tokens/revoke", jti="x", reason="x")
    assert refused.status_code == 403
    assert (await desk.get("ann", "/v1/kills")).status_code == 403
    assert (await desk.get("ann", "/v1/tokens")).status_code == 403
    assert desk.switch.standing() == []


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "all", "target": "x", "reason": "x"},
        {"kind": "agent", "reason": "x"},
        {"kind": "agent", "target": "x"},
        {"kind": "agent", "target": "x", "reason": "  "},
        {"kind": "actor", "target": "x", "reason": "x"},
        {"kind": "token", "target": "x", "reason": "x"},
        {"kind": "agent", "target": "x", "reason": "x", "for_s": 0},
        {"kind": "agent", "target": "x", "reason": "x", "more": 1},
    ],
)
async def test_a_kill_that_says_something_else_than_a_kill_is_refused(
    desk: Desk, body: dict[str, Any]
) -> None:
    assert (await desk.post("ada", "/v1/kills", **body)).status_code == 400
    assert desk.switch.standing() == []


async def test_a_stopped_person_is_not_let_in_and_another_can_lift_it(desk: Desk) -> None:
    done = await desk.post("ada", "/v1/kills", kind="human", target="Human:OTTO", reason="left")
    assert done.json()["target"] == "otto"
    refused = await desk.post("otto", "/v1/kills/lift", kind="human", target="otto", reason="x")
    assert (refused.status_code, refused.json()["code"]) == (403, "killed")
    assert desk.refused == [("authenticate", "killed")]
    lifted = await desk.post("ada", "/v1/kills/lift", kind="human", target="otto", reason="back")
    assert lifted.status_code == 200
    assert (await desk.get("otto", "/v1/kills")).status_code == 200


async def test_a_kill_that_could_not_be_kept_is_an_error_and_in_force(desk: Desk) -> None:
    desk.place.store.failing = True
    failed = await desk.post("ada", "/v1/kills", kind="all", reason="x")
    assert (failed.status_code, failed.json()["code"]) == (503, "state_unavailable")
    assert desk.switch.barred(build_claims()) == KILLED
    assert failed.json()["detail"].startswith("it is in force, but not kept yet")


async def test_a_revocation_that_could_not_be_kept_says_that_it_is_in_force(desk: Desk) -> None:
    _, claims = await desk.issue()
    desk.place.store.failing = True
    for named in ({"jti": claims.jti}, {"root": claims.root_jti}):
        failed = await desk.post("otto", "/v1/tokens/revoke", reason="odd", **named)
        assert (failed.status_code, failed.json()["code"]) == (503, "state_unavailable")
        assert failed.json()["detail"].startswith("it is in force, but not kept yet")
        assert desk.switch.barred(claims) == REVOKED


async def test_live_tokens_are_listed_and_revoked_with_what_was_handed_on(desk: Desk) -> None:
    _, parent = await desk.issue()
    _, child = await desk.issue(
        jti="jti-2",
        subject="sub",
        actors=("worker",),
        parent_jti="jti-1",
        ancestors=(Ancestor("jti-1"),),
        depth=1,
    )
    await desk.issue(jti="jti-9", run_id="run-2", root_jti="run-2", client_id="other")
    found = (await desk.get("aud", "/v1/tokens")).json()
    assert [one["jti"] for one in found["tokens"]] == ["jti-9", "jti-2", "jti-1"]
    assert (found["more"], found["complete"]) == (False, True)
    assert "olga" not in str(found)
    some = (await desk.get("aud", "/v1/tokens?agent=worker&client=lars&run=run-1")).json()
    assert [one["jti"] for one in some["tokens"]] == ["jti-1"]
    done = await desk.post("otto", "/v1/tokens/revoke", jti="jti-1", reason="leaked")
    assert (done.json()["known"], done.json()["until"]) == (True, parent.expires_at + 60)
    assert [desk.switch.barred(one) for one in (parent, child)] == [REVOKED, REVOKED]
    states = {
        one["jti"]: one["state"] for one in (await desk.get("aud", "/v1/tokens")).json()["tokens"]
    }
    assert states == {"jti-1": "revoked", "jti-2": "revoked", "jti-9": "live"}
    assert (await desk.get("aud", "/v1/kills")).json()["kills"] == []
    whole = await desk.post("otto", "/v1/tokens/revoke", root="run-2", reason="leaked")
    assert whole.json()["known"]
    gone = await desk.post("otto", "/v1/tokens/revoke", jti="nobody's", reason="leaked")
    assert not gone.json()["known"]
    for body in ({}, {"jti": "a", "root": "b"}):
        refused = await desk.post("otto", "/v1/tokens/revoke", reason="x", **body)
        assert refused.status_code == 400


async def test_a_long_list_says_that_there_is_more(desk: Desk) -> None:
    for number in range(LIST_MAX + 1):
        await desk_add(desk, number)
    found = (await desk.get("aud", "/v1/tokens")).json()
    assert (len(found["tokens"]), found["more"]) == (LIST_MAX, True)


async def desk_add(desk: Desk, number: int) -> None:
    desk.issued.add(describe_issued(build_claims(jti=f"j{number}")))


@pytest.mark.parametrize("client", ["lars", "worker", "run-1"])
async def test_a_client_revokes_its_own_token(desk: Desk, client: str) -> None:
    token, claims = await desk.issue()
    done = await desk.form(client, "/oauth/revoke", token)
    assert (done.status_code, done.content) == (200, b"")
    assert desk.switch.barred(claims) == REVOKED
    (record,) = desk.place.log.records[2:]
    assert (record["type"], record["jti"]) == ("token.revoke", "jti-1")
    assert (await desk.form(client, "/oauth/revoke", token)).status_code == 200
    assert len(desk.place.log.records[2:]) == 1


async def test_an_agent_revokes_what_it_handed_on(desk: Desk) -> None:
    token, claims = await desk.issue(
        subject="sub",
        actors=("worker",),
        parent_jti="jti-0",
        ancestors=(Ancestor("jti-0"),),
        depth=1,
        max_depth=1,
    )
    assert (await desk.form("worker", "/oauth/revoke", token)).status_code == 200
    assert desk.switch.barred(claims) == REVOKED


@pytest.mark.parametrize("client", ["other", "stranger"])
async def test_another_client_revokes_nothing(desk: Desk, client: str) -> None:
    token, claims = await desk.issue()
    refused = await desk.form(client, "/oauth/revoke", token)
    assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
    assert desk.switch.barred(claims) is None


async def test_what_is_no_live_token_is_revoked_already(desk: Desk) -> None:
    token, _ = await desk.issue(expires_at=NOW_S)
    for text in ("nonsense", token):
        assert (await desk.form("lars", "/oauth/revoke", text)).status_code == 200
    assert desk.switch.standing() == []


async def test_a_stranger_revokes_nothing_and_learns_nothing(desk: Desk) -> None:
    token, _ = await desk.issue()
    for path in ("/oauth/revoke", "/oauth/introspect"):
        refused = await desk.client.post(path, data={"token": token}, auth=("lars", "wrong"))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        assert refused.headers["www-authenticate"].startswith("Basic")
        nobody = await desk.client.post(path, data={"token": token})
        assert nobody.status_code == 401
    approver = await desk.client.post(
        "/oauth/introspect", data={"token": token}, headers=auth("ann")
    )
    assert approver.status_code == 401
    assert len(desk.refused) == 4
    assert desk.switch.standing() == []


@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
async def test_a_form_that_two_parsers_may_read_differently_is_refused(
    desk: Desk, path: str
) -> None:
    credential = ("lars", "s-lars")
    twice = await desk.client.post(
        path,
        content="token=a&token=b",
        headers={"content-type": "application/x-www-form-urlencoded"},
        auth=credential,
    )
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    nothing = await desk.client.post(path, data={"other": "a"}, auth=credential)
    assert nothing.json()["error"] == "invalid_request"
    double = {"token": "a", "client_id": "lars", "client_secret": "s-lars"}
    assert (await desk.client.post(path, data=double, auth=credential)).status_code == 400


async def test_introspection_tells_its_own_client_and_operators(desk: Desk) -> None:
    token, claims = await desk.issue(jkt="thumb")
    for client in ("lars", "worker", "run-1"):
        said = (await desk.form(client, "/oauth/introspect", token)).json()
        assert (said["active"], said["jti"], said["exp"]) == (True, "jti-1", claims.expires_at)
        assert (said["token_type"], said["scope"]) == ("DPoP", "tools:call")
    for person in ("otto", "ada", "aud"):
        body = {"token": token}
        answer = await desk.client.post("/oauth/introspect", data=body, headers=auth(person))
        assert answer.json()["active"]
        assert answer.headers["cache-control"] == "no-store"
    for client in ("other", "stranger"):
        assert (await desk.form(client, "/oauth/introspect", token)).json() == {"active": False}


async def test_introspection_tells_nothing_of_what_is_not_alive(desk: Desk) -> None:
    token, _ = await desk.issue()
    bearer, _ = await desk.issue(jti="jti-2")
    await desk.switch.kill("token", "jti-1", reason="x")
    for text in (token, "nonsense", "é"):
        assert (await desk.form("lars", "/oauth/introspect", text)).json() == {"active": False}
    assert (await desk.form("lars", "/oauth/introspect", bearer)).json()["token_type"] == "Bearer"


async def test_a_gateway_that_cannot_answer_says_so(desk: Desk) -> None:
    token, _ = await desk.issue()
    desk.place.store.failing = True
    failed = await desk.form("lars", "/oauth/revoke", token)
    assert (failed.status_code, failed.json()["error"]) == (503, "temporarily_unavailable")
    with pytest.raises(CountersignError):
        await desk.switch.poll()


# the index


def token(number: int, expires_at: int = NOW_S + 300) -> IssuedToken:
    return IssuedToken(
        jti=str(number),
        agent="a",
        client="c",
        run="r",
        root="r",
        issued_at=NOW_S + number,
        expires_at=expires_at + number,
    )


def test_the_index_forgets_tokens_that_are_over() -> None:
    index = IssuedTokens()
    for number in range(1_000):
        index.add(token(number))
    assert index.get("0") is None
    assert len(list(index.live(NOW_S + 999))) == 300
    assert index.is_complete(NOW_S)


def test_the_index_has_room_for_so_many_and_says_what_it_left_out() -> None:
    index = IssuedTokens(most=10)
    for number in range(11):
        index.add(token(number))
    assert [one.jti for one in index.live(NOW_S)] == [str(n) for n in range(10, 0, -1)]
    assert not index.is_complete(NOW_S)
    assert index.is_complete(NOW_S + 300)


def test_what_a_record_says_of_a_token_is_what_was_kept_of_it() -> None:
    claims = build_claims(parent_jti="p", depth=1)
    record = {
        "ts": NOW_S * 1_000_000,
        "jti": "jti-1",
        "agent": "worker",
        "client": "lars",
        "run": "run-1",
        "root": "run-1",
        "exp": NOW_S + 300,
        "scopes": ["tools:call"],
        "depth": 1,
        "parent": "p",
    }
    assert read_issued(record) == describe_issued(claims)
    assert replace(read_issued(record), depth=0).depth == 0
