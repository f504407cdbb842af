"""What a gateway and a broker process say to each other: JSON lines over a Unix socket.

::

    → {"id":1,"op":"get","ask":{"server":"billing","agent":"","person":null,"purpose":"call"}}
    ← {"id":1,"credential":{"headers":[["Authorization","…"]],…}}
    ← {"id":1,"failure":{"reason":"missing","detail":"…"}}
    → {"id":2,"op":"reject","ask":{…},"credential":{…}}          (no answer)

Both ends ask the kernel who the other one is (SO_PEERCRED) before they say anything.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gateway.core.credentials import CredentialAsk, CredentialFailure, UpstreamCredential

REQUEST_MAX_BYTES: Final = 65_536
REPLY_MAX_BYTES: Final = 262_144

_CREDENTIALS: Final = struct.Struct("3i")
"""`struct ucred` of Linux: pid, uid, gid."""


class BrokerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question, or the news that a credential was refused."""

    id: int
    op: Literal["get", "reject"]
    ask: CredentialAsk
    credential: UpstreamCredential | None = None

    def __repr__(self) -> str:
        return f"BrokerRequest({self.op})"


class BrokerReply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to request `id`: one of the two."""

    id: int
    credential: UpstreamCredential | None = None
    failure: CredentialFailure | None = None

    def __repr__(self) -> str:
        return f"BrokerReply({self.id})"

    @property
    def answer(self) -> UpstreamCredential | CredentialFailure:
        """What it says; that it says nothing is a failure, too."""
        nothing = CredentialFailure(reason="malformed", detail="the broker's answer is empty")
        return self.failure or self.credential or nothing


read_request: Final = msgspec.json.Decoder(BrokerRequest).decode
read_reply: Final = msgspec.json.Decoder(BrokerReply).decode


def encode(message: BrokerRequest | BrokerReply) -> bytes:
    """Return one line."""
    return msgspec.json.encode(message) + b"\n"


def read_peer_uid(writer: asyncio.StreamWriter) -> int:
    """Return the user whose process is at the other end, by the kernel's word (unix(7))."""
    found = writer.get_extra_info("socket")
    raw = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid
