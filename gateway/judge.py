"""Asking policy: builds the question, charges the family, reads nothing twice (DESIGN §3, §4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson
from msgspec import Struct

from gateway.core import strict_json
from gateway.core.caller import Caller, CallerCache
from gateway.core.calls.call import AuthenticatedCall, FilteredResult, ResolvedCall, UpstreamResult
from gateway.core.calls.data_flow import DataFlow, is_large
from gateway.core.calls.family import Charge
from gateway.core.calls.filtering import find_unmet
from gateway.core.calls.ledger import Ledger, view_budget
from gateway.core.calls.outputs import find_texts
from gateway.core.calls.policy_input import build_document
from gateway.core.calls.provenance import worst
from gateway.core.catalog import CatalogView, Tool
from gateway.core.errors import AuditError, PolicyError
from gateway.core.limits import Limits
from gateway.core.policy.decision import (
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Phase,
    Reason,
    labels_of,
    pick,
)
from gateway.core.policy.obligations import Limit
from gateway.core.ports import AuditLog, PolicyEngine
from gateway.core.records import call_records as records
from gateway.core.refusal import Refusal

_MINUTE_S: Final = 60


class Permitted(Struct, frozen=True):
    """Policy permits, and the family has been charged.

    `held`: in phase `resume`, the hold that policy still asks for; the caller sees whether people
    have met it.
    """

    decision: Permit
    document: bytes
    charge: Charge
    held: Hold | None = None


class Held(Struct, frozen=True):
    """Policy wants people to agree first."""

    decision: Hold
    document: bytes


class Denied(Struct, frozen=True):
    """Policy forbids, or the token family has nothing left to spend."""

    decision: Deny
    document: bytes
    refusal: Refusal


Verdict = Permitted | Held | Denied


class Judged(Struct, frozen=True):
    """What policy says of a result; `document` is None where it was not asked."""

    decision: Decision
    document: bytes | None


class Considered(Struct, frozen=True):
    """What would become of a call: the decision, what policy was asked, why it would be refused."""

    decision: Decision
    document: bytes
    refusal: Refusal | None = None


class Judge:
    """Puts calls, lists and results to policy."""

    def __init__(
        self,
        *,
        policy: PolicyEngine,
        ledger: Ledger,
        callers: CallerCache,
        audit: AuditLog,
        catalog: Callable[[], CatalogView],
        limits: Limits,
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self.flow = DataFlow(ledger)
        self._callers = callers
        self._audit = audit
        self._catalog = catalog
        self._limits = limits
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shown: dict[tuple[str, str | None, str, str], frozenset[str]] = {}

    async def judge(
        self, resolved: ResolvedCall, phase: Phase, approval: Mapping[str, Any] | None = None
    ) -> Verdict:
        """Decide on a call and charge its family if it may go.

        INVARIANT: decision and charge are one step for a family whose policies read what it
        spent: its calls are judged one after the other, so none is judged on a stale sum. A
        grant's own `max_calls` needs no turn, because `reserve` compares and adds without a pause.
        """
        caller = self._callers.get(resolved.call.claims)
        spender, tool_id = caller.spender, resolved.tool.id
        if not self._policy.reads_ledger(tool_id, phase):
            return await self._judge(resolved, caller, phase, approval, None)
        this = _call_hash(resolved)
        if not self._policy.reads_day(tool_id, phase):
            async with self._turn(spender.root):
                return await self._judge(resolved, caller, phase, approval, this)
        async with self._turn(spender.payer), self._turn(spender.root):  # always in this order
            return await self._judge(resolved, caller, phase, approval, this)

    async def _judge(
        self,
        resolved: ResolvedCall,
        caller: Caller,
        phase: Phase,
        approval: Mapping[str, Any] | None,
        this: int | None,
    ) -> Verdict:
        """Decide and charge. `this` names the call, where policies read what came before it."""
        provenance = self.flow.classify(resolved, caller.allowed)
        document = self._document(
            resolved, caller, phase, approval=approval, this=this, provenance=provenance
        )
        decision = await self._ask(resolved.tool.id, phase, document)
        if isinstance(decision, Deny):
            code = decision.reasons[0].code if decision.reasons else "no_policy_permits"
            return Denied(decision, document, Refusal("decide", code))
        unmet = find_unmet(resolved, decision.obligations)
        if unmet is None and isinstance(decision, Hold) and phase != "resume":
            return Held(decision, document)
        charge = unmet or self._ledger.reserve(
            caller.spender,
            resolved.tool,
            resolved.grant,
            resolved.call.raw.arguments.value,
            now_s=resolved.call.now_ns // 1_000_000_000,
            labels=labels_of(decision.obligations),
            limits=pick(decision.obligations, Limit),
            egress=worst(provenance.values()) if provenance else None,
        )
        if isinstance(charge, Refusal):
            return Denied(_denied(charge.code, decision), document, charge)
        self._note(resolved, caller, this)
        if isinstance(decision, Hold):
            permit = Permit(decision.reasons, decision.obligations, decision.revision)
            return Permitted(permit, document, charge, held=decision)
        return Permitted(decision, document, charge)

    async def consider(self, resolved: ResolvedCall) -> Considered:
        """Say what would become of a call if it came now. Charges nothing and remembers nothing.

        No promise: what others spend in between counts when the call comes.
        """
        caller = self._callers.get(resolved.call.claims)
        reads = self._policy.reads_ledger(resolved.tool.id, "call")
        this = _call_hash(resolved) if reads else None
        provenance = self.flow.classify(resolved, caller.allowed)
        document = self._document(resolved, caller, "call", this=this, provenance=provenance)
        decision = await self._ask(resolved.tool.id, "call", document)
        if isinstance(decision, Deny):
            code = decision.reasons[0].code if decision.reasons else "no_policy_permits"
            return Considered(decision, document, Refusal("decide", code))
        unmet: Refusal | Charge | None = find_unmet(resolved, decision.obligations)
        if unmet is None and isinstance(decision, Permit):
            unmet = self._ledger.quote(
                caller.spender,
                resolved.tool,
                resolved.grant,
                resolved.call.raw.arguments.value,
                now_s=resolved.call.now_ns // 1_000_000_000,
                labels=labels_of(decision.obligations),
                limits=pick(decision.obligations, Limit),
            )
        if isinstance(unmet, Refusal):
            return Considered(_denied(unmet.code, decision), document, unmet)
        return Considered(decision, document)

    async def judge_result(self, resolved: ResolvedCall, answer: UpstreamResult) -> Judged | None:
        """Decide on a tool's answer; None where no package wants to see it."""
        if not self.watches_result(resolved.tool.id):
            return None
        if len(answer.result or answer.error or b"") > self._limits.watched_result_max_bytes:
            return Judged(_failed("result_withheld", self._policy.revision), None)
        view = _result_view(answer, self._limits.json_max_depth)
        caller = self._callers.get(resolved.call.claims)
        document = self._document(resolved, caller, "result", result=view)
        return Judged(await self._ask(resolved.tool.id, "result", document), document)

    def oblige(self, resolved: ResolvedCall, obligations: Sequence[Obligation]) -> bool:
        """Meet what a result's decision obliges to outside of it; False where that cannot be.

        Labels join those of the family: before the result leaves, so before anything that could
        carry it on. What had to be seen to before the call was sent must have been.
        """
        found = find_unmet(resolved, obligations)
        family, now_s = resolved.call.claims.root_jti, resolved.call.now_ns // 1_000_000_000
        limits = pick(obligations, Limit)
        if found is not None or not self._ledger.keeps(family, resolved.tool.id, limits, now_s):
            return False
        return self._ledger.join(family, labels_of(obligations))

    def watches_result(self, tool_id: str) -> bool:
        """Whether a package wants to see what this tool answers."""
        return self._policy.concerns(tool_id, "result")

    def give_back(self, charge: Charge) -> None:
        """Undo the charge of a call that was certainly not sent."""
        self._ledger.give_back(charge)

    async def visible(
        self, call: AuthenticatedCall, server: str | None
    ) -> tuple[Tool, ...] | Refusal:
        """Granted tools that policy does not hide: one round, one record, cached until a change."""
        catalog, claims = self._catalog(), call.claims
        key = (claims.jti, server, catalog.version, self._policy.revision)
        tools = catalog.callable_tools(server)
        if (known := self._shown.get(key)) is not None:
            return tuple(tool for tool in tools if tool.id in known)
        try:
            shown = await self._shown_ids(call, tools)
            entry = records.build_list(call.raw.op, claims, key[3], catalog.version, len(shown))
            await self._audit.record(entry)
        except PolicyError as error:
            return Refusal("decide", error.code)
        except AuditError as error:
            return Refusal("record", error.code)
        if len(self._shown) >= self._limits.shown_cache_max:
            self._shown.clear()
        self._shown[key] = shown
        return tuple(tool for tool in tools if tool.id in shown)

    async def hides(self, call: AuthenticatedCall, tool: Tool) -> bool:
        """Whether this caller may not even know of a tool. Without an answer, it may not."""
        version, revision = self._catalog().version, self._policy.revision
        for server in (None, tool.server):
            known = self._shown.get((call.claims.jti, server, version, revision))
            if known is not None:
                return tool.id not in known
        caller = self._callers.get(call.claims)
        grant = caller.grants.find(tool)
        if grant is None:
            return True
        document = self._document(ResolvedCall(call, tool, grant), caller, "list")
        return isinstance(await self._ask(tool.id, "list", document), Deny)

    async def _shown_ids(self, call: AuthenticatedCall, tools: tuple[Tool, ...]) -> frozenset[str]:
        caller = self._callers.get(call.claims)
        granted = [
            ResolvedCall(call, tool, grant)
            for tool in tools
            if (grant := caller.grants.find(tool)) is not None
        ]
        questions = [(item.tool.id, self._document(item, caller, "list")) for item in granted]
        decisions = await self._policy.decide_many(questions, "list")
        return frozenset(
            item.tool.id
            for item, decision in zip(granted, decisions, strict=True)
            if not isinstance(decision, Deny)
        )

    def _note(self, resolved: ResolvedCall, caller: Caller, this: int | None) -> None:
        """Remember a call about to be sent: what it says, and itself."""
        follows = self.flow.follows(caller.grants, resolved.call.claims, self._catalog())
        self.flow.say(resolved, follows=follows)
        if this is not None:
            self._ledger.family(caller.spender.root).note_repeat(this)

    async def learn(
        self, resolved: ResolvedCall, filtered: FilteredResult, labels: Iterable[str]
    ) -> None:
        """Remember what an agent gets to see, before it does. `labels`: those of this output."""
        claims = resolved.call.claims
        if not self.flow.follows(self._callers.get(claims).grants, claims, self._catalog()):
            self.flow.forget(resolved, labels)
            return
        try:
            if is_large(filtered):
                output = await asyncio.to_thread(self.flow.look_through, resolved, filtered, labels)
            else:
                output = self.flow.look_through(resolved, filtered, labels)
        except Exception:  # noqa: BLE001 - INVARIANT: the outcome of a call that was sent is recorded
            self.flow.forget(resolved, labels)
        else:
            if output is not None:
                self.flow.learn(resolved, output)

    def _document(
        self,
        resolved: ResolvedCall,
        caller: Caller,
        phase: Phase,
        *,
        approval: Mapping[str, Any] | None = None,
        this: int | None = None,
        provenance: Mapping[str, str] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> bytes:
        call = resolved.call
        now_s = call.now_ns // 1_000_000_000
        family = self._ledger.family(call.claims.root_jti)
        history = None
        if this is not None:
            history = {
                "recent": list(family.recent),
                "repeats": family.repeat(this),
                "last_minute": family.calls_since("", now_s - _MINUTE_S),
            }
        return build_document(
            phase=phase,
            caller=caller.fragments,
            claims=call.claims,
            grant=resolved.grant,
            tool=resolved.tool,
            arguments=None if phase == "list" else call.raw.arguments.raw,
            now_ns=call.now_ns,
            ledger=family.view_run(),
            budget=view_budget(call.claims.budget, family),
            day=self._ledger.day(caller.spender.payer, now_s).view(),
            history=history,
            provenance=provenance,
            claimed=call.raw.meta.claimed,
            approval=approval,
            result=result,
        )

    async def _ask(self, tool_id: str, phase: Phase, document: bytes) -> Decision:
        try:
            return await self._policy.decide(tool_id, phase, document)
        except PolicyError as error:
            return _failed(error.code, self._policy.revision)

    def _turn(self, name: str) -> asyncio.Lock:
        """Return what lets in one call at a time of a family or payer whose totals policy reads."""
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = asyncio.Lock()
        return turn


def _call_hash(resolved: ResolvedCall) -> int:
    """Name this very call: the tool and what its arguments mean, however they are written."""
    value = resolved.call.raw.arguments.value
    return hash((resolved.tool.id, orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))


def _failed(code: str, revision: str) -> Deny:
    return Deny((Reason(code),), revision)


def _denied(code: str, decision: Permit | Hold) -> Deny:
    """Refuse what policy let go; what it obliged to is recorded with the refusal."""
    return Deny((Reason(code),), decision.revision, decision.obligations)


def _result_view(answer: UpstreamResult, max_depth: int) -> dict[str, Any]:
    """What policy gets to see. Raises `RequestError` where an agent could read something else."""
    raw = answer.result if answer.result is not None else answer.error or b"{}"
    view: dict[str, Any] = {"is_error": answer.is_error, "bytes": len(raw)}
    body = strict_json.parse(raw, max_depth=max_depth)
    if isinstance(body, dict):
        view["structured"] = body.get("structuredContent")
        view["text"] = find_texts(body, is_error=answer.result is None)
    return view
