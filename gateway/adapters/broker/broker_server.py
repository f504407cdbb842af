"""The other end of `broker_socket`: hands out credentials to the gateway's user alone."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.adapters.broker.broker_wire import (
    REQUEST_MAX_BYTES,
    BrokerReply,
    BrokerRequest,
    encode,
    read_peer_uid,
    read_request,
)
from gateway.core.credentials import CredentialFailure
from gateway.core.errors import ConfigurationError
from gateway.core.ports import Clock, CredentialBroker

_AT_ONCE: Final = 256
_log: Final = structlog.get_logger("gateway.broker")


class BrokerServer:
    """Serves a broker on a Unix socket. `uids`: the users whose processes may ask."""

    def __init__(self, broker: CredentialBroker, *, clock: Clock, uids: Collection[int]) -> None:
        self._broker = broker
        self._clock = clock
        self._uids = frozenset(uids)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen at `path`. Raises `ConfigurationError` where that is not possible.

        A socket that a dead process left behind is taken over; one that somebody answers is not.
        """
        listener = _listen(path, others=self._uids != {os.getuid()})
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listener, limit=REQUEST_MAX_BYTES
        )

    async def close(self) -> None:
        """Stop listening, and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server's callback is one
        self._serving.add(task)
        try:
            uid = read_peer_uid(writer)
            if uid in self._uids:
                await self._answer_all(reader, writer)
            else:
                _log.warning("broker_stranger", uid=uid)
        except* (OSError, ValueError, msgspec.MsgspecError):  # as a group of tasks raises them
            _log.warning("broker_request_unreadable")
        except* asyncio.CancelledError:
            pass  # `close` hangs up
        finally:
            self._serving.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.TaskGroup() as answering:
            while line := await reader.readline():
                request = read_request(line)
                if request.op == "reject":  # at once: what is asked next must not get it again
                    if request.credential is not None:
                        self._broker.reject(request.ask, request.credential, self._clock.now_ns())
                    continue
                await self._turns.acquire()
                answering.create_task(self._answer(request, writer))

    async def _answer(self, request: BrokerRequest, writer: asyncio.StreamWriter) -> None:
        try:
            found = await self._broker.obtain(request.ask, self._clock.now_ns())
            if isinstance(found, CredentialFailure):
                writer.write(encode(BrokerReply(id=request.id, failure=found)))
            else:
                writer.write(encode(BrokerReply(id=request.id, credential=found)))
        finally:
            self._turns.release()


def _listen(path: Path, *, others: bool) -> socket.socket:
    """Bind a socket that only its owner can connect to; the kernel tells `others` apart later."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            _remove_stale(path)
        masked = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(masked)
        if others:
            path.chmod(0o666)
        listener.listen()
    except OSError as error:
        listener.close()
        why = f"nothing can listen at `{path}`: {error.strerror or error}; choose another path"
        raise ConfigurationError(why) from None
    return listener


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another broker is there")
