from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from gateway.core.approvals.approval import (
    EXPIRABLE,
    LIVE,
    TERMINAL,
    TRANSITIONS,
    ApprovalRequest,
    Move,
    State,
    moved,
    next_state,
    seen_at,
)
from gateway.core.errors import ApprovalError

MakeRequest = Callable[..., ApprovalRequest]

STATES: tuple[State, ...] = get_args(State)
MOVES: tuple[Move, ...] = get_args(Move)
DOCUMENT = Path(__file__).parents[3] / "docs" / "approvals.md"


def draw() -> str:
    """Draw `TRANSITIONS` as the Mermaid diagram that docs/approvals.md shows."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> PENDING"]
    lines += [
        f"    {source} --> {target}: {move}"
        for source, moves in TRANSITIONS.items()
        for move, target in moves.items()
    ]
    lines += [f"    {state} --> [*]" for state in TRANSITIONS if state in TERMINAL]
    return "\n".join([*lines, "```"])


@pytest.mark.req("GW-12")
def test_the_diagram_in_the_document_is_the_table() -> None:
    assert draw() in DOCUMENT.read_text()


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(("state", "move"), list(product(STATES, MOVES)))
def test_every_move_leads_where_the_table_says_or_raises(state: State, move: Move) -> None:
    if move in TRANSITIONS[state]:
        assert next_state(state, move) == TRANSITIONS[state][move]
    else:
        with pytest.raises(
            ApprovalError, match=f"`{move}` is no move of state `{state}`"
        ) as raised:
            next_state(state, move)
        assert raised.value.code == "approval_illegal_move"


def test_every_state_is_in_the_table_and_every_move_is_used() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {move for moves in TRANSITIONS.values() for move in moves} == set(MOVES)


def test_what_is_decided_for_good_and_what_waits() -> None:
    assert {"EXECUTED", "FAILED", "DENIED", "EXPIRED", "CANCELLED", "STALE"} == TERMINAL
    assert {"PENDING", "APPROVED", "CLAIMED"} == EXPIRABLE
    assert {"DISPATCHED", "UNKNOWN"} == LIVE - EXPIRABLE


@pytest.mark.req("GW-12")
@pytest.mark.parametrize(("source", "target"), list(product(STATES, STATES)))
def test_a_move_off_the_table_raises(
    source: State, target: State, make_request: MakeRequest
) -> None:
    request = make_request(state=source, claim_token="t")
    legal = target in TRANSITIONS[source].values()
    by_votes = source == "PENDING" and target in {"APPROVED", "DENIED"}
    if legal and not by_votes:
        now_s = request.expires_at if target == "EXPIRED" else request.created_at
        after = moved(request, source=source, target=target, now_s=now_s, claim_token="t")
        assert after is not None
        assert (after.state, after.version, after.updated_at) == (target, 2, now_s)
    else:
        with pytest.raises(ApprovalError) as raised:
            moved(request, source=source, target=target, now_s=request.created_at)
        assert raised.value.code == "approval_illegal_move"


@pytest.mark.req("GW-12")
def test_nothing_is_claimed_or_dispatched_at_the_second_of_expiry(
    make_request: MakeRequest,
) -> None:
    approved, claimed = make_request(state="APPROVED"), make_request(state="CLAIMED")
    claimed = replace(claimed, claim_token="t")
    at = approved.expires_at
    before = moved(approved, source="APPROVED", target="CLAIMED", now_s=at - 1, claim_token="t")
    assert before is not None
    assert moved(approved, source="APPROVED", target="CLAIMED", now_s=at, claim_token="t") is None
    late = moved(claimed, source="CLAIMED", target="DISPATCHED", now_s=at, claim_token="t")
    assert late is None


def test_nothing_expires_before_its_time(make_request: MakeRequest) -> None:
    request = make_request()
    early = moved(request, source="PENDING", target="EXPIRED", now_s=request.expires_at - 1)
    assert early is None


def test_a_dispatched_call_ends_after_its_expiry_too(make_request: MakeRequest) -> None:
    request = make_request(state="DISPATCHED", claim_token="t")
    after = moved(
        request,
        source="DISPATCHED",
        target="EXECUTED",
        now_s=request.expires_at + 60,
        claim_token="t",
        changes={"outcome": "ok", "result": b"{}"},
    )
    assert after is not None
    assert (after.state, after.outcome, after.result, after.claim_token) == (
        "EXECUTED",
        "ok",
        b"{}",
        None,
    )


@pytest.mark.req("GW-12")
@pytest.mark.parametrize("token", ["other", None])
def test_another_claim_token_moves_nothing(token: str | None, make_request: MakeRequest) -> None:
    request = make_request(state="CLAIMED", claim_token="mine")
    now_s = request.created_at
    assert (
        moved(request, source="CLAIMED", target="DISPATCHED", now_s=now_s, claim_token=token)
        is None
    )


def test_a_claim_without_a_token_is_refused(make_request: MakeRequest) -> None:
    request = make_request(state="APPROVED")
    with pytest.raises(ApprovalError, match="needs a claim token"):
        moved(request, source="APPROVED", target="CLAIMED", now_s=request.created_at)


@pytest.mark.parametrize("field", ["arguments", "binding", "expires_at", "separation", "state"])
def test_a_move_changes_nothing_that_was_signed(field: str, make_request: MakeRequest) -> None:
    request = make_request(state="APPROVED")
    with pytest.raises(ApprovalError, match="changes only"):
        moved(
            request,
            source="APPROVED",
            target="CLAIMED",
            now_s=request.created_at,
            claim_token="t",
            changes={field: b"x"},
        )


def test_a_take_over_brings_its_own_claim_token(make_request: MakeRequest) -> None:
    request = make_request(state="DISPATCHED", claim_token="dead")
    after = moved(
        request,
        source="DISPATCHED",
        target="DISPATCHED",
        now_s=request.created_at,
        claim_token="dead",
        changes={"claim_token": "new", "lease_until": 5},
    )
    assert after is not None
    assert (after.claim_token, after.lease_until) == ("new", 5)


def test_a_request_past_its_time_is_seen_as_expired(make_request: MakeRequest) -> None:
    request = make_request()
    assert seen_at(request, request.expires_at - 1) is request
    assert seen_at(request, request.expires_at).state == "EXPIRED"
    dispatched = make_request(state="DISPATCHED")
    assert seen_at(dispatched, request.expires_at) is dispatched
