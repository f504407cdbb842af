"""`CredentialBroker` by way of a process that holds the secrets: `countersign broker`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from gateway.adapters.broker.broker_wire import (
    REPLY_MAX_BYTES,
    BrokerRequest,
    encode,
    read_peer_uid,
    read_reply,
)
from gateway.brokering import CachingBroker
from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential

Answer = UpstreamCredential | CredentialFailure

_GONE: Final = CredentialFailure(reason="unreachable", detail="the broker is not there; start it")
_LATE: Final = CredentialFailure(reason="timed_out", detail="the broker did not answer in time")


class SocketBroker(CachingBroker):
    """Asks a broker process, over one connection that is kept.

    ::

        broker = SocketBroker(Path("run/broker.sock"), uid=os.getuid(), timeout_s=5)

    `uid`: the user as whom the broker must run. A process of anybody else at that path is told
    nothing and believed nothing. Each ask is answered, or fails, within `timeout_s`.
    """

    def __init__(self, path: Path, *, uid: int, timeout_s: float) -> None:
        self._link = _Link(path, uid=uid, timeout_s=timeout_s)
        super().__init__(self._link.fetch, forget=self._link.forget)

    async def close(self) -> None:
        """See `ports.CredentialBroker.close`."""
        await super().close()
        await self._link.close()


class _Link:
    """The connection, and who waits for an answer on it."""

    def __init__(self, path: Path, *, uid: int, timeout_s: float) -> None:
        self._path = path
        self._uid = uid
        self._timeout_s = timeout_s
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def fetch(self, ask: CredentialAsk, _now_ns: int) -> Answer:
        """Ask once. A connection that turns out to be dead is made anew with the next ask."""
        number = next(self._numbers)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(self._timeout_s):
                writer = await self._connect()
                if isinstance(writer, CredentialFailure):
                    return writer
                writer.write(encode(BrokerRequest(id=number, op="get", ask=ask)))
                return await answer
        except TimeoutError:
            return _LATE
        finally:
            del self._waiting[number]

    def forget(self, ask: CredentialAsk, credential: UpstreamCredential) -> None:
        """Tell the broker; what is asked after this is answered after it."""
        if self._writer is not None:
            number = next(self._numbers)
            request = BrokerRequest(id=number, op="reject", ask=ask, credential=credential)
            self._writer.write(encode(request))

    async def close(self) -> None:
        """Hang up."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _connect(self) -> asyncio.StreamWriter | CredentialFailure:
        async with self._connecting:
            if self._writer is not None:
                return self._writer
            try:
                reader, writer = await asyncio.open_unix_connection(
                    self._path, limit=REPLY_MAX_BYTES
                )
            except OSError:
                return _GONE
            uid = read_peer_uid(writer)
            if uid != self._uid:
                writer.close()
                why = f"user {uid} listens in the broker's place; see `credentials.broker_uid`"
                return CredentialFailure(reason="refused", detail=why)
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader, writer))
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                reply = read_reply(line)
                waiting = self._waiting.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply.answer)
        except (OSError, ValueError, msgspec.MsgspecError):
            pass  # whoever waits is told below
        finally:
            self._writer = None
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_result(_GONE)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
