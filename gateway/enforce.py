"""The enforcement point: one call, top to bottom (DESIGN §1).

Read `Enforcement._govern`. Every entry point (either MCP wire, REST, a held call set free) ends in
`execute`, and nothing else in the gateway holds a transport.

INVARIANT: whatever goes wrong, the answer is a refusal and a record, never an unrecorded effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gateway.authenticator import Authenticator
from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.caller import CallerCache
from gateway.core.calls.answer import Answer, Completed, Pending, Refused
from gateway.core.calls.call import (
    AuthenticatedCall,
    Intent,
    RawCall,
    RecordedIntent,
    Relay,
    ResolvedCall,
    UpstreamResult,
)
from gateway.core.calls.family import Charge
from gateway.core.calls.filtering import withhold
from gateway.core.catalog import CatalogView, Tool
from gateway.core.errors import AuditError, CountersignError, Delivery, UpstreamError
from gateway.core.kills.kill import FEED_STALE
from gateway.core.limits import Limits
from gateway.core.policy.decision import Permit
from gateway.core.ports import AuditLog, Clock, ToolTransport
from gateway.core.records import call_records as records
from gateway.core.refusal import Refusal, is_unavailable
from gateway.core.tokens.token import SCOPE_CALL, SCOPE_LIST
from gateway.holding import HoldDesk
from gateway.judge import Denied, Held, Judge, Permitted
from gateway.logs import describe
from gateway.notices import NoticeDesk
from gateway.receipts import ReceiptDesk
from gateway.refusals import RefusalRecorder
from gateway.results import Released, ResultDesk, build_outcome
from gateway.unbroken import Unbroken

_log: Final = structlog.get_logger("gateway.enforce")
_LISTED: Final = frozenset({None, FEED_STALE})  # what is stopped is hidden, what is in doubt is not
_TOO_LARGE: Final = "audit_record_invalid"
_PLAIN: Final = frozenset({"tool_unknown", "internal_error"})


class Enforcement:
    """Governs every call. Collaborators are ports; nothing here knows a wire or a database."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        catalog: Callable[[], CatalogView],
        judge: Judge,
        audit: AuditLog,
        transports: Mapping[str, ToolTransport],
        holds: HoldDesk,
        refusals: RefusalRecorder,
        notices: NoticeDesk,
        callers: CallerCache,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._authenticator = authenticator
        self._catalog = catalog
        self._judge = judge
        self._audit = audit
        self._transports = transports
        self._holds = holds
        self._refusals = refusals
        self._notices = notices
        self._results = ResultDesk(judge, notices)
        self._callers = callers
        self._clock = clock
        self._limits = limits
        self.unbroken, self.receipts = Unbroken(), ReceiptDesk(audit)

    async def call(self, raw: RawCall, relay: Relay | None = None) -> Answer:
        """Govern one call. Never raises for anything a caller can do."""
        try:
            return await self._govern(raw, relay)
        except Exception as error:  # noqa: BLE001 - INVARIANT: a refusal and a record, whatever it was
            _log.error("call_failed", op=raw.op, error=describe(error))
            return await self.reject(raw, Refusal("decide", "internal_error"))

    async def _govern(self, raw: RawCall, relay: Relay | None) -> Answer:
        """Take one call from stage to stage, as far as it gets."""
        # 1. Who calls? Stops strangers, altered, expired and revoked tokens, tokens for others.
        call = self.authenticate(raw, SCOPE_CALL)
        if isinstance(call, Refusal):
            return await self._refusals.refuse_stranger(raw.op, call)
        # 2. Calls what? Stops unreviewed and changed tools, tools and values not granted, and
        #    arguments that the schema does not name.
        resolved = self.resolve(call)
        if isinstance(resolved, Refusal):
            return await self._turn_down(call, resolved)
        # 3. May it? Stops what policy forbids and what the family has already spent.
        verdict = await self._judge.judge(resolved, "call")
        if isinstance(verdict, Denied):
            return await self._deny(resolved, verdict)
        # 4. Stopped since? Somebody pulled the switch while policy was asked.
        try:
            code = await self._authenticator.find_stop(call.claims, resolved.tool)
        except BaseException:  # a caller that goes away here has sent nothing
            self._give_back(verdict)
            raise
        if code is not None:
            return await self._stop(resolved, verdict, code)
        # 5. Must people agree? Stored with its exact bytes; nothing is sent.
        if isinstance(verdict, Held):
            return await self._hold(resolved, verdict)
        # 6. Written down, sent, filtered, written down; only then answered. A caller that goes away
        #    in between does not stop it: no intent is left without an outcome.
        permit, document = verdict.decision, verdict.document
        work = self.execute(resolved, permit, document, verdict.charge, relay)
        return await self.unbroken.finish(work)

    async def close(self) -> None:
        """Wait for every call under way. Call it while the log and the transports still work."""
        await self.unbroken.close()

    def authenticate(self, raw: RawCall, scope: str | None) -> AuthenticatedCall | Refusal:
        """Believe the token or say why not."""
        return self._authenticator.authenticate(raw, scope)

    def resolve(self, call: AuthenticatedCall) -> ResolvedCall | Refusal:
        """Find the tool and the grant that covers it, and fit the arguments to both."""
        raw, grants = call.raw, self._callers.get(call.claims).grants
        tool = self._catalog().find(raw.tool, raw.server)
        grant = None if tool is None else grants.find(tool)
        if tool is None or grant is None:  # one answer for both: that a tool exists is not told
            return Refusal("resolve", "tool_unknown")
        if raw.exceeds(self._limits):
            return Refusal("resolve", "arguments_too_large")
        if (failure := tool.schema.failure(raw.arguments.value)) is not None:
            return Refusal("resolve", "arguments_invalid", failure)
        now_s, arguments = call.now_ns // 1_000_000_000, raw.arguments.value
        if (broken := grants.broken_constraint(grant, tool, arguments, now_s)) is not None:
            return Refusal("resolve", "constraint_broken", broken)
        return ResolvedCall(call, tool, grant)

    async def execute(  # noqa: PLR0917 - what was decided, on what, at what charge
        self,
        resolved: ResolvedCall,
        permit: Permit,
        document: bytes,
        charge: Charge,
        relay: Relay | None = None,
        approval: ApprovalRequest | None = None,
    ) -> Completed | Refused:
        """Record the intent, send, filter, record the outcome. Each step waits for the last."""
        raw = resolved.call.raw
        actor = self._callers.get(resolved.call.claims).actor
        self._notices.tell(resolved, permit, "call" if approval is None else "resume")
        entry = records.build_intent(resolved, permit, document, charge, actor, approval)
        intent = Intent(
            resolved=resolved,
            decision=permit,
            entry=entry,
            idempotency_key=raw.op,
            deadline_ms=self._limits.upstream_timeout_ms,
            find_stop=lambda: self._authenticator.barred(resolved.call.claims, resolved.tool),
        )
        try:
            recorded = await self._audit.record_intent(intent)
        except AuditError as error:  # nothing was sent, so nothing was spent
            self._judge.give_back(charge)
            return Refused(raw.op, Refusal("record", error.code))
        started_ns = self._clock.monotonic_ns()
        answer, delivery, code = await self._send(recorded, relay)
        if delivery == "not_sent":
            self._judge.give_back(charge)
        released = Released(withhold(code))
        if answer is not None:
            released = await self._results.release(recorded, answer, charge.labels)
        # What policy says of a result may fit into no record; that it was withheld does.
        for told in (released, Released(withhold("result_withheld"))):
            latency_us = (self._clock.monotonic_ns() - started_ns) // 1000
            outcome = build_outcome(recorded, answer, told, delivery, latency_us)
            try:
                return Completed(await self._audit.record_outcome(outcome), told.filtered)
            except AuditError as error:
                if error.code != _TOO_LARGE:
                    break
        # The intent stays open in the log, and the reply does not leave.
        return Refused(raw.op, Refusal("record", "outcome_unrecorded"))

    async def _send(
        self, recorded: RecordedIntent, relay: Relay | None
    ) -> tuple[UpstreamResult | None, Delivery, str | None]:
        """Call the tool once. A client that goes away does not stop this; a dying gateway may."""
        resolved = recorded.intent.resolved
        try:
            code = await self._authenticator.find_stop(resolved.call.claims, resolved.tool)
            if code is not None:
                return None, "not_sent", code
            watched = self._judge.watches_result(resolved.tool.id)
            if watched or recorded.intent.decision.obligations:
                relay = None  # what streams past the filter could carry what it must take out
            relay = self._judge.flow.doubting(resolved, relay)
            transport = self._transports[resolved.tool.server]
            return await transport.call(recorded, relay), "sent", None
        except UpstreamError as error:
            return None, error.delivery, error.code
        except asyncio.CancelledError:
            return None, "unknown", "upstream_unavailable"
        except Exception:  # noqa: BLE001 - INVARIANT: no intent stays without an outcome
            return None, "unknown", "internal_error"

    async def _hold(self, resolved: ResolvedCall, held: Held) -> Answer:
        try:
            held_call = await self._holds.hold(resolved, held.decision, held.document)
            self._notices.tell(resolved, held.decision, "call")
            return Pending(held_call)
        except CountersignError as error:
            refusal = Refusal("hold", error.code)
            return await self._refusals.refuse_call(resolved.call, refusal, resolved.tool)

    async def _stop(self, resolved: ResolvedCall, verdict: Permitted | Held, code: str) -> Refused:
        self._give_back(verdict)
        refusal = Refusal("call", code)
        return await self._refusals.refuse_call(resolved.call, refusal, resolved.tool)

    def _give_back(self, verdict: Permitted | Held) -> None:
        if isinstance(verdict, Permitted):
            self._judge.give_back(verdict.charge)

    async def _deny(self, resolved: ResolvedCall, denied: Denied) -> Refused:
        """Record a denial, with what policy was asked."""
        refused = await self._refusals.deny_call(
            resolved, denied.decision, denied.document, denied.refusal
        )
        return await self._veil(refused, resolved.call, resolved.tool)

    async def _turn_down(
        self, call: AuthenticatedCall, refusal: Refusal, *, of_tool: bool = True
    ) -> Refused:
        """Record that a call fits no tool, or not the one that it names."""
        tool = self._catalog().find(call.raw.tool, call.raw.server)
        refused = await self._refusals.refuse_call(call, refusal, tool)
        return refused if tool is None or not of_tool else await self._veil(refused, call, tool)

    async def _veil(self, refused: Refused, call: AuthenticatedCall, tool: Tool) -> Refused:
        """Tell a caller who may not see the tool that there is none; of trouble, everybody."""
        if refused.refusal.code in _PLAIN or is_unavailable(refused.refusal):
            return refused
        if await self._judge.hides(call, tool):
            return Refused(refused.op, Refusal("resolve", "tool_unknown"))
        return refused

    async def turn_away(self, op: str, refusal: Refusal) -> Refused:
        """Record a request of somebody who was not asked for a token."""
        return await self._refusals.refuse_stranger(op, refusal)

    async def identify(self, raw: RawCall, scope: str | None = None) -> AuthenticatedCall | Refused:
        """Believe a caller who asks for something other than a tool call."""
        call = self.authenticate(raw, scope)
        if isinstance(call, Refusal):
            return await self._refusals.refuse_stranger(raw.op, call)
        return call

    async def reject(self, raw: RawCall, refusal: Refusal, *, of_tool: bool = False) -> Refused:
        """Record a request that cannot be taken. `of_tool`: whether that says there is the tool."""
        call = await self.identify(raw)
        if isinstance(call, Refused):
            return call
        return await self._turn_down(call, refusal, of_tool=of_tool)

    async def list_tools(self, raw: RawCall) -> tuple[Tool, ...] | Refused:
        """Return the tools that this caller may see, in the catalog's order."""
        call = await self.identify(raw, SCOPE_LIST)
        if isinstance(call, Refused):
            return call
        shown = await self._judge.visible(call, raw.server)
        if isinstance(shown, Refusal):
            return await self._refusals.refuse_call(call, shown)
        barred = self._authenticator.barred
        return tuple(tool for tool in shown if barred(call.claims, tool) in _LISTED)
