"""`/v1/tools` and `/v1/calls`: agents over REST, straight on ASGI (ADR 0002)."""

from __future__ import annotations

import http
from collections import OrderedDict
from typing import Final, NamedTuple

import orjson
import structlog

from gateway.core.calls.answer import Completed, Refused
from gateway.core.calls.call import Arguments, CallMeta, RawCall
from gateway.core.canonical import digest
from gateway.core.entry import Receipt
from gateway.core.errors import CountersignError
from gateway.core.limits import Limits
from gateway.core.oauth.dpop import Possession
from gateway.core.ports import ApprovalStore, Clock, IdempotencyStore
from gateway.core.refusal import Refusal
from gateway.core.tokens.token import SCOPE_CALL, Claims
from gateway.enforce import Enforcement
from gateway.http.asgi import REQUEST_ID, Receive, Scope, Send, read_body
from gateway.http.challenge import Challenges
from gateway.http.origin import OriginCheck
from gateway.http.proved_reply import answer_proved, show_possession
from gateway.protocol import rest
from gateway.protocol.headers import Headers
from gateway.protocol.rest import Reply

_RECENT_MAX: Final = 10_000
_RECENT_MAX_BYTES: Final = 16 << 20
_NOT_EXECUTED: Final = frozenset(
    {
        "audit_unavailable",
        "audit_overloaded",
        "policy_unavailable",
        "policy_timeout",
        "policy_suspended",
        "policy_overloaded",
        "policy_worker_died",
        "policy_revision_foreign",
        "kill_feed_stale",
        "killed",
        "tool_killed",
        "identity_suspended",
        "too_many_pending",
        "approval_unavailable",
        "state_unavailable",
    }
)
"""Refusals that come before anything is sent and that another try may not meet again."""
_KEY_MAX_CHARS: Final = 255
_NO_ARGUMENTS: Final = Arguments(b"{}", {})
_log: Final = structlog.get_logger("gateway.rest")

Owner = tuple[str, str]


class Asked(NamedTuple):
    """One HTTP request: its id, its headers, and what it shows of its token's key."""

    op: str
    headers: Headers
    possession: Possession | None


class RecentReplies:
    """Replies of ended calls, as many of the last ones as a bounded room holds."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Owner, Reply, Receipt]] = OrderedDict()
        self._bytes = 0

    def add(self, op: str, owner: Owner, reply: Reply, outcome: Receipt) -> None:
        """Keep a reply, and where its outcome stands, for the agent and run of the call."""
        self._kept[op] = (owner, reply, outcome)
        self._bytes += len(reply.body)
        while len(self._kept) > _RECENT_MAX or self._bytes > _RECENT_MAX_BYTES:
            _, (_, oldest, _) = self._kept.popitem(last=False)
            self._bytes -= len(oldest.body)

    def get(self, op: str, owner: Owner) -> tuple[Reply, Receipt] | None:
        """Return the reply to the call `op` of this owner, if it is still kept."""
        kept = self._kept.get(op)
        return None if kept is None or kept[0] != owner else kept[1:]


class RestEndpoint:
    """Serves the agent's REST surface; every call goes through `Enforcement`."""

    def __init__(
        self,
        *,
        enforcement: Enforcement,
        approvals: ApprovalStore,
        keys: IdempotencyStore,
        challenges: Challenges,
        origin: OriginCheck,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._enforcement = enforcement
        self._approvals = approvals
        self._keys = keys
        self._challenges = challenges
        self._origin = origin
        self._clock = clock
        self._limits = limits
        self._recent = RecentReplies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        op: str = scope[REQUEST_ID]
        headers = self._origin.admit(scope["headers"])
        if isinstance(headers, Refusal):
            refused = await self._enforcement.turn_away(op, headers)
            await self._send(send, rest.build_problem(refused.refusal, op))
            return
        asked = Asked(op, headers, show_possession(scope, headers))
        send = answer_proved(send, asked.possession)
        parts = scope["path"].split("/")[2:]  # decoded once, by the server: no name has two forms
        match scope["method"], parts:
            case "GET", ["tools"]:
                reply = await self._list(self._raw(asked))
            case "POST", ["tools", name, "call"]:
                reply = await self._called(asked, name, receive)
            case "GET", ["calls", call_id]:
                reply = await self._look_up(self._raw(asked), call_id)
            case _, ["tools", _, "call"]:
                reply = rest.build_unserved("POST")
            case _, ["tools"] | ["calls", _]:
                reply = rest.build_unserved("GET")
            case _:
                reply = rest.build_unserved()
        await self._send(send, reply)

    async def _list(self, raw: RawCall) -> Reply:
        shown = await self._enforcement.list_tools(raw)
        if isinstance(shown, Refused):
            return rest.build_problem(shown.refusal, shown.op)
        return Reply(200, rest.build_tools(shown))

    async def _called(self, asked: Asked, name: str, receive: Receive) -> Reply:
        raw = self._raw(asked, tool=name)
        call = await self._enforcement.identify(raw, SCOPE_CALL)
        if isinstance(call, Refused):
            return rest.build_problem(call.refusal, call.op)
        body = await read_body(receive, self._limits.body_max_bytes)
        if isinstance(body, Refusal):
            return await self._reject(raw, body)
        read = rest.read_call(body, self._limits)
        if isinstance(read, Refusal):
            return await self._reject(raw, read)
        arguments, claimed = read
        raw = self._raw(asked, tool=name, arguments=arguments, claimed=claimed)
        key = asked.headers.text(b"idempotency-key")
        if key is None:
            return await self._call(raw, call.claims)
        if not 0 < len(key) <= _KEY_MAX_CHARS:
            return await self._reject(
                raw, Refusal("read", "params_invalid", "`Idempotency-Key` is 1 to 255 characters")
            )
        # A caller that goes away must find the reply under its key, not a key that never ends.
        return await self._enforcement.unbroken.finish(
            self._once(raw, call.claims, key, name, body)
        )

    async def _once(self, raw: RawCall, claims: Claims, key: str, name: str, body: bytes) -> Reply:
        """Call under an Idempotency-Key: the same request gets the same reply, and one effect.

        INVARIANT: the key is claimed durably before the call; one that was claimed and has no
        reply (the gateway died) is never called again.
        """
        scope, now_s = f"{claims.subject}|{claims.run_id}", self._clock.now_ns() // 1_000_000_000
        asked = digest(name.encode() + b"\0" + body)
        try:
            stored = await self._keys.begin(scope, key, asked, raw.op, now_s)
        except CountersignError as error:
            return await self._reject(raw, Refusal("hold", error.code))
        if stored is not None:
            if stored.request_digest != asked:
                return await self._reject(raw, Refusal("read", "key_reused"))
            if stored.state == "running":
                refused = await self._enforcement.reject(raw, Refusal("read", "key_running"))
                return rest.build_problem(refused.refusal, stored.op)
            return _stored_reply(stored.body, stored.status)
        reply = await self._call(raw, claims)
        try:
            if _may_go_again(reply):
                # The same request may be sent again, and run then.
                await self._keys.forget(scope, key)
            else:
                await self._keys.finish(scope, key, reply.status, _store_reply(reply))
        except CountersignError as error:  # the call is over and recorded; the key stays spent
            _log.warning("reply_not_kept", op=raw.op, code=error.code)
        return reply

    async def _call(self, raw: RawCall, claims: Claims) -> Reply:
        answer = await self._enforcement.call(raw)
        reply = rest.build_answer(answer, raw.op)
        if not isinstance(answer, Completed):
            return reply
        outcome = answer.recorded.place
        self._recent.add(raw.op, (claims.subject, claims.run_id), reply, outcome)
        return await self._with_receipt(reply, outcome) if raw.meta.receipt else reply

    async def _with_receipt(self, reply: Reply, outcome: Receipt) -> Reply:
        receipt = await self._enforcement.receipts.prove(outcome)
        return reply if receipt is None else rest.add_receipt(reply, receipt)

    async def _look_up(self, raw: RawCall, call_id: str) -> Reply:
        """A call of the same agent and run: held ones durably, others while they are recent."""
        call = await self._enforcement.identify(raw, SCOPE_CALL)
        if isinstance(call, Refused):
            return rest.build_problem(call.refusal, call.op)
        owner = (call.claims.subject, call.claims.run_id)
        if (kept := self._recent.get(call_id, owner)) is not None:
            return await self._with_receipt(*kept) if raw.meta.receipt else kept[0]
        try:
            held = await self._approvals.get_by_op(call_id)
        except CountersignError as error:
            return await self._reject(raw, Refusal("hold", error.code))
        if held is not None and (held.agent, held.run_id) == owner:
            return rest.build_held(held)
        return await self._reject(raw, Refusal("resolve", "call_unknown"))

    async def _reject(self, raw: RawCall, refusal: Refusal) -> Reply:
        refused = await self._enforcement.reject(raw, refusal)
        return rest.build_problem(refused.refusal, refused.op)

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            (b"content-type", reply.media_type),
            (b"content-length", b"%d" % len(reply.body)),
            *self._challenges.headers(reply.code, ""),
        ]
        if reply.allow:
            headers.append((b"allow", reply.allow.encode("ascii")))
        if reply.location is not None:
            headers.append((b"location", reply.location.encode("ascii")))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    @staticmethod
    def _raw(
        asked: Asked,
        *,
        tool: str = "",
        arguments: Arguments = _NO_ARGUMENTS,
        claimed: dict[str, object] | None = None,
    ) -> RawCall:
        headers = asked.headers
        return RawCall(
            op=asked.op,
            credential=headers.credential(),
            tool=tool,
            server=None,
            arguments=arguments,
            meta=CallMeta(
                surface="rest",
                traceparent=headers.text(b"traceparent"),
                claimed=claimed or {},
                receipt=headers.one.get(b"countersign-receipt") == b"1",
            ),
            possession=asked.possession,
        )


def _may_go_again(reply: Reply) -> bool:
    """Whether nothing was sent, for a reason that may have passed when it is asked again."""
    was_stranger = reply.status == http.HTTPStatus.UNAUTHORIZED  # since its body began to come
    return was_stranger or reply.code in _NOT_EXECUTED or reply.delivery == "not_sent"


def _store_reply(reply: Reply) -> bytes:
    return orjson.dumps(
        {"code": reply.code, "location": reply.location, "body": reply.body.decode()}
    )


def _stored_reply(stored: bytes, status: int) -> Reply:
    data = orjson.loads(stored)
    return Reply(status, data["body"].encode(), data["code"], data["location"])
