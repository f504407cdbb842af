"""Sending a held call once people have agreed: at most once, whatever dies (DESIGN §5).

The order below is the whole argument. A state of the store and a record of the log together say,
after any crash, whether the tool may have been reached:

====================  ==========================  ==========================================
store                 log                         so, at the next start
====================  ==========================  ==========================================
CLAIMED               no intent                   nothing was sent: APPROVED again
DISPATCHED            no intent                   nothing was sent: APPROVED again
DISPATCHED            intent, no outcome          it may have been sent: UNKNOWN, never again
DISPATCHED            intent and outcome          it was: EXECUTED or FAILED, as recorded
====================  ==========================  ==========================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Literal, Protocol

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.core import strict_json
from gateway.core.approvals.approval import (
    ApprovalRequest,
    State,
    Vote,
    obligations_digest,
    spec_digest,
    tally,
)
from gateway.core.calls.answer import Completed, Refused
from gateway.core.calls.call import Arguments, AuthenticatedCall, CallMeta, RawCall, ResolvedCall
from gateway.core.canonical import digest
from gateway.core.errors import CountersignError, UpstreamError
from gateway.core.kills.kill import FEED_STALE, find_revocations
from gateway.core.limits import Limits
from gateway.core.policy.decision import Deny, Hold, Permit
from gateway.core.ports import ApprovalStore, Barred, Clock, Ids, RunStore
from gateway.core.records.approval_entries import state_event
from gateway.core.records.call_records import data_subject
from gateway.core.refusal import Refusal, is_unavailable
from gateway.core.tokens.token import Claims, Run
from gateway.enforce import Enforcement
from gateway.holding import HoldDesk
from gateway.judge import Denied, Judge, Permitted
from gateway.logs import describe

LEASE_S: Final = 120
_ENDED: Final = ("DENIED", "EXPIRED", "CANCELLED", "STALE", "UNKNOWN")
_UNSENT: Final = frozenset({"audit_overloaded", "audit_record_invalid"})
"""Why there is no intent to send upon; one that comes late, the log closes `not_sent`."""

_log: Final = structlog.get_logger("gateway.dispatch")

Step = Literal["claimed", "judged", "dispatched", "relayed", "executed"]


class Fresh(Struct, frozen=True):
    """A held call that may go now, as resolved and judged a moment ago."""

    resolved: ResolvedCall
    permit: Permit
    verdict: Permitted


class Stale(Struct, frozen=True):
    """A held call that people agreed to, but that is no longer what they agreed to."""

    reason: str
    judged: tuple[Permit | Hold | Deny, bytes, str] | None = None
    """What policy decided, on what, and under whose key that is kept, where that is the reason."""


class RecoveredOperation(Protocol):
    """What the log says of one operation: whether an intent stands, and how it ended if it did."""

    @property
    def intent(self) -> bool:
        """Whether it may have been sent."""
        ...

    @property
    def outcome_status(self) -> str | None:
        """The status of its outcome; `not_sent` or `unknown` where it was not surely sent."""
        ...

    @property
    def approval(self) -> str:
        """The id of the held call that was sent."""
        ...


class Dispatcher:
    """Frees approved calls.

    `refresh` lists a server anew; `active` says which agent may act, `standing` what of a vote
    counts now, `cut` why a run could not be launched any more.
    """

    def __init__(
        self,
        *,
        store: ApprovalStore,
        runs: RunStore,
        desk: HoldDesk,
        judge: Judge,
        enforcement: Enforcement,
        relay: Callable[[], Awaitable[None]],
        refresh: Callable[[str], Awaitable[UpstreamError | None]],
        active: Callable[[str], bool],
        barred: Barred,
        told: Callable[[str], bool],
        endpoints: Mapping[str, str],
        clock: Clock,
        ids: Ids,
        limits: Limits,
        standing: Callable[[Vote], Vote | None],
        cut: Callable[[Run], str | None],
        reached: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        self._store = store
        self._runs = runs
        self._desk = desk
        self._judge = judge
        self._enforcement = enforcement
        self._relay = relay
        self._refresh = refresh
        self._active = active
        self._standing = standing
        self._cut = cut
        self._barred = barred
        self._told = told
        self._endpoints = endpoints
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._reached = reached  # a seam for fault injection: called after each durable step
        self._running: dict[str, asyncio.Task[None]] = {}
        self._away: set[str] = set()
        self._sent_before: dict[str, RecoveredOperation] = {}
        self._owed: dict[str, Callable[[], Awaitable[object]]] = {}

    def schedule(self, request_id: str) -> None:
        """Dispatch in the background, once at a time for each request."""
        if request_id in self._running:
            return
        task = asyncio.create_task(self._guarded(request_id), name=f"dispatch-{request_id}")
        self._running[request_id] = task
        task.add_done_callback(lambda _task: self._running.pop(request_id, None))

    async def close(self) -> None:
        """Wait for every dispatch under way: none is cut off between intent and outcome."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _guarded(self, request_id: str) -> None:
        try:
            await self.dispatch(request_id)
        except CountersignError as error:
            _log.warning("dispatch_failed", approval=request_id, code=error.code)
        except Exception as error:  # noqa: BLE001 - told by its type: a message could hold a value
            _log.error("dispatch_failed", approval=request_id, error=describe(error))
        finally:
            self._desk.changed(request_id)

    async def dispatch(self, request_id: str) -> None:
        """Take an APPROVED request to its end. Does nothing where it is not APPROVED any more."""
        request = await self._store.get(request_id)
        if request is None or not _is_due(request):
            return
        # 1. Claim it: of two dispatchers one goes on.
        claimed = await self._move(request, "CLAIMED", token=self._ids.new())
        if claimed is None or await self._was_sent(claimed):
            return
        self._reached("claimed")
        # 2. Is it still what people agreed to? Looked up live, judged under today's policy.
        try:
            await self._relay()  # what was voted is in the log, or it does not count
            fresh = await self._refreshed(claimed)
        except Exception:
            await self._move(claimed, "APPROVED")
            raise
        if fresh is None:  # tool or policy cannot be asked now; try again later
            await self._move(claimed, "APPROVED")
            return
        if isinstance(fresh, Stale):
            event = state_event(claimed, "stale", "STALE", judged=fresh.judged)
            await self._move(claimed, "STALE", event_of=event, outcome=fresh.reason)
            await self._relay()
            return
        self._reached("judged")
        # 3. Point of no return, in the store first, so that a crash from here on is never retried
        #    unless the log proves that no intent was written.
        try:
            sent = await self._move(claimed, "DISPATCHED")
        except Exception:
            await self._take_back(claimed, fresh)
            raise
        if sent is None:
            self._judge.give_back(fresh.verdict.charge)
            return
        self._reached("dispatched")
        # 4. The votes are in the log before the effect that they allow.
        try:
            await self._relay()
        except CountersignError:  # no intent was even tried: certainly not sent
            await self._take_back(sent, fresh)
            raise
        self._reached("relayed")
        if self._barred(fresh.resolved.call.claims, fresh.resolved.tool) is not None:
            await self._take_back(sent, fresh)  # stopped meanwhile: the next look lets go of it
            return
        # 5. Intent, effect, outcome: the same path as every call.
        answer = await self._enforcement.execute(
            fresh.resolved,
            fresh.permit,
            fresh.verdict.document,
            fresh.verdict.charge,
            approval=sent,
        )
        self._reached("executed")
        # 6. The state follows the log.
        await self._settle(sent, answer)

    async def _take_back(self, request: ApprovalRequest, fresh: Fresh) -> None:
        self._judge.give_back(fresh.verdict.charge)
        await self._insist(request.id, partial(self._move, request, "APPROVED"))

    async def _insist(self, request_id: str, move: Callable[[], Awaitable[object]]) -> None:
        """Make a move; where the state does not take it now, the sweep tries again until it does.

        For requests that are DISPATCHED, which nothing else looks after before the next start, and
        for results, which stand nowhere else.
        """
        self._owed[request_id] = move
        await move()
        del self._owed[request_id]

    async def _was_sent(self, claimed: ApprovalRequest) -> bool:
        """Whether the log says that it was sent: an old store was put back. Copies its end."""
        known = self._sent_before.get(claimed.id)
        if known is None:
            return False
        sent = await self._move(claimed, "DISPATCHED")
        if sent is not None:
            await self._follow(sent, known)
        return True

    async def _refreshed(self, request: ApprovalRequest) -> Fresh | Stale | None:
        """Check everything that may have changed since people agreed. Numbered by attack."""
        now_ns = self._clock.now_ns()
        # 1. The stored request was tampered with: its parts no longer make its binding.
        if self._desk.binding_of(request) != request.binding or _is_altered(request):
            return Stale("binding_broken")
        # 2. The state was set to APPROVED by somebody with the disk: the votes must say so too,
        #    without those of people who were stopped since, let go on or not, or may not vote now,
        #    and without the groups that a voter has lost.
        stored = await self._store.votes(request.id)
        votes = [vote for vote in map(self._standing, stored) if vote is not None]
        tallied = tally(request.spec, votes, request.separation, binding=request.binding)
        if tallied != "APPROVED":
            return Stale("votes_missing")
        # 3. The votes were forged as well, or the request had ended and an old state was put back:
        #    the log has to have told of the approval, and of no end.
        if not self._told(f"{request.id}:APPROVED"):
            return Stale("approval_unrecorded")
        if any(self._told(f"{request.id}:{state}") for state in _ENDED):
            return Stale("already_ended")
        # 4. The run was ended or ran out, the agent was suspended, somebody pulled the switch.
        authority = await self._current_authority(request, now_ns // 1_000_000_000)
        if authority is None:
            return Stale("authority_ended")
        # 5. The tool changed behind its name, or its server moved.
        if await self._refresh(request.server) is not None:
            self._away.add(request.server)
            return None
        self._away.discard(request.server)
        resolved = self._resolve(request, authority, now_ns)
        if isinstance(resolved, Refusal):
            return Stale(resolved.code)
        changed = self._find_change(request, resolved)
        if changed is not None:  # where it is not known what is stopped, it waits until it is
            return None if changed == FEED_STALE else Stale(changed)
        # 6. Policy changed its mind: it denies now, asks other people, or asks something more.
        return await self._rejudged(request, resolved)

    def _find_change(self, request: ApprovalRequest, resolved: ResolvedCall) -> str | None:
        """Say what keeps this tool from being what people agreed to, if anything does."""
        if resolved.tool.definition_digest != request.definition_digest:
            return "definition_changed"
        if self._endpoints.get(request.server) != request.endpoint_digest:
            return "endpoint_changed"
        return self._barred(resolved.call.claims, resolved.tool)

    def _resolve(
        self, request: ApprovalRequest, authority: tuple[Claims, Claims], now_ns: int
    ) -> ResolvedCall | Refusal:
        """Resolve under the caller's claims, if its run's authority covers the call as well."""
        own, most = (
            self._enforcement.resolve(_rebuild(request, claims, now_ns, self._limits))
            for claims in authority
        )
        return most if isinstance(most, Refusal) else own

    async def _rejudged(
        self, request: ApprovalRequest, resolved: ResolvedCall
    ) -> Fresh | Stale | None:
        approval = {"id": request.id, "state": "APPROVED", "spec_digest": request.spec_digest}
        verdict = await self._judge.judge(resolved, "resume", approval)
        if isinstance(verdict, Denied) and is_unavailable(verdict.refusal):
            return None
        subject = data_subject(resolved.call.claims)
        if not isinstance(verdict, Permitted):
            return Stale("policy_denies", (verdict.decision, verdict.document, subject))
        decision, held = verdict.decision, verdict.held
        judged = (held or decision, verdict.document, subject)
        stale = None
        if held is not None and spec_digest(held.approval) != request.spec_digest:
            stale = Stale("approval_spec_changed", judged)
        elif obligations_digest(decision.obligations) != obligations_digest(request.obligations):
            stale = Stale("obligations_changed", judged)
        if stale is not None:
            self._judge.give_back(verdict.charge)
            return stale
        return Fresh(resolved, decision, verdict)

    async def _current_authority(
        self, request: ApprovalRequest, now_s: int
    ) -> tuple[Claims, Claims] | None:
        """The caller's claims, and the most that its run still gives; None where none is left.

        The run may be over, its launcher's authority cut, the agent suspended, the switch pulled.

        INVARIANT: both must cover the call: a token that was handed on had less than its run. Its
        own expiry is no bar.
        """
        run = await self._runs.get_run(request.run_id)
        if run is None or run.ended or now_s >= run.deadline or not self._active(request.agent):
            return None
        if self._cut(run) is not None:
            return None
        claims = replace(msgspec.convert(request.claims, Claims), expires_at=run.deadline)
        if any(self._told(event) for event in find_revocations(claims)):
            return None
        most = replace(claims, grants=run.grants, allowed_values=run.allowed_values)
        return (claims, most) if self._barred(claims) is None else None

    async def _settle(self, request: ApprovalRequest, answer: Completed | Refused) -> None:
        if isinstance(answer, Refused):
            if answer.refusal.code in _UNSENT:
                move = partial(self._move, request, "FAILED", outcome="not_sent")
                await self._insist(request.id, move)
            return  # otherwise the log decides at the next start
        outcome = answer.recorded.outcome
        state = _state_after(outcome.status, outcome.delivery)
        shown = answer.filtered.result or answer.filtered.error
        event = state_event(request, "unknown", "UNKNOWN") if state == "UNKNOWN" else None
        ended = "not_sent" if outcome.delivery == "not_sent" else outcome.status
        move = partial(self._move, request, state, event_of=event, outcome=ended, result=shown)
        await self._insist(request.id, move)
        await self._relay()

    async def _move(
        self,
        request: ApprovalRequest,
        target: State,
        *,
        token: str | None = None,
        event_of: object = None,
        outcome: str | None = None,
        result: bytes | None = None,
    ) -> ApprovalRequest | None:
        now_s = self._clock.now_ns() // 1_000_000_000
        changes: dict[str, object] = {}
        if target in {"CLAIMED", "DISPATCHED"}:
            changes["lease_until"] = now_s + LEASE_S
        if outcome is not None:
            changes |= {"outcome": outcome, "result": result}
        return await self._store.move(
            request.id,
            source=request.state,
            target=target,
            now_s=now_s,
            event=event_of,  # type: ignore[arg-type]
            claim_token=token or request.claim_token,
            changes=changes,
        )

    async def recover(self, operations: Mapping[str, RecoveredOperation]) -> None:
        """After a start: bring every request that was under way to what the log proves.

        Call once, before any other dispatch, with what the log says of each operation.
        """
        # INVARIANT: what the log has an intent of is never sent again, whatever the store says.
        self._sent_before = {known.approval: known for known in operations.values() if known.intent}
        for request in await self._store.find(states=("CLAIMED",), limit=100_000):
            await self._move(request, "APPROVED")
        for request in await self._store.find(states=("DISPATCHED",), limit=100_000):
            known = operations.get(request.op)
            if known is None or not known.intent:
                await self._move(request, "APPROVED")
            else:
                await self._follow(request, known)
        await self._relay()

    async def _follow(self, request: ApprovalRequest, known: RecoveredOperation) -> None:
        """Bring a DISPATCHED request to the end that the log knows."""
        if known.outcome_status in {None, "unknown"}:
            event = state_event(request, "unknown", "UNKNOWN")
            await self._move(request, "UNKNOWN", event_of=event, outcome="unknown")
        else:
            state = _state_after(known.outcome_status or "unknown", "sent")
            await self._move(request, state, outcome=known.outcome_status)

    async def sweep(self) -> None:
        """Once a second: let what ran out expire, take up what was approved and not sent.

        And make the moves that the state did not take.
        """
        for request in await self._store.expire_due(self._clock.now_ns() // 1_000_000_000):
            self._desk.changed(request.id)
        await self._relay()
        await self._release_lost()
        asked: set[str] = set()
        for request in await self._store.find(states=("APPROVED",), limit=1_000):
            # Of all that wait for a server that is away, one asks whether it is back.
            waits = request.server in self._away & asked
            if request.spec.execute == "on_approval" and not waits:
                asked.add(request.server)
                self.schedule(request.id)
        for request_id in self._owed.keys() - self._running.keys():
            await self._insist(request_id, self._owed[request_id])
            self._desk.changed(request_id)

    async def _release_lost(self) -> None:
        """Give back claims whose dispatch broke off before the point of no return."""
        now_s = self._clock.now_ns() // 1_000_000_000
        for request in await self._store.find(states=("CLAIMED",), limit=1_000):
            lost = request.lease_until is not None and now_s >= request.lease_until
            if lost and request.id not in self._running:
                await self._move(request, "APPROVED")


def _is_due(request: ApprovalRequest) -> bool:
    """Whether it is the gateway's to send: approved, and not left to its agent to redeem."""
    return request.state == "APPROVED" and request.spec.execute == "on_approval"


def _state_after(status: str, delivery: str) -> State:
    if delivery == "unknown":
        return "UNKNOWN"
    return "EXECUTED" if status in {"ok", "withheld"} else "FAILED"


def _is_altered(request: ApprovalRequest) -> bool:
    """Whether what is stored beside the binding says something else than what it covers."""
    told = [request.claims.get(name) for name in ("subject", "run_id", "root_jti", "on_behalf_of")]
    bound = [request.agent, request.run_id, request.root_jti, request.on_behalf_of]
    return digest(request.arguments) != request.arguments_digest or told != bound


def _rebuild(
    request: ApprovalRequest, claims: Claims, now_ns: int, limits: Limits
) -> AuthenticatedCall:
    """The call as it came, by the tool's own name: wire names may be given anew.

    INVARIANT: what is sent are the stored bytes that hash to the binding.
    """
    value = strict_json.parse(request.arguments, max_depth=limits.json_max_depth)
    meta = msgspec.convert(request.meta, CallMeta)
    raw = RawCall(
        op=request.op,
        credential=None,
        tool=request.tool,
        server=request.server,
        arguments=Arguments(request.arguments, value),
        meta=replace(meta, surface="approval", progress_token=None),
    )
    return AuthenticatedCall(raw, claims, now_ns)
