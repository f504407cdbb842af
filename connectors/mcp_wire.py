"""The JSON-RPC that upstream MCP servers speak, byte for byte (MCP 2025-11-25 and 2026-07-28).

Messages are split at their top level only. What a tool answered stays the bytes that it sent: no
model is built and nothing is written anew, so nothing that we do not know of is lost.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from gateway.core.calls.call import RecordedIntent, UpstreamResult
from gateway.core.errors import UpstreamError

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
LEGACY_VERSIONS: Final = frozenset({LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"})

OPERATION_ID: Final = "io.countersign/operation_id"
"""The `_meta` member that carries the operation id of an effect to the system of record."""

_OPERATION_ID: Final = b'"%b":' % OPERATION_ID.encode()

LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"

CLIENT_INFO: Final = b'{"name":"countersign","version":"1"}'
LIST_CHANGED: Final = b'"notifications/tools/list_changed"'
PROGRESS: Final = b'"notifications/progress"'
MESSAGE: Final = b'"notifications/message"'

_PAGES_MAX: Final = 100
_KEYED: Final = frozenset({"key"})
_WHITESPACE: Final = re.compile(rb"[ \t\r\n]*")
_MEMBERS_MAX: Final = 10_000
_DECLARED_MAX_BYTES: Final = 4_096
_LISTING_MAX_BYTES: Final = 1 << 20
"""Reading so much takes a quarter of a second, in which nothing else goes on."""

_TOOLS_MAX: Final = 2_000
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LEVEL: Final = re.compile(r"debug|info|notice|warning|error|critical|alert|emergency")
_CAPABILITIES: Final = {
    "elicitation": ("form", "url"),
    "experimental": (),
    "roots": ("listChanged",),
    "sampling": ("context", "tools"),
}
"""What a client may be said to have: names that everybody knows, never words of the agent's own."""
_COMPLETE: Final = Raw(b'"complete"')
_FALSE: Final = Raw(b"false")
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_items: Final = msgspec.json.Decoder(list[Raw])

Message = dict[str, bytes]
"""The members of a JSON object, each as the raw JSON it was sent as."""


def split_object(raw: bytes) -> Message:
    """Return the members of a JSON object without reading further into them.

    Raises `ValueError` for what is no JSON object in UTF-8, and for a key that is there twice:
    readers of the same answer must not be able to see two.
    """
    return {key: bytes(value) for key, value in _find_members(raw).items()}


def _find_members(raw: bytes) -> dict[str, Raw]:
    """Return what `split_object` does, uncopied: views into `raw`."""
    try:
        members = _members.decode(raw)
        if not raw.isascii():
            raw.decode()
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON object: {error}") from None
    if len(members) > _MEMBERS_MAX:
        raise ValueError(f"more than {_MEMBERS_MAX} members")
    compact = 1
    for key, value in members.items():
        compact += len(key) + len(value) + 4
    if len(raw) != compact:  # else there is nothing but these members, once each
        _check_once(raw, members)
    return members


def _check_once(raw: bytes, members: dict[str, Raw]) -> None:
    """Walk from member to member; a repeated key is a member at which the walk does not arrive."""
    at = _skip(raw, 0) + 1
    for key, value in members.items():
        for part in (orjson.dumps(key), b":", bytes(value)):
            at = _skip(raw, at)
            if not raw.startswith(part, at):
                raise ValueError("a key is there twice or is written with escapes")
            at += len(part)
        at = _skip(raw, at) + 1
    if members and raw[at - 1 : at] != b"}":
        raise ValueError("a key is there twice")


def _skip(raw: bytes, at: int) -> int:
    found = _WHITESPACE.match(raw, at)  # a server may send megabytes of it
    return at if found is None else found.end()


def split_list(raw: bytes) -> list[bytes]:
    """Return the items of a JSON array, each as sent. Raises `ValueError` for anything else."""
    try:
        return [bytes(item) for item in _items.decode(raw)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON array: {error}") from None


def read_text(raw: bytes | None) -> str | None:
    """Return a raw member as text, or None when it is absent or no string."""
    if raw is None or not raw.startswith(b'"'):
        return None
    text: str = orjson.loads(raw)
    return text


def build_request(number: int, method: str, params: bytes) -> bytes:
    """Return one JSON-RPC request; `params` is raw JSON."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}' % (
        number,
        method.encode(),
        params,
    )


def build_call(number: int, intent: RecordedIntent, *, modern: bool) -> bytes:
    """Return the `tools/call` of a recorded intent, with the agent's own argument bytes inside."""
    resolved = intent.intent.resolved
    return (
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":%b%b}}'
        % (
            number,
            orjson.dumps(resolved.tool.name),
            resolved.call.raw.arguments.raw,
            _call_meta(intent, modern=modern),
        )
    )


def _call_meta(intent: RecordedIntent, *, modern: bool) -> bytes:
    """`,"_meta":{…}` of a call, or nothing. INVARIANT: nothing of the agent's token is in it."""
    resolved = intent.intent.resolved
    meta = resolved.call.raw.meta
    # INVARIANT: no words of the agent's own go by `_meta`, for no policy sees them.
    parts = [_meta_of(meta.client_capabilities)] if modern else []
    if modern and meta.log_level is not None and _LEVEL.fullmatch(meta.log_level):
        parts.append(b'"%b":%b' % (LOG_LEVEL.encode(), orjson.dumps(meta.log_level)))
    if meta.progress_token is not None:
        parts.append(b'"progressToken":' + build_progress_token(intent))
    if meta.traceparent is not None and _TRACEPARENT.fullmatch(meta.traceparent):
        parts.append(b'"traceparent":' + orjson.dumps(meta.traceparent))
    review = resolved.tool.review
    if review.operation_id_at is not None or review.idempotency in _KEYED:
        parts.append(_OPERATION_ID + orjson.dumps(intent.intent.idempotency_key))
    return b',"_meta":{%b}' % b",".join(parts) if parts else b""


def _meta_of(declared: bytes) -> bytes:
    """Return what a modern request says of whoever makes it; of its capabilities the known ones."""
    return _modern_meta(b"{}" if len(declared) > _DECLARED_MAX_BYTES else declared)


@lru_cache(maxsize=64)
def _modern_meta(declared: bytes) -> bytes:
    given = orjson.loads(declared)
    known: dict[str, dict[str, dict[str, str]]] = {
        name: {part: {} for part in parts if isinstance(given[name], dict) and part in given[name]}
        for name, parts in _CAPABILITIES.items()
        if isinstance(given, dict) and name in given
    }
    return (
        b'"io.modelcontextprotocol/protocolVersion":"%b",'
        b'"io.modelcontextprotocol/clientInfo":%b,'
        b'"io.modelcontextprotocol/clientCapabilities":%b'
        % (MODERN.encode(), CLIENT_INFO, orjson.dumps(known))
    )


def build_params(*, modern: bool, cursor: str | None = None) -> bytes:
    """Return the params of a request that the gateway makes on its own account."""
    parts = [] if cursor is None else [b'"cursor":' + orjson.dumps(cursor)]
    if modern:
        parts.append(b'"_meta":{%b}' % _modern_meta(b"{}"))
    return b"{%b}" % b",".join(parts)


def build_progress_token(intent: RecordedIntent) -> bytes:
    """Return the token we give upstream: unique over all agents, so none hears of another's."""
    return orjson.dumps(intent.intent.resolved.call.raw.op)


def build_answer_to_server(message: Message) -> bytes:
    """Answer a request that a server sent us: ping is answered, all else is not supported."""
    if message.get("method") == b'"ping"':
        return b'{"jsonrpc":"2.0","id":%b,"result":{}}' % message["id"]
    return (
        b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,'
        b'"message":"the gateway takes no requests from servers"}}' % message["id"]
    )


def build_relayed(message: Message, intent: RecordedIntent) -> bytes | None:
    """Return a notification as the agent may see it, or None for what is not its own."""
    if message["method"] == PROGRESS:
        return _restore_progress(message, intent)
    if message["method"] == MESSAGE:
        params = message.get("params", b"{}")
        return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (MESSAGE, params)
    return None


def _restore_progress(message: Message, intent: RecordedIntent) -> bytes | None:
    theirs = intent.intent.resolved.call.raw.meta.progress_token
    try:
        params = split_object(message.get("params", b""))
    except ValueError:
        return None
    if theirs is None or params.get("progressToken") != build_progress_token(intent):
        return None
    params["progressToken"] = orjson.dumps(theirs)
    inner = b",".join(orjson.dumps(key) + b":" + value for key, value in params.items())
    return b'{"jsonrpc":"2.0","method":%b,"params":{%b}}' % (PROGRESS, inner)


def read_body(raw: bytes, number: int) -> UpstreamResult:
    """Return the answer to request `number` that is all of a body, as `read_answer` does.

    Raises `ValueError` too, for what is no message.
    """
    start = b'{"jsonrpc":"2.0","id":%d,"result":{' % number
    if raw.startswith(start) and raw.endswith(b"}}"):
        # As many servers write it. If what follows is one object, then the message is these three
        # members and nothing else, and the result, which can be large, need not be read twice.
        try:
            return _read_result(raw[len(start) - 1 : -1])
        except ValueError:
            pass  # it is more than one object, or none that we take: the long way tells which
    return read_answer(split_object(raw), number)


def read_answer(message: Message, number: int) -> UpstreamResult:
    """Return the answer to request `number`, its result or error exactly as sent.

    Raises `UpstreamError`, delivery `sent`: whoever answers has got the request.
    """
    if message.get("jsonrpc") != b'"2.0"' or message.get("id") != b"%d" % number:
        raise broken("the upstream answered something that is no answer to this request")
    error, result = message.get("error"), message.get("result")
    if (error is None) == (result is None):
        raise broken("the upstream's answer has not exactly one of `result` and `error`")
    if result is None:
        return UpstreamResult(error=error, is_error=True)
    try:
        return _read_result(result)
    except ValueError as reason:
        raise broken(f"the upstream's result cannot be used: {reason}") from None


def _read_result(result: bytes) -> UpstreamResult:
    """Return a result as sent. Raises `ValueError` for what is no object, and `UpstreamError`."""
    members = _find_members(result)
    if members.get("resultType", _COMPLETE) != _COMPLETE:
        raise UpstreamError(
            "the upstream answered with a result type that the gateway cannot relay",
            code="unsupported_result",
            delivery="sent",
        )
    return UpstreamResult(result=result, is_error=members.get("isError", _FALSE) != _FALSE)


def read_version(answer: UpstreamResult) -> str:
    """Return the version that `initialize` agreed on; raise `UpstreamError` if it is not ours."""
    version = read_text(split_object(answer.result or b"{}").get("protocolVersion"))
    if version not in LEGACY_VERSIONS:
        raise broken(
            "the upstream speaks no version of MCP that the gateway knows: "
            f"{MODERN} over HTTP alone, {LEGACY} and older over stdio, too"
        )
    return version


def broken(text: str) -> UpstreamError:
    """Return the error for a complete answer that cannot be used."""
    return UpstreamError(text, code="upstream_protocol", delivery="sent")


def undelivered(text: str, *, code: str | None = None) -> UpstreamError:
    """Return the error for a call that certainly did not leave."""
    return UpstreamError(text, code=code, delivery="not_sent", retryable=True)


def require_go_ahead(intent: RecordedIntent) -> None:
    """Raise `UpstreamError` `not_sent` where a call was stopped while its upstream was waited for.

    Nothing is awaited between this and the bytes, but for a connection, after which it is asked
    again.
    """
    if (code := intent.intent.find_stop()) is not None:
        raise UpstreamError("it was stopped before it left", code=code, delivery="not_sent")


class Listing:
    """Collects the pages of one `tools/list`."""

    def __init__(self) -> None:
        self.definitions: list[bytes] = []
        self._bytes = 0
        self._cursors: set[str] = set()

    def add(self, answer: UpstreamResult) -> str | None:
        """Take a page; return the cursor of the next one, or None after the last.

        Raises `UpstreamError` for what is no page, and for pages that never end.
        """
        if answer.result is None:
            raise broken("the upstream refused to list its tools")
        self._bytes += len(answer.result)
        if self._bytes > _LISTING_MAX_BYTES:
            raise broken(f"the upstream's list of tools is larger than {_LISTING_MAX_BYTES} bytes")
        try:
            page = split_object(answer.result)
            self.definitions += split_list(page.get("tools", b""))
        except ValueError as reason:
            raise broken(f"the upstream's list of tools cannot be read: {reason}") from None
        if len(self.definitions) > _TOOLS_MAX:
            raise broken(f"the upstream lists more than {_TOOLS_MAX} tools")
        cursor = read_text(page.get("nextCursor"))
        if cursor is None:
            return None
        if cursor in self._cursors or len(self._cursors) >= _PAGES_MAX:
            raise broken("the upstream's list of tools never ends")
        self._cursors.add(cursor)
        return cursor
