"""Proofs from a log's files: that a record is in the log, and that the log only grew.

Each is verified before it is handed out. Tiles and one region of a segment are read, not the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
from msgspec import Struct

from gateway.adapters.audit.audit_seek import (
    checkpoint_over,
    find_line,
    find_rotations,
    newest_checkpoint,
)
from gateway.adapters.audit.audit_tiles import TileReader
from gateway.core.errors import AuditError
from gateway.core.log.cosignature import build_request, split_witnessed_note
from gateway.core.log.merkle import (
    consistency_proof,
    hash_leaf,
    inclusion_proof,
    is_consistent,
    root_of,
)
from gateway.core.log.note import Checkpoint, NoteKey, parse, parse_vkey
from gateway.core.log.tlog_proof import UNPROVEN, TlogProof, build_proof, find_fault, unproven


class Head(Struct, frozen=True):
    """A checkpoint of a log. `note`: with all signatures, as it stands."""

    checkpoint: Checkpoint
    note: str


class Proven(Struct, frozen=True):
    """A record's line, without its LF, and the `.tlog-proof` of it."""

    seq: int
    line: bytes
    proof: str


def read_head(note: str) -> Head:
    """Read a checkpoint's note, with cosignatures or without. Raises `ValueError`."""
    own, _ = split_witnessed_note(note)
    return Head(parse(own).checkpoint, note)


def newest_head(directory: Path) -> Head:
    """Return the log's newest checkpoint. Raises `LookupError` where there is none."""
    note = newest_checkpoint(directory)
    if note is None:
        raise LookupError(f"`{directory}` holds no signed checkpoint")
    return read_head(note)


def head_of(directory: Path, size: int) -> Head:
    """Return the log's checkpoint of that many records. Raises `LookupError` where none is."""
    note = checkpoint_over(directory, size - 1) if size > 0 else None
    if note is None:
        raise LookupError(f"the log has no checkpoint of {size} records")
    head = read_head(note)
    if head.checkpoint.size != size:
        raise LookupError(
            f"the log has no checkpoint of {size} records; the next one has {head.checkpoint.size}"
        )
    return head


def load_keys(directory: Path) -> list[NoteKey]:
    """Return the keys that the log's own `log.vkey` names. Raises `OSError`, `ValueError`."""
    return [parse_vkey(line) for line in (directory / "log.vkey").read_text().splitlines()]


def follow_keys(directory: Path, keys: Sequence[NoteKey]) -> list[NoteKey]:
    """Return these keys, and those of later epochs that they lead to (format, section 4.2).

    Each of these is named by a `key.rotate` that a key before it signed.
    """
    node, known = TileReader(directory).node, list(keys)
    for seq, line, checkpoint in find_rotations(directory):
        proof = TlogProof(seq, tuple(inclusion_proof(seq, seq + 1, node)), checkpoint)
        if find_fault(proof, hash_leaf(line), known) is None:
            known.append(parse_vkey(orjson.loads(line)["key"]))
    return known


class LogProver:
    """Proves under one checkpoint, which a key of `keys` must have signed."""

    def __init__(self, directory: Path, head: Head, keys: Sequence[NoteKey]) -> None:
        self._directory: Final = directory
        self._head: Final = head
        self._keys: Final = keys
        self._node: Final = TileReader(directory).node

    def prove(self, seq: int) -> Proven:
        """Return a record and its proof.

        Raises `LookupError` for a record that is not under the checkpoint, and `AuditError`
        `audit_unproven` where the log does not add up.
        """
        size = self._head.checkpoint.size
        line = find_line(self._directory, seq) if 0 <= seq < size else None
        if line is None:
            raise LookupError(f"no record {seq} under the checkpoint of {size} records")
        hashes = tuple(inclusion_proof(seq, size, self._node))
        proof = TlogProof(seq, hashes, self._head.note)
        fault = find_fault(proof, hash_leaf(line), self._keys)
        if fault is not None:
            raise unproven(seq, fault)
        return Proven(seq, line, build_proof(proof))

    def prove_growth(self, old: int, old_root: bytes | None = None) -> str:
        """Return the proof that the log grew to the checkpoint from its first `old` records.

        It is written as C2SP tlog-witness has it: `old` and the size, hashes, an empty line, the
        note. `old_root` is that of a checkpoint known from elsewhere, if there is one. Raises
        `LookupError` where the checkpoint has fewer records, and `AuditError` `audit_unproven`.
        """
        head = self._head.checkpoint
        if not 1 <= old <= head.size:
            raise LookupError(f"a log of {head.size} records has not grown from {old}")
        proof = consistency_proof(old, head.size, self._node)
        root = root_of(old, self._node) if old_root is None else old_root
        own, _ = split_witnessed_note(self._head.note)
        if not any(parse(own).is_signed_by(key) for key in self._keys):
            raise _unproven(f"the checkpoint is not signed by a given key of `{head.origin}`")
        if not is_consistent(old, root, head.size, head.root, proof):
            raise _unproven(f"the first {old} records are not those of the older checkpoint")
        return build_request(old, proof, self._head.note).decode()


def _unproven(what: str) -> AuditError:
    return AuditError(f"{what}; see `countersign audit verify`", code=UNPROVEN)
