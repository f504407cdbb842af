"""The event loop's end of the connection to the keeper: messages out, one answer in for each."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
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


UNANSWERED_MAX: Final = 2
"""So many messages may be with the keeper: the one that it carries out, and the next."""


class KeeperLink:
    """Sends messages, and cuts what comes back into answers, which come in the same order.

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
        self._asked: Final[deque[float]] = deque()
        self._loop.add_reader(connection, self._on_readable)

    @property
    def asked_s(self) -> float | None:
        """Since when an answer has been waited for, by the loop's clock.

        Since its message was sent, or since the answer before it came: then its turn began.
        """
        return self._asked[0] if self._asked else None

    @property
    def unanswered(self) -> int:
        """How many messages were sent that are not answered yet."""
        return len(self._asked)

    @property
    def may_ask(self) -> bool:
        """Whether one more message may be sent: what it would have to wait behind is all sent."""
        return len(self._asked) < UNANSWERED_MAX and not self._outbox

    def ask(self, orders: Sequence[bytes]) -> None:
        """Send a message of orders that are encoded already. Only while `may_ask`."""
        self._asked.append(self._loop.time())
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
                if not self._asked:
                    raise ValueError("nothing was asked")
                self._asked.popleft()
                if self._asked:
                    self._asked[0] = self._loop.time()
            self._answered(answer)

    def _end(self, why: str) -> None:
        if not self._is_closed:
            self.close()
            self._lost(why)
