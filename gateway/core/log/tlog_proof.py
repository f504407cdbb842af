"""C2SP tlog-proof: that a record is in the log, for whoever holds the record and a key.

::

    c2sp.org/tlog-proof@v1
    index <number of the record>
    <base64 hash>, from the leaf's sibling up to the root's child
    …

    <note of the checkpoint, with its cosignatures>

Reading accepts exactly what writing produces. `extra` lines, which nothing signs, are refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.core.entry import Receipt
from gateway.core.errors import AuditError
from gateway.core.log import note
from gateway.core.log.cosignature import split_witnessed_note
from gateway.core.log.merkle import HASH_BYTES, Node, inclusion_proof, is_included
from gateway.core.log.note import NoteKey, SignedCheckpoint

HEADER: Final = "c2sp.org/tlog-proof@v1"
UNPROVEN: Final = "audit_unproven"
"""Code of the `AuditError` for a log that is not what its checkpoint says."""

_INDEX: Final = "index "
_ASTRAY: Final = "record and hashes do not add up to the root of its checkpoint"
_DIGITS_MAX: Final = 19


class TlogProof(Struct, frozen=True):
    """A proof as read, not yet believed: `find_fault` tells.

    `index`: number of the record; `hashes` as RFC 6962 §2.1.1 has them; `note`: the checkpoint's
    signed note with all its signatures.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: str

    @property
    def signed(self) -> SignedCheckpoint:
        """The checkpoint that the proof leads to."""
        own, _ = split_witnessed_note(self.note)
        return note.parse(own)


def build_proof(proof: TlogProof) -> str:
    """Write a proof."""
    lines = [HEADER, f"{_INDEX}{proof.index}"]
    lines += [base64.b64encode(value).decode() for value in proof.hashes]
    return "\n".join([*lines, "", proof.note])


def parse_proof(text: str) -> TlogProof:
    """Read a proof. Raises `ValueError` for any text that `build_proof` would not write."""
    head, gap, checkpoint = text.partition("\n\n")
    header, *lines = head.split("\n")
    if header != HEADER or not gap:
        raise ValueError(f"no proof: it begins with `{HEADER}`, and an empty line ends its hashes")
    if not lines or not lines[0].startswith(_INDEX):
        raise ValueError(f"the second line of a proof is `{_INDEX}` and a number")
    proof = TlogProof(_read_index(lines[0]), tuple(map(_read_hash, lines[1:])), checkpoint)
    if proof.signed.checkpoint.size <= proof.index:
        raise ValueError("the checkpoint of a proof has fewer records than the proof counts")
    return proof


def prove(record: Receipt, signed: str, node: Node) -> str:
    """Return the proof of a record of one's own log under its checkpoint's note.

    Raises `AuditError` `audit_unproven` where the nodes do not lead from the record to the root,
    or are not there.
    """
    try:
        stated = note.parse(signed).checkpoint
        hashes = inclusion_proof(record.seq, stated.size, node)
    except (LookupError, ValueError, OSError) as error:
        raise unproven(record.seq, str(error)) from error
    if not is_included(record.leaf, record.seq, stated.size, hashes, stated.root):
        raise unproven(record.seq, _ASTRAY)
    return build_proof(TlogProof(record.seq, tuple(hashes), signed))


def unproven(seq: int, why: str) -> AuditError:
    """The log is not what its checkpoint says. Answer: verify the log."""
    return AuditError(
        f"no proof of record {seq}: {why}; see `countersign audit verify`", code=UNPROVEN
    )


def find_fault(proof: TlogProof, leaf: bytes, keys: Sequence[NoteKey]) -> str | None:
    """Say why a proof does not show the record of this leaf hash; None where it does.

    `keys` are those that the reader trusts for this log, of any epoch. Cosignatures are not looked
    at. Steps as C2SP tlog-proof numbers them; the leaf hash (1) is the caller's.
    """
    signed = proof.signed
    # 2. Signed by a key of this log: without it, anybody makes a tree around any record.
    if not any(signed.is_signed_by(key) for key in keys):
        return f"its checkpoint is not signed by a given key of `{signed.checkpoint.origin}`"
    # 4. The record adds up to the signed root: without it, any checkpoint fits any record.
    stated = signed.checkpoint
    if not is_included(leaf, proof.index, stated.size, proof.hashes, stated.root):
        return _ASTRAY
    return None


def _read_index(line: str) -> int:
    digits = line.removeprefix(_INDEX)
    # `int` also reads `+1`, `1_0`, ` 1` and other scripts' digits
    if not digits.isascii() or not digits.isdigit() or len(digits) > _DIGITS_MAX:
        raise ValueError("the index of a proof is not a plain decimal number")
    if str(int(digits)) != digits:
        raise ValueError("the index of a proof has leading zeros")
    return int(digits)


def _read_hash(line: str) -> bytes:
    try:
        value = base64.b64decode(line, validate=True)
    except binascii.Error:
        raise ValueError("a hash of a proof is not base64") from None
    if len(value) != HASH_BYTES or base64.b64encode(value).decode() != line:
        raise ValueError("a hash of a proof is not 32 bytes in their one spelling")
    return value
