"""One request over HTTP and all that may come back of it; what is delivered is told honestly.

========================================================  ===============
what happened                                             delivery
========================================================  ===============
no connection (refused, no such name, TLS, pool full)     not_sent
connection broke or time ran out after sending, HTTP 5xx  unknown
a complete answer that cannot be used, HTTP 3xx and 4xx   sent
========================================================  ===============
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from connectors import mcp_wire as wire
from connectors.sse import EventReader, too_large
from gateway.core.call import UpstreamResult
from gateway.core.errors import UpstreamError

Headers = CIMultiDict[str]
Hears = Callable[[wire.Message], None]
"""Takes what a stream carries besides the answer: a notification, or a request of the server."""

SESSION_HEADER: Final = "Mcp-Session-Id"

_CONNECT_S: Final = 5.0
_DRAIN_S: Final = 1.0
_KEEP_ALIVE_S: Final = 3.0
"""Below the 5 s after which common servers close an idle connection: a call written into one that
is just closing would end `unknown`."""

_OK: Final = 200
_SERVER_ERROR: Final = 500
_NOT_FOUND: Final = 404


def build_session(*, connections: int = 256) -> aiohttp.ClientSession:
    """Return a pooled session for every HTTP upstream of the gateway. Close it at the end.

    It keeps no cookies, heeds no proxy settings of the environment and unpacks nothing. Call it in
    a running loop.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class SessionLostError(UpstreamError):
    """HTTP 404 to a session id: the server forgot the session and ran nothing (MCP 2025-11-25)."""


class HttpExchange:
    """Posts JSON-RPC to one URL and reads the answer, plain or streamed."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, result_max_bytes: int) -> None:
        self._session = session
        self._url = URL(url)
        self._max_bytes = result_max_bytes
        self._drains: set[asyncio.Task[None]] = set()

    async def ask(
        self, number: int, body: bytes, headers: Headers, *, timeout_s: float, hears: Hears
    ) -> tuple[UpstreamResult, CIMultiDictProxy[str]]:
        """Send request `number`, once; return its answer and the response headers.

        Raises `UpstreamError` with the delivery of the table above.
        """
        try:
            response = await self._post(body, headers, timeout_s)
            try:
                answer = await self._read(response, number, headers, hears)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise wire.undelivered(
                f"no connection to the upstream: {type(error).__name__}"
            ) from error
        except TimeoutError as error:
            raise UpstreamError(
                "the upstream did not answer in time", code="upstream_timeout", delivery="unknown"
            ) from error
        except aiohttp.ClientError as error:
            raise UpstreamError(
                f"the connection to the upstream broke: {type(error).__name__}", delivery="unknown"
            ) from error
        self._release(response)
        return answer, response.headers

    async def tell(self, body: bytes, headers: Headers, *, timeout_s: float) -> None:
        """Send what needs no answer. A failure is left to show itself in the next request."""
        with suppress(aiohttp.ClientError, TimeoutError):
            response = await self._post(body, headers, timeout_s)
            response.release()

    async def end_session(self, headers: Headers) -> None:
        """Tell the server that its session is over. Never raises."""
        with suppress(aiohttp.ClientError, TimeoutError):
            response = await self._session.delete(
                self._url,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_DRAIN_S),
            )
            response.release()

    async def close(self) -> None:
        """Let go of streams that are still read to their end."""
        for task in list(self._drains):
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    async def _post(
        self, body: bytes, headers: Headers, timeout_s: float
    ) -> aiohttp.ClientResponse:
        # No redirect is followed: an upstream must not send the gateway to another host (SSRF),
        # nor have a call repeated there.
        return await self._session.post(
            self._url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=min(timeout_s, _CONNECT_S)),
        )

    async def _read(
        self, response: aiohttp.ClientResponse, number: int, sent: Headers, hears: Hears
    ) -> UpstreamResult:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise wire.broken("the upstream packed its answer although asked not to")
        kind = response.content_type
        if response.status != _OK:
            return await self._read_failure(response, number, sent, json=kind == "application/json")
        if kind == "application/json":
            return wire.read_answer(_split(await self._whole(response)), number)
        if kind == "text/event-stream":
            return await self._read_stream(response, number, hears)
        raise wire.broken("the upstream's answer is neither JSON nor an event stream")

    async def _read_failure(
        self, response: aiohttp.ClientResponse, number: int, sent: Headers, *, json: bool
    ) -> UpstreamResult:
        """Read a refusal. JSON-RPC errors with their own status are answers (MCP 2026-07-28)."""
        if json:
            with suppress(UpstreamError):
                answer = wire.read_answer(_split(await self._whole(response)), number)
                if answer.error is not None:
                    return answer
        if response.status == _NOT_FOUND and SESSION_HEADER in sent:
            raise SessionLostError(
                "the upstream has forgotten the session", delivery="not_sent", retryable=True
            )
        raise UpstreamError(
            f"the upstream answered with HTTP {response.status}",
            delivery="unknown" if response.status >= _SERVER_ERROR else "sent",
        )

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > self._max_bytes:
            raise too_large(self._max_bytes)
        if response.content_length is not None:
            return await response.read()
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_bytes:
                raise too_large(self._max_bytes)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _read_stream(
        self, response: aiohttp.ClientResponse, number: int, hears: Hears
    ) -> UpstreamResult:
        events = EventReader(self._max_bytes)
        async for chunk in response.content.iter_any():
            for data in events.feed(chunk):
                message = _split(data)
                if "method" not in message:
                    return wire.read_answer(message, number)
                hears(message)
        raise UpstreamError("the upstream's stream ended without an answer", delivery="unknown")

    def _release(self, response: aiohttp.ClientResponse) -> None:
        """Give the connection back. A stream may have its end still to come: read it aside."""
        if response.content.at_eof() or response.content_type != "text/event-stream":
            response.release()
            return
        task = asyncio.create_task(_drain(response))
        self._drains.add(task)
        task.add_done_callback(partial(self._drained, response))

    def _drained(self, response: aiohttp.ClientResponse, task: asyncio.Task[None]) -> None:
        """Give the connection back if the stream came to its end; a task may not even have run."""
        self._drains.discard(task)
        if task.cancelled() or task.exception() is not None:
            response.close()
        else:
            response.release()


async def _drain(response: aiohttp.ClientResponse) -> None:
    async with asyncio.timeout(_DRAIN_S):
        async for _ in response.content.iter_any():
            pass


def _split(raw: bytes) -> wire.Message:
    try:
        return wire.split_object(raw)
    except ValueError as reason:
        raise wire.broken(f"the upstream's answer cannot be used: {reason}") from None
