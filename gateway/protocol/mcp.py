"""Reading MCP requests: 2026-07-28 (stateless) and 2025-11-25 (sessions), both to core values.

The body decides; headers must agree with it (`header_mismatch` otherwise), because whatever
routes or filters by header would else see another call than the one that policy judges.
Source: MCP specification, basic/transports and basic/index of both versions.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from gateway.core import strict_json
from gateway.core.calls.call import Arguments, CallMeta
from gateway.core.errors import RequestError
from gateway.core.limits import Limits
from gateway.core.refusal import Refusal
from gateway.protocol.headers import Headers, decode_value

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
_META: Final = "io.modelcontextprotocol/"
META_VERSION: Final = _META + "protocolVersion"
META_CAPABILITIES: Final = _META + "clientCapabilities"
META_INFO: Final = _META + "clientInfo"
META_LOG_LEVEL: Final = _META + "logLevel"
CLAIMED: Final = "countersign/claimed"
"""`_meta` member in which an agent may say things of itself: they can only tighten an outcome."""
RECEIPT: Final = "countersign/receipt"
"""`_meta` member that asks for a receipt (`true`), and the one that carries it."""
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

RequestId = str | int
Wire = Literal["modern", "legacy"]


class Request(Struct, frozen=True, kw_only=True):
    """A JSON-RPC request. `params` was read strictly; `body` is the exact text it was read from."""

    id: RequestId
    method: str
    params: dict[str, Any]
    wire: Wire
    version: str
    body: bytes


class Notification(Struct, frozen=True):
    """A JSON-RPC message that wants no answer."""

    method: str
    params: dict[str, Any]


class Rejected(Struct, frozen=True):
    """A message that cannot be taken: why, the id to answer to, and data for the error."""

    refusal: Refusal
    id: RequestId | None = None
    data: dict[str, Any] | None = None


class _Meta(Struct, frozen=True):
    """Members of `_meta` whose exact text is kept; empty where they are absent."""

    capabilities: Raw = msgspec.field(name=META_CAPABILITIES, default=Raw())
    info: Raw = msgspec.field(name=META_INFO, default=Raw())


class _Params(Struct):
    arguments: Raw = Raw(b"{}")
    meta: _Meta = msgspec.field(name="_meta", default=_Meta())


class _ToolCall(Struct):
    params: _Params


_decode_call: Final = msgspec.json.Decoder(_ToolCall).decode


def read_message(
    body: bytes, headers: Headers, limits: Limits
) -> Request | Notification | Rejected:
    """Read one POST body of either wire."""
    try:
        message = strict_json.parse(body, max_depth=limits.json_max_depth)
    except RequestError as error:
        return Rejected(Refusal("read", error.code, str(error)))
    if not isinstance(message, dict):
        return Rejected(Refusal("read", "request_invalid", "send one JSON-RPC object"))
    params = message.get("params", {})
    method, request_id = message.get("method"), message.get("id")
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
        known = request_id if _is_id(request_id) else None
        return Rejected(Refusal("read", "request_invalid", "send a JSON-RPC 2.0 request"), known)
    if "id" not in message:
        return Notification(method, params if isinstance(params, dict) else {})
    if not _is_id(request_id):
        return Rejected(Refusal("read", "request_invalid", "`id` must be a string or an integer"))
    if not isinstance(params, dict):
        return Rejected(Refusal("read", "params_invalid", "`params` must be an object"), request_id)
    return _route(request_id, method, params, body, headers)


def _is_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _route(
    request_id: Any,  # noqa: ANN401 - checked by `_is_id`
    method: str,
    params: dict[str, Any],
    body: bytes,
    headers: Headers,
) -> Request | Rejected:
    version = headers.text(b"mcp-protocol-version")
    meta = params.get("_meta")
    modern = isinstance(meta, dict) and META_VERSION in meta
    if not modern and (method == "initialize" or version is None or version in LEGACY):
        # This wire knows no such headers; whoever filters by them must not be told another call.
        if (header := _differing(method, params, headers)) is not None:
            return _mismatch(request_id, header)
        return Request(
            id=request_id,
            method=method,
            params=params,
            wire="legacy",
            version=version or "2025-03-26",
            body=body,
        )
    rejected = _check_modern(request_id, method, params, headers, version)
    if rejected is not None:
        return rejected
    return Request(
        id=request_id, method=method, params=params, wire="modern", version=MODERN, body=body
    )


def _differing(method: str, params: dict[str, Any], headers: Headers) -> str | None:
    """Which header that is given names something else than the body."""
    told = headers.text(b"mcp-method")
    if told is not None and told != method:
        return "Mcp-Method"
    name = headers.one.get(b"mcp-name")
    if name is None or method not in _NAMED:
        return None
    return None if decode_value(name) == params.get(_NAMED[method]) else "Mcp-Name"


def _check_modern(
    request_id: RequestId,
    method: str,
    params: dict[str, Any],
    headers: Headers,
    version: str | None,
) -> Rejected | None:
    """The checks of the stateless wire, in the order of the specification."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or META_VERSION not in meta or META_CAPABILITIES not in meta:
        detail = f"`_meta` must carry `{META_VERSION}` and `{META_CAPABILITIES}`"
        if version != MODERN and not isinstance(meta, dict):
            return _unsupported(request_id, version, [MODERN, *LEGACY])
        return Rejected(Refusal("read", "params_invalid", detail), request_id)
    if version is None or version != meta[META_VERSION]:
        return _mismatch(request_id, "MCP-Protocol-Version")
    if b"mcp-method" not in headers.one:
        return _mismatch(request_id, "Mcp-Method")
    if b"mcp-name" not in headers.one and params.get(_NAMED.get(method, "")) is not None:
        return _mismatch(request_id, "Mcp-Name")
    if (header := _differing(method, params, headers)) is not None:
        return _mismatch(request_id, header)
    if version != MODERN:
        return _unsupported(request_id, version, [MODERN])
    if not isinstance(meta[META_CAPABILITIES], dict):
        detail = f"`{META_CAPABILITIES}` must be an object"
        return Rejected(Refusal("read", "params_invalid", detail), request_id)
    return None


def build_mismatch(header: str) -> Refusal:
    """Say which header does not tell what the body does."""
    return Refusal("read", "header_mismatch", f"header `{header}` does not match the body")


def _mismatch(request_id: RequestId, header: str) -> Rejected:
    return Rejected(build_mismatch(header), request_id)


def _unsupported(request_id: RequestId, version: str | None, supported: list[str]) -> Rejected:
    """`supported`: of those versions, the ones that can be asked for in the same way."""
    data = {"supported": supported, "requested": version}
    return Rejected(Refusal("read", "version_unsupported"), request_id, data)


class ToolCall(Struct, frozen=True):
    """What `tools/call` asks for."""

    name: str
    arguments: Arguments
    meta: CallMeta


def read_tool_call(
    request: Request, session_capabilities: bytes, session_log_level: str | None = None
) -> ToolCall | Refusal:
    """Read the params of `tools/call`; the arguments keep the exact bytes they came in.

    `session_capabilities`: what a legacy session declared at initialize, as JSON.
    `session_log_level`: the least severe log message that it wants, None for none.
    """
    name, value = request.params.get("name"), request.params.get("arguments", {})
    if not isinstance(name, str):
        return Refusal("read", "params_invalid", "`name` must be a string")
    if not isinstance(value, dict):
        return Refusal("read", "params_invalid", "`arguments` must be an object")
    meta = request.params.get("_meta", {})
    if not isinstance(meta, dict):
        return Refusal("read", "params_invalid", "`_meta` must be an object")
    exact = _decode_call(request.body).params
    token = meta.get("progressToken")
    traceparent, claimed = meta.get("traceparent"), meta.get(CLAIMED)
    level = meta.get(META_LOG_LEVEL) if request.wire == "modern" else session_log_level
    return ToolCall(
        name,
        Arguments(bytes(exact.arguments), value),
        CallMeta(
            surface="mcp",
            protocol_version=request.version,
            client_capabilities=bytes(exact.meta.capabilities) or session_capabilities,
            client_info=bytes(exact.meta.info) or None,
            progress_token=token if _is_id(token) else None,
            traceparent=traceparent if isinstance(traceparent, str) else None,
            log_level=level if isinstance(level, str) else None,
            claimed=claimed if isinstance(claimed, dict) else {},
            receipt=meta.get(RECEIPT) is True,
        ),
    )
