"""How a governed call ends, as the protocol layer gets to see it."""

from __future__ import annotations

from msgspec import Struct

from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.call import FilteredResult, RecordedOutcome
from gateway.core.refusal import Refusal


class Completed(Struct, frozen=True):
    """The tool was called and its outcome is durable."""

    recorded: RecordedOutcome
    filtered: FilteredResult


class CallReceipt(Struct, frozen=True):
    """That the outcome of a call is record `seq` of the log.

    `leaf` is the hash of that record, in hex, which says nothing of what it holds; `proof` a C2SP
    tlog-proof.
    """

    seq: int
    leaf: str
    proof: str


class Refused(Struct, frozen=True):
    """The call went no further than `refusal.stage`. `op` is what to ask the operators about."""

    op: str
    refusal: Refusal


class Pending(Struct, frozen=True):
    """The call waits for people."""

    request: ApprovalRequest


Answer = Completed | Refused | Pending
