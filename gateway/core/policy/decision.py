"""What policy may answer (DESIGN §3): permit, deny or hold; nothing else is understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct

from gateway.core.canonical import digest, encode_record
from gateway.core.policy.obligations import ANNOTATE, KINDS, AddLabel, read

Outcome = Literal["permit", "deny", "hold"]
Phase = Literal["issue", "list", "call", "result", "resume"]

OBLIGATIONS: Final = frozenset({*KINDS, ANNOTATE})
"""Obligation types the gateway can fulfil. Any other type in an answer is a deny."""


class Reason(Struct, frozen=True, omit_defaults=True):
    """Why. `code` goes to the agent; `message` and `policy` go to the log and to approvers only."""

    code: str
    message: str = ""
    policy: str = ""


class Obligation(Struct, frozen=True):
    """Something the gateway must do for the answer to hold. `spec` is the whole object as given."""

    type: str
    spec: dict[str, Any]


_T = TypeVar("_T", bound=Struct)


def pick(obligations: Sequence[Obligation], kind: type[_T]) -> list[_T]:
    """Return the obligations of one kind, read."""
    if not obligations:
        return []
    return [
        found
        for each in obligations
        if KINDS.get(each.type) is kind and isinstance(found := read(each.spec), kind)
    ]


def labels_of(obligations: Sequence[Obligation]) -> tuple[str, ...]:
    """Return the labels that obligations add."""
    if not obligations:
        return ()
    return tuple(label for each in pick(obligations, AddLabel) for label in each.labels)


def duties_digest(obligations: Sequence[Obligation]) -> str | None:
    """Return a digest of what the gateway must do, in order; None where that is nothing.

    `annotate` has no part in it: it obliges to nothing, and may quote what a digest would give
    away to whoever guesses.
    """
    duties = [each.spec for each in obligations if each.type != ANNOTATE]
    return digest(encode_record({"obligations": duties})) if duties else None


class Stage(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to meet a stage: `approve` votes of members of any of `groups`; `deny` refuse."""

    approve: int = 1
    deny: int = 1
    groups: tuple[str, ...] = ()
    min_assurance: str = "session"


class ApprovalSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Who must agree, how long it may take and who then sends the call.

    `stages` are all needed, in any order; in one, any alternative suffices. `ttl_s` in seconds.
    """

    stages: tuple[tuple[Stage, ...], ...]
    ttl_s: int = 900
    execute: Literal["on_approval", "on_redeem"] = "on_approval"


class Permit(Struct, frozen=True):
    """Policy allows the call, provided every obligation is met."""

    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    revision: str


class Hold(Struct, frozen=True):
    """Policy allows the call once the people in `approval` agree."""

    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    revision: str
    approval: ApprovalSpec


class Deny(Struct, frozen=True):
    """Policy, or the lack of any usable answer from it, forbids the call.

    `unmet`: what policy obliged to, where it let the call go and the gateway had to refuse it.
    """

    reasons: tuple[Reason, ...]
    revision: str
    unmet: tuple[Obligation, ...] = ()


Decision = Permit | Hold | Deny
