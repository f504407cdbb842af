"""The chain of the audit log as pure state (DESIGN §6, `docs/spec/audit-log-v1.md`).

A `Chain` turns entries into lines: each record names the leaf hash of the one before, every batch
ends in a signed checkpoint line, and the next record names that line's hash.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.canonical import encode_record
from gateway.core.log import note
from gateway.core.log.merkle import Tree, hash_leaf

VERSION: Final = 1
PROFILE: Final = "countersign.audit/v1"
RECORD_MAX_BYTES: Final = 16_384
"""No record line has more, without its LF: what is longer is no record to anybody who verifies."""

GENESIS_PREV: Final = "0" * 64
_BLOCK_BYTES: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
CHECKPOINT_PREFIX: Final = b'{"cp":'
RESERVED: Final = frozenset({"v", "log", "seq", "prev", "ts", "boot", "type", "op", "event", "cp"})
_COMMIT_DOMAIN: Final = b"cs/commit/v1\x00"


def commit(salt: bytes, path: str, value: bytes) -> dict[str, str | int]:
    """Return the commitment that stands in the chain for `value`. `salt`: 32 random bytes."""
    message = b"".join((_COMMIT_DOMAIN, path.encode(), b"\x00", value))
    mac = _hmac_sha256(salt, message)
    text = binascii.b2a_base64(mac, newline=False).translate(_URL_SAFE)
    return {"c": text[:-1].decode(), "bytes": len(value)}


def _hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) with a key of at most 64 bytes.

    Two plain hashes take half the time of the library's one-shot HMAC, which looks its algorithm up
    each time.
    """
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(block.translate(_INNER_PAD) + message).digest()
    return hashlib.sha256(block.translate(_OUTER_PAD) + inner).digest()


def place(fields: dict[str, Any], path: str, value: object) -> None:
    """Put `value` at the dotted `path` of `fields`; objects on the way there are copied first.

    Raises `ValueError` where something stands there already: a commitment never hides a field.
    """
    head, _, rest = path.partition(".")
    if not head.isidentifier():
        raise ValueError(f"`{path}` is no dotted path of names")
    if rest:
        inner = fields.get(head, {})
        if not isinstance(inner, dict):
            raise ValueError(f"`{head}` is no object")
        fields[head] = inner = dict(inner)
        place(inner, rest, value)
    elif head in fields:
        raise ValueError(f"a field stands at `{head}` already")
    else:
        fields[head] = value


def hash_line(line: bytes) -> str:
    """SHA-256 of a checkpoint line without its LF, 64 hex digits: what the next record names."""
    return hashlib.sha256(line).hexdigest()


class Chain:
    """Where a log stands: everything that its next line depends on.

    `seq` is the next sequence number, `prev` the leaf hash of the last record (hex), `link` the
    hash of the checkpoint line when one has just been written, `ts` the last time in µs.
    """

    __slots__ = ("link", "origin", "prev", "seq", "tree", "ts")

    def __init__(self, origin: str) -> None:
        self.origin: Final = note.check_name(origin)
        self.seq = 0
        self.prev = GENESIS_PREV
        self.link: str | None = None
        self.ts = 0
        self.tree = Tree()

    def copy(self) -> Chain:
        """Return a chain that stands where this one does and goes its own way."""
        twin = Chain(self.origin)
        twin.seq, twin.prev, twin.link, twin.ts = self.seq, self.prev, self.link, self.ts
        twin.tree = self.tree.copy()
        return twin

    def append(
        self,
        *,
        type: str,  # noqa: A002 - the record's own word
        op: str,
        boot: str,
        ts: int,
        fields: Mapping[str, Any],
        max_bytes: int,
        event: str | None = None,
    ) -> tuple[bytes, bytes]:
        """Return the next record's line (no LF) and leaf hash, and step past it.

        `ts` in µs is raised to the last one where it lies before it. Raises `ValueError` for
        fields outside the profile, beyond `max_bytes` or named like the log's own; the chain then
        stands where it stood.
        """
        if not RESERVED.isdisjoint(fields):
            raise ValueError("a field is named like one of the log's own")
        ts = max(ts, self.ts)
        record = {
            "v": VERSION,
            "log": self.origin,
            "seq": self.seq,
            "prev": self.prev,
            "ts": ts,
            "boot": boot,
            "type": type,
            "op": op,
            **fields,
        }
        if self.link is not None:
            record["cp"] = self.link
        if event is not None:
            record["event"] = event
        line = _encode(record, max_bytes)
        leaf = hash_leaf(line)
        self.advance(leaf, ts)
        return line, leaf

    def advance(self, leaf: bytes, ts: int) -> None:
        """Step past a record with this leaf hash."""
        self.tree.append(leaf)
        self.seq += 1
        self.prev = leaf.hex()
        self.link = None
        self.ts = ts

    def seal(self, key: note.NoteKey, signer: Ed25519PrivateKey) -> tuple[bytes, str]:
        """End a batch: return the checkpoint line (no LF) and its note, and link to it."""
        signed = note.sign(self.head(), key, signer)
        line = encode_checkpoint(signed)
        self.link = hash_line(line)
        return line, signed

    def head(self) -> note.Checkpoint:
        """Return the checkpoint of everything so far."""
        return note.Checkpoint(self.origin, self.seq, self.tree.root())


def encode_checkpoint(signed: str) -> bytes:
    """Return the checkpoint line of a signed note, without its LF."""
    return orjson.dumps({"cp": signed})


def _encode(record: dict[str, Any], max_bytes: int) -> bytes:
    try:
        line = encode_record(record)
    except (TypeError, RecursionError):  # lone surrogates; a list that holds itself
        raise ValueError("a record holds text or nesting that JSON cannot say") from None
    if len(line) > max_bytes:
        raise ValueError(f"a record of {len(line)} bytes is beyond {max_bytes}")
    return line
