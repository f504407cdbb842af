"""MCP over streamable HTTP, either era (MCP 2026-07-28 and 2025-11-25): one POST per call.

Which era an upstream speaks is asked once, the modern way first, and remembered until it ceases to
hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Final

import orjson
from msgspec import Struct

from connectors import mcp_wire as wire
from connectors.http_exchange import SESSION_HEADER, Head, HttpExchange, SessionLostError
from connectors.http_pool import HttpPool
from gateway.core.call import RecordedIntent, Relay, UpstreamResult
from gateway.core.catalog import Tool
from gateway.core.errors import UpstreamError
from gateway.core.limits import Limits
from gateway.protocol.param_headers import ParamHeaders, build_param_headers, read_param_headers

VERSION_HEADER: Final = "MCP-Protocol-Version"

_INITIALIZE: Final = b'{"protocolVersion":"%b","capabilities":{},"clientInfo":%b}' % (
    wire.LEGACY.encode(),
    wire.CLIENT_INFO,
)
_INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_MODERN_ITEM: Final = b'"%b"' % wire.MODERN.encode()
_WRONG_ERA: Final = frozenset({-32022})
"""UnsupportedProtocolVersion: nothing ran, and the era must be asked for again."""

_REPLIES_MAX: Final = 16
"""Answers under way to requests of the server's own."""

Headers = dict[str, str]


class _Era(Struct, frozen=True):
    """What was agreed with an upstream, and the headers that follow from it."""

    version: str
    headers: Headers
    head: Head
    calls: dict[tuple[str, str], tuple[Headers, Head, ParamHeaders]]

    @property
    def modern(self) -> bool:
        return self.version == wire.MODERN


class McpHttpTransport:
    """Reaches one MCP server over HTTP. Keeps the promises of `ports.ToolTransport`.

    ::

        McpHttpTransport(
            "billing", "https://billing.example/mcp",
            limits=Limits(),
            pool=HttpPool(),                              # one for all upstreams; the caller's
            headers={"Authorization": "Bearer …"},        # the gateway's own credential, if any
            on_list_changed=refresher.notice,             # called with the server id
        )

    `start` asks which era the upstream speaks; without it the first call asks. `close` ends the
    MCP session; the pool belongs to whoever made it.

    INVARIANT: nothing of the agent's credential goes upstream; the headers are made here alone.
    """

    def __init__(
        self,
        server_id: str,
        url: str,
        *,
        limits: Limits,
        pool: HttpPool,
        headers: Mapping[str, str] | None = None,
        on_list_changed: Callable[[str], None] | None = None,
    ) -> None:
        self.server_id: Final = server_id
        self._timeout_ms = limits.upstream_timeout_ms
        self._http = HttpExchange(pool, url, result_max_bytes=limits.result_max_bytes)
        self._own_headers = dict(headers or {})
        self._on_list_changed = on_list_changed
        self._numbers = count(1)
        self._era: _Era | None = None
        self._agreeing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def protocol_version(self) -> str | None:
        """The version agreed with this upstream, or None before the first contact."""
        return None if self._era is None else self._era.version

    async def start(self) -> None:
        """Agree on an era. Raises `UpstreamError` `not_sent` when the upstream is not there."""
        await self._agree()

    async def close(self) -> None:
        """End the MCP session, if there is one. Never raises."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        era, self._era = self._era, None
        if era is not None and SESSION_HEADER in era.headers:
            await self._http.end_session(era.headers)
        await self._http.close()

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Send the call, once. See `ports.ToolTransport.call`."""
        era = self._era or await self._agree()
        number = next(self._numbers)
        answer = await self._ask(
            number,
            wire.build_call(number, intent, modern=era.modern),
            self._call_head(intent, era) if era.modern else era.head,
            timeout_ms=min(self._timeout_ms, intent.intent.deadline_ms),
            hears=partial(self._hear, era=era, intent=intent, relay=relay),
        )
        if answer.error is not None and _error_code(answer.error) in _WRONG_ERA:
            self._era = None  # the next call asks again
        return answer

    async def list_tools(self) -> list[bytes]:
        """Return the definition of every tool on offer, each byte for byte as sent.

        Raises `UpstreamError`. After a lost session it asks once more: a listing has no effect.
        """
        try:
            return await self._list()
        except SessionLostError:
            return await self._list()

    async def _list(self) -> list[bytes]:
        era, listing = self._era or await self._agree(), wire.Listing()
        cursor = listing.add(await self._request("tools/list", era.headers, modern=era.modern))
        while cursor is not None:
            answer = await self._request(
                "tools/list", era.headers, modern=era.modern, cursor=cursor
            )
            cursor = listing.add(answer)
        return listing.definitions

    # Agreeing on an era

    async def _agree(self) -> _Era:
        async with self._agreeing:
            if self._era is None:
                try:
                    self._era = await self._discover() or await self._initialize()
                except UpstreamError as error:  # whatever call this was for has not left
                    raise wire.undelivered(str(error), code=error.code) from error
            return self._era

    async def _discover(self) -> _Era | None:
        """Ask the modern way. Any answer that is no modern server's means: ask the other way."""
        headers = self._headers({VERSION_HEADER: wire.MODERN})
        try:
            answer = await self._request("server/discover", headers, modern=True)
            found = wire.split_object(answer.result or b"{}")
            offered = wire.split_list(found.get("supportedVersions", b"[]"))
        except ValueError:
            return None
        except UpstreamError as error:
            if error.delivery == "sent":
                return None
            raise
        if _MODERN_ITEM not in offered:
            return None
        return _Era(wire.MODERN, headers, self._http.head(headers), {})

    async def _initialize(self) -> _Era:
        number, headers = next(self._numbers), self._headers({})
        body = wire.build_request(number, "initialize", _INITIALIZE)
        answer, received = await self._http.ask(
            number,
            body,
            self._http.head(headers),
            timeout_s=self._timeout_ms / 1000,
            hears=_ignore,
        )
        version = wire.read_version(answer)
        headers[VERSION_HEADER] = version
        if (session_id := received.get(SESSION_HEADER.lower())) is not None:
            headers[SESSION_HEADER] = session_id
        head = self._http.head(headers)
        await self._http.tell(_INITIALIZED, head, timeout_s=self._timeout_ms / 1000)
        return _Era(version, headers, head, {})

    def _headers(self, more: Mapping[str, str]) -> Headers:
        """The gateway's own headers win over configured ones of the same name."""
        ours = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": "countersign",
            **more,
        }
        taken = {name.lower() for name in ours}
        kept = {name: v for name, v in self._own_headers.items() if name.lower() not in taken}
        return {**kept, **ours}

    # Asking

    async def _request(
        self, method: str, headers: Headers, *, modern: bool, cursor: str | None = None
    ) -> UpstreamResult:
        """Make a request on the gateway's own account."""
        if modern:
            headers = {**headers, "Mcp-Method": method}
        number = next(self._numbers)
        params = wire.build_params(modern=modern, cursor=cursor)
        body = wire.build_request(number, method, params)
        head = self._http.head(headers)
        return await self._ask(number, body, head, timeout_ms=self._timeout_ms, hears=_ignore)

    async def _ask(
        self,
        number: int,
        body: bytes,
        head: Head,
        *,
        timeout_ms: int,
        hears: Callable[[wire.Message], None],
    ) -> UpstreamResult:
        try:
            answer, _ = await self._http.ask(
                number, body, head, timeout_s=timeout_ms / 1000, hears=hears
            )
        except SessionLostError:
            self._era = None  # the next call opens a new one
            raise
        return answer

    def _call_head(self, intent: RecordedIntent, era: _Era) -> Head:
        """`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` of a modern call, made once per definition."""
        resolved = intent.intent.resolved
        tool = resolved.tool
        key = (tool.name, tool.definition_digest)
        known = era.calls.get(key)
        if known is None:
            headers = {**era.headers, "Mcp-Method": "tools/call", "Mcp-Name": tool.name}
            known = era.calls[key] = (headers, self._http.head(headers), _param_headers(tool))
        headers, head, wanted = known
        if not wanted:
            return head
        params = build_param_headers(wanted, resolved.call.raw.arguments.value)
        return self._http.head({**headers, **params})

    def _hear(
        self, message: wire.Message, *, era: _Era, intent: RecordedIntent, relay: Relay | None
    ) -> None:
        """Take what a call's stream carries besides the answer."""
        if "id" in message:
            if len(self._tasks) >= _REPLIES_MAX:
                return  # it asks faster than it takes answers
            answer = wire.build_answer_to_server(message)
            sending = self._http.tell(answer, era.head, timeout_s=self._timeout_ms / 1000)
            task = asyncio.create_task(sending)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif message["method"] == wire.LIST_CHANGED:
            if self._on_list_changed is not None:
                self._on_list_changed(self.server_id)
        elif relay is not None and (line := wire.build_relayed(message, intent)) is not None:
            relay(line)


def _param_headers(tool: Tool) -> ParamHeaders:
    definition: dict[str, Any] = orjson.loads(tool.definition)
    return read_param_headers(definition["inputSchema"])


def _error_code(error: bytes) -> object:
    value = orjson.loads(error)
    return value.get("code") if isinstance(value, dict) else None


def _ignore(_: wire.Message) -> None:
    """Nobody waits for what comes with the gateway's own requests."""
