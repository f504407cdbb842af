"""`countersign_approval_status`: how an agent learns what became of a held call (DESIGN §5, 4)."""

from __future__ import annotations

import orjson

from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.answer import Refused
from gateway.core.calls.call import RawCall
from gateway.core.errors import CountersignError
from gateway.core.refusal import Refusal
from gateway.core.tokens.token import SCOPE_CALL
from gateway.enforce import Enforcement
from gateway.holding import HoldDesk
from gateway.protocol.mcp import Request
from gateway.protocol.mcp_reply import (
    Reply,
    build_pending,
    build_refusal,
    build_result,
    is_result,
)

TOLD = {
    "DENIED": "an approver denied this call; it was not executed",
    "EXPIRED": "nobody approved this call in time; it was not executed",
    "CANCELLED": "this call was cancelled; it was not executed",
    "STALE": "something changed after approval; the call was not executed; ask again",
    "FAILED": "the call was approved, and the tool answered with an error",
    "UNKNOWN": "the call was sent, but its outcome is not known; do not repeat it",
}
ENDED = {
    "withheld": "the call was executed; policy does not allow its result to be seen",
    "not_sent": "the call was approved, but could not be sent; it was not executed; ask again",
    "failed": (
        "the call was approved and may have run, but no answer of the tool could be used; "
        "do not repeat it before somebody has looked"
    ),
    "resolved_not_ran": "somebody has looked: the call was not executed; ask again",
}
"""What an outcome says that the state alone does not."""


class StatusTool:
    """Reads, and only reads: asking after a call never sends it."""

    def __init__(self, *, enforcement: Enforcement, desk: HoldDesk) -> None:
        self._enforcement = enforcement
        self._desk = desk

    async def answer(self, raw: RawCall, request: Request) -> Reply:
        """Answer `tools/call` of the status tool."""
        found = await self.find(raw)
        if isinstance(found, Refused):
            return build_refusal(request.id, found.refusal, request.wire, op=found.op)
        return Reply(200, build_result(request.id, describe(found), request.wire))

    async def find(self, raw: RawCall) -> ApprovalRequest | Refused:
        """Return the caller's own held call."""
        call = await self._enforcement.identify(raw, SCOPE_CALL)
        if isinstance(call, Refused):
            return call
        asked = raw.arguments.value
        approval_id, wait_s = asked.get("approval_id"), asked.get("wait_seconds", 0)
        if not isinstance(approval_id, str) or isinstance(wait_s, bool):
            return await self._refuse(raw, "arguments_invalid", "`/approval_id`")
        if not isinstance(wait_s, int) or wait_s < 0:
            return await self._refuse(raw, "arguments_invalid", "`/wait_seconds`")
        try:
            held = await self._desk.status(call.claims, approval_id, wait_s)
        except CountersignError as error:
            return await self._refuse(raw, error.code)
        return held or await self._refuse(raw, "approval_not_found")

    async def _refuse(self, raw: RawCall, code: str, detail: str = "") -> Refused:
        return await self._enforcement.reject(raw, Refusal("resolve", code, detail))


def describe(request: ApprovalRequest) -> bytes:
    """The state of a held call as a CallToolResult; once executed, the tool's own result."""
    if request.state == "EXECUTED" and request.outcome == "ok" and request.result is not None:
        return request.result
    if request.state in {"PENDING", "APPROVED", "CLAIMED", "DISPATCHED"}:
        return build_pending(request, plain=False)
    if request.state == "FAILED" and request.result is not None and is_result(request.result):
        return request.result
    state = request.state.lower()
    text = TOLD.get(request.state, "the call was executed; its result is not kept")
    text = ENDED.get(request.outcome or "", text)
    body = {
        "content": [{"type": "text", "text": f"{state}: {text}"}],
        "structuredContent": {"status": state, "approval_id": request.id},
        "isError": True,
    }
    return orjson.dumps(body)
