from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.core.reconcile.reconcile import Rules, Scope
from gateway.core.reconcile.reconcile_calls import Call, CallIndex
from gateway.core.reconcile.reconcile_rows import Effect
from gateway.core.reconcile.reconcile_values import Field

PAY = "bank.pay"
SCOPE = Scope(tools={PAY: Rules((Field("/amount", 0, "integer"), Field("/to", 1)))})

ENDINGS: dict[str, tuple[str, str] | None] = {
    "ok": ("sent", "ok"),
    "error": ("sent", "tool_error"),
    "unread": ("sent", "failed"),
    "withheld": ("sent", "withheld"),
    "unknown": ("unknown", "failed"),
    "not_sent": ("not_sent", "failed"),
    "open": None,
}
"""What an outcome says of `delivery` and `status`, by how a call ended."""


class History:
    """Records as a log holds them, one second apart, as far as a reconciliation reads them."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def add(self, kind: str, op: str, **fields: Any) -> History:  # noqa: ANN401 - JSON
        seq = len(self.records)
        record = {"seq": seq, "ts": seq * 1_000_000, "type": kind, "op": op, **fields}
        self.records.append(record)
        return self

    def intent(self, op: str, tool: str = PAY) -> History:
        return self.add("call.intent", op, tool={"id": tool}, args={"c": op, "bytes": 2})

    def ended(self, op: str, how: str) -> History:
        ending = ENDINGS[how]
        if ending is None:
            return self
        return self.add("call.outcome", op, delivery=ending[0], status=ending[1])

    def call(self, op: str, how: str = "ok", tool: str = PAY) -> History:
        return self.intent(op, tool).ended(op, how)

    def index(self, wanted: Iterable[str] = ()) -> dict[str, Call]:
        index = CallIndex({PAY}, frozenset(wanted))
        for record in self.records:
            index.feed(record)
        return index.calls


def effect(row: int, op: str, **changes: Any) -> Effect:  # noqa: ANN401 - fields of an effect
    fields: dict[str, Any] = {"id": None, "time_us": None, "values": ("5", "ann"), **changes}
    return Effect(row, op=op, **fields)
