"""What the event loop and the keeper of the log say to each other, as bytes.

One side sends messages of orders; the other carries them out, in order, and sends one answer back
for each. Each message, and each order in it, is a u32 length (big-endian) and so many bytes.
Orders and answers are MessagePack.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.entry import Entry, Receipt

LENGTH: Final = struct.Struct(">I")
READ_BYTES: Final = 1 << 18
MESSAGE_MAX_BYTES: Final = 4 << 20
"""A message ends with the order that takes it past this: so much is one batch at most."""


class Put(Struct, frozen=True, array_like=True, tag=0):
    """Make `entry` the next record, of the time `now_us`.

    `erase` is the id of a data subject's key: once the record is durable, and before anything after
    it, the key is erased. `key` is the seed of the signing key that takes over behind the record.
    """

    entry: Entry
    now_us: int
    erase: str = ""
    key: bytes = b""


class Prove(Struct, frozen=True, array_like=True, tag=1):
    """Prove a durable record."""

    record: Receipt


class Close(Struct, frozen=True, array_like=True, tag=2):
    """End the log: write its last record, of the time `now_us`, and everything that lies behind."""

    now_us: int


class Placed(Struct, frozen=True, array_like=True, tag=0):
    """The answer to `Put`: the durable record stands here."""

    seq: int
    leaf: bytes


class Proof(Struct, frozen=True, array_like=True, tag=1):
    """The answer to `Prove`."""

    text: str


class Refused(Struct, frozen=True, array_like=True, tag=2):
    """The answer to an order that cannot be carried out: an `AuditError` and its code."""

    code: str
    why: str


class Answer(Struct, frozen=True, array_like=True):
    """What became of a message: one result for each order, but none for `Close`.

    `durable`: the number of durable records. `full`: whether the disk takes only what must be
    written. `failure`: why nothing more is written; then there are no results. An answer that was
    not asked for has no results either, and says that `full` changed.
    """

    durable: int
    full: bool
    results: list[Placed | Proof | Refused] = []
    failure: str | None = None
    asked: bool = True


Order = Put | Prove | Close

encode: Final = msgspec.msgpack.Encoder().encode
decode_order: Final = msgspec.msgpack.Decoder(Order).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


def pack(message: bytes) -> bytes:
    """Put a message's length in front of it."""
    return LENGTH.pack(len(message)) + message


def join_orders(orders: Sequence[bytes]) -> bytes:
    """Make one message of orders that are encoded already, each with its length."""
    parts = [b""]
    for order in orders:
        parts += (LENGTH.pack(len(order)), order)
    parts[0] = LENGTH.pack(sum(map(len, parts)))
    return b"".join(parts)


def split_orders(message: memoryview) -> Iterator[memoryview]:
    """Yield the orders of a message."""
    at = 0
    while at < len(message):
        end = at + LENGTH.size + LENGTH.unpack_from(message, at)[0]
        yield message[at + LENGTH.size : end]
        at = end


class Inbox:
    """Cuts what comes from a socket into messages."""

    def __init__(self) -> None:
        self._buffer: Final = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._buffer.extend(data)

    def take(self) -> bytes | None:
        """Return the next message, once it is whole."""
        buffer = self._buffer
        if len(buffer) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return None
        message = bytes(memoryview(buffer)[LENGTH.size : end])
        del buffer[:end]
        return message
