"""A small HTTP/1.1 client for one kind of request: POST some JSON, read what comes back.

It stands on httptools (llhttp), the parser of the server side, because the upstream request is the
dearest step of a governed call: a general client spends 80 to 110 µs of CPU on it, this one
about 20 (ADR 0008). It follows no redirects, keeps no cookies, heeds no proxy settings and unpacks
nothing, so there is nothing to turn off.

INVARIANT: every failure says whether bytes of the request may have left (`sent`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Self
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from connectors.lines import PAUSE_S

_CONNECT_S: Final = 5.0
_IDLE_S: Final = 3.0
"""Below the 5 s after which common servers close an idle connection: a call written into one that
is just closing would end `unknown`."""
_TRUST: Final = "certificates of a private CA are named by SSL_CERT_FILE"
_BUFFER_MAX: Final = 1 << 20
_CHUNKS_MAX: Final = 4_096
_INFORMATIONAL: Final = 200
_HEADERS_MAX: Final = 128
_HEAD_MAX_BYTES: Final = 262_144
"""Bytes that may come without any progress: a head, a trailer, what frames a body, hints."""


class HttpError(Exception):
    """The exchange failed. `sent`: whether the upstream may have got the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent: Final = sent


class HttpTimeoutError(HttpError):
    """The time allowed ran out."""


class Target(Struct, frozen=True, cache_hash=True):
    """Where an URL leads. `authority` is the Host header, `path` the request target."""

    host: str
    port: int
    tls: bool
    authority: str
    path: str


def read_target(url: str) -> Target:
    """Take an absolute http or https URL apart. Raises `ValueError` for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("an upstream URL is http or https, with a host and without a user")
    tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not (path + parts.netloc).isascii() or any(c <= " " for c in path + parts.netloc):
        raise ValueError("an upstream URL is plain ASCII without blanks; encode it")
    return Target(parts.hostname, parts.port or (443 if tls else 80), tls, parts.netloc, path)


def build_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    """Return the request head up to `Content-Length: `. Raises `ValueError` for a line break.

    INVARIANT: no header value can end its line, so none can add a header or a request.
    """
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line or "\0" in line for line in lines):
        raise ValueError("a header holds a line break")
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")


class HttpResponse:
    """Status and headers as they came; the body as it comes."""

    __slots__ = (
        "_buffered",
        "_chunks",
        "_connection",
        "_done",
        "_failure",
        "_limit",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: _Connection, limit: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection = connection
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._done = False
        self._failure: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def content_type(self) -> str:
        """Media type, lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def complete(self) -> bool:
        """Whether the whole body has come."""
        return self._done

    @property
    def whole(self) -> bytes | None:
        """The body, where it came in one piece and within the limit; None otherwise: `read` it."""
        if self._done and len(self._chunks) == 1 and self._failure is None:
            return self._chunks[0] if self._buffered <= self._limit else None
        return None

    async def read(self) -> bytes:
        """Return the whole body. Raises `HttpError`; `OverflowError` beyond the limit."""
        if (whole := self.whole) is not None:
            return whole
        chunks = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > self._limit:
                raise OverflowError
            chunks.append(chunk)
        return b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises `HttpError` when it breaks off."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._buffered -= len(chunk)
                yield chunk
            self._connection.resume()
            if self._failure is not None:
                raise self._failure
            if self._done:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def pause(self) -> None:
        """Let others have their turn. Raises `HttpTimeoutError` once the time is over."""
        await asyncio.sleep(PAUSE_S)
        if isinstance(self._failure, HttpTimeoutError):
            raise self._failure

    def release(self) -> None:
        """Say that no more of the body is wanted; what is still to come closes the connection."""
        if not self._done:
            self._connection.abort()

    def _feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)
        if self._buffered > _BUFFER_MAX or len(self._chunks) > _CHUNKS_MAX:
            self._connection.pause()
        self._wake()

    def _end(self, failure: HttpError | None = None) -> None:
        self._done = True
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection: at most one request under way, its answer parsed as it comes."""

    def __init__(self, pool: HttpPool, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._target = target
        self._loop = loop  # kept, because `get_running_loop` asks the system for the process id
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[HttpResponse] | None = None
        self._response: HttpResponse | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self._framed = False
        self._quiet_bytes = 0
        self._idle_since = 0.0

    # What the pool does with it

    def send(self, data: bytes, limit: int, timeout_s: float) -> asyncio.Future[HttpResponse]:
        """Write a request; the future gets the response once its head has come."""
        assert self._transport is not None  # noqa: S101 - made only by create_connection
        self._head = self._loop.create_future()
        self._response = HttpResponse(self, limit)
        self._framed = False
        self._deadline = self._loop.time() + timeout_s
        if self._timer is None or self._deadline < self._timer_at:
            self._arm(timeout_s)
        self._transport.write(data)
        return self._head

    def spare(self) -> None:
        """Give it back with nothing sent."""
        self._idle_since = self._loop.time()
        self._pool.free(self, self._target)

    def is_usable(self) -> bool:
        """Whether another request may be written to it."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and self._loop.time() - self._idle_since < _IDLE_S
        )

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading until the consumer has caught up."""
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()

    # What the network does

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # an answer nobody asked for: never mistake it for the next
            self.abort()
            return
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(HttpError("the answer is not HTTP", sent=True))
        if self._quiet_bytes > _HEAD_MAX_BYTES:
            self._fail(HttpError("the head of the answer is too large", sent=True))

    def connection_lost(self, exc: Exception | None) -> None:
        ended_by_close = exc is None and not self._framed
        response = self._response
        if response is not None and self._head is not None and self._head.done() and ended_by_close:
            self._finish(None, reusable=False)  # a body that ends with the connection
        else:
            self._fail(HttpError("the connection broke", sent=True))
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.lost(self, self._target)

    # What the parser finds

    def on_message_begin(self) -> None:
        if self._response is None:  # behind an answer that is complete: as in `data_received`
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        if response is None or response.status:  # a trailer: nothing reads those
            return
        key = name.decode("latin-1").lower()
        if key in ("content-length", "transfer-encoding"):
            self._framed = True
        if len(response.headers) < _HEADERS_MAX:
            response.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        response, head = self._response, self._head
        if response is None or head is None:
            return
        response.status = self._parser.get_status_code()
        if response.status >= _INFORMATIONAL:  # what comes before it is no progress
            self._quiet_bytes = 0
            if not head.done():
                head.set_result(response)

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        if self._response is not None:
            self._response._feed(body)  # noqa: SLF001 - the two halves of one exchange

    def on_message_complete(self) -> None:
        response = self._response
        if response is None:
            return
        if response.status < _INFORMATIONAL:  # 100 Continue and the like: the answer is to come
            response.headers.clear()
            response.status = 0
            self._framed = False
            return
        self._finish(None, reusable=self._parser.should_keep_alive() and self._framed)

    # Ends

    def _arm(self, delay_s: float) -> None:
        """Look at the deadline in so many seconds, and not before.

        Almost every answer comes long before its deadline. So the timer of one request stays for
        those that follow it, and is set again only if it finds one under way that has time left.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._loop.time() + delay_s
        self._timer = self._loop.call_later(delay_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._response is None:
            return
        left_s = self._deadline - self._loop.time()
        if left_s > 0:
            self._arm(left_s)
        else:
            self._fail(HttpTimeoutError("no answer in time", sent=True))

    def _fail(self, error: HttpError) -> None:
        self._finish(error, reusable=False)

    def _finish(self, failure: HttpError | None, *, reusable: bool) -> None:
        response, self._response = self._response, None
        head, self._head = self._head, None
        if response is not None:
            response._end(failure)  # noqa: SLF001 - the two halves of one exchange
        if head is not None and not head.done():
            head.set_exception(failure or HttpError("the connection broke", sent=True))
        if reusable and not self._paused:
            self.spare()
        else:
            self.abort()


class HttpPool:
    """Connections to any number of upstreams, at most `connections` to each at a time."""

    def __init__(self, *, connections: int = 256) -> None:
        self._max = connections
        self._idle: dict[Target, deque[_Connection]] = {}
        self._count: dict[Target, int] = {}
        self._waiting: dict[Target, deque[asyncio.Future[None]]] = {}
        self._open: set[_Connection] = set()
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        """Use the pool in a block that closes it."""
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close every connection."""
        await self.close()

    async def post(
        self,
        target: Target,
        head: bytes,
        body: bytes,
        *,
        limit: int,
        timeout_s: float,
        go_ahead: Callable[[], None] | None = None,
    ) -> HttpResponse:
        """Send one request and return its response as soon as the head has come.

        `head` is from `build_head`; `limit` bounds what `read` returns, in bytes. `go_ahead` is
        asked where a connection had to be waited for, right before the bytes leave, and raises
        what `post` then raises. Raises `HttpError`, `HttpTimeoutError`. A caller that is cancelled
        closes the connection.
        """
        connection = self._take(target)
        if connection is None:
            connection = await self._connect(target, timeout_s)
            if go_ahead is not None:
                try:
                    go_ahead()
                except BaseException:
                    connection.spare()
                    raise
        data = b"%b%d\r\n\r\n%b" % (head, len(body), body)
        answer = connection.send(data, limit, timeout_s)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.cancelled():
                connection.abort()
            elif answer.exception() is None:  # it is here: another may have the connection by now
                answer.result().release()
            raise

    async def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)

    def free(self, connection: _Connection, target: Target) -> None:
        """Take back a connection that may serve again."""
        idle = self._idle.get(target)
        if idle is None:
            idle = self._idle[target] = deque()
        idle.append(connection)
        self._let_in(target)

    def lost(self, connection: _Connection, target: Target) -> None:
        """Forget a connection that is gone."""
        self._open.discard(connection)
        self._count[target] -= 1
        idle = self._idle.get(target)
        if idle is not None and connection in idle:
            idle.remove(connection)
        self._let_in(target)

    def _take(self, target: Target) -> _Connection | None:
        """The connection used last, so that those left over fall idle and are closed."""
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    async def _connect(self, target: Target, timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(timeout_s, _CONNECT_S)):
                while self._count.get(target, 0) >= self._max:
                    turn: asyncio.Future[None] = loop.create_future()
                    self._waiting.setdefault(target, deque()).append(turn)
                    try:
                        await turn
                    except asyncio.CancelledError:
                        if turn.done() and not turn.cancelled():
                            self._let_in(target)  # it was let in, and left: the next one's turn
                        raise
                    if (freed := self._take(target)) is not None:
                        return freed
                self._count[target] = self._count.get(target, 0) + 1
                try:
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self, target, loop),
                        target.host,
                        target.port,
                        ssl=self._context() if target.tls else None,
                    )
                except BaseException:
                    self._count[target] -= 1
                    self._let_in(target)
                    raise
        except TimeoutError:
            raise HttpTimeoutError("no connection in time", sent=False) from None
        except ssl.SSLCertVerificationError as error:
            text = f"its certificate is not believed: {error.verify_message}; {_TRUST}"
            raise HttpError(text, sent=False) from error
        except (socket.gaierror, UnicodeError) as error:  # none that is known, none that can be one
            raise HttpError("no connection: its host name has no address", sent=False) from error
        except OSError as error:
            raise HttpError(f"no connection: {type(error).__name__}", sent=False) from error
        self._open.add(connection)
        return connection

    def _let_in(self, target: Target) -> None:
        waiting = self._waiting.get(target)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._tls
