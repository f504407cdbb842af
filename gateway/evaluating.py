"""What would become of a call: the path as far as its decision, for those who may ask (AuthZEN).

The same tools, grants, policy input, engine and ledger as a call meets; nothing is charged, held
or sent. Each request leaves one record, durable before its answer is told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
import structlog
from msgspec import Struct

from gateway.core.calls.call import (
    Arguments,
    AuthenticatedCall,
    CallMeta,
    RawCall,
    ResolvedCall,
)
from gateway.core.catalog import CatalogView, Tool
from gateway.core.errors import CountersignError
from gateway.core.policy.decision import Outcome, Permit
from gateway.core.policy.obligations import ANNOTATE
from gateway.core.ports import AuditLog, Barred, Clock
from gateway.core.records.evaluation_records import (
    Asker,
    Evaluated,
    build_evaluated,
    build_evaluation_refused,
)
from gateway.core.refusal import Refusal, is_unavailable, kind_of
from gateway.core.tokens.token import Claims
from gateway.enforce import Enforcement
from gateway.judge import Considered, Judge
from gateway.logs import describe
from gateway.protocol.authzen import AGENT, CALL, TOOL, Asked, Questions, Told

FOREIGN_SUBJECT: Final = "subject_forbidden"
_PLAIN: Final = frozenset({"tool_unknown", "internal_error"})
_HELD: Final = "people would have to approve this call"
_FITS_NOTHING: Final = {
    "subject_unknown": "the subject is not the agent of this run; its type is `agent`",
    "action_unknown": "only the action `tools/call` is decided here",
    "run_unknown": "there is no such live run that you may ask about; name it in `context.run`",
    "tool_unknown": "no such tool",
}
_log: Final = structlog.get_logger("gateway.evaluating")

ClaimsOf = Callable[[str, int], Awaitable[Claims | None]]
"""Takes a run and the time in seconds; returns what a token of it would say, None for no token."""


class Answer(Struct, frozen=True):
    """What is told of one question, and what is recorded of it."""

    told: Told
    record: Evaluated


class Allowances:
    """How much each asker may ask: so many at once, so many a second from then on.

    Questions stand in one queue with calls: whoever asks without end must not make calls wait.
    """

    def __init__(self, *, burst: int = 200, per_s: int = 100, askers_max: int = 4_096) -> None:
        self._burst, self._per_s, self._most = burst, per_s, askers_max
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, asker: str, count: int, now_ns: int) -> bool:
        """Take so many; False, and nothing is taken, where there are not so many left."""
        left, at = self._left.pop(asker, (float(self._burst), now_ns))
        left = min(self._burst, left + (now_ns - at) * self._per_s / 1_000_000_000)
        is_enough = left >= count
        self._left[asker] = (left - count if is_enough else left, now_ns)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return is_enough


class Evaluator:
    """Answers questions. `judge` must be one whose engine counts for no release."""

    def __init__(
        self,
        *,
        judge: Judge,
        enforcement: Enforcement,
        catalog: Callable[[], CatalogView],
        audit: AuditLog,
        claims_of: ClaimsOf,
        barred: Barred,
        clock: Clock,
    ) -> None:
        self._judge = judge
        self._enforcement = enforcement
        self._catalog = catalog
        self._audit = audit
        self._claims_of = claims_of
        self._barred = barred
        self._clock = clock

    async def answer(self, asker: Asker, questions: Questions, op: str) -> Sequence[Told] | Refusal:
        """Decide, record, and return what may be told; a refusal where nothing may be.

        Raises `AuditError` where no record could be made: then nothing may be told.
        """
        # 1. An agent that would learn what others may do.
        own = asker.claims
        if own is not None and not all(_is_about(own, item) for item in questions.items):
            await self.refuse(asker, op, FOREIGN_SUBJECT)
            return Refusal("authenticate", FOREIGN_SUBJECT)
        now_ns = self._clock.now_ns()
        runs: dict[str, Claims | None] = {}
        answers: list[Answer] = []
        for item in questions.items:
            answers.append(await self._evaluate(asker, item, op, now_ns, runs))
            if questions.ends_with(answers[-1].told.permitted):
                break
        # 2. INVARIANT: nothing is told that is not on record.
        entry = build_evaluated(op, asker, [each.record for each in answers])
        await self._audit.record(entry)
        return [each.told for each in answers]

    async def refuse(self, asker: Asker, op: str, reason: str) -> None:
        """Record that somebody known asked what cannot be answered. Raises `AuditError`."""
        await self._audit.record(build_evaluation_refused(op, asker, reason))

    async def _evaluate(
        self, asker: Asker, item: Asked, op: str, now_ns: int, runs: dict[str, Claims | None]
    ) -> Answer:
        """Decide one question; whatever goes wrong with it is a deny."""
        try:
            claims = await self._find_claims(asker, item, now_ns, runs)
            if claims is None:
                return _unfit(item, "run_unknown")
            return await self._decide(asker, item, op, claims, now_ns)
        except CountersignError as error:
            return _unfit(item, error.code)
        except Exception as error:  # noqa: BLE001 - INVARIANT: a deny and a record, whatever it was
            _log.error("evaluation_failed", op=op, error=describe(error))
            return _unfit(item, "internal_error")

    async def _find_claims(
        self, asker: Asker, item: Asked, now_ns: int, runs: dict[str, Claims | None]
    ) -> Claims | None:
        """Return in whose name the call would come; None for a run that may not be asked about."""
        if asker.claims is not None:
            return asker.claims if item.run in ("", asker.claims.run_id) else None
        if not item.run:
            return None
        if item.run not in runs:
            runs[item.run] = await self._claims_of(item.run, now_ns // 1_000_000_000)
        claims = runs[item.run]
        if claims is None or (asker.client and claims.client_id != asker.client):
            return None  # a launcher's runs are nobody else's
        return claims

    async def _decide(
        self, asker: Asker, item: Asked, op: str, claims: Claims, now_ns: int
    ) -> Answer:
        # 1. Questions that are not about calls of this agent.
        if not _is_about(claims, item):
            return _unfit(item, "subject_unknown", claims)
        if item.action != CALL:
            return _unfit(item, "action_unknown", claims)
        # 2. Authority that ended before its time.
        if (code := self._barred(claims)) is not None:
            return _unfit(item, code, claims)
        # 3. As for a call: tool, grant, arguments; policy; what is spent; the kill switch.
        call = AuthenticatedCall(_build_raw(item, op), claims, now_ns)
        resolved = self._enforcement.resolve(call)
        tool = self._catalog().find(call.raw.tool, call.raw.server)
        if isinstance(resolved, Refusal):
            told = await self._veil(asker, call, tool, resolved)
            record = Evaluated(
                outcome="deny",
                code=resolved.code,
                claims=claims,
                tool=tool,
                asked=_describe(item),
            )
            return Answer(_tell(told), record)
        considered = await self._judge.consider(resolved)
        if considered.refusal is not None:
            told = await self._veil(asker, call, resolved.tool, considered.refusal)
            return _decided(asker, resolved, considered, considered.refusal, told)
        if (code := self._barred(claims, resolved.tool)) is not None:
            stopped = Refusal("call", code)
            return _decided(asker, resolved, considered, stopped, stopped)
        return _decided(asker, resolved, considered)

    async def _veil(
        self, asker: Asker, call: AuthenticatedCall, tool: Tool | None, refusal: Refusal
    ) -> Refusal:
        """Tell those who may not know of a tool that there is none, as `Enforcement` does."""
        if asker.person or tool is None or refusal.code in _PLAIN or is_unavailable(refusal):
            return refusal
        if await self._judge.hides(call, tool):
            return Refusal("resolve", "tool_unknown")
        return refusal


def _is_about(claims: Claims, item: Asked) -> bool:
    return item.subject_type == AGENT and item.subject == claims.subject


def _build_raw(item: Asked, op: str) -> RawCall:
    """Build the call. Its tool is named by its id, or as callers name it."""
    server, dot, name = item.resource.partition(".")
    if item.resource_type != TOOL:  # a tool without a name is unknown
        server, name = "", ""
    elif not dot:
        server, name = "", item.resource
    return RawCall(
        op=op,
        credential=None,
        tool=name,
        server=server or None,
        arguments=Arguments(orjson.dumps(item.arguments), item.arguments),
        meta=CallMeta(surface="rest", claimed=item.claimed),
    )


def _unfit(item: Asked, code: str, claims: Claims | None = None) -> Answer:
    """A deny of what was not put to policy."""
    text = _FITS_NOTHING.get(code) or kind_of(code).text
    record = Evaluated(outcome="deny", code=code, claims=claims, asked=_describe(item))
    return Answer(Told(permitted=False, code=code, text=text), record)


def _tell(refusal: Refusal, reasons: tuple[dict[str, Any], ...] = ()) -> Told:
    text = kind_of(refusal.code, refusal.stage).text
    if refusal.detail:
        text = f"{text}: {refusal.detail}"
    return Told(permitted=False, code=refusal.code, text=text, reasons=reasons)


def _decided(
    asker: Asker,
    resolved: ResolvedCall,
    considered: Considered,
    refusal: Refusal | None = None,
    told: Refusal | None = None,
) -> Answer:
    """Answer as policy decided; with `refusal` it is one, told as `told`."""
    decision = considered.decision
    reasons: tuple[dict[str, Any], ...] = ()
    if asker.operator:
        reasons = tuple(
            {"code": each.code, "message": each.message, "policy": each.policy}
            for each in decision.reasons
        )
    outcome: Outcome = "deny"
    code = "" if refusal is None else refusal.code
    if told is not None:
        said = _tell(told, reasons)
    elif isinstance(decision, Permit):
        outcome = "permit"
        obligations = _obligations(asker, decision)
        said = Told(permitted=True, obligations=obligations, reasons=reasons)
    else:
        outcome = "hold"
        code = decision.reasons[0].code if decision.reasons else "approval_needed"
        said = Told(permitted=False, code=code, text=_HELD, held=True, reasons=reasons)
    record = Evaluated(
        outcome=outcome,
        code=code,
        claims=resolved.call.claims,
        tool=resolved.tool,
        decision=decision,
        document=considered.document,
    )
    return Answer(said, record)


def _obligations(asker: Asker, permit: Permit) -> tuple[dict[str, Any], ...]:
    """What a permit obliges to; an agent is told that it does, not with what words."""
    return tuple(
        {"type": each.type} if asker.claims is not None else dict(each.spec)
        for each in permit.obligations
        if each.type != ANNOTATE  # words for the log
    )


def _describe(item: Asked) -> dict[str, Any]:
    return {
        "subject": item.subject,
        "action": item.action,
        "resource": item.resource,
        "args": item.arguments,
    }
