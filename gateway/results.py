"""What of a tool's answer leaves: policy sees it where a package wants to, and is obeyed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from gateway.core.calls.call import FilteredResult, Outcome, RecordedIntent, UpstreamResult
from gateway.core.calls.filtering import apply_obligations, status_of, withhold
from gateway.core.errors import Delivery
from gateway.core.policy.decision import Obligation, Permit, labels_of
from gateway.core.records import call_records as records
from gateway.judge import Judge, Judged
from gateway.notices import NoticeDesk

_TAG_CHARS: Final = 12


class Released(Struct, frozen=True):
    """What leaves. `judged`: what policy said of it; `labels`: what that added to the run's."""

    filtered: FilteredResult
    judged: Judged | None = None
    labels: tuple[str, ...] = ()


def build_outcome(
    recorded: RecordedIntent,
    answer: UpstreamResult | None,
    released: Released,
    delivery: Delivery,
    latency_us: int,
) -> Outcome:
    """Return the outcome of a call of which `released` leaves, ready for the log."""
    filtered, judged = released.filtered, released.judged
    status = status_of(answer, filtered)
    entry = records.build_outcome(
        recorded,
        status=status,
        delivery=delivery,
        code=filtered.withheld,
        result=None if answer is None else answer.result or answer.error,
        applied=filtered.applied,
        decision=None if judged is None else judged.decision,
        document=None if judged is None else judged.document,
        labels=released.labels,
        latency_us=latency_us,
    )
    return Outcome(intent=recorded, status=status, delivery=delivery, entry=entry)


class ResultDesk:
    """Releases results, or withholds them."""

    def __init__(self, judge: Judge, notices: NoticeDesk) -> None:
        self._judge = judge
        self._notices = notices
        self._key = secrets.token_bytes(32)

    async def release(
        self, recorded: RecordedIntent, answer: UpstreamResult, labels: tuple[str, ...]
    ) -> Released:
        """Let policy see an answer, fulfil every obligation, and remember what leaves.

        `labels` are those that the call itself carries. INVARIANT: what cannot be filtered is
        withheld; this never raises.
        """
        judged: Judged | None = None
        try:
            judged = await self._judge.judge_result(recorded.intent.resolved, answer)
            released = self._filter(recorded, answer, judged)
        except Exception:  # noqa: BLE001 - INVARIANT: what cannot be filtered is withheld
            return Released(withhold("result_withheld"), judged)
        known = (*labels, *released.labels)
        await self._judge.learn(recorded.intent.resolved, released.filtered, known)
        return released

    def _filter(
        self, recorded: RecordedIntent, answer: UpstreamResult, judged: Judged | None
    ) -> Released:
        resolved, obligations = recorded.intent.resolved, recorded.intent.decision.obligations
        labels: tuple[str, ...] = ()
        if judged is not None:
            decision = judged.decision
            if not isinstance(decision, Permit):
                return Released(withhold("result_withheld"), judged)
            if decision.obligations:
                if not self._judge.oblige(resolved, decision.obligations):
                    return Released(withhold("result_withheld"), judged)
                labels = labels_of(decision.obligations)
                self._notices.tell(resolved, decision, "result")
                obligations = (*obligations, *decision.obligations)
        return Released(self._apply(recorded, answer, obligations), judged, labels)

    def _apply(
        self,
        recorded: RecordedIntent,
        answer: UpstreamResult,
        obligations: tuple[Obligation, ...],
    ) -> FilteredResult:
        if not obligations:
            return FilteredResult(
                result=answer.result, error=answer.error, is_error=answer.is_error
            )
        tag = self._tagger(recorded.intent.resolved.call.claims.root_jti)
        return apply_obligations(answer, obligations, tag)

    def _tagger(self, family: str) -> Callable[[str], str]:
        """Return what names a value within one family: nobody can tell or guess it from outside."""

        def tag(text: str) -> str:
            mac = hmac.new(self._key, f"{family}\n{text}".encode(), hashlib.sha256)
            return mac.hexdigest()[:_TAG_CHARS]

        return tag
