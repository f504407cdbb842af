"""Writing MCP answers: core values to the bytes of either wire.

A tool's own answer is spliced in as it came; only what the wire itself demands is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.answer import Answer, CallReceipt, Completed, Pending, Refused
from gateway.core.catalog import Tool
from gateway.core.names import STATUS_TOOL
from gateway.core.refusal import Refusal, kind_of
from gateway.protocol.mcp import LEGACY, MODERN, RECEIPT, Rejected, RequestId, Wire
from gateway.protocol.output_schema import accepts, widen

SERVER_INFO: Final = {"name": "countersign", "title": "Countersign gateway", "version": "0.1.0"}
CAPABILITIES: Final = {"tools": {"listChanged": False}, "logging": {}}
INSTRUCTIONS: Final = (
    "Calls pass a policy gateway. A result with status `pending_approval` waits for a human: ask "
    f"`{STATUS_TOOL}` with its approval_id, and do not repeat the call."
)
LIST_TTL_MS: Final = 5_000
_BAD_REQUEST: Final = b"-32021"
"""The code of a tool's error that goes with HTTP 400: MissingRequiredClientCapability."""
_OF_SESSION: Final = frozenset({("read", "session_missing"), ("read", "session_unknown")})
_CHANGED: Final = (
    "The call was carried out; do not repeat it. Policy changed what it answered, which is no "
    "longer of the form that the tool promises."
)
_CHANGED_META: Final = "countersign/changed"
_STATUS_DEFINITION: Final = {
    "name": STATUS_TOOL,
    "title": "Status of a held call",
    "description": (
        "Ask after a call that waits for human approval. Returns its state, and the tool's own "
        "result once it has been executed. Read-only."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "approval_id": {"type": "string", "description": "as given in the pending result"},
            "wait_seconds": {
                "type": "integer",
                "minimum": 0,
                "maximum": 25,
                "description": "how long to wait for a change before answering",
            },
        },
        "required": ["approval_id"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}


class Reply(Struct, frozen=True):
    """One HTTP answer: status, JSON body, and the refusal's code where it tells one."""

    status: int
    body: bytes
    code: str = ""


class _Peek(Struct):
    kind: str | UnsetType = msgspec.field(name="resultType", default=UNSET)


_peek: Final = msgspec.json.Decoder(_Peek).decode
_COMPLETE: Final = b'{"resultType":"complete"'
_decode_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode


def build_result(request_id: RequestId, result: bytes, wire: Wire) -> bytes:
    """Wrap a raw result; on the stateless wire `resultType` is added where it is missing."""
    if wire == "modern" and not result.startswith(_COMPLETE) and _peek(result).kind is UNSET:
        inner = result.lstrip()[1:].lstrip()
        result = _COMPLETE + (b"," if inner[:1] != b"}" else b"") + inner
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(request_id), result)


def is_result(raw: bytes) -> bool:
    """Whether a tool answered with a result, and not with an error."""
    try:
        return "content" in _decode_members(raw)
    except msgspec.DecodeError:
        return False


def build_error(
    request_id: RequestId | None, code: int, message: str, data: dict[str, Any]
) -> bytes:
    """A JSON-RPC error message."""
    error = {"code": code, "message": message, "data": data}
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "error": error})


def build_rejection(rejected: Rejected, wire: Wire, *, op: str | None = None) -> Reply:
    """Answer a message that could not be taken."""
    return build_refusal(rejected.id, rejected.refusal, wire, op=op, data=rejected.data)


def build_refusal(
    request_id: RequestId | None,
    refusal: Refusal,
    wire: Wire,
    *,
    op: str | None = None,
    data: dict[str, Any] | None = None,
) -> Reply:
    """Tell a refusal: as a JSON-RPC error, or as a tool result that the model gets to read.

    Either carries the code and `op`, under which operators find it in the log.
    """
    kind = kind_of(refusal.code, refusal.stage)
    about = {"code": refusal.code, "stage": refusal.stage, "op": op}
    if refusal.delivery:
        about["delivery"] = refusal.delivery
    told = {"countersign/refusal": about}
    text = f"{kind.text}: {refusal.told}" if refusal.told else kind.text
    if kind.rpc is not None:
        status = kind.status
        if wire == "legacy" and not _is_of_transport(refusal):
            status = 200
        elif kind.rpc == -32602:  # noqa: PLR2004 - the specification maps it to 400
            status = 400
        error = build_error(request_id, kind.rpc, text, {**(data or {}), **told})
        return Reply(status, error, refusal.code)
    body = {
        "content": [{"type": "text", "text": f"refused ({refusal.code}): {text}"}],
        "isError": True,
        "_meta": told,
    }
    known = 0 if request_id is None else request_id
    return Reply(200, build_result(known, orjson.dumps(body), wire), refusal.code)


def _is_of_transport(refusal: Refusal) -> bool:
    """Whether it is about the session or the caller, and not about the request.

    Clients of 2025-11-25 take 404 for the end of their session, and many give up the whole
    connection at any other failure: an error that answers a request goes with 200 there.
    """
    return refusal.stage == "authenticate" or (refusal.stage, refusal.code) in _OF_SESSION


def build_answer(request_id: RequestId, answer: Answer, wire: Wire, *, plain: bool) -> Reply:
    """Tell how a call ended. `plain`: the tool has an output schema without the pending form."""
    match answer:
        case Refused():
            return build_refusal(request_id, answer.refusal, wire, op=answer.op)
        case Pending():
            return Reply(200, build_result(request_id, build_pending(answer.request, plain), wire))
        case Completed(filtered=filtered, recorded=recorded):
            if filtered.result is not None:
                tool = recorded.outcome.intent.intent.resolved.tool
                result = _tell_changed(filtered.result, tool) if filtered.changed else None
                return Reply(200, build_result(request_id, result or filtered.result, wire))
            if filtered.error is not None:
                return _build_tool_error(request_id, filtered.error, wire)
            code, delivery = filtered.withheld or "internal_error", recorded.outcome.delivery
            refusal = Refusal("call", code, delivery=delivery)
            op = recorded.outcome.intent.intent.resolved.call.raw.op
            return build_refusal(request_id, refusal, wire, op=op)


def _tell_changed(result: bytes, tool: Tool) -> bytes | None:
    """Return a result that policy changed as clients take it; None where it fits as it is.

    Clients raise at a structured result that breaks the tool's output schema, and at one that is
    missing, although the call was carried out. At what is marked as an error they do not.
    """
    body: dict[str, Any] = orjson.loads(result)
    if body.get("isError") is True or accepts(tool.definition, body):
        return None
    blocks, structured = body.get("content"), body.get("structuredContent")
    shown = blocks if isinstance(blocks, list) else []
    if structured is not None and not shown:
        shown = [{"type": "text", "text": orjson.dumps(structured).decode()}]
    told = {"content": [{"type": "text", "text": _CHANGED}, *shown], "isError": True}
    if structured is not None:
        told["_meta"] = {_CHANGED_META: structured}
    return orjson.dumps(told)


def add_receipt(reply: Reply, receipt: CallReceipt) -> Reply:
    """Put a receipt into a result's `_meta`, or an error's `data`, where there is room for it."""
    try:
        message = _decode_members(reply.body)
        outer, inner = ("result", "_meta") if "result" in message else ("error", "data")
        told = _decode_members(message[outer])
        beside = _decode_members(told[inner]) if inner in told else {}
    except msgspec.DecodeError:  # the tool put something else there: nothing of its own is lost
        return reply
    beside[RECEIPT] = _raw(receipt)
    told[inner] = _raw(beside)
    message[outer] = _raw(told)
    return Reply(reply.status, msgspec.json.encode(message), reply.code)


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def _build_tool_error(request_id: RequestId, error: bytes, wire: Wire) -> Reply:
    """Pass on the JSON-RPC error that the tool's server answered with."""
    try:
        code = bytes(_decode_members(error).get("code", b""))
    except msgspec.DecodeError:  # none as it should be, and passed on as it is
        code = b""
    status = 400 if wire == "modern" and code == _BAD_REQUEST else 200
    text = b'{"jsonrpc":"2.0","id":%b,"error":%b}'
    return Reply(status, text % (orjson.dumps(request_id), error))


def build_pending(request: ApprovalRequest, plain: bool) -> bytes:  # noqa: FBT001 - see build_answer
    """The result of a held call: told as data and as text, and never as an error.

    Where the tool's output schema has no room for it (`plain`), it is marked as an error, since
    clients check every other structured result against that schema.
    """
    body = {
        "status": "pending_approval",
        "approval_id": request.id,
        "poll_tool": STATUS_TOOL,
        "retry_after_ms": 2_000,
        "expires_at": request.expires_at,
        "reason": request.reasons[0].code if request.reasons else "approval_needed",
    }
    text = orjson.dumps(body).decode()
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if plain:
        result |= {"isError": True, "_meta": {"countersign/pending": body}}
    else:
        result |= {"structuredContent": body, "isError": False}
    return orjson.dumps(result)


def has_pending_form(tool: Tool) -> bool:
    """Whether the listing of a tool leaves room for the pending result.

    Tools without an output schema always do. Those that only read keep their schema as it is.
    """
    return tool.review.effect != "read" or b'"outputSchema"' not in tool.definition


def build_listing(tools: Sequence[Tool], *, bare: bool, wire: Wire) -> bytes:
    """The result of `tools/list`: the approved definitions under the names used here."""
    items = [_definition(tool, tool.name if bare else tool.wire_name) for tool in tools]
    result: dict[str, Any] = {"tools": [*items, _STATUS_DEFINITION]}
    if wire == "modern":
        result |= {"resultType": "complete", "ttlMs": LIST_TTL_MS, "cacheScope": "private"}
    return orjson.dumps(result)


def _definition(tool: Tool, name: str) -> dict[str, Any]:
    definition: dict[str, Any] = orjson.loads(tool.definition)
    definition["name"] = name
    output = definition.get("outputSchema")
    if isinstance(output, dict) and has_pending_form(tool):
        definition["outputSchema"] = widen(output)
    return definition


def build_initialize(requested: object) -> bytes:
    """The result of `initialize` (2025-11-25): the version asked for, if it is one of ours."""
    version = requested if requested in LEGACY else LEGACY[0]
    return orjson.dumps(
        {
            "protocolVersion": version,
            "capabilities": CAPABILITIES,
            "serverInfo": SERVER_INFO,
            "instructions": INSTRUCTIONS,
        }
    )


def build_discover() -> bytes:
    """The result of `server/discover` (2026-07-28)."""
    return orjson.dumps(
        {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": CAPABILITIES,
            "instructions": INSTRUCTIONS,
            "ttlMs": 60_000,
            "cacheScope": "public",
            "_meta": {"io.modelcontextprotocol/serverInfo": SERVER_INFO},
        }
    )
