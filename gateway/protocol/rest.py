"""Agents over REST: bodies of `/v1/tools` and `/v1/calls`, errors as problem+json (RFC 9457)."""

from __future__ import annotations

import http
from typing import Any, Final, Literal

import msgspec
import orjson
from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.core import strict_json
from gateway.core.approvals.approval import ApprovalRequest
from gateway.core.calls.answer import Answer, CallReceipt, Completed, Pending, Refused
from gateway.core.calls.call import Arguments
from gateway.core.catalog import Tool
from gateway.core.errors import Delivery, RequestError
from gateway.core.limits import Limits
from gateway.core.refusal import Refusal, kind_of

State = Literal["completed", "failed", "pending", "refused", "unknown"]


class Reply(Struct, frozen=True):
    """One HTTP answer. `code`: the refusal's, where one is told; `location`: where to look next.

    `allow`: the method that there is, where another one was used. `delivery`: how far a call got
    that ended without an answer.
    """

    status: int
    body: bytes
    code: str = ""
    location: str | None = None
    allow: str = ""
    delivery: Delivery | None = None

    @property
    def media_type(self) -> bytes:
        """`application/problem+json` for refusals."""
        return b"application/problem+json" if self.code else b"application/json"


class _Body(Struct):
    arguments: Raw = Raw(b"{}")


_decode_body: Final = msgspec.json.Decoder(_Body).decode
_ROUTES: Final = "`GET /v1/tools`, `POST /v1/tools/{name}/call` and `GET /v1/calls/{id}`"
_MEMBERS: Final = frozenset({"arguments", "claimed"})


def read_call(body: bytes, limits: Limits) -> tuple[Arguments, dict[str, Any]] | Refusal:
    """Read `{"arguments": {…}, "claimed": {…}}`; the arguments keep the bytes they came in."""
    try:
        value = strict_json.parse(body or b"{}", max_depth=limits.json_max_depth)
    except RequestError as error:
        return Refusal("read", error.code, str(error))
    if not isinstance(value, dict):
        return Refusal("read", "params_invalid", "send an object with `arguments`")
    if unknown := sorted(value.keys() - _MEMBERS):
        detail = f"`{unknown[0][:64]}` is not a member; use `arguments`"
        return Refusal("read", "params_invalid", detail)
    arguments, claimed = value.get("arguments", {}), value.get("claimed", {})
    if not isinstance(arguments, dict) or not isinstance(claimed, dict):
        return Refusal("read", "params_invalid", "`arguments` and `claimed` must be objects")
    return Arguments(bytes(_decode_body(body or b"{}").arguments), arguments), claimed


def build_problem(refusal: Refusal, op: str) -> Reply:
    """Tell a refusal. `instance` is the call's id, which operators find in the log."""
    kind = kind_of(refusal.code, refusal.stage)
    body = {
        "type": f"urn:countersign:refusal:{refusal.code}",
        "title": kind.text,
        "status": kind.status,
        "code": refusal.code,
        "stage": refusal.stage,
        "instance": f"/v1/calls/{op}",
    }
    if refusal.told:
        body["detail"] = refusal.told
    if refusal.delivery:
        body["delivery"] = refusal.delivery
    return Reply(kind.status, orjson.dumps(body), refusal.code, delivery=refusal.delivery)


def build_unserved(allow: str = "") -> Reply:
    """Tell that there is no such path, or that it takes `allow` alone. No call, so no operation."""
    status, code = (405, "method_not_allowed") if allow else (404, "path_unknown")
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": f"there is {_ROUTES}",
    }
    return Reply(status, orjson.dumps(body), code, allow=allow)


def build_tools(tools: tuple[Tool, ...]) -> bytes:
    """The body of `GET /v1/tools`."""
    items = [
        {**orjson.loads(tool.definition), "name": tool.wire_name, "effect": tool.review.effect}
        for tool in tools
    ]
    return orjson.dumps({"tools": items})


def build_answer(answer: Answer, op: str) -> Reply:
    """Tell how a call ended: 200 with the result, 202 for a held call, a problem otherwise."""
    match answer:
        case Refused():
            return build_problem(answer.refusal, answer.op)
        case Pending():
            return build_held(answer.request)
        case Completed(filtered=filtered, recorded=recorded):
            if filtered.withheld is not None:
                delivery = recorded.outcome.delivery
                return build_problem(Refusal("call", filtered.withheld, delivery=delivery), op)
            if filtered.error is not None:
                body = b'{"id":"%b","status":"failed","error":%b}' % (op.encode(), filtered.error)
                return Reply(200, body)
            status = b"failed" if filtered.is_error else b"completed"
            result = filtered.result or b"null"
            text = b'{"id":"%b","status":"%b","result":%b}'
            return Reply(200, text % (op.encode(), status, result))


def add_receipt(reply: Reply, receipt: CallReceipt) -> Reply:
    """Add the member `receipt` to the body."""
    body = b'%b,"receipt":%b}' % (reply.body[:-1], msgspec.json.encode(receipt))
    return replace(reply, body=body)


def build_held(request: ApprovalRequest) -> Reply:
    """A held call as it stands: 202 while it waits, its result once it has run."""
    location = f"/v1/calls/{request.op}"
    fields: dict[str, Any] = {
        "id": request.op,
        "approval_id": request.id,
        "state": request.state.lower(),
        "expires_at": request.expires_at,
        "reason": request.reasons[0].code if request.reasons else "approval_needed",
    }
    if request.state in {"PENDING", "APPROVED", "CLAIMED", "DISPATCHED"}:
        fields |= {"status": "pending_approval", "retry_after_ms": 2_000}
        return Reply(202, orjson.dumps(fields), location=location)
    done: State = "completed" if request.state == "EXECUTED" else "failed"
    fields["status"] = "unknown" if request.state == "UNKNOWN" else done
    if request.outcome == "not_sent":
        fields["delivery"] = request.outcome
    elif (request.state, request.outcome) == ("FAILED", "failed"):
        fields["delivery"] = "sent"  # and no answer that could be told
    if request.result is not None:
        fields["result"] = orjson.Fragment(request.result)
    return Reply(200, orjson.dumps(fields), location=location)
