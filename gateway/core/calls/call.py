"""One call, stage by stage (DESIGN §1). Each stage's output is the only input the next accepts.

::

    RawCall → AuthenticatedCall → ResolvedCall → Permit | Hold | Deny
            → Intent → RecordedIntent → UpstreamResult → FilteredResult → RecordedOutcome

INVARIANT: a `RecordedIntent` is made only by an `AuditLog`, once the record of the call is
durable. A transport accepts nothing else, so no effect can come before its record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import orjson
from msgspec import Struct

from gateway.core.catalog import Tool
from gateway.core.entry import Entry, Receipt
from gateway.core.errors import Delivery
from gateway.core.limits import Limits
from gateway.core.oauth.dpop import Possession
from gateway.core.policy.decision import Obligation, Permit
from gateway.core.tokens.token import Claims, Grant

Relay = Callable[[bytes], None]
"""Takes one JSON-RPC notification (progress or log) on its way to the agent. Never blocks."""


class Arguments(Struct, frozen=True):
    """The arguments of a call: the bytes as sent, and the one value that they can mean.

    INVARIANT: `value` was read from `raw` by `strict_json.parse`; `raw` is what goes upstream.
    """

    raw: bytes
    value: dict[str, Any]


class CallMeta(Struct, frozen=True, kw_only=True):
    """What surrounds a call: how it came, and what the agent claims about itself."""

    surface: Literal["mcp", "rest", "approval"]
    protocol_version: str = ""
    client_capabilities: bytes = b"{}"
    client_info: bytes | None = None
    progress_token: str | int | None = None
    traceparent: str | None = None
    log_level: str | None = None
    claimed: dict[str, Any] = {}
    receipt: bool = False
    """Whether the caller asks for a proof that the outcome of the call is in the log."""


class RawCall(Struct, frozen=True, kw_only=True):
    """A call as it came. Nothing in it is believed yet. `op` was made here and is unique."""

    op: str
    credential: bytes | None
    tool: str
    server: str | None
    arguments: Arguments
    meta: CallMeta
    possession: Possession | None = None
    """What the request shows of the key of its token; None where the token came as `Bearer`."""

    def exceeds(self, limits: Limits) -> bool:
        """Whether it is more than policy may be made to read: a slow answer costs everybody."""
        claimed = self.meta.claimed
        return len(self.arguments.raw) > limits.arguments_max_bytes or bool(
            claimed and len(orjson.dumps(claimed)) > limits.claimed_max_bytes
        )


class AuthenticatedCall(Struct, frozen=True):
    """A call whose token is genuine, alive and meant for this gateway. `now_ns`: read once."""

    raw: RawCall
    claims: Claims
    now_ns: int


class ResolvedCall(Struct, frozen=True):
    """A call of a callable tool that the token grants, with arguments its schema accepts."""

    call: AuthenticatedCall
    tool: Tool
    grant: Grant


class Intent(Struct, frozen=True, kw_only=True):
    """A permitted call, charged to its family, about to be written down and then sent.

    `idempotency_key` is the operation id of the first attempt, stable over take-overs. `find_stop`
    is the code under which it may not be sent any more, or None: whoever sends it asks once
    nothing is left to wait for.
    """

    resolved: ResolvedCall
    decision: Permit
    entry: Entry
    idempotency_key: str
    deadline_ms: int
    find_stop: Callable[[], str | None]


class RecordedIntent(Struct, frozen=True):
    """Proof that `intent` is durable at `seq`. `leaf`: SHA-256 hash of its record, 32 bytes."""

    intent: Intent
    seq: int
    leaf: bytes


class UpstreamResult(Struct, frozen=True, kw_only=True):
    """What the tool answered. `result`: raw JSON of a CallToolResult; `error`: of a JSON-RPC error.

    Exactly one of the two is given.
    """

    result: bytes | None = None
    error: bytes | None = None
    is_error: bool = False


class FilteredResult(Struct, frozen=True, kw_only=True):
    """What of the answer may reach the agent, after the result phase and every obligation.

    `changed`: the result is another than the tool's own.
    """

    result: bytes | None
    error: bytes | None
    is_error: bool
    withheld: str | None = None
    applied: tuple[Obligation, ...] = ()
    changed: bool = False


Status = Literal["ok", "tool_error", "withheld", "failed"]


class Outcome(Struct, frozen=True, kw_only=True):
    """How a recorded call ended. `status` as in the audit spec; `delivery` told honestly."""

    intent: RecordedIntent
    status: Status
    delivery: Delivery
    entry: Entry


class RecordedOutcome(Struct, frozen=True):
    """Proof that the outcome is durable at `seq`; only now may the reply leave."""

    outcome: Outcome
    seq: int
    leaf: bytes

    @property
    def place(self) -> Receipt:
        """Where the record of the outcome stands."""
        return Receipt(self.seq, self.leaf)
