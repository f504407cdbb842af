"""One request over HTTP and all that may come back of it; what is delivered is told honestly.

========================================================  ===============
what happened                                             delivery
========================================================  ===============
no connection (refused, no such name, TLS, pool full)     not_sent
connection broke or time ran out after sending, HTTP 5xx  unknown
a complete answer that cannot be used, HTTP 3xx and 4xx   sent
========================================================  ===============

HTTP 401 to a credential of the gateway is told by an error of its own (`CredentialRefusedError`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from msgspec.structs import replace

from connectors import mcp_wire as wire
from connectors.http_pool import (
    HttpError,
    HttpPool,
    HttpResponse,
    HttpTimeoutError,
    build_head,
    read_target,
)
from connectors.lines import TURN_LINES
from connectors.sse import EventReader, too_large
from gateway.core.calls.call import UpstreamResult
from gateway.core.errors import UpstreamError

Hears = Callable[[wire.Message], None]
"""Takes what a stream carries besides the answer: a notification, or a request of the server."""

Pair = tuple[str, str]

SESSION_HEADER: Final = "Mcp-Session-Id"

_DRAIN_S: Final = 1.0
_PIECE: Final = 4_096
"""How much of a stream is taken at a time, in bytes: it may be as many lines."""
_OK: Final = 200
_SERVER_ERROR: Final = 500
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_REDIRECT: Final = "; no redirect is followed: name in `url` where it leads, often only a `/` more"
_REMEDIES: Final = {
    **dict.fromkeys((301, 302, 303, 307, 308), _REDIRECT),
    _UNAUTHORIZED: "; it wants a credential: name one under `auth`",
    **dict.fromkeys((_NOT_FOUND, 405), "; nothing speaks streamable HTTP there: look at `url`"),
}
"""What to do. Never the place that it leads to: that may repeat a credential."""


class Head:
    """The headers of a request as they go over the wire, worked out once."""

    __slots__ = ("in_session", "text")

    def __init__(self, text: bytes, *, in_session: bool) -> None:
        self.text: Final = text
        self.in_session: Final = in_session


class DisownedError(UpstreamError):
    """HTTP 400 or 404 in the place of an answer: what was agreed with the server may hold no more.

    It may know the session no longer, or speak another era since it was started anew. With 404 to a
    session id it says that it ran nothing (MCP 2025-11-25); many say 400 instead.
    """


class FailedError(UpstreamError):
    """HTTP 500 in the place of an answer. Some servers say so of a method that they do not know."""


class CredentialRefusedError(UpstreamError):
    """HTTP 401: the request "has not been applied" for want of a credential (RFC 9110 §15.5.2)."""


_KINDS: Final[Mapping[int, type[UpstreamError]]] = {
    400: DisownedError,
    _NOT_FOUND: DisownedError,
    _SERVER_ERROR: FailedError,
}


class HttpExchange:
    """Posts JSON-RPC to one URL and reads the answer, plain or streamed.

    `challenged`: whether requests carry a credential of the gateway that the upstream may refuse.
    """

    def __init__(
        self, pool: HttpPool, url: str, *, result_max_bytes: int, challenged: bool = False
    ) -> None:
        self._pool = pool
        self._target = read_target(url)
        self._max_bytes = result_max_bytes
        self._challenged = challenged
        self._drains: set[asyncio.Task[None]] = set()

    def head(
        self, headers: Mapping[str, str], method: str = "POST", *, query: Sequence[Pair] = ()
    ) -> Head:
        """Prepare the head of requests with these headers, and `query` added to the URL.

        Raises `ValueError` for line breaks.
        """
        target = self._target
        for name, value in query:
            joint = "&" if "?" in target.path else "?"
            target = replace(target, path=f"{target.path}{joint}{name}={value}")
        return Head(build_head(method, target, headers), in_session=SESSION_HEADER in headers)

    async def ask(
        self,
        number: int,
        body: bytes,
        head: Head,
        *,
        timeout_s: float,
        hears: Hears,
        go_ahead: Callable[[], None] | None = None,
    ) -> tuple[UpstreamResult, Mapping[str, str]]:
        """Send request `number`, once; return its answer and the response headers (lower case).

        `go_ahead`: see `HttpPool.post`. Raises `UpstreamError` with the delivery of the table
        above.
        """
        try:
            response = await self._post(body, head, timeout_s, go_ahead)
            try:
                answer = await self._read(response, number, hears, in_session=head.in_session)
            except BaseException:
                response.release()
                raise
        except HttpTimeoutError as error:
            if not error.sent:
                raise wire.undelivered("no connection to the upstream in time") from error
            raise UpstreamError(
                "the upstream did not answer in time", code="upstream_timeout", delivery="unknown"
            ) from error
        except HttpError as error:
            if not error.sent:
                raise wire.undelivered(str(error)) from error
            raise UpstreamError(
                f"the exchange with the upstream failed: {error}", delivery="unknown"
            ) from error
        if not response.complete:
            self._drain(response)
        return answer, response.headers

    async def tell(self, body: bytes, head: Head, *, timeout_s: float) -> None:
        """Send what needs no answer. A failure is left to show itself in the next request."""
        with suppress(HttpError):
            self._drain(await self._post(body, head, timeout_s))

    async def end_session(self, head: Head) -> None:
        """Tell the server that its session is over (`head` of a DELETE). Never raises."""
        with suppress(HttpError):
            self._drain(await self._post(b"", head, _DRAIN_S))

    async def close(self) -> None:
        """Let go of streams that are still read to their end."""
        for task in list(self._drains):
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def _post(
        self,
        body: bytes,
        head: Head,
        timeout_s: float,
        go_ahead: Callable[[], None] | None = None,
    ) -> Awaitable[HttpResponse]:
        # No redirect is followed: an upstream must not send the gateway to another host (SSRF),
        # nor have a call repeated there.
        return self._pool.post(
            self._target,
            head.text,
            body,
            limit=self._max_bytes,
            timeout_s=timeout_s,
            go_ahead=go_ahead,
        )

    async def _read(
        self, response: HttpResponse, number: int, hears: Hears, *, in_session: bool
    ) -> UpstreamResult:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise wire.broken("the upstream packed its answer although asked not to")
        kind = response.content_type
        if response.status != _OK:
            json = kind == "application/json"
            return await self._read_failure(response, number, json=json, in_session=in_session)
        if kind == "application/json":
            body = response.whole
            if body is None:
                body = await self._whole(response)
            return _read_body(body, number)
        if kind == "text/event-stream":
            return await self._read_stream(response, number, hears)
        raise wire.broken("the upstream's answer is neither JSON nor an event stream")

    async def _read_failure(
        self, response: HttpResponse, number: int, *, json: bool, in_session: bool
    ) -> UpstreamResult:
        """Read a refusal. JSON-RPC errors with their own status are answers (MCP 2026-07-28)."""
        if response.status == _UNAUTHORIZED and self._challenged:
            await self._read_challenge(response, json=json)
        if response.status == _NOT_FOUND and in_session:
            raise DisownedError(
                "the upstream has forgotten the session", delivery="not_sent", retryable=True
            )
        if json:
            with suppress(UpstreamError):
                answer = _read_body(await self._whole(response), number)
                if answer.error is not None:
                    return answer
        kind = _KINDS.get(response.status, UpstreamError)
        raise kind(
            f"the upstream answered with HTTP {response.status}"
            f"{_REMEDIES.get(response.status, '')}",
            delivery="unknown" if response.status >= _SERVER_ERROR else "sent",
        )

    async def _read_challenge(self, response: HttpResponse, *, json: bool) -> NoReturn:
        """Raise `CredentialRefusedError`, unless the answer contradicts itself and has a result."""
        said = (await self._whole(response)).strip() if json else b""
        if said.startswith((b"{", b"[")) and "result" in _split(said):
            raise wire.broken("the upstream answered with HTTP 401 and with a result")
        raise CredentialRefusedError(
            "the upstream refused the gateway's credential",
            code="upstream_credential_refused",
            delivery="sent",
        )

    async def _whole(self, response: HttpResponse) -> bytes:
        length = response.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise too_large(self._max_bytes)
        try:
            return await response.read()
        except OverflowError:
            raise too_large(self._max_bytes) from None

    async def _read_stream(
        self, response: HttpResponse, number: int, hears: Hears
    ) -> UpstreamResult:
        events = EventReader(self._max_bytes)
        async for piece in _take_turns(response):
            for data in events.feed(piece):
                message = _split(data)
                if "method" not in message:
                    return wire.read_answer(message, number)
                hears(message)
        raise UpstreamError("the upstream's stream ended without an answer", delivery="unknown")

    def _drain(self, response: HttpResponse) -> None:
        """Read what is still to come aside, so that the connection can serve again."""
        task = asyncio.create_task(_read_out(response))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)


async def _take_turns(response: HttpResponse) -> AsyncIterator[bytes]:
    """Yield a stream piece by piece; in between, the others have their turn."""
    taken = 0
    async for chunk in response.chunks():
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            yield piece
            taken += 1 + piece.count(b"\n")
            if taken > TURN_LINES:
                taken = 0
                await response.pause()


async def _read_out(response: HttpResponse) -> None:
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in response.chunks():
                pass
    except (HttpError, TimeoutError):
        pass
    finally:
        response.release()


def _read_body(raw: bytes, number: int) -> UpstreamResult:
    try:
        return wire.read_body(raw, number)
    except ValueError as reason:
        raise wire.broken(f"the upstream's answer cannot be used: {reason}") from None


def _split(raw: bytes) -> wire.Message:
    try:
        return wire.split_object(raw)
    except ValueError as reason:
        raise wire.broken(f"the upstream's answer cannot be used: {reason}") from None
