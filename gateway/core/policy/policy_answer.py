"""Strict reading of what the policy engine answered. What is not exactly right is a deny.

The engine's own entry point (`rego/countersign/main.rego`) writes these answers, but a remote
engine may serve something else, and an author's message can be anything. So nothing is repaired
here: no default outcome, no unknown member, no unknown obligation.

INVARIANT: `read_answer` never raises, and returns `Permit` only for a well-formed permit.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.core.limits import Limits
from gateway.core.policy.decision import (
    OBLIGATIONS,
    ApprovalSpec,
    Decision,
    Deny,
    Hold,
    Obligation,
    Permit,
    Reason,
    Stage,
)
from gateway.core.policy.obligations import find_fault

UNDEFINED: Final = "policy_undefined"
INVALID: Final = "policy_answer_invalid"
UNKNOWN_OBLIGATION: Final = "obligation_unknown"
INVALID_OBLIGATION: Final = "obligation_invalid"

_LIMITS: Final = Limits()
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_GROUP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}")
_TTL: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TTL_MAX_S: Final = 30 * 86_400
_OBLIGATIONS_MAX: Final = 32
_STAGES_MAX: Final = 16
_VOTES_MAX: Final = 16
_WAYS_MAX: Final = 1_024
"""So many ways to take one alternative of each stage: every look at the votes may try them all."""

_MEMO_MAX_BYTES: Final = 4096


class _Who(Struct, frozen=True, forbid_unknown_fields=True):
    groups: tuple[str, ...]


class _Alternative(Struct, frozen=True, forbid_unknown_fields=True):
    who: _Who
    approve: int = 1
    deny: int = 1
    min_assurance: str = "session"


class _Stage(Struct, frozen=True, forbid_unknown_fields=True):
    any_of: tuple[_Alternative, ...]


class _Approval(Struct, frozen=True, forbid_unknown_fields=True):
    stages: tuple[_Stage, ...]
    ttl: str
    execute: Literal["on_approval", "on_redeem"]


class _Reason(Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    message: str = ""
    policy: str = ""


class _Answer(Struct, frozen=True, forbid_unknown_fields=True):
    outcome: Literal["permit", "deny", "hold"]
    reasons: tuple[_Reason, ...]
    obligations: tuple[dict[str, Any], ...]
    approval: _Approval | UnsetType = UNSET


class _Unusable(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_decode: Final = msgspec.json.Decoder(_Answer).decode


def deny(code: str, revision: str, message: str = "") -> Deny:
    """Return the deny that stands for an answer which cannot be used."""
    return Deny(reasons=(Reason(code=code, message=message),), revision=revision)


def read_answer(raw: bytes | None, revision: str) -> Decision:
    """Return the decision that `raw` (the JSON value of the entry point) says, or a deny.

    Policies answer in few words, so the same bytes are read once. Nobody changes a decision.

    `None` is undefined. Reason codes of a deny made here: `policy_undefined`,
    `policy_answer_invalid`, `obligation_unknown`, `obligation_invalid`; its message says what is
    wrong, without values.
    """
    if raw is not None and len(raw) > _MEMO_MAX_BYTES:
        return _read_answer(raw, revision)
    return _remembered(raw, revision)


def _read_answer(raw: bytes | None, revision: str) -> Decision:
    if raw is None:
        return deny(UNDEFINED, revision, "the entry point is undefined for this input")
    try:
        return _read(_decode(raw), revision)
    except _Unusable as error:
        return deny(error.code, revision, str(error))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return deny(INVALID, revision, "the answer does not have the shape of a decision")


_remembered = lru_cache(maxsize=1024)(_read_answer)


def _read(answer: _Answer, revision: str) -> Decision:
    reasons = _reasons(answer.reasons)
    if (answer.approval is not UNSET) != (answer.outcome == "hold"):
        raise _Unusable(INVALID, "a hold needs an approval, and nothing else may have one")
    if answer.outcome == "deny":
        return Deny(reasons=reasons, revision=revision)
    obligations = _obligations(answer.obligations)
    if isinstance(answer.approval, UnsetType):
        return Permit(reasons=reasons, obligations=obligations, revision=revision)
    return Hold(
        reasons=reasons,
        obligations=obligations,
        revision=revision,
        approval=_approval(answer.approval),
    )


def _reasons(given: tuple[_Reason, ...]) -> tuple[Reason, ...]:
    if len(given) > _LIMITS.reasons_max:
        raise _Unusable(INVALID, f"more than {_LIMITS.reasons_max} reasons")
    for reason in given:
        if _CODE.fullmatch(reason.code) is None:
            raise _Unusable(INVALID, "a reason code does not look like `[a-z][a-z0-9_]{0,63}`")
        if _too_long(reason.message) or _too_long(reason.policy):
            raise _Unusable(INVALID, f"a reason is longer than {_LIMITS.reason_max_bytes} bytes")
    return tuple(Reason(code=r.code, message=r.message, policy=r.policy) for r in given)


def _too_long(text: str) -> bool:
    most = _LIMITS.reason_max_bytes
    return len(text) * 4 > most and len(text.encode()) > most


def _obligations(given: tuple[dict[str, Any], ...]) -> tuple[Obligation, ...]:
    if len(given) > _OBLIGATIONS_MAX:
        raise _Unusable(INVALID, f"more than {_OBLIGATIONS_MAX} obligations")
    for spec in given:
        kind = spec.get("type")
        if type(kind) is not str or kind not in OBLIGATIONS:
            raise _Unusable(UNKNOWN_OBLIGATION, "an obligation is none that the gateway can meet")
        if (fault := find_fault(spec)) is not None:
            raise _Unusable(INVALID_OBLIGATION, fault[: _LIMITS.reason_max_bytes])
    return tuple(Obligation(type=spec["type"], spec=spec) for spec in given)


def _approval(given: _Approval) -> ApprovalSpec:
    if not 1 <= len(given.stages) <= _STAGES_MAX:
        raise _Unusable(INVALID, f"an approval has 1 to {_STAGES_MAX} stages")
    if math.prod(len(stage.any_of) for stage in given.stages) > _WAYS_MAX:
        raise _Unusable(INVALID, f"the stages can be met in more than {_WAYS_MAX} ways")
    return ApprovalSpec(
        stages=tuple(_stage(stage) for stage in given.stages),
        ttl_s=_ttl_s(given.ttl),
        execute=given.execute,
    )


def _stage(given: _Stage) -> tuple[Stage, ...]:
    # INVARIANT: a stage can only be met by votes. None of nobody would be met at once.
    if not 1 <= len(given.any_of) <= _STAGES_MAX:
        raise _Unusable(INVALID, f"a stage has 1 to {_STAGES_MAX} alternatives")
    return tuple(_alternative(alternative) for alternative in given.any_of)


def _alternative(given: _Alternative) -> Stage:
    if not 1 <= given.approve <= _VOTES_MAX or not 1 <= given.deny <= _VOTES_MAX:
        raise _Unusable(INVALID, f"`approve` and `deny` are 1 to {_VOTES_MAX}")
    if not given.who.groups or not all(_GROUP.fullmatch(name) for name in given.who.groups):
        raise _Unusable(INVALID, "`who.groups` names at least one group of approvers")
    if _CODE.fullmatch(given.min_assurance) is None:
        raise _Unusable(INVALID, "`min_assurance` does not look like `[a-z][a-z0-9_]{0,63}`")
    return Stage(
        approve=given.approve,
        deny=given.deny,
        groups=given.who.groups,
        min_assurance=given.min_assurance,
    )


def _ttl_s(text: str) -> int:
    found = _TTL.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 1 <= seconds <= _TTL_MAX_S:
        raise _Unusable(INVALID, "`ttl` is a time such as `15m`, of at most 30 days")
    return seconds
