"""The approvers' REST API: read held calls, vote on them, cancel them (DESIGN §5).

Reads never change anything. Errors are `application/problem+json`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast, get_args

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway.core.approvals.approval import (
    APPROVER,
    EXPIRABLE,
    ApprovalRequest,
    State,
    Vote,
    is_separated,
    next_state,
    stage_of,
)
from gateway.core.approvals.declined import Declined
from gateway.core.errors import ApprovalError, RequestError
from gateway.core.ports import ApprovalStore, Clock, Ids
from gateway.core.records.approval_entries import state_event, vote_events
from gateway.http.admin_route import (
    REASON_MAX_CHARS,
    ProblemRoute,
    decline,
    read_body,
    reply,
    require_role,
)
from gateway.http.approval_views import build_summary, build_view
from gateway.http.humans import Admit, Human, Humans
from gateway.http.openapi import takes

OPERATOR: Final = "operator"
"""The role that may cancel what waits, and say what became of a call that may have run."""

LIST_MAX: Final = 500
CANCEL_ATTEMPTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class ApprovalDeps:
    """What the routes need.

    `relay` returns once all committed events are durable in the audit log (`OutboxRelay.drain`).
    `on_approved` gets a request's id after that; it may be told twice and returns at once.
    `on_decided` too, for whatever ended or approved a request: whoever waits for it may look.
    `voting_roles` are the roles of a person that count in a vote now: not those that are too new.
    `standing` is what of an earlier vote counts now, None where nothing does: it is not sent upon.
    """

    store: ApprovalStore
    humans: Humans
    admit: Admit
    clock: Clock
    ids: Ids
    relay: Callable[[], Awaitable[None]]
    on_approved: Callable[[str], None]
    voting_roles: Callable[[Human], tuple[str, ...]]
    standing: Callable[[Vote], Vote | None]
    on_decided: Callable[[str], None] = lambda _request_id: None


Comment = Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARS)]


class VoteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST …/votes`. `binding` is that of the request as the voter saw it."""

    decision: Literal["approve", "deny"]
    binding: str
    reason: Comment = ""


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST …/cancel`."""

    reason: Comment


class ResolveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST …/resolve`. `ran`: whether the tool did it, as found in its own records."""

    ran: bool
    reason: Comment


def build_router(deps: ApprovalDeps) -> APIRouter:
    """Build `GET /v1/approvals[/{id}]` and `POST /v1/approvals/{id}/(votes|cancel|resolve)`."""
    router = APIRouter(prefix="/v1/approvals", tags=["approvals"], route_class=ProblemRoute)

    @router.get("")
    async def find(
        request: Request,
        state: Annotated[tuple[str, ...], Query()] = (),
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=LIST_MAX)] = 100,
    ) -> Response:
        """List held calls, oldest first; those behind the one whose id is `after`."""
        await require_role(deps.admit, request, APPROVER, OPERATOR)
        states = [_state(name) for name in state]
        if after:
            await _load(deps, after)
        found = await deps.store.find(states=states, after=after, limit=limit + 1)
        views = [build_summary(one) for one in found[:limit]]
        return reply({"approvals": views, "more": len(found) > limit})

    @router.get("/{request_id}")
    async def show(request: Request, request_id: str) -> Response:
        """Show one held call with everything that a vote is about."""
        await require_role(deps.admit, request, APPROVER, OPERATOR)
        return await _view(deps, await _load(deps, request_id))

    @router.post("/{request_id}/votes")
    @takes(VoteBody)
    async def vote(request: Request, request_id: str) -> Response:
        """Count the caller's vote; answered once it is durable in the audit log."""
        human = await require_role(deps.admit, request, APPROVER)
        body = await read_body(request, VoteBody)
        if body.decision == "deny" and not body.reason.strip():
            raise RequestError("say why: a denial needs a `reason`", code="request_invalid")
        voted = await _vote(deps, human, request_id, body)
        return decline(voted) if isinstance(voted, Declined) else await _view(deps, voted)

    @router.post("/{request_id}/cancel")
    @takes(CancelBody)
    async def cancel(request: Request, request_id: str) -> Response:
        """Take back a call that was not dispatched yet."""
        human = await require_role(deps.admit, request, OPERATOR)
        body = await read_body(request, CancelBody)
        return await _view(deps, await _cancel(deps, human, request_id, body.reason))

    @router.post("/{request_id}/resolve")
    @takes(ResolveBody)
    async def resolve(request: Request, request_id: str) -> Response:
        """Say whether a call in state UNKNOWN ran. Nothing is sent either way."""
        human = await require_role(deps.admit, request, OPERATOR)
        body = await read_body(request, ResolveBody)
        return await _view(deps, await _resolve(deps, human, request_id, body))

    return router


async def _vote(
    deps: ApprovalDeps, human: Human, request_id: str, body: VoteBody
) -> ApprovalRequest | Declined:
    request = await _load(deps, request_id)
    now_s = deps.clock.now_ns() // 1_000_000_000
    groups = deps.voting_roles(human)
    if _is_too_new(request, human, groups):
        return Declined(
            "vote_too_early",
            "your right to vote here is too new to count; ask another approver, or vote later",
        )
    vote = Vote(
        request_id=request_id,
        voter=human.id,
        decision=body.decision,
        binding=body.binding,
        groups=groups,
        reason=body.reason,
        voted_at=now_s,
        assurance=human.acr,
    )
    # The store judges binding, separation and groups in the transaction that counts the vote.
    events = vote_events(request, vote, event_id=deps.ids.new())
    after = await deps.store.vote(vote, now_s, events)
    # INVARIANT: the vote is in the log before anybody hears of it, and before anything is sent.
    await deps.relay()
    if after.state == "APPROVED":
        deps.on_approved(request_id)
    if after.state != "PENDING":
        deps.on_decided(request_id)
    return after


def _is_too_new(request: ApprovalRequest, human: Human, counting: tuple[str, ...]) -> bool:
    """Whether only what a person was given lately lets them vote on `request`."""
    may = APPROVER in counting and stage_of(request.spec, counting) is not None
    return not may and stage_of(request.spec, human.roles) is not None


async def _cancel(
    deps: ApprovalDeps, human: Human, request_id: str, reason: str
) -> ApprovalRequest:
    for _ in range(CANCEL_ATTEMPTS):
        request = await _load(deps, request_id)
        if request.state not in EXPIRABLE:
            break
        after = await deps.store.move(
            request_id,
            source=request.state,
            target="CANCELLED",
            now_s=deps.clock.now_ns() // 1_000_000_000,
            event=state_event(request, "cancel", "CANCELLED", by=human.id, reason=reason),
            claim_token=request.claim_token,
        )
        if after is not None:
            await deps.relay()
            deps.on_decided(request_id)
            return after
    raise ApprovalError(
        "the call can no longer be cancelled; read the request again", code="approval_conflict"
    )


async def _resolve(
    deps: ApprovalDeps, human: Human, request_id: str, body: ResolveBody
) -> ApprovalRequest:
    request = await _load(deps, request_id)
    if is_separated(human.id, request.separation):
        raise ApprovalError(
            "the requester's side cannot say whether its call ran", code="approval_forbidden"
        )
    target = next_state("UNKNOWN", "found_run" if body.ran else "found_not_run")
    after = await deps.store.move(
        request_id,
        source="UNKNOWN",
        target=target,
        now_s=deps.clock.now_ns() // 1_000_000_000,
        event=state_event(request, "resolve", target, by=human.id, reason=body.reason),
        changes={"outcome": "resolved_ran" if body.ran else "resolved_not_ran"},
    )
    if after is None:
        raise ApprovalError(
            f"only `UNKNOWN` is resolved; the call is `{request.state}`", code="approval_conflict"
        )
    await deps.relay()
    deps.on_decided(request_id)
    return after


async def _load(deps: ApprovalDeps, request_id: str) -> ApprovalRequest:
    found = await deps.store.get(request_id)
    if found is None:
        raise ApprovalError("there is no such request", code="approval_not_found")
    return found


async def _view(deps: ApprovalDeps, request: ApprovalRequest) -> Response:
    votes = await deps.store.votes(request.id)
    people = {
        name: deps.voting_roles(Human(name, tuple(roles)))
        for name, roles in deps.humans.everyone().items()
        if APPROVER in roles
    }
    counting = [vote for vote in map(deps.standing, votes) if vote is not None]
    return reply(build_view(request, votes, counting, people))


def _state(name: str) -> State:
    if name not in get_args(State):
        raise RequestError(
            f"`{name[:32]}` is no state; use one of {', '.join(get_args(State))}",
            code="request_invalid",
        )
    return cast("State", name)
