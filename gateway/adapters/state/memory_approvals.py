"""Held calls in memory: the twin of `SqlApprovals`, kept to it by the same contract tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.approvals.approval import (
    EXPIRABLE,
    LIVE,
    ApprovalRequest,
    State,
    Vote,
    decide_vote,
    moved,
    resolved,
    seen_at,
)
from gateway.core.errors import ApprovalError
from gateway.core.limits import Limits
from gateway.core.ports import Clock, OutboxEvent
from gateway.core.records.approval_entries import expiry_event


class MemoryApprovals:
    """Held calls that are gone when the process is. Promises as `SqlApprovals`, but durability."""

    def __init__(self, *, clock: Clock, pending_max: int = Limits().pending_per_agent_max) -> None:
        self._clock = clock
        self._pending_max = pending_max
        self._requests: dict[str, ApprovalRequest] = {}
        self._votes: dict[str, list[Vote]] = {}
        self._outbox: dict[str, OutboxEvent] = {}

    async def create(self, request: ApprovalRequest, event: OutboxEvent) -> ApprovalRequest:
        """Store a PENDING request with its event, or return the live one that it joins."""
        if request.state != "PENDING":
            raise ApprovalError("a request starts `PENDING`", code="approval_illegal_move")
        standing = [seen_at(other, request.created_at) for other in self._requests.values()]
        for other in standing:
            if other.state in LIVE and _join_key(other) == _join_key(request):
                return other
        waiting = [one for one in standing if (one.agent, one.state) == (request.agent, "PENDING")]
        if len(waiting) >= self._pending_max:
            raise ApprovalError(
                f"`{request.agent}` has {self._pending_max} calls waiting for approval; "
                "decide or cancel some first",
                code="too_many_pending",
            )
        self._requests[request.id] = request
        self._emit(event)
        return request

    async def get(self, request_id: str) -> ApprovalRequest | None:
        """Return one request as it stands now."""
        found = self._requests.get(request_id)
        return None if found is None else seen_at(found, self._now_s())

    async def get_by_op(self, op: str) -> ApprovalRequest | None:
        """Return the request that a call of this operation id became, as it stands now."""
        return next(
            (one for one in await self.find(limit=len(self._requests)) if one.op == op), None
        )

    async def find(
        self, *, states: Sequence[State] = (), after: str = "", limit: int = 100
    ) -> list[ApprovalRequest]:
        """Return requests as they stand now, oldest first; of all states unless told.

        `after`: only those behind the one of this id; none where there is no such request.
        """
        now_s = self._now_s()
        standing = [seen_at(request, now_s) for request in self._requests.values()]
        chosen = [request for request in standing if not states or request.state in states]
        if after:
            last = self._requests.get(after)
            chosen = [one for one in chosen if last is not None and _place(one) > _place(last)]
        return sorted(chosen, key=_place)[:limit]

    async def votes(self, request_id: str) -> list[Vote]:
        """Return the votes on a request in the order they came."""
        return list(self._votes.get(request_id, ()))

    async def vote(
        self, vote: Vote, now_s: int, events: Mapping[str, OutboxEvent]
    ) -> ApprovalRequest:
        """Count a vote and move the state if it decides."""
        request = self._requests.get(vote.request_id)
        if request is None:
            raise ApprovalError("there is no such request", code="approval_not_found")
        votes = self._votes.setdefault(vote.request_id, [])
        state = decide_vote(request, votes, vote, now_s)
        if state is None:
            return seen_at(request, now_s)
        votes.append(vote)
        self._emit(events["VOTE"])
        after = resolved(request, state, now_s)
        if after is not request:
            self._requests[request.id] = after
            self._emit(events[state])
        return after

    async def move(
        self,
        request_id: str,
        *,
        source: State,
        target: State,
        now_s: int,
        event: OutboxEvent | None,
        claim_token: str | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> ApprovalRequest | None:
        """Compare-and-set `source` → `target`; None when the request was not there any more."""
        request = self._requests.get(request_id)
        after = request and moved(
            request,
            source=source,
            target=target,
            now_s=now_s,
            claim_token=claim_token,
            changes=changes,
        )
        if not after:
            return None
        self._requests[request_id] = after
        if event is not None:
            self._emit(event)
        return after

    async def expire_due(self, now_s: int) -> list[ApprovalRequest]:
        """Move every request whose time is over to EXPIRED, each with its event; return them."""
        expired = []
        for request in list(self._requests.values()):
            if request.state not in EXPIRABLE:
                continue
            after = moved(request, source=request.state, target="EXPIRED", now_s=now_s)
            if after:
                self._requests[request.id] = after
                self._emit(expiry_event(after))
                expired.append(after)
        return expired

    async def outbox(self, limit: int = 100) -> list[OutboxEvent]:
        """Return events not yet relayed, in order."""
        return list(self._outbox.values())[:limit]

    async def relayed(self, event_ids: Sequence[str]) -> None:
        """Forget events that are durable in the log."""
        for event_id in event_ids:
            self._outbox.pop(event_id, None)

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000

    def _emit(self, event: OutboxEvent) -> None:
        self._outbox[event.event_id] = event


def _join_key(request: ApprovalRequest) -> tuple[str, str, str, str]:
    return (request.agent, request.run_id, request.tool_id, request.join_digest)


def _place(request: ApprovalRequest) -> tuple[int, str]:
    return request.created_at, request.id
