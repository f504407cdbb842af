"""MCP over streamable HTTP, either era (MCP 2026-07-28 and 2025-11-25): one POST per call.

Which era an upstream speaks is asked once, the modern way first, and remembered until it ceases to
hold.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from itertools import count
from typing import Any, Final, TypeVar

import orjson

from connectors import mcp_wire as wire
from connectors.credential_use import Credentials, guard_relay, refuse_repeated
from connectors.http_exchange import (
    SESSION_HEADER,
    CredentialRefusedError,
    DisownedError,
    FailedError,
    Head,
    HttpExchange,
)
from connectors.http_pool import HttpPool
from connectors.lanes import Era, Headers, Lane, Lanes
from connectors.listing import collect, read_digests
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
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
_WRONG_ERA: Final = b"-32022"
"""UnsupportedProtocolVersion: nothing ran, and the era must be asked for again."""

_SESSION_ID: Final = re.compile(r"[!-~]{1,8192}")
"""Visible ASCII (MCP 2025-11-25, Transports); kept for each lane, and sent with each request."""

_DISCOVER_S: Final = 10.0
"""How long a server may think about a question that it may not know, and not answer at all."""

_REPLIES_MAX: Final = 16
"""Answers under way to requests of the server's own."""

T = TypeVar("T")


class McpHttpTransport:
    """Reaches one MCP server over HTTP. Keeps the promises of `ports.ToolTransport`.

    ::

        McpHttpTransport(
            "billing", "https://billing.example/mcp",
            limits=Limits(),
            pool=HttpPool(),                              # one for all upstreams; the caller's
            credentials=Credentials(broker, clock),       # the gateway's own, if it needs any
            on_list_changed=refresher.notice,             # called with the server id
        )

    `start` asks which era the upstream speaks; without it the first call asks. `close` ends the
    MCP sessions; pool and broker belong to whoever made them. `headers` are fixed and no secret.

    INVARIANT: nothing of the agent's credential goes upstream; the headers are made here alone,
    and credentials come from the broker alone.
    """

    def __init__(
        self,
        server_id: str,
        url: str,
        *,
        limits: Limits,
        pool: HttpPool,
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | None = None,
        on_list_changed: Callable[[str], None] | None = None,
    ) -> None:
        self.server_id: Final = server_id
        self._timeout_ms = limits.upstream_timeout_ms
        self._credentials = credentials
        self._http = HttpExchange(
            pool,
            url,
            result_max_bytes=limits.result_max_bytes,
            challenged=credentials is not None,
        )
        self._own_headers = dict(headers or {})
        self._on_list_changed = on_list_changed
        self._numbers = count(1)
        self._lanes = Lanes(
            server_id,
            per=None if credentials is None else credentials.per,
            dropped=lambda lane: self._spawn(self._end_session(lane)),
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._agreements: set[asyncio.Task[Era]] = set()

    @property
    def protocol_version(self) -> str | None:
        """The version agreed with this upstream, or None before the first contact."""
        return next((lane.era.version for lane in self._lanes.all() if lane.era), None)

    async def start(self) -> None:
        """Agree on an era. Raises `UpstreamError` `not_sent` when the upstream is not there."""
        await self._anew(self._lanes.own, lambda: self._agree(self._lanes.own))

    async def close(self) -> None:
        """End the MCP sessions, if there are any. Never raises."""
        under_way = [*self._tasks, *self._agreements]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await asyncio.gather(*(self._end_session(lane) for lane in self._lanes.all()))
        await self._http.close()

    async def call(self, intent: RecordedIntent, relay: Relay | None) -> UpstreamResult:
        """Send the call, once. See `ports.ToolTransport.call`.

        An upstream that says that it knows the session no longer ran nothing: where it still offers
        the tool as it was reviewed, the call goes again in a new session (ADR 0035).
        """
        lane = self._lanes.of(intent)
        try:
            return await self._anew(lane, lambda: self._call(lane, intent, relay))
        except DisownedError as lost:
            self._notice()  # it was started anew, perhaps as another one
            if lost.delivery != "not_sent" or not await self._still_offers(lane, intent):
                raise
        return await self._anew(lane, lambda: self._call(lane, intent, relay))

    async def _still_offers(self, lane: Lane, intent: RecordedIntent) -> bool:
        tool = intent.intent.resolved.tool
        try:
            offered = read_digests(await self._anew(lane, lambda: self._list(lane)))
        except UpstreamError:
            return False
        return offered.get(tool.name) == tool.definition_digest

    async def _call(
        self, lane: Lane, intent: RecordedIntent, relay: Relay | None
    ) -> UpstreamResult:
        era = lane.era or await self._agree(lane)
        await self._dress(lane)
        wire.require_go_ahead(intent)
        number = next(self._numbers)
        relay, shown = guard_relay(relay, lane.needles), lane.credential
        try:
            answer, _ = await self._http.ask(
                number,
                wire.build_call(number, intent, modern=era.version == wire.MODERN),
                self._call_head(lane, intent, era),
                timeout_s=min(self._timeout_ms, intent.intent.deadline_ms) / 1000,
                hears=lambda message: self._hear(message, lane, intent, relay),
                # A connection may take seconds, in which somebody pulls the switch.
                go_ahead=lambda: wire.require_go_ahead(intent),
            )
        except CredentialRefusedError:
            lane.refused = shown
            raise
        refuse_repeated(answer, lane.needles)
        if answer.error is not None and _error_code(answer.error) == _WRONG_ERA:
            lane.agree(None)  # the next call asks again
        return answer

    async def list_tools(self) -> list[bytes]:
        """Return the definition of every tool on offer, each byte for byte as sent.

        Raises `UpstreamError`. Where the upstream disowns what was agreed, it agrees anew and asks
        once more: a listing has no effect.
        """
        lane = self._lanes.own
        try:
            return await self._anew(lane, lambda: self._list(lane))
        except DisownedError:
            return await self._anew(lane, lambda: self._list(lane))

    async def _list(self, lane: Lane) -> list[bytes]:
        era = lane.era or await self._agree(lane)
        return await collect(
            lambda cursor: self._request(lane, "tools/list", era, cursor=cursor),
            within_s=self._timeout_ms / 1000,
        )

    # Credentials

    async def _anew(self, lane: Lane, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`; where the upstream refused the credential, once more with another one.

        What the upstream disowns is forgotten here, too: the next call agrees anew with it.

        No call is sent twice by this (ADR 0015): HTTP 401 says that the request was not applied
        (RFC 9110 §15.5.2), and it is taken for that only where it came in the place of an answer,
        whole and without a result. Anything less certain ends the call.
        """
        agreed = lane.era
        try:
            return await self._accepted(lane, work)
        except DisownedError:
            if agreed is None or lane.era is agreed:  # or another call has agreed anew since
                lane.agree(None)
            raise

    async def _accepted(self, lane: Lane, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except CredentialRefusedError:
            if self._credentials is None or not self._credentials.reject(lane):
                raise
        return await work()

    async def _dress(self, lane: Lane) -> None:
        if self._credentials is not None:
            await self._credentials.dress(lane)

    # Agreeing on an era

    async def _agree(self, lane: Lane) -> Era:
        """Agree on an era, once for all who wait for it: they get the same one, or fail at once.

        Else a server that keeps silent is waited for by one after the other.
        """
        task = lane.agreeing
        if task is None or task.done():
            task = asyncio.create_task(self._accepted(lane, lambda: self._settle(lane)))
            lane.agreeing = task
            self._agreements.add(task)
            task.add_done_callback(self._agreed)
        try:  # shielded: who waits may be cancelled, such as a listing that takes too long
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise wire.undelivered("the gateway is stopping") from None
            raise

    def _agreed(self, task: asyncio.Task[Era]) -> None:
        self._agreements.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it may have been cancelled

    async def _settle(self, lane: Lane) -> Era:
        try:
            await self._dress(lane)
            era = await self._discover(lane) or await self._initialize(lane)
        except CredentialRefusedError as error:
            raise CredentialRefusedError(
                str(error), code=error.code, delivery="not_sent"
            ) from error
        except UpstreamError as error:  # whatever call this was for has not left
            raise wire.undelivered(str(error), code=error.code) from error
        lane.agree(era)
        return era

    async def _discover(self, lane: Lane) -> Era | None:
        """Ask the modern way. What no modern server answers means: ask the other way."""
        era = Era(wire.MODERN, self._headers({VERSION_HEADER: wire.MODERN}))
        try:
            answer = await self._request(lane, "server/discover", era, within_s=_DISCOVER_S)
            found = wire.split_object(answer.result or b"{}")
            offered = wire.split_list(found.get("supportedVersions", b"[]"))
        except ValueError:
            return None
        except CredentialRefusedError:
            raise
        except FailedError:  # such as servers of the Java SDK up to 2.0, which keep no sessions
            return None
        except UpstreamError as error:
            if error.delivery == "sent" or error.code == "upstream_timeout":
                return None
            raise
        return era if _MODERN_ITEM in offered else None

    async def _initialize(self, lane: Lane) -> Era:
        number, headers = next(self._numbers), self._headers({})
        body = wire.build_request(number, "initialize", _INITIALIZE)
        answer, received = await self._ask(lane, number, body, headers)
        version = wire.read_version(answer)
        headers[VERSION_HEADER] = version
        if session_id := received.get(SESSION_HEADER.lower()):
            if not _SESSION_ID.fullmatch(session_id):
                raise wire.broken("the upstream gave a session id that is none, or too long")
            headers[SESSION_HEADER] = session_id
        head = self._head(lane, headers)
        await self._http.tell(_INITIALIZED, head, timeout_s=self._timeout_ms / 1000)
        return Era(version, headers)

    async def _end_session(self, lane: Lane) -> None:
        era = lane.era
        lane.agree(None)
        if era is not None and SESSION_HEADER in era.headers:
            await self._http.end_session(self._head(lane, era.headers, "DELETE"))

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

    def _head(self, lane: Lane, headers: Headers, method: str = "POST") -> Head:
        """Prepare a head with the lane's credential. What cannot be sent is not sent."""
        try:
            query = lane.credential.query
            return self._http.head(lane.dress(headers), method, query=query)
        except ValueError:
            raise wire.undelivered("a header cannot be sent as it is") from None

    # Asking

    async def _request(
        self,
        lane: Lane,
        method: str,
        era: Era,
        *,
        cursor: str | None = None,
        within_s: float = math.inf,
    ) -> UpstreamResult:
        """Make a request on the gateway's own account."""
        modern = era.version == wire.MODERN
        headers = {**era.headers, "Mcp-Method": method} if modern else era.headers
        await self._dress(lane)
        number = next(self._numbers)
        params = wire.build_params(modern=modern, cursor=cursor)
        body = wire.build_request(number, method, params)
        answer, _ = await self._ask(lane, number, body, headers, within_s=within_s)
        refuse_repeated(answer, lane.needles)
        return answer

    async def _ask(
        self,
        lane: Lane,
        number: int,
        body: bytes,
        headers: Headers,
        *,
        within_s: float = math.inf,
    ) -> tuple[UpstreamResult, Mapping[str, str]]:
        """Send a request of the gateway's own, and return its answer with the headers."""
        shown, head = lane.credential, self._head(lane, headers)
        try:
            return await self._http.ask(
                number,
                body,
                head,
                timeout_s=min(within_s, self._timeout_ms / 1000),
                hears=_ignore,
            )
        except CredentialRefusedError:
            lane.refused = shown
            raise

    def _call_head(self, lane: Lane, intent: RecordedIntent, era: Era) -> Head:
        """`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` of a modern call, made once per definition."""
        if era.version != wire.MODERN:
            lane.head = lane.head or self._head(lane, era.headers)
            return lane.head
        resolved = intent.intent.resolved
        tool = resolved.tool
        key = (tool.name, tool.definition_digest)
        known = lane.calls.get(key)
        if known is None:
            headers = {**era.headers, "Mcp-Method": "tools/call", "Mcp-Name": tool.name}
            known = lane.calls[key] = (headers, self._head(lane, headers), _param_headers(tool))
        headers, head, wanted = known
        if not wanted:
            return head
        params = build_param_headers(wanted, resolved.call.raw.arguments.value)
        return self._head(lane, {**headers, **params})

    def _hear(
        self, message: wire.Message, lane: Lane, intent: RecordedIntent, relay: Relay | None
    ) -> None:
        """Take what a call's stream carries besides the answer."""
        if "id" in message:
            if len(self._tasks) >= _REPLIES_MAX or lane.era is None:
                return  # it asks faster than it takes answers
            answer = wire.build_answer_to_server(message)
            head = self._head(lane, lane.era.headers)
            self._spawn(self._http.tell(answer, head, timeout_s=self._timeout_ms / 1000))
        elif message["method"] == wire.LIST_CHANGED:
            self._notice()
        elif relay is not None and (line := wire.build_relayed(message, intent)) is not None:
            relay(line)

    def _notice(self) -> None:
        if self._on_list_changed is not None:
            self._on_list_changed(self.server_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _param_headers(tool: Tool) -> ParamHeaders:
    definition: dict[str, Any] = orjson.loads(tool.definition)
    return read_param_headers(definition["inputSchema"])


def _error_code(error: bytes) -> bytes | None:
    try:
        return wire.split_object(error).get("code")
    except ValueError:  # it is an answer all the same
        return None


def _ignore(_: wire.Message) -> None:
    """Nobody waits for what comes with the gateway's own requests."""
