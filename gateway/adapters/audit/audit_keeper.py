"""The keeper of the log: builds records, signs, writes, syncs, erases. It knows no event loop.

It runs in a process of its own (`audit_process`), or in a thread of the process that opened the
log (a command without a gateway), and is told what to do over a socket: `audit_orders`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_builder import RecordBuilder
from gateway.adapters.audit.audit_openings import Vault
from gateway.adapters.audit.audit_orders import (
    LENGTH,
    Answer,
    Close,
    Order,
    Placed,
    Proof,
    Prove,
    Put,
    Refused,
    decode_order,
    encode,
    pack,
    split_orders,
)
from gateway.adapters.audit.audit_writer import SegmentWriter
from gateway.core.entry import Entry
from gateway.core.errors import AuditError
from gateway.core.log import note

TIDY_WAIT_S: Final = 1.0
"""How long nothing may come before what lies behind is looked at again."""


class Keeper:
    """Carries out orders, one message at a time. For one thread.

    INVARIANT: whatever a message raises poisons the keeper: it says why, and takes no more orders.
    """

    def __init__(self, *, builder: RecordBuilder, writer: SegmentWriter, vault: Vault) -> None:
        self._builder: Final = builder
        self._writer: Final = writer
        self._vault: Final = vault
        self._closed = False

    def serve(self, connection: socket.socket) -> None:
        """Carry out what comes until it is told to close, fails, or nobody is there any more.

        Says how the log stands before anything is asked, and when that changes unasked.
        """
        untidy, told = False, self._state(asked=False)
        try:
            _say(connection, told)
            while not self._closed:
                message = _receive(connection, TIDY_WAIT_S if untidy else None)
                if message is not None:
                    told = self.answer(message)
                    _say(connection, told)
                if not self._closed:
                    untidy = self.tidy()
                    if self._writer.is_full != told.full:
                        told = self._state(asked=False)
                        _say(connection, told)
        except ConnectionError:
            pass  # nobody is there any more
        except Exception as error:  # noqa: BLE001 - whatever it was, durability is not certain
            with contextlib.suppress(ConnectionError):
                _say(connection, self._failed(error))
        finally:
            self._writer.close()

    def answer(self, message: memoryview) -> Answer:
        """Carry out a message, and return once all that it asks for is durable.

        Raises whatever keeps it from being so.
        """
        results = [self._carry_out(decode_order(order)) for order in split_orders(message)]
        self._commit()
        state = self._state(asked=True)
        return Answer(state.durable, state.full, [one for one in results if one is not None])

    def tidy(self) -> bool:
        """Do what may come after the answer; return whether more of it is left."""
        self._writer.tidy()
        return not self._writer.is_tidy

    def _carry_out(self, order: Order) -> Placed | Proof | Refused | None:
        try:
            if isinstance(order, Put):
                return self._put(order)
            if isinstance(order, Prove):
                self._commit()
                return Proof(self._writer.prove(order.record))
        except AuditError as error:
            return Refused(error.code, str(error))
        self._close(order)
        return None

    def _put(self, order: Put) -> Placed:
        receipt = self._builder.add(order.entry, order.now_us)
        if order.erase:
            # INVARIANT: this comes between the record and the next batch, whose openings are not
            # sealed before. So a subject's values up to the record are gone, and all later ones
            # are readable.
            self._commit()
            self._vault.erase_key(order.erase)
        if order.key:
            self._commit()  # by the old key
            signer = Ed25519PrivateKey.from_private_bytes(order.key)
            self._builder.use(
                note.build_key(self._builder.chain.origin, signer.public_key()), signer
            )
        return Placed(receipt.seq, receipt.leaf)

    def _close(self, order: Close) -> None:
        self._commit()
        boot = self._builder.boot
        self._builder.add(Entry(type="shutdown", op=boot, fields={}), order.now_us)
        self._commit()
        self._writer.tidy(force=True)
        self._closed = True

    def _commit(self) -> None:
        self._writer.write(self._builder.seal())

    def _state(self, *, asked: bool) -> Answer:
        return Answer(self._writer.durable, self._writer.is_full, asked=asked)

    def _failed(self, error: Exception) -> Answer:
        failure = f"{type(error).__name__}: {error}"
        return Answer(self._writer.durable, self._writer.is_full, failure=failure)


def _say(connection: socket.socket, answer: Answer) -> None:
    connection.sendall(pack(encode(answer)))


def _receive(connection: socket.socket, wait_s: float | None) -> memoryview | None:
    """Return the next message; None where none begins to come in time.

    Raises `ConnectionError` where nobody is there any more.
    """
    if wait_s is not None and not _is_coming(connection, wait_s):
        return None
    return read_whole(connection, LENGTH.unpack(read_whole(connection, LENGTH.size))[0])


def _is_coming(connection: socket.socket, wait_s: float) -> bool:
    poll = select.poll()  # `select` knows no descriptor past 1,023
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def read_whole(connection: socket.socket, size: int) -> memoryview:
    """Return the next `size` bytes. Raises `ConnectionError` where they do not come."""
    whole = memoryview(bytearray(size))
    got = 0
    while got < size:
        more = connection.recv_into(whole[got:])
        if not more:
            raise ConnectionResetError
        got += more
    return whole
