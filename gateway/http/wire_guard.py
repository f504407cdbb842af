"""What a stranger may cost before anybody knows who it is: connections, bytes of a head, time.

The server's own HTTP protocol has no bound on any of them. One connection could fill the memory
with headers, and a few hundred silent ones could use up the files that the audit log needs.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, Final

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.http.asgi import WHOLE_REPLY
from gateway.http.whole_reply import WholeReply
from gateway.unbroken import Enduring, Stopper

HEAD_MAX_BYTES: Final = 131_072
"""Bytes that may come without any progress: a head, a trailer, what frames a body."""

REQUEST_MAX_S: Final = 30.0
"""How long a request may take to arrive, or a new connection to begin one."""

CONNECTIONS_MAX: Final = 8_192


def connections_max() -> int:
    """Return how many connections leave files enough for log, state and upstreams."""
    return min(CONNECTIONS_MAX, max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))


class GuardedProtocol(HttpToolsProtocol):
    """Cuts connections off that are too many, too slow, or all head and no body."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the server's own
        super().__init__(*args, **kwargs)
        self._quiet_bytes = 0
        self._due: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are as many as may be."""
        super().connection_made(transport)
        if len(self.connections) > connections_max():
            transport.abort()
            return
        self._due = self.loop.time() + REQUEST_MAX_S
        self._watch = self.loop.call_later(REQUEST_MAX_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless nothing comes of it."""
        self._quiet_bytes += len(data)
        super().data_received(data)
        if self._quiet_bytes > HEAD_MAX_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A request begins: from here on it has its time."""
        if self._due is None:
            self._due = self.loop.time() + REQUEST_MAX_S
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head has come whole."""
        self._quiet_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of a body has come."""
        self._quiet_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come whole."""
        self._quiet_bytes, self._due = 0, None
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Serve a request: its answer may be written whole, its calls are not cut off halfway."""
        cycle.scope[WHOLE_REPLY] = WholeReply(cycle)  # type: ignore[typeddict-unknown-key]
        task = Enduring(cycle.run_asgi(app), loop=self.loop)
        stopper: Any = Stopper(task)  # all that the server does with it is cancel it
        task.add_done_callback(lambda _: self.tasks.discard(stopper))
        self.tasks.add(stopper)

    def _look(self) -> None:
        """Cut off what has taken too long; look again when the next could have."""
        left_s = REQUEST_MAX_S if self._due is None else self._due - self.loop.time()
        if left_s <= 0:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(left_s, self._look)
