"""Checks a log line by line (`docs/spec/audit-log-v1.md`). Pure; streaming; O(log n) memory.

`ChainCheck.feed` answers each line with what it is, or with the `Break` that it is. What happened
to a broken log shows in the lines around the break: `explain` reads those and names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import orjson
from msgspec import Struct

from gateway.core.canonical import encode_record
from gateway.core.log.chain import (
    CHECKPOINT_PREFIX,
    RECORD_MAX_BYTES,
    VERSION,
    Chain,
    encode_checkpoint,
    hash_line,
)
from gateway.core.log.merkle import hash_leaf
from gateway.core.log.note import NoteKey, SignedCheckpoint, parse_vkey
from gateway.core.log.note import parse as parse_note

Kind = Literal[
    "edited",
    "deleted",
    "inserted",
    "reordered",
    "truncated",
    "torn",
    "forked",
    "wrong_key",
    "out_of_epoch",
    "wrong_log",
    "not_canonical",
    "missing",
]
WINDOW_LINES: Final = 64
"""How many lines after a break `explain` wants to see."""

_SIGNED: Final = "\\n\\n— ".encode()
_FIELDS: Final = ("boot", "type", "op", "prev", "v", "seq", "ts")
_KINDS: Final = [str, str, str, str, int, int, int]


class Break(Struct, frozen=True):
    """Where the log stops being a log. `seq`: the record concerned; `what`: for people."""

    kind: Kind
    seq: int
    what: str


class Record(Struct, frozen=True):
    """A record that belongs where it stands."""

    seq: int
    leaf: bytes
    value: dict[str, Any]


class Sealed(Struct, frozen=True):
    """A checkpoint that belongs where it stands."""

    signed: SignedCheckpoint
    verified: bool


class ChainCheck:
    """Where the check stands. Options trade time for what the last signature implies anyway.

    `pinned` is a key that some epoch of the log must have; `keys` are those of its epochs so far.

    INVARIANT: the signature of the last checkpoint covers the root of every record before it, and
    the records cover every earlier checkpoint line (`cp`); so a log whose links and roots hold is
    as its key holder signed it once that one signature is verified. The signature that ends an
    epoch is verified too: its key is gone, so whoever has today's key cannot have made it.
    """

    def __init__(
        self,
        origin: str,
        pinned: NoteKey | None,
        *,
        every_signature: bool = False,
        canonical: bool = True,
    ) -> None:
        self.chain: Final = Chain(origin)
        self.sealed_seq = 0
        self.keys: Final[list[NoteKey]] = []
        self._pinned: Final = pinned
        self._next: NoteKey | None = None
        self._ended: NoteKey | None = None
        self._every_signature: Final = every_signature
        self._canonical: Final = canonical
        self.last: SignedCheckpoint | None = None

    @property
    def is_sealed(self) -> bool:
        """Whether a checkpoint covers everything fed."""
        return self.sealed_seq == self.chain.seq

    def feed(self, line: bytes) -> Record | Sealed | Break:
        """Check the next line (no LF) and step past it, unless it is a break."""
        if line.startswith(CHECKPOINT_PREFIX):
            return self._checkpoint(line)
        return self._record(line)

    def tail(self) -> Break | None:
        """Verify the signature of the last checkpoint; every log must end in one."""
        seq = max(self.chain.seq - 1, 0)
        if self.last is None:
            return Break("missing", seq, "the log holds no checkpoint, so nothing in it is signed")
        broken = self._signature(self.last, self._ended or self.keys[-1])
        if broken is None and self._pinned is not None and self._pinned not in self.keys:
            name = f"{self._pinned.name}+{self._pinned.id.hex()}"
            broken = Break("wrong_key", seq, f"no part of the log is signed by `{name}`")
        return broken

    def _record(self, line: bytes) -> Record | Break:
        chain = self.chain
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return Break("edited", chain.seq, "the line is not JSON")
        broken = self._shape(value, line) or self._place(value) or self._epoch(value)
        if broken is not None:
            return broken
        leaf = hash_leaf(line)
        chain.advance(leaf, value["ts"])
        return Record(chain.seq - 1, leaf, value)

    def _shape(self, value: object, line: bytes) -> Break | None:
        seq = self.chain.seq
        if not isinstance(value, dict) or [type(value.get(name)) for name in _FIELDS] != _KINDS:
            return Break("edited", seq, "the line is no record: a field is missing or of no use")
        if value["v"] != VERSION or value.get("log") != self.chain.origin:
            return Break("wrong_log", seq, f"the record is not one of `{self.chain.origin}`")
        if len(line) > RECORD_MAX_BYTES:
            return Break("not_canonical", seq, "the record is longer than the format allows")
        if self._canonical and not _is_canonical(value, line):
            return Break("not_canonical", seq, "the line is not the canonical form of what it says")
        return None

    def _place(self, value: dict[str, Any]) -> Break | None:
        chain = self.chain
        found = value["seq"]
        if found > chain.seq:
            return Break("deleted", chain.seq, f"record {found} stands where {chain.seq} belongs")
        if found < chain.seq:
            return Break("inserted", found, f"record {found} stands where {chain.seq} belongs")
        if value["prev"] != chain.prev:
            return Break("edited", max(found - 1, 0), f"record {found} names another predecessor")
        if value.get("cp") != chain.link:
            return self._link(value, found)
        if value["ts"] < chain.ts:
            return Break("edited", found, "the record's time lies before its predecessor's")
        if (value["type"] == "genesis") != (found == 0):
            return Break("edited", found, "`genesis` is the first record and no other")
        return None

    def _epoch(self, value: dict[str, Any]) -> Break | None:
        """Learn the key of the first epoch from `genesis`, of the next one from `key.rotate`."""
        seq, kind = self.chain.seq, value["type"]
        if self._next is not None:
            return Break("out_of_epoch", seq, "a record follows `key.rotate` in its batch")
        if kind not in {"genesis", "key.rotate"}:
            return None
        key = _key_of(value, self.chain.origin)
        if key is None:
            return Break("edited", seq, f"`{kind}` names no key of this log")
        if kind == "genesis":
            self.keys.append(key)
        elif value.get("epoch") != len(self.keys) or key in self.keys:
            return Break("out_of_epoch", seq, "`key.rotate` names another epoch or an old key")
        else:
            self._next = key
        return None

    def _link(self, value: dict[str, Any], seq: int) -> Break:
        if self.chain.link is None:
            return Break("deleted", seq, "the checkpoint line before this record is gone")
        if "cp" not in value:
            return Break("inserted", seq, "a checkpoint line stands before this record")
        return Break("edited", seq - 1, "the checkpoint line before this record was changed")

    def _checkpoint(self, line: bytes) -> Sealed | Break:
        chain = self.chain
        last = max(chain.seq - 1, 0)
        signed = parse_checkpoint(line)
        if signed is None:
            return Break("edited", last, "the checkpoint line is malformed")
        stated = signed.checkpoint
        if stated.origin != chain.origin:
            return Break("wrong_log", last, f"the checkpoint is of `{stated.origin}`")
        if stated.size > chain.seq:
            return Break("deleted", chain.seq, f"the checkpoint counts {stated.size} records")
        if self.is_sealed or stated.size < chain.seq:
            return Break("inserted", last, f"a checkpoint of {stated.size} records does not belong")
        if stated.root != chain.tree.root():
            return Break("edited", last, "the records do not add up to their checkpoint's root")
        broken = self._name(signed)
        verified = self._every_signature or self._next is not None
        if broken is None and verified:
            broken = self._signature(signed, self.keys[-1])
        if broken is not None:
            return broken
        self._ended = None
        if self._next is not None:
            self._ended = self.keys[-1]
            self.keys.append(self._next)
            self._next = None
        chain.link = hash_line(line)
        self.sealed_seq = chain.seq
        self.last = signed
        return Sealed(signed, verified)

    def _name(self, signed: SignedCheckpoint) -> Break | None:
        """Whether the checkpoint names the key of its epoch."""
        seq = signed.checkpoint.size - 1
        if signed.names(self.keys[-1]):
            return None
        if any(signed.names(key) for key in (*self.keys, self._next) if key is not None):
            return Break("out_of_epoch", seq, "the checkpoint is signed by another epoch's key")
        return Break("wrong_key", seq, f"the checkpoint is not signed by `{self.keys[-1].name}`")

    @staticmethod
    def _signature(signed: SignedCheckpoint, key: NoteKey) -> Break | None:
        if signed.is_signed_by(key):
            return None
        return Break(
            "edited", signed.checkpoint.size - 1, "the signature of the checkpoint is false"
        )


def _key_of(value: dict[str, Any], origin: str) -> NoteKey | None:
    try:
        key = parse_vkey(value["key"])
    except (KeyError, ValueError, AttributeError):
        return None
    return key if key.name == origin else None


def parse_checkpoint(line: bytes) -> SignedCheckpoint | None:
    """Read a checkpoint line strictly; None for any other line."""
    try:
        value = orjson.loads(line)
        if encode_checkpoint(value["cp"]) == line:
            return parse_note(value["cp"])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


class Anchor:
    """A checkpoint known from elsewhere, which the log must contain: as its start, or whole."""

    def __init__(self, signed: SignedCheckpoint) -> None:
        self._signed: Final = signed
        self._known: Final = signed.checkpoint
        self._met = False

    def meet(self, sealed: Sealed) -> None:
        """Look at a checkpoint of the log."""
        self._met = self._met or sealed.signed.checkpoint == self._known

    def verdict(self, size: int, keys: Sequence[NoteKey]) -> Break | None:
        """Return what a log of `size` records, all of whose checkpoints were met, lacks.

        `keys` are those of its epochs.
        """
        known = self._known.size
        if keys and not any(self._signed.is_signed_by(key) for key in keys):
            return Break("wrong_key", known - 1, "the known checkpoint is not signed by this log")
        if known > size:
            return Break("truncated", size, f"records {size} to {known - 1} are gone")
        if not self._met:
            return Break("forked", known - 1, f"the log had another history at {known} records")
        return None


def explain(broken: Break, line: bytes, after: Sequence[bytes], chain: Chain) -> Break:
    """Name what happened from the line that broke and those after it (no LFs).

    `chain` stands before that line.
    """
    seqs = [seq for seq in map(_seq_of, after) if seq is not None]
    own = _seq_of(line)
    if broken.kind == "deleted" and broken.seq in seqs:
        return Break("reordered", broken.seq, f"{broken.what}; it comes later")
    if broken.kind == "deleted" and own is not None and own > broken.seq:
        until = own - 1
        return Break("deleted", broken.seq, f"records {broken.seq} to {until} are gone")
    if broken.kind == "edited" and own is not None and own in seqs:
        return Break("inserted", own, f"record {own} stands here twice")
    # Either the record before was changed, or this one's `prev`: its successor tells.
    if broken.kind == "edited" and own == broken.seq + 1 and not _is_named(line, after):
        return Break("edited", own, "the record is not what its successor names")
    if own == chain.seq and broken.kind == "edited" and _fits_if_linked(line, after, chain):
        return Break("edited", own, "the record's link to what stands before it was changed")
    if own is None and _SIGNED in line and not line.startswith(CHECKPOINT_PREFIX):
        return Break("edited", max(chain.seq - 1, 0), "the checkpoint line is malformed")
    return broken


def _fits_if_linked(line: bytes, after: Sequence[bytes], chain: Chain) -> bool:
    """Whether nothing but its links was changed in a record: with those, its batch adds up."""
    try:
        value = {**orjson.loads(line), "prev": chain.prev}
        value.pop("cp", None)
        linked = encode_record(value if chain.link is None else {**value, "cp": chain.link})
    except (ValueError, TypeError, RecursionError):
        return False
    tree = chain.tree.copy()
    for leaf in (linked, *after):
        if leaf.startswith(CHECKPOINT_PREFIX):
            signed = parse_checkpoint(leaf)
            return signed is not None and signed.checkpoint.root == tree.root()
        tree.append(hash_leaf(leaf))
    return False


def _is_canonical(value: dict[str, Any], line: bytes) -> bool:
    try:
        return encode_record(value) == line
    except (ValueError, TypeError, RecursionError):
        return False


def _field(line: bytes, name: str) -> object:
    try:
        return orjson.loads(line).get(name)
    except (ValueError, AttributeError):
        return None


def _seq_of(line: bytes) -> int | None:
    seq = _field(line, "seq")
    return seq if isinstance(seq, int) else None


def _is_named(line: bytes, after: Sequence[bytes]) -> bool:
    following = next((other for other in after if not other.startswith(CHECKPOINT_PREFIX)), b"")
    prev = _field(following, "prev")
    return prev is None or prev == hash_leaf(line).hex()
