"""One MCP server as a child process, spoken to in lines (MCP 2025-11-25, stdio).

Calls run side by side and are told apart by their numbers. When the process dies, nobody can say
how far they got: every call in flight ends `unknown`, and none is sent again.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct

from connectors import mcp_wire as wire
from connectors.child import Child
from connectors.lines import HEAD, PAUSE_S, TURN_LINES, LineReader, Oversize
from connectors.sse import too_large
from gateway.core.calls.call import RecordedIntent, Relay, UpstreamResult
from gateway.core.errors import UpstreamError

_log = structlog.get_logger("connectors.stdio")

GRACE_S: Final = 2.0
"""How long a server may take to end after its input closed, and again after SIGTERM."""

LAST_WORDS_S: Final = 0.5
"""How long is read of a server that has ended: what it started may hold its outputs for ever."""

UNREAD_MAX_BYTES: Final = 4 << 20
"""Beyond this a server that does not read is sent nothing."""

_CHUNK: Final = 65_536
_STDERR_KEPT: Final = 500
_NUMBER: Final = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,15})\s*,')
_DIGITS: Final = re.compile(rb"\d{1,15}")
_INITIALIZE: Final = wire.build_request(
    0,
    "initialize",
    b'{"protocolVersion":"%b","capabilities":{},"clientInfo":%b}'
    % (wire.LEGACY.encode(), wire.CLIENT_INFO),
)
_INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class _Waiting(Struct):
    """A request that is in flight, and for whom."""

    answer: asyncio.Future[UpstreamResult]
    intent: RecordedIntent | None
    relay: Relay | None


class StdioProcess:
    """A running server. Made by `spawn`; ended by `stop`, or by its own death.

    `died` is called once when it ends without being told to. `list_changed` is called when it
    says that its tools have changed. For the owner to note: `started_ns`, `used_ns`, when it was
    last of use, `needles`, what it must not repeat, and `offered`, the digests of its definitions,
    forgotten when it changes them.
    """

    def __init__(
        self,
        child: Child,
        *,
        max_bytes: int,
        died: Callable[[StdioProcess], None],
        list_changed: Callable[[], None],
    ) -> None:
        self._child = child
        self._lines = LineReader(max_bytes)
        self._died = died
        self._list_changed = list_changed
        self._waiting: dict[int, _Waiting] = {}
        self._left: set[str] = set()
        self._stopping = False
        self._stderr = b""
        self._alive = True
        self._ready = False
        self.started_ns = 0
        self.used_ns = 0
        self.needles: tuple[bytes, ...] = ()
        self.offered: Mapping[str, str] | None = None
        self._reading = asyncio.create_task(self._read())
        self._draining = asyncio.create_task(self._drain_stderr())
        self._living = asyncio.create_task(self._live())

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it still talks to us."""
        return self._alive

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return len(self._waiting)

    async def handshake(self, timeout_s: float) -> None:
        """Initialize it. Raises `UpstreamError` for a server that is no MCP server we know."""
        try:
            answer = await self.request(0, _INITIALIZE, timeout_s=timeout_s)
            wire.read_version(answer)
        except UpstreamError as error:
            said = self._stderr.decode(errors="replace").strip()
            raise UpstreamError(
                f"{error}; it said: {said or 'nothing'}", code=error.code, delivery="not_sent"
            ) from error
        self._ready, self._stderr = True, b""
        self._write(_INITIALIZED)

    async def request(
        self,
        number: int,
        body: bytes,
        *,
        timeout_s: float,
        intent: RecordedIntent | None = None,
        relay: Relay | None = None,
    ) -> UpstreamResult:
        """Send one request, once, and wait for its answer. Raises `UpstreamError`."""
        if not self._alive:
            raise wire.undelivered("the server process has ended")
        if self._child.unread > UNREAD_MAX_BYTES:
            raise wire.undelivered("the server does not read what it was sent; try again later")
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(answer, intent, relay)
        answered = False
        try:
            async with asyncio.timeout(timeout_s):
                self._write(body)
                result: UpstreamResult = await answer
            answered = True
            return result
        except TimeoutError:
            raise UpstreamError(
                "the upstream did not answer in time", code="upstream_timeout", delivery="unknown"
            ) from None
        finally:
            del self._waiting[number]
            if not answered and self._alive:
                self._write(_build_cancelled(number))
                if intent is not None and len(self._left) < 2:  # noqa: PLR2004 - see `_is_alone`
                    self._left.add(_run_of(intent))

    def _write(self, line: bytes) -> None:
        """Write one line. A line break within JSON is only space, and would end the message."""
        if b"\n" in line or b"\r" in line:
            line = line.replace(b"\n", b" ").replace(b"\r", b" ")
        self._child.write(line + b"\n")

    # What it says

    async def _live(self) -> None:
        """Note its end: it has ended, has closed its output, or its input.

        Whatever it started may hold its outputs on, so their end is not waited for.
        """
        ended = asyncio.create_task(self._child.wait())
        try:
            await asyncio.wait(
                {ended, self._reading, self._child.unheard}, return_when=asyncio.FIRST_COMPLETED
            )
            self._alive = False  # nothing more is sent, but what it has said is still heard
            await asyncio.wait({self._reading, self._draining}, timeout=LAST_WORDS_S)
        finally:
            ended.cancel()
            self._end()

    async def _read(self) -> None:
        while chunk := await self._child.stdout.read(_CHUNK):
            for number, line in enumerate(self._lines.feed(chunk), 1):
                if line:
                    self._take(line)
                if number % TURN_LINES == 0:
                    await asyncio.sleep(PAUSE_S)

    def _end(self) -> None:
        """Note that nothing more will come."""
        self._alive = False
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(
                    UpstreamError("the server process ended during the call", delivery="unknown")
                )
        if not self._stopping:
            self._died(self)

    def _take(self, line: bytes | Oversize) -> None:
        if isinstance(line, Oversize):
            self._take_unusable(line.head, too_large(self._lines.max_bytes))
            return
        try:
            message = wire.split_object(line)
        except ValueError as error:
            if line.strip():
                self._take_unusable(line[:HEAD], wire.broken(f"it cannot be used: {error}"))
            return
        if "method" in message:
            self._hear(message)
        else:
            self._answer(message)

    def _answer(self, message: wire.Message) -> None:
        number = message.get("id", b"")
        waiting = self._waiting.get(int(number)) if _DIGITS.fullmatch(number) else None
        if waiting is None or waiting.answer.done():
            return  # too late, or to nothing that we asked
        try:
            waiting.answer.set_result(wire.read_answer(message, int(number)))
        except UpstreamError as error:
            waiting.answer.set_exception(error)

    def _take_unusable(self, head: bytes, error: UpstreamError) -> None:
        """Fail the call that a line was for. What names no call is noise, such as a print."""
        found = _NUMBER.match(head)
        waiting = self._waiting.get(int(found[1])) if found else None
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_exception(error)
        else:
            _log.debug("stdio_line_ignored", pid=self.pid)

    def _hear(self, message: wire.Message) -> None:
        if "id" in message:
            if self._child.unread <= UNREAD_MAX_BYTES:  # else it asks and does not listen
                self._write(wire.build_answer_to_server(message))
        elif message["method"] == wire.LIST_CHANGED:
            self.offered = None
            self._list_changed()
        else:
            for waiting in list(self._waiting.values()):
                if waiting.intent is not None and waiting.relay is not None:
                    own = message["method"] == wire.PROGRESS or self._is_alone(waiting.intent)
                    line = wire.build_relayed(message, waiting.intent) if own else None
                    if line is not None:
                        waiting.relay(line)

    def _is_alone(self, intent: RecordedIntent) -> bool:
        """Whether a log message, which names no call, can be about no other run's.

        What was given up may run on: of the runs whose calls were, two are enough to know.
        """
        return len(self._waiting) == 1 and self._left <= {_run_of(intent)}

    async def _drain_stderr(self) -> None:
        """Keep what it says before it is ready, to explain a failed start; drop the rest.

        Later on it may speak of arguments, which do not belong into our log.
        """
        while chunk := await self._child.stderr.read(_CHUNK):
            if not self._ready:
                self._stderr = (self._stderr + chunk)[-_STDERR_KEPT:]

    # The end

    async def stop(self) -> None:
        """End it and all that it started: close its input, then SIGTERM, then SIGKILL."""
        self._stopping = True
        self._child.close_input()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._child.signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._child.wait()
                    break
        self._child.signal(signal.SIGKILL)  # what it started may outlive it
        tasks = (self._living, self._reading, self._draining)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._child.close()


async def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    max_bytes: int,
    died: Callable[[StdioProcess], None],
    list_changed: Callable[[], None],
) -> StdioProcess:
    """Start a server in a process group of its own. Raises `OSError` when it cannot be started."""
    child = await Child.start(command, env=env, cwd=cwd)
    return StdioProcess(child, max_bytes=max_bytes, died=died, list_changed=list_changed)


def _run_of(intent: RecordedIntent) -> str:
    return intent.intent.resolved.call.claims.run_id


def _build_cancelled(number: int) -> bytes:
    return (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}' % number
    )
