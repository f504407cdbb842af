"""`POST /mcp` and `POST /mcp/<server>`: agents over MCP, both wires, straight on ASGI.

No framework routing and no models on this path (ADR 0002). Everything that concerns a tool goes
through `Enforcement`; this file only speaks the protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import orjson
from msgspec.structs import replace

from gateway.core.calls.answer import Completed, Pending, Refused
from gateway.core.calls.call import Arguments, AuthenticatedCall, CallMeta, RawCall, Relay
from gateway.core.catalog import CatalogView
from gateway.core.limits import Limits
from gateway.core.names import STATUS_TOOL, is_server_id
from gateway.core.ports import Ids
from gateway.core.refusal import Refusal
from gateway.enforce import Enforcement
from gateway.http.asgi import (
    REQUEST_ID,
    EventStream,
    Receive,
    Scope,
    Send,
    read_body,
    send_empty,
    send_json,
)
from gateway.http.challenge import Challenges
from gateway.http.mcp_sessions import LEVELS, Session, Sessions
from gateway.http.origin import OriginCheck
from gateway.http.proved_reply import answer_proved, show_possession
from gateway.http.status_tool import StatusTool
from gateway.protocol import mcp, mcp_reply
from gateway.protocol.headers import Headers
from gateway.protocol.mcp import Notification, Rejected, Request, ToolCall, Wire
from gateway.protocol.mcp_reply import Reply
from gateway.protocol.param_headers import find_param_mismatch

_NO_ARGUMENTS: Final = Arguments(b"{}", {})
_MCP_META: Final = CallMeta(surface="mcp")
_LOG: Final = "notifications/message"
_RELAYED: Final = frozenset({"notifications/progress", _LOG})
_ALLOW: Final = [(b"allow", b"POST, DELETE")]


class McpEndpoint:
    """Serves both wires on one path; `server` in the path binds a caller to one upstream."""

    def __init__(
        self,
        *,
        enforcement: Enforcement,
        status_tool: StatusTool,
        catalog: Callable[[], CatalogView],
        challenges: Challenges,
        origin: OriginCheck,
        ids: Ids,
        limits: Limits,
    ) -> None:
        self._enforcement = enforcement
        self._status_tool = status_tool
        self._catalog = catalog
        self._challenges = challenges
        self._origin = origin
        self._ids = ids
        self._limits = limits
        self._sessions = Sessions()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one HTTP request, once awaited."""
        path: str = scope["path"]
        server = path[len("/mcp/") :] or None
        if server is not None and not is_server_id(server):
            return send_empty(send, 404)
        headers = self._origin.admit(scope["headers"])
        if isinstance(headers, Refusal):
            return self._keep_out(scope[REQUEST_ID], headers, path, send)
        raw = self._raw(scope, headers, server)
        send = answer_proved(send, raw.possession)
        if scope["method"] == "POST":
            return self._post(raw, headers, path, receive, send)
        if scope["method"] == "DELETE":
            return self._delete(raw, headers, path, send)
        return send_empty(send, 405, _ALLOW)

    async def _post(
        self, raw: RawCall, headers: Headers, path: str, receive: Receive, send: Send
    ) -> None:
        # Strangers do not get to make us read a body, whatever they call a token. `call` asks
        # again: by the time the body is here, the token may have run out or been taken back.
        if isinstance(unknown := self._enforcement.authenticate(raw, None), Refusal):
            await self._keep_out(raw.op, unknown, path, send)
            return
        body = await read_body(receive, self._limits.body_max_bytes)
        if isinstance(body, Refusal):
            await self._rejected(raw, Rejected(body), path, send)
            return
        message = mcp.read_message(body, headers, self._limits)
        if isinstance(message, Rejected):
            await self._rejected(raw, message, path, send)
        elif isinstance(message, Notification):
            await self._notified(raw, path, send)
        elif message.method == "tools/call":
            await self._call(message, headers, raw, path, send)
        else:
            await self._other(message, headers, raw, path, send)

    async def _call(
        self, request: Request, headers: Headers, raw: RawCall, path: str, send: Send
    ) -> None:
        """`tools/call`: the one method that can reach a tool."""
        session: Session | None = None
        if request.wire == "legacy":
            found = await self._session(headers, raw)
            if not isinstance(found, Session):
                await self._refused(found, request, path, send)
                return
            session = found
        streams = b"text/event-stream" in headers.accept
        asked = _read_call(request, session, streams=streams)
        if isinstance(asked, Refusal):
            await self._rejected(raw, Rejected(asked, request.id), path, send, request.wire)
            return
        raw = replace(raw, tool=asked.name, arguments=asked.arguments, meta=asked.meta)
        if asked.name == STATUS_TOOL:
            reply = await self._status_tool.answer(raw, request)
            await self._reply(send, reply, path)
            return
        if (told := self._find_contradiction(raw, headers, request.wire)) is not None:
            refused = await self._enforcement.reject(raw, told, of_tool=True)
            await self._refused(refused, request, path, send)
            return
        stream = EventStream(send)
        relay = _relay(stream, asked.meta.log_level) if streams else None
        answer = await self._enforcement.call(raw, relay)
        reply = mcp_reply.build_answer(
            request.id,
            answer,
            request.wire,
            plain=isinstance(answer, Pending) and self._is_plain(raw),
        )
        if asked.meta.receipt and isinstance(answer, Completed):
            receipt = await self._enforcement.receipts.prove(answer.recorded.place)
            reply = reply if receipt is None else mcp_reply.add_receipt(reply, receipt)
        if stream.started:
            await stream.finish(reply.body)
        else:
            await self._reply(send, reply, path)

    def _find_contradiction(self, raw: RawCall, headers: Headers, wire: Wire) -> Refusal | None:
        """Whether an `Mcp-Param-*` header says something else than the argument that it repeats."""
        tool = self._catalog().find(raw.tool, raw.server)
        if tool is None or not tool.param_headers:
            return None
        header = find_param_mismatch(
            tool.param_headers, headers.params, raw.arguments.value, required=wire == "modern"
        )
        return None if header is None else mcp.build_mismatch(header)

    def _is_plain(self, raw: RawCall) -> bool:
        tool = self._catalog().find(raw.tool, raw.server)
        return tool is not None and not mcp_reply.has_pending_form(tool)

    async def _other(
        self, request: Request, headers: Headers, raw: RawCall, path: str, send: Send
    ) -> None:
        """Everything that reaches no tool. Each answers only to an authenticated caller."""
        call = await self._enforcement.identify(raw)
        if isinstance(call, Refused):
            await self._refused(call, request, path, send)
            return
        if request.wire == "legacy" and request.method == "initialize":
            await self._initialize(request, call, send)
            return
        session = await self._session(headers, raw) if request.wire == "legacy" else None
        if isinstance(session, Refused):
            await self._refused(session, request, path, send)
            return
        result = await self._result(request, raw, session)
        if isinstance(result, Refused):
            await self._refused(result, request, path, send)
        elif isinstance(result, Refusal):
            await self._rejected(raw, Rejected(result, request.id), path, send, request.wire)
        else:
            body = mcp_reply.build_result(request.id, result, request.wire)
            await send_json(send, 200, body)

    async def _result(
        self, request: Request, raw: RawCall, session: Session | None
    ) -> bytes | Refused | Refusal:
        match request.method, request.wire:
            case "ping", "legacy":
                return b"{}"
            case "tools/list", _:
                shown = await self._enforcement.list_tools(raw)
                if isinstance(shown, Refused):
                    return shown
                bare = raw.server is not None
                return mcp_reply.build_listing(shown, bare=bare, wire=request.wire)
            case "server/discover", "modern":
                return mcp_reply.build_discover()
            case "logging/setLevel", "legacy" if session is not None:
                level = request.params.get("level")
                if level not in LEVELS:
                    return Refusal("read", "params_invalid", "`level` is not a log level")
                session.log_level = level
                return b"{}"
            case _:
                return Refusal("read", "method_unknown")

    async def _initialize(self, request: Request, call: AuthenticatedCall, send: Send) -> None:
        capabilities = request.params.get("capabilities")
        version = request.params.get("protocolVersion")
        session_id = self._ids.secret()
        # `orjson` would leave 4 KiB behind each, however short.
        declared = msgspec.json.encode(capabilities) if isinstance(capabilities, dict) else b"{}"
        self._sessions.open(session_id, call.claims, declared)
        body = mcp_reply.build_result(request.id, mcp_reply.build_initialize(version), "legacy")
        await send_json(send, 200, body, [(b"mcp-session-id", session_id.encode())])

    async def _session(self, headers: Headers, raw: RawCall) -> Session | Refused:
        """The caller's open session. Someone else's answers as one that does not exist."""
        call = await self._enforcement.identify(raw)
        if isinstance(call, Refused):
            return call
        session_id = headers.text(b"mcp-session-id")
        if session_id is None:
            return await self._enforcement.reject(raw, Refusal("read", "session_missing"))
        session = self._sessions.get(session_id, call.claims)
        if session is None:
            return await self._enforcement.reject(raw, Refusal("read", "session_unknown"))
        return session

    async def _delete(self, raw: RawCall, headers: Headers, path: str, send: Send) -> None:
        if headers.text(b"mcp-protocol-version") == mcp.MODERN:
            await send_empty(send, 405, [(b"allow", b"POST")])
            return
        session = await self._session(headers, raw)
        if isinstance(session, Refused):
            await self._turn_away(session, path, send, "legacy")
            return
        self._sessions.close(headers.text(b"mcp-session-id") or "")
        await send_empty(send, 204)

    async def _notified(self, raw: RawCall, path: str, send: Send) -> None:
        call = await self._enforcement.identify(raw)
        if isinstance(call, Refused):
            await self._turn_away(call, path, send)
        else:
            await send_empty(send, 202)

    async def _rejected(
        self, raw: RawCall, rejected: Rejected, path: str, send: Send, wire: Wire = "modern"
    ) -> None:
        refused = await self._enforcement.reject(raw, rejected.refusal)
        told = Rejected(refused.refusal, rejected.id, rejected.data)
        await self._reply(send, mcp_reply.build_rejection(told, wire, op=refused.op), path)

    async def _keep_out(self, op: str, refusal: Refusal, path: str, send: Send) -> None:
        """Refuse a stranger, before any body is read."""
        await self._turn_away(await self._enforcement.turn_away(op, refusal), path, send)

    async def _turn_away(
        self, refused: Refused, path: str, send: Send, wire: Wire = "modern"
    ) -> None:
        """Refuse what has no id to answer to."""
        reply = mcp_reply.build_refusal(None, refused.refusal, wire, op=refused.op)
        await self._reply(send, reply, path)

    async def _refused(self, refused: Refused, request: Request, path: str, send: Send) -> None:
        reply = mcp_reply.build_refusal(request.id, refused.refusal, request.wire, op=refused.op)
        await self._reply(send, reply, path)

    async def _reply(self, send: Send, reply: Reply, path: str) -> None:
        headers = self._challenges.headers(reply.code, path)
        await send_json(send, reply.status, reply.body, headers)

    @staticmethod
    def _raw(scope: Scope, headers: Headers, server: str | None) -> RawCall:
        return RawCall(
            op=scope[REQUEST_ID],
            credential=headers.credential(),
            tool="",
            server=server,
            arguments=_NO_ARGUMENTS,
            meta=_MCP_META,
            possession=show_possession(scope, headers),
        )


def _read_call(request: Request, session: Session | None, *, streams: bool) -> ToolCall | Refusal:
    if session is None:
        return mcp.read_tool_call(request, b"{}")
    level = session.log_level if streams else None
    return mcp.read_tool_call(request, session.capabilities, level)


def _relay(stream: EventStream, wanted: str | None) -> Relay:
    """Pass on progress, and log messages at least as severe as `wanted`; None: no log messages."""

    def relay(message: bytes) -> None:
        try:
            notification: dict[str, Any] = orjson.loads(message)
        except ValueError:  # a number that no double holds: no reason for the call to fail
            return
        method, params = notification.get("method"), notification.get("params")
        # What answers or asks anything is not passed on: it would go past filter and record.
        if method not in _RELAYED or "id" in notification or not isinstance(params, dict):
            return
        if method == _LOG and not _is_severe(params.get("level"), wanted):
            return
        stream.push(message)

    return relay


def _is_severe(level: object, wanted: str | None) -> bool:
    return level in LEVELS and wanted in LEVELS and LEVELS.index(level) >= LEVELS.index(wanted)
