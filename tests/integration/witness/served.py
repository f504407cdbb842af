"""A witness in this process, honest until it is told otherwise, on a loopback port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from gateway.core.log import note as notes
from gateway.core.log.cosignature import Cosignature, build_cosignature, build_message
from gateway.core.log.merkle import is_consistent
from gateway.core.log.note import NoteKey
from tests.integration.witness.parts import WitnessIdentity

Behave = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


class ServedClock(Protocol):
    def now_ns(self) -> int: ...


class ServedWitness:
    """`behave`, when set, answers in its place."""

    def __init__(self, identity: WitnessIdentity, log_key: NoteKey, clock: ServedClock) -> None:
        self.identity = identity
        self.behave: Behave | None = None
        self.requests: list[bytes] = []
        self.size = 0
        self.url = ""
        self._log_key = log_key
        self._clock = clock
        self._root = b""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ServedWitness]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prefix/"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cosign(self, text: bytes, time_s: int | None = None) -> str:
        """Return the line of a cosignature over anything."""
        when = self._clock.now_ns() // 1_000_000_000 if time_s is None else time_s
        signature = self.identity.private.sign(build_message(when, text))
        key = self.identity.key
        return f"— {build_cosignature(Cosignature(key.name, key.id, when, signature))}\n"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._converse(reader, writer)
            finally:
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /prefix/add-checkpoint HTTP/1.1\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.requests.append(body)
        if self.behave is not None:
            await self.behave(writer, body)
        else:
            await reply(writer, *self.answer(body))

    def answer(self, request: bytes) -> tuple[int, str, bytes]:
        """Answer `add-checkpoint` by the book."""
        head, _, note = request.decode().partition("\n\n")
        old, *proof = head.split("\n")
        signed = notes.parse(note)
        if not signed.is_signed_by(self._log_key):
            return 403, "text/plain", b""
        if old != f"old {self.size}":
            return 409, "text/x.tlog.size", b"%d\n" % self.size
        new = signed.checkpoint
        nodes = [base64.b64decode(line) for line in proof]
        if self.size and not is_consistent(self.size, self._root, new.size, new.root, nodes):
            return 422, "text/plain", b""
        self.size, self._root = new.size, new.root
        return 200, "text/plain", self.cosign(signed.text).encode()


async def reply(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    """Send a whole answer."""
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
    await writer.drain()
