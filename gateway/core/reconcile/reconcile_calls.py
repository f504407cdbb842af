"""What the log says of the calls that a reconciliation asks about, by operation id. Pure.

Only calls of the tools in question are kept, and whatever else the export itself names: memory
grows with those, not with the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from msgspec import Struct

State = Literal["ok", "unknown", "error", "not_sent", "refused", "held"]
"""`ok`: sent and answered well, so its effect must be there. `unknown`: open, an orphan, no answer
that could be read, or an answer that was withheld, so its effect may be there. The others must have
none: the tool said that it failed (`error`), nothing was sent, or the call was refused or is held.
"""


class Call(Struct):
    """One operation. Times in µs; `end_us` is None while nothing says that it ended.

    `args` is the commitment to the arguments; `reason` says more of why it came to nothing.
    """

    op: str
    seq: int
    tool: str | None
    state: State
    start_us: int
    end_us: int | None = None
    reason: str = ""
    args: dict[str, Any] | None = None


class CallIndex:
    """Fed with every record of a log in order; `calls` then holds what is known.

    `tools` are policy ids; `wanted` the operation ids that the export names, whatever they are of.
    """

    def __init__(self, tools: Collection[str], wanted: Collection[str]) -> None:
        self._tools: Final = tools
        self._wanted: Final = wanted
        self.calls: Final[dict[str, Call]] = {}

    def feed(self, record: Mapping[str, Any]) -> None:
        """Take note of one record, as `docs/spec/audit-log-v1.md` §9 has it."""
        kind = str(record.get("type"))
        if kind in {"call.intent", "call.refused", "approval.request"}:
            self._begin(record, kind)
            return
        call = self.calls.get(str(record.get("op")))
        if call is None:
            return
        if kind in {"call.outcome", "call.orphan"}:
            self._end(call, record)
        elif call.state == "held" and kind.startswith("approval.") and kind != "approval.vote":
            call.reason = kind.removeprefix("approval.")

    def _begin(self, record: Mapping[str, Any], kind: str) -> None:
        op, tool = str(record.get("op")), _tool(record)
        if tool not in self._tools and op not in self._wanted:
            return
        known = self.calls.get(op)
        if known is not None and known.state in {"ok", "unknown", "error"}:
            return  # a breach that verification names; what was sent stays sent
        call = self.calls[op] = Call(op, record["seq"], tool, "unknown", _time(record))
        call.args = record.get("args")
        if kind == "call.refused":
            call.state, call.reason = "refused", str(record.get("reason", ""))
        elif kind == "approval.request":
            call.state = "held"

    def _end(self, call: Call, record: Mapping[str, Any]) -> None:
        if call.state != "unknown":
            return
        call.end_us = _time(record)
        delivery, status = record.get("delivery"), record.get("status")
        if delivery == "not_sent":
            call.state, call.reason = "not_sent", str(record.get("reason", ""))
        elif delivery == "sent" and status == "ok":
            call.state = "ok"
        elif delivery == "sent" and status == "tool_error":
            call.state = "error"


def _tool(record: Mapping[str, Any]) -> str | None:
    tool = record.get("tool")
    found = tool.get("id") if isinstance(tool, dict) else None
    return found if isinstance(found, str) else None


def _time(record: Mapping[str, Any]) -> int:
    ts = record.get("ts")
    return ts if isinstance(ts, int) else 0
