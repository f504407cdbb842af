"""`/v1/tools` and `/v1/calls`: agents over REST, straight on ASGI (ADR 0002)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from urllib.parse import unquote

import orjson

from gateway.core.answer import Completed, Pending, Refused
from gateway.core.call import Arguments, CallMeta, RawCall
from gateway.core.canonical import digest
from gateway.core.errors import ApprovalError
from gateway.core.limits import Limits
from gateway.core.ports import ApprovalStore, Clock, IdempotencyStore, Ids
from gateway.core.refusal import Refusal
from gateway.core.token import SCOPE_CALL, Claims
from gateway.enforce import Enforcement
from gateway.http.asgi import Receive, Scope, Send, read_body, send_empty
from gateway.http.challenge import Challenges
from gateway.http.origin import OriginCheck
from gateway.protocol import rest
from gateway.protocol.headers import Headers, read_headers
from gateway.protocol.rest import Reply

_RECENT_MAX: Final = 10_000
_KEY_MAX_CHARS: Final = 255
_NO_ARGUMENTS: Final = Arguments(b"{}", {})


class RestEndpoint:
    """Serves the agent's REST surface; every call goes through `Enforcement`."""

    def __init__(  # noqa: PLR0913 - the composition root names each collaborator
        self,
        *,
        enforcement: Enforcement,
        approvals: ApprovalStore,
        keys: IdempotencyStore,
        challenges: Challenges,
        origin: OriginCheck,
        clock: Clock,
        ids: Ids,
        limits: Limits,
    ) -> None:
        self._enforcement = enforcement
        self._approvals = approvals
        self._keys = keys
        self._challenges = challenges
        self._origin = origin
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._recent: OrderedDict[str, tuple[tuple[str, str], str | Reply]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        op = self._ids.new()
        headers = read_headers(scope["headers"])
        if isinstance(headers, Refusal):
            await self._send(send, rest.build_problem(headers, op))
            return
        if (refusal := self._origin.refuse(headers)) is not None:
            await self._send(send, rest.build_problem(refusal, op))
            return
        parts = [unquote(part) for part in scope["path"].split("/")[2:]]
        match scope["method"], parts:
            case "GET", ["tools"]:
                reply = await self._list(self._raw(op, headers))
            case "POST", ["tools", name, "call"]:
                reply = await self._called(op, name, headers, receive)
            case "GET", ["calls", call_id]:
                reply = await self._look_up(self._raw(op, headers), call_id)
            case _, ["tools"] | ["tools", _, "call"] | ["calls", _]:
                await send_empty(send, 405)
                return
            case _:
                await send_empty(send, 404)
                return
        await self._send(send, reply)

    async def _list(self, raw: RawCall) -> Reply:
        shown = await self._enforcement.list_tools(raw)
        if isinstance(shown, Refused):
            return rest.build_problem(shown.refusal, shown.op)
        return Reply(200, rest.build_tools(shown))

    async def _called(self, op: str, name: str, headers: Headers, receive: Receive) -> Reply:
        raw = self._raw(op, headers, tool=name)
        call = await self._enforcement.identify(raw, SCOPE_CALL)
        if isinstance(call, Refused):
            return rest.build_problem(call.refusal, call.op)
        body = await read_body(receive, self._limits.body_max_bytes)
        if body is None:
            return await self._reject(raw, Refusal("read", "body_too_large"))
        read = rest.read_call(body, self._limits)
        if isinstance(read, Refusal):
            return await self._reject(raw, read)
        arguments, claimed = read
        raw = self._raw(op, headers, tool=name, arguments=arguments, claimed=claimed)
        key = headers.text(b"idempotency-key")
        if key is None:
            return await self._call(raw, call.claims)
        if not 0 < len(key) <= _KEY_MAX_CHARS:
            return await self._reject(
                raw, Refusal("read", "params_invalid", "`Idempotency-Key` is 1 to 255 characters")
            )
        return await self._once(raw, call.claims, key, name, body)

    async def _once(self, raw: RawCall, claims: Claims, key: str, name: str, body: bytes) -> Reply:
        """Call under an Idempotency-Key: the same request gets the same reply, and one effect.

        INVARIANT: the key is claimed durably before the call; one that was claimed and has no
        reply (the gateway died) is never called again.
        """
        scope, now_s = f"{claims.subject}|{claims.run_id}", self._clock.now_ns() // 1_000_000_000
        asked = digest(name.encode() + b"\0" + body)
        try:
            stored = await self._keys.begin(scope, key, asked, raw.op, now_s)
        except ApprovalError as error:
            return await self._reject(raw, Refusal("hold", error.code))
        if stored is not None:
            if stored.request_digest != asked:
                return await self._reject(raw, Refusal("read", "key_reused"))
            if stored.state == "running":
                return rest.build_problem(Refusal("read", "key_running"), stored.op)
            return _stored_reply(stored.body, stored.status)
        reply = await self._call(raw, claims)
        await self._keys.finish(scope, key, reply.status, _store_reply(reply))
        return reply

    async def _call(self, raw: RawCall, claims: Claims) -> Reply:
        answer = await self._enforcement.call(raw)
        reply = rest.build_answer(answer, raw.op)
        owner = (claims.subject, claims.run_id)
        if isinstance(answer, Pending):
            self._remember(answer.request.op, owner, answer.request.id)
        elif isinstance(answer, Completed):
            self._remember(raw.op, owner, reply)
        return reply

    def _remember(self, op: str, owner: tuple[str, str], what: str | Reply) -> None:
        self._recent[op] = (owner, what)
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)

    async def _look_up(self, raw: RawCall, call_id: str) -> Reply:
        """A call of the same agent and run: held ones durably, others while they are recent."""
        call = await self._enforcement.identify(raw)
        if isinstance(call, Refused):
            return rest.build_problem(call.refusal, call.op)
        owner = (call.claims.subject, call.claims.run_id)
        known_owner, what = self._recent.get(call_id, (None, None))
        if isinstance(what, Reply) and known_owner == owner:
            return what
        held = await self._approvals.get_by_op(call_id)
        if held is not None and (held.agent, held.run_id) == owner:
            return rest.build_held(held)
        return rest.build_problem(Refusal("resolve", "call_unknown"), raw.op)

    async def _reject(self, raw: RawCall, refusal: Refusal) -> Reply:
        refused = await self._enforcement.reject(raw, refusal)
        return rest.build_problem(refused.refusal, refused.op)

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            (b"content-type", reply.media_type),
            (b"content-length", b"%d" % len(reply.body)),
            *self._challenges.headers(reply.code, ""),
        ]
        if reply.location is not None:
            headers.append((b"location", reply.location.encode("ascii")))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    @staticmethod
    def _raw(
        op: str,
        headers: Headers,
        *,
        tool: str = "",
        arguments: Arguments = _NO_ARGUMENTS,
        claimed: dict[str, object] | None = None,
    ) -> RawCall:
        return RawCall(
            op=op,
            credential=headers.bearer(),
            tool=tool,
            server=None,
            arguments=arguments,
            meta=CallMeta(
                surface="rest", traceparent=headers.text(b"traceparent"), claimed=claimed or {}
            ),
        )


def _store_reply(reply: Reply) -> bytes:
    return orjson.dumps(
        {"code": reply.code, "location": reply.location, "body": reply.body.decode()}
    )


def _stored_reply(stored: bytes, status: int) -> Reply:
    data = orjson.loads(stored)
    return Reply(status, data["body"].encode(), data["code"], data["location"])
