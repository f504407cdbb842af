"""What of a tool's answer may reach the agent: obligations applied to a CallToolResult."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.core.calls.call import FilteredResult, ResolvedCall, Status, UpstreamResult
from gateway.core.calls.rewriting import (
    REDACTED,
    cut,
    cut_at,
    hide_at,
    mask_last,
    mask_tag,
    redact,
)
from gateway.core.pointer import resolve
from gateway.core.policy import obligations as kinds
from gateway.core.policy.decision import Obligation
from gateway.core.refusal import Refusal

__all__ = ["REDACTED", "apply_obligations", "find_unmet", "status_of", "withhold"]

_KEY_MAX_CHARS: Final = 256
_ELSEWHERE: Final = frozenset({kinds.ANNOTATE, "add_label", "notify", *kinds.BEFORE_SENDING})
"""Obligations that ask nothing of a result."""

Tag = Callable[[str], str]


def no_tag(_text: str) -> str:
    """Put nothing in the place of a value."""
    return "none"


def apply_obligations(
    answer: UpstreamResult, obligations: Sequence[Obligation], tag: Tag = no_tag
) -> FilteredResult:
    """Fulfil every obligation on a result, or withhold it.

    `redact` and `mask` take `pointers` into `structuredContent`; text that is the same JSON is
    changed alike, and other text is replaced whole, because nobody can tell what it repeats. Where
    a result has no structured content, the pointers lead into each text that is JSON. They hide
    errors, too. `truncate` and `limit_result` take `max_bytes`. `tag` names values for `mask`.
    """
    result, error = answer.result, answer.error
    for obligation in obligations:
        if obligation.type in _ELSEWHERE:
            continue
        if result is not None:
            result = _apply(obligation.spec, result, tag)
        elif error is not None and not _fits(obligation.spec, error):
            error = None
        if result is None and error is None:
            return _withheld(answer, obligations)
    if result is None and error is None:
        return _withheld(answer, obligations)
    return FilteredResult(
        result=result,
        error=error,
        is_error=answer.is_error,
        applied=tuple(obligations),
        changed=result is not answer.result,
    )


def _apply(spec: Mapping[str, Any], result: bytes, tag: Tag) -> bytes | None:
    """Return what is left of a result; None where the obligation cannot be met.

    INVARIANT: an obligation that is not understood leaves nothing.
    """
    if kinds.find_fault(spec) is not None:
        return None
    match kinds.read(spec):
        case kinds.Redact(pointers=pointers):
            return hide_at(result, pointers, redact)
        case kinds.Mask(pointers=pointers, keep_last=keep, tag=tagged):
            return hide_at(result, pointers, mask_tag(tag) if tagged else mask_last(keep))
        case kinds.Truncate(pointers=None, max_bytes=most):
            return cut(result, most)
        case kinds.Truncate(pointers=pointers, max_bytes=most):
            return cut_at(result, pointers or (), most)
        case kinds.LimitResult(max_bytes=most):
            return result if len(result) <= most else None
        case _:
            return None


def _fits(spec: Mapping[str, Any], error: bytes) -> bool:
    """Whether a JSON-RPC error may be seen under an obligation: nobody looks into it."""
    if kinds.find_fault(spec) is not None:
        return False
    match kinds.read(spec):
        case kinds.Truncate(max_bytes=most) | kinds.LimitResult(max_bytes=most):
            return len(error) <= most
        case _:
            return False


def find_unmet(resolved: ResolvedCall, obligations: Sequence[Obligation]) -> Refusal | None:
    """Return why a call cannot be made as policy obliges, before it is; None if it can.

    What concerns its result can always be met, by withholding it.
    """
    for obligation in obligations:
        if obligation.type == "require_idempotency_key":
            asked = kinds.read(obligation.spec)
            assert isinstance(asked, kinds.RequireIdempotencyKey)  # noqa: S101 - read as such
            if resolved.tool.review.idempotency == "none":
                return Refusal("decide", "obligation_unmet")
            if asked.pointer is not None and not _is_key(resolved, asked.pointer):
                return Refusal("decide", "idempotency_key_required")
    return None


def _is_key(resolved: ResolvedCall, pointer: str) -> bool:
    value = resolve(resolved.call.raw.arguments.value, pointer)
    return isinstance(value, str) and 0 < len(value.strip()) <= _KEY_MAX_CHARS


def withhold(code: str | None) -> FilteredResult:
    """Nothing of an answer, or no answer at all; `code` says why."""
    return FilteredResult(result=None, error=None, is_error=True, withheld=code or "internal_error")


def status_of(answer: UpstreamResult | None, filtered: FilteredResult) -> Status:
    """How a call ended, as its outcome is recorded."""
    if answer is None:
        return "failed"
    if filtered.withheld is not None:
        return "withheld"
    return "tool_error" if answer.is_error or answer.error is not None else "ok"


def _withheld(answer: UpstreamResult, obligations: Sequence[Obligation]) -> FilteredResult:
    return FilteredResult(
        result=None,
        error=None,
        is_error=answer.is_error,
        withheld="result_withheld",
        applied=tuple(obligations),
    )
