"""The event loop's end of the connection to the keeper: one message out, one answer in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from gateway.adapters.audit.audit_orders import (
    READ_BYTES,
    Answer,
    Inbox,
    decode_answer,
    join_orders,
)

ENDED: Final = "what keeps it has ended"
"""What `lost` is told when nobody is there any more."""


class KeeperLink:
    """Sends messages, never a second one before the answer to the first.

    `answered` is called with each answer. `lost` is called once, when nobody is there any more or
    `answered` raised: an answer that cannot be right is as good as none.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        answered: Callable[[Answer], None],
        lost: Callable[[str], None],
    ) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._connection: Final = connection
        self._answered: Final = answered
        self._lost: Final = lost
        self._loop: Final = asyncio.get_running_loop()
        self._outbox = memoryview(b"")
        self._is_sending = self._is_closed = False
        self._inbox: Final = Inbox()
        self.asked_s: float | None = None
        """When the message was sent that is not answered yet, by the loop's clock."""
        self._loop.add_reader(connection, self._on_readable)

    def ask(self, orders: Sequence[bytes]) -> None:
        """Send a message of orders that are encoded already."""
        self.asked_s = self._loop.time()
        self._outbox = memoryview(join_orders(orders))
        self._send()

    def close(self) -> None:
        """Close the connection: the keeper ends, and `lost` is not called any more."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._outbox)  # it is gone: what it said last is still to be read
        self._outbox = self._outbox[sent:]
        if self._outbox and not self._is_sending:
            self._loop.add_writer(self._connection, self._send)
        elif self._is_sending and not self._outbox:
            self._loop.remove_writer(self._connection)
        self._is_sending = bool(self._outbox)

    def _on_readable(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            self._read(data)
        except Exception as error:  # noqa: BLE001 - INVARIANT: what is not understood counts for nothing
            self._end(f"what keeps it gave an answer that cannot be: {type(error).__name__}")
        else:
            if not data:
                self._end(ENDED)

    def _read(self, data: bytes) -> None:
        self._inbox.feed(data)
        while (message := self._inbox.take()) is not None:
            answer = decode_answer(message)
            if answer.asked and answer.failure is None:
                if self.asked_s is None:
                    raise ValueError("nothing was asked")
                self.asked_s = None
            self._answered(answer)

    def _end(self, why: str) -> None:
        if not self._is_closed:
            self.close()
            self._lost(why)
