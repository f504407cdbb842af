from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from gateway.adapters.audit.memory_audit import MemoryAuditLog
from gateway.adapters.keys.jose_tokens import sign_token
from gateway.adapters.keys.token_keys import generate_token_key
from gateway.adapters.state.memory_approvals import MemoryApprovals
from gateway.adapters.state.outbox_relay import OutboxRelay
from gateway.core.approvals.approval import ApprovalRequest, State
from gateway.core.approvals.sessions import CREDENTIAL_PREFIX, SignedIn
from gateway.core.policy.decision import ApprovalSpec, Stage
from gateway.core.ports import Clock, Ids
from gateway.core.records.approval_entries import state_event
from gateway.core.tokens.token import SCOPE_CALL, Claims
from gateway.http.approvals import ApprovalDeps, build_router
from gateway.http.humans import HumanEntry, Humans, build_admit

MakeRequest = Callable[..., ApprovalRequest]
JsonBody = dict[str, Any]

ROLES = {
    "ann": ("approver", "finance"),
    "bob": ("approver", "finance"),
    "dan": ("approver", "sales"),
    "eve": ("auditor", "finance"),
    "olga": ("approver", "finance"),
    "otto": ("operator",),
}


def secret_of(name: str) -> str:
    return f"secret-of-{name}"


class Desk:
    """The API over in-memory stores, and what came of it."""

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self.store = MemoryApprovals(clock=clock)
        self.audit = MemoryAuditLog()
        self.relay = OutboxRelay(self.store, self.audit)
        self.approved: list[tuple[str, list[str]]] = []
        self.decided: list[str] = []
        self.refused: list[tuple[str, str]] = []
        hashes = {name: hashlib.sha256(secret_of(name).encode()).hexdigest() for name in ROLES}
        people = [
            HumanEntry(name, roles, f"sha256:{hashes[name]}") for name, roles in ROLES.items()
        ]
        api = FastAPI()
        api.include_router(
            build_router(
                ApprovalDeps(
                    store=self.store,
                    humans=Humans(people),
                    admit=build_admit(Humans(people), self.refuse, self.session),
                    clock=clock,
                    ids=ids,
                    relay=self.relay.drain,
                    on_approved=lambda id_: self.approved.append((id_, self.recorded())),
                    voting_roles=lambda human: human.roles,
                    standing=lambda vote: vote,
                    on_decided=self.decided.append,
                )
            )
        )
        transport = httpx.ASGITransport(app=api)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")

    async def refuse(self, stage: str, reason: str) -> None:
        self.refused.append((stage, reason))

    async def session(self, credential: str) -> SignedIn | None:
        """Return whose command line sends a credential: that of a passkey's session."""
        return SignedIn(
            person=credential.removeprefix(CREDENTIAL_PREFIX),
            sid="s",
            auth_time=0,
            acr="strong",
            amr=("pop",),
            csrf="",
            expires_at=0,
        )

    def recorded(self) -> list[str]:
        kinds = [record["type"] for record in self.audit.records]
        return [kind for kind in kinds if kind.startswith("approval.")]

    async def hold(self, request: ApprovalRequest) -> ApprovalRequest:
        return await self.store.create(request, state_event(request, "request", "PENDING"))

    async def state(self, request: ApprovalRequest) -> State:
        found = await self.store.get(request.id)
        assert found is not None
        return found.state

    async def get(self, path: str = "", who: str = "ann") -> httpx.Response:
        return await self.client.get(f"/v1/approvals{path}", headers=bearer(secret_of(who)))

    async def post(self, path: str, body: JsonBody, who: str = "ann") -> httpx.Response:
        return await self.client.post(
            f"/v1/approvals{path}", json=body, headers=bearer(secret_of(who))
        )

    async def vote(
        self, request: ApprovalRequest, who: str, decision: str = "approve", **more: str
    ) -> httpx.Response:
        body = {"decision": decision, "reason": "because", "binding": request.binding, **more}
        return await self.post(f"/{request.id}/votes", body, who)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def told(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    return response.status_code, body["code"]


@pytest.fixture
async def desk(clock: Clock, ids: Ids) -> AsyncIterator[Desk]:
    desk = Desk(clock, ids)
    yield desk
    await desk.client.aclose()


@pytest.fixture
async def held(desk: Desk, make_request: MakeRequest) -> ApprovalRequest:
    return await desk.hold(make_request())


@pytest.mark.req("GW-12")
async def test_an_approver_sees_the_raw_arguments_and_who_may_vote(
    desk: Desk, held: ApprovalRequest
) -> None:
    answer = await desk.get(f"/{held.id}")
    seen = answer.json()
    assert answer.status_code == 200
    assert next(iter(seen)) == "arguments"
    assert seen["arguments"] == '{"order": "A-7", "amount": 120}'
    assert seen["who_may_vote"] == ["ann", "bob"]
    assert (seen["binding"], seen["stages_met"]) == (held.binding, 0)
    assert seen["reasons"] == [
        {"code": "large_refund", "message": "more than 100", "policy": "refunds"}
    ]
    assert not {"claims", "nonce", "claim_token", "result", "separation"} & seen.keys()
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.req("GW-12")
async def test_reading_changes_nothing(desk: Desk, held: ApprovalRequest) -> None:
    for path in ("", f"/{held.id}", f"/{held.id}/votes", f"/{held.id}/cancel"):
        await desk.get(path, who="otto")
        await desk.client.head(f"/v1/approvals{path}", headers=bearer(secret_of("ann")))
        await desk.client.options(f"/v1/approvals{path}", headers=bearer(secret_of("ann")))
    assert await desk.store.get(held.id) == held
    assert desk.recorded() == []


async def test_requests_are_listed_by_state(desk: Desk, make_request: MakeRequest) -> None:
    for number in (1, 2):
        await desk.hold(make_request(id=str(number), op=f"op-{number}", join_digest=str(number)))
    first = await desk.store.get("1")
    assert first is not None
    await desk.vote(first, "ann", "deny")

    async def listed(query: str) -> list[str]:
        return [one["id"] for one in (await desk.get(query)).json()["approvals"]]

    assert await listed("") == ["1", "2"]
    assert await listed("?state=PENDING") == ["2"]
    assert await listed("?state=PENDING&state=DENIED") == ["1", "2"]
    assert await listed("?limit=1") == ["1"]
    assert await listed("?after=1") == ["2"]
    assert [(await desk.get(f"?limit={most}")).json()["more"] for most in (1, 2)] == [True, False]
    assert told(await desk.get("?after=3")) == (404, "approval_not_found")


@pytest.mark.parametrize("query", ["?state=pending", "?state=", "?limit=0", "?limit=x"])
async def test_a_query_that_does_not_fit_is_refused(query: str, desk: Desk) -> None:
    assert told(await desk.get(query)) == (400, "request_invalid")


@pytest.mark.req("GW-12")
async def test_a_vote_is_in_the_log_before_it_is_answered_or_acted_on(
    desk: Desk, held: ApprovalRequest
) -> None:
    answer = await desk.vote(held, "ann")
    expected = ["approval.request", "approval.vote", "approval.grant"]
    assert (answer.status_code, answer.json()["state"]) == (200, "APPROVED")
    assert desk.approved == [(held.id, expected)]
    assert desk.decided == [held.id]
    assert desk.recorded() == expected
    assert await desk.store.outbox() == []
    assert answer.json()["who_may_vote"] == []


@pytest.mark.req("GW-12")
async def test_the_log_names_neither_the_voter_nor_the_comment(
    desk: Desk, held: ApprovalRequest
) -> None:
    await desk.vote(held, "ann", reason="matches the ticket")
    chain = b"\n".join(desk.audit.lines)
    assert b'"ann"' not in chain
    assert b"matches the ticket" not in chain
    seq = next(one["seq"] for one in desk.audit.records if one["type"] == "approval.vote")
    assert desk.audit.read_opening(seq, "voter") == b"ann"
    assert desk.audit.read_opening(seq, "reason") == b"matches the ticket"


async def test_a_first_vote_of_two_leaves_it_pending(desk: Desk, make_request: MakeRequest) -> None:
    spec = ApprovalSpec(stages=((Stage(approve=2, groups=("finance",)),),))
    held = await desk.hold(make_request(spec=spec))
    seen = (await desk.vote(held, "ann")).json()
    assert (seen["state"], seen["who_may_vote"]) == ("PENDING", ["bob"])
    assert seen["votes"] == [
        {
            "voter": "ann",
            "decision": "approve",
            "reason": "because",
            "voted_at": held.created_at,
            "counts": True,
        }
    ]
    assert (desk.approved, desk.decided) == ([], [])
    assert (await desk.vote(held, "bob")).json()["state"] == "APPROVED"


@pytest.mark.req("GW-12")
async def test_a_denial_denies_and_dispatches_nothing(desk: Desk, held: ApprovalRequest) -> None:
    answer = await desk.vote(held, "bob", "deny")
    assert answer.json()["state"] == "DENIED"
    assert desk.approved == []
    assert desk.decided == [held.id]
    assert desk.recorded()[-1] == "approval.deny"


@pytest.mark.parametrize("reason", ["", "  "])
async def test_a_denial_says_why(reason: str, desk: Desk, held: ApprovalRequest) -> None:
    answer = await desk.vote(held, "ann", "deny", reason=reason)
    assert told(answer) == (400, "request_invalid")
    assert await desk.state(held) == "PENDING"


@pytest.mark.req("GW-12")
async def test_the_requester_s_side_cannot_vote(desk: Desk, held: ApprovalRequest) -> None:
    for decision in ("approve", "deny"):
        assert told(await desk.vote(held, "olga", decision)) == (403, "approval_forbidden")
    assert await desk.state(held) == "PENDING"
    assert desk.recorded() == []


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    ("who", "code"),
    [("dan", "approval_forbidden"), ("eve", "role_missing"), ("otto", "role_missing")],
)
async def test_a_vote_needs_the_role_and_a_group_of_the_spec(
    who: str, code: str, desk: Desk, held: ApprovalRequest
) -> None:
    assert told(await desk.vote(held, who)) == (403, code)
    assert await desk.state(held) == "PENDING"


async def test_whoever_is_neither_approver_nor_operator_reads_nothing(
    desk: Desk, held: ApprovalRequest
) -> None:
    for path in ("", f"/{held.id}"):
        assert told(await desk.get(path, who="eve")) == (403, "role_missing")


@pytest.mark.req("GW-12")
async def test_a_vote_on_another_binding_is_a_conflict(desk: Desk, held: ApprovalRequest) -> None:
    answer = await desk.vote(held, "ann", binding="sha256:" + "0" * 64)
    assert told(answer) == (409, "approval_conflict")
    assert await desk.state(held) == "PENDING"


@pytest.mark.req("GW-12")
async def test_a_second_word_and_a_late_vote_are_conflicts(
    desk: Desk, held: ApprovalRequest
) -> None:
    await desk.vote(held, "ann")
    assert told(await desk.vote(held, "ann", "deny")) == (409, "approval_conflict")
    assert told(await desk.vote(held, "bob", "deny")) == (409, "approval_conflict")
    assert await desk.state(held) == "APPROVED"


@pytest.mark.req("GW-12")
async def test_a_click_that_comes_twice_counts_once(desk: Desk, held: ApprovalRequest) -> None:
    await desk.vote(held, "ann")
    again = await desk.vote(held, "ann")
    assert (again.status_code, again.json()["state"]) == (200, "APPROVED")
    assert desk.recorded().count("approval.vote") == 1


@pytest.mark.req("GW-12")
async def test_what_ran_out_of_time_cannot_be_approved(
    desk: Desk,
    held: ApprovalRequest,
    clock: Any,  # noqa: ANN401 - the fixture's fixed clock
) -> None:
    clock.now_s = held.expires_at
    assert told(await desk.vote(held, "ann")) == (409, "approval_conflict")
    assert (await desk.get(f"/{held.id}")).json()["state"] == "EXPIRED"


@pytest.mark.req("GW-12")
async def test_while_the_log_cannot_be_written_a_vote_releases_nothing(
    desk: Desk, held: ApprovalRequest
) -> None:
    desk.audit.overload()
    assert told(await desk.vote(held, "ann")) == (503, "audit_overloaded")
    assert desk.approved == []
    desk.audit.overload(overloaded_now=False)
    assert (await desk.vote(held, "ann")).status_code == 200
    assert [id_ for id_, _ in desk.approved] == [held.id]
    assert desk.recorded() == ["approval.request", "approval.vote", "approval.grant"]


@pytest.mark.req("GW-12")
async def test_an_operator_cancels_what_was_not_sent(desk: Desk, held: ApprovalRequest) -> None:
    await desk.vote(held, "ann")
    claimed = await desk.store.move(
        held.id,
        source="APPROVED",
        target="CLAIMED",
        now_s=held.created_at,
        event=None,
        claim_token="t",
    )
    assert claimed is not None
    answer = await desk.post(f"/{held.id}/cancel", {"reason": "wrong order"}, who="otto")
    assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")
    assert desk.recorded()[-1] == "approval.cancel"
    again = await desk.post(f"/{held.id}/cancel", {"reason": "again"}, who="otto")
    assert told(again) == (409, "approval_conflict")


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(("ran", "state"), [(True, "EXECUTED"), (False, "FAILED")])
async def test_an_operator_says_once_whether_an_unknown_call_ran(
    ran: bool,  # noqa: FBT001 - drawn
    state: str,
    desk: Desk,
    held: ApprovalRequest,
) -> None:
    await desk.vote(held, "ann")
    steps: list[tuple[State, State]] = [
        ("APPROVED", "CLAIMED"),
        ("CLAIMED", "DISPATCHED"),
        ("DISPATCHED", "UNKNOWN"),
    ]
    for source, target in steps:
        await desk.store.move(
            held.id,
            source=source,
            target=target,
            now_s=held.created_at,
            event=None,
            claim_token="t",
        )
    body = {"ran": ran, "reason": "as its ledger says"}
    answer = await desk.post(f"/{held.id}/resolve", body, who="otto")
    assert (answer.status_code, answer.json()["state"]) == (200, state)
    after = await desk.store.get(held.id)
    assert after is not None
    assert after.outcome == ("resolved_ran" if ran else "resolved_not_ran")
    assert desk.recorded()[-1] == "approval.resolve"
    assert len(desk.approved) == 1
    again = await desk.post(f"/{held.id}/resolve", {**body, "ran": not ran}, who="otto")
    assert told(again) == (409, "approval_conflict")


async def test_the_requester_s_side_does_not_say_whether_its_call_ran(
    desk: Desk, make_request: MakeRequest
) -> None:
    held = await desk.hold(make_request(separation=("refund-bot", "otto")))
    answer = await desk.post(f"/{held.id}/resolve", {"ran": False, "reason": "x"}, who="otto")
    assert told(answer) == (403, "approval_forbidden")


async def test_an_approver_cancels_nothing(desk: Desk, held: ApprovalRequest) -> None:
    answer = await desk.post(f"/{held.id}/cancel", {"reason": "x"}, who="ann")
    assert told(answer) == (403, "role_missing")
    assert await desk.state(held) == "PENDING"


@pytest.mark.parametrize("path", ["", "/votes", "/cancel"])
async def test_what_is_not_there_is_not_found(path: str, desk: Desk, held: ApprovalRequest) -> None:
    unknown = replace(held, id="f" * 32)
    if path == "":
        answer = await desk.get(f"/{unknown.id}")
    elif path == "/votes":
        answer = await desk.vote(unknown, "ann")
    else:
        answer = await desk.post(f"/{unknown.id}/cancel", {"reason": "x"}, who="otto")
    assert told(answer) == (404, "approval_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "body_invalid"),
        (b"{", 400, "body_invalid"),
        (b"[]", 400, "request_invalid"),
        (b'{"decision":"approve"}', 400, "request_invalid"),
        (b'{"decision":"perhaps","binding":"b"}', 400, "request_invalid"),
        (b'{"decision":"approve","binding":"b","as":"bob"}', 400, "request_invalid"),
        (b'{"decision":"deny","decision":"approve","binding":"b"}', 400, "body_invalid"),
        (
            b'{"decision":"approve","binding":"b","reason":"%s"}' % (b"x" * 2001),
            400,
            "request_invalid",
        ),
        (b'{"decision":"approve","binding":"%s"}' % (b"x" * 20_000), 413, "body_too_large"),
        (b'{"decision":"approve","binding":{"a":{"b":1}}}', 400, "body_invalid"),
    ],
)
async def test_a_body_that_is_no_vote_is_refused(
    body: bytes, status: int, code: str, desk: Desk, held: ApprovalRequest
) -> None:
    answer = await desk.client.post(
        f"/v1/approvals/{held.id}/votes", content=body, headers=bearer(secret_of("ann"))
    )
    assert told(answer) == (status, code)
    assert await desk.state(held) == "PENDING"


def agent_token() -> str:
    """Sign a genuine access token of an agent that even calls itself an approver."""
    claims = Claims(
        issuer="https://gw.test",
        audience="https://gw.test",
        subject="ann",
        client_id="ann",
        jti="j",
        issued_at=0,
        expires_at=2_000_000_000,
        scopes=frozenset({SCOPE_CALL}),
        grants=(),
        environment="test",
        run_id="r",
        root_jti="j",
        sid="s",
        roles=("approver", "finance"),
    )
    return sign_token(claims, generate_token_key())


HASH = "sha256:" + hashlib.sha256(secret_of("ann").encode()).hexdigest()


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(
    "method_path",
    ["GET ", "GET /{id}", "POST /{id}/votes", "POST /{id}/cancel", "POST /{id}/resolve"],
)
@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        ("Bearer", "token_missing"),
        ("Bearer  ", "token_missing"),
        ("Basic YW5uOnNlY3JldA==", "token_missing"),
        ("Bearer wrong", "token_invalid"),
        (f"Bearer {HASH}", "token_invalid"),
        (f"Bearer {HASH.removeprefix('sha256:')}", "token_invalid"),
        ("Bearer ann", "token_invalid"),
        (agent_token(), "token_missing"),
        (f"Bearer {agent_token()}", "token_invalid"),
        (f"DPoP {agent_token()}", "token_missing"),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_no_agent_s_token_and_no_stranger_reaches_an_approval(
    method_path: str, authorization: str | None, code: str, desk: Desk, held: ApprovalRequest
) -> None:
    method, path = method_path.split(" ")
    headers = {} if authorization is None else {"Authorization": authorization}
    body = {"decision": "approve", "binding": held.binding, "reason": "x"}
    answer = await desk.client.request(
        method, f"/v1/approvals{path.format(id=held.id)}", headers=headers, json=body
    )
    assert told(answer) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await desk.state(held) == "PENDING"
    assert desk.recorded() == []
    assert desk.refused == [("authenticate", code)]


@pytest.mark.req("TOK-08")
async def test_a_stage_that_asks_for_a_passkey_is_met_by_a_session_that_began_with_one(
    desk: Desk, make_request: MakeRequest
) -> None:
    spec = ApprovalSpec(stages=((Stage(groups=("finance",), min_assurance="strong"),),))
    held = await desk.hold(make_request(spec=spec))
    refused = await desk.vote(held, "ann")
    assert told(refused) == (403, "approval_assurance")
    assert "countersign login --strong" in refused.json()["detail"]
    body = {"decision": "approve", "reason": "", "binding": held.binding}
    headers = bearer(f"{CREDENTIAL_PREFIX}ann")  # the same person, more surely
    path = f"/v1/approvals/{held.id}/votes"
    answer = await desk.client.post(path, json=body, headers=headers)
    assert answer.json()["state"] == "APPROVED"
    votes = [one for one in desk.audit.records if one["type"] == "approval.vote"]
    assert [one["assurance"] for one in votes] == ["strong"]
