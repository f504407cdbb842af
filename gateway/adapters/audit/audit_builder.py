"""Builds the log's lines, in order: everything of a record but the disk."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from gateway.adapters.audit.audit_faults import invalid
from gateway.adapters.audit.audit_openings import SaltStock, Unsealed, commit_openings
from gateway.core.entry import Entry, Receipt
from gateway.core.log.chain import Chain
from gateway.core.log.note import NoteKey

_STEP_US: Final = 100_000
"""A clock that is further behind the last record than this has been set back."""


class Batch(Struct, frozen=True):
    """Records and the checkpoint line that ends them, to be written and synced as one.

    `first` and `end`: number of the first record, and of the one that follows the last. `note`: the
    signed checkpoint. `leaves`: the records' leaf hashes.
    """

    first: int
    end: int
    data: bytes
    note: str
    openings: list[Unsealed]
    leaves: list[bytes]


class RecordBuilder:
    """Where the log's next line comes from. For one thread: the opener's, then the keeper's."""

    def __init__(
        self,
        *,
        chain: Chain,
        boot: str,
        key: NoteKey,
        signer: Ed25519PrivateKey,
        record_max_bytes: int,
    ) -> None:
        self.chain: Final = chain
        self.boot: Final = boot
        self._events: Final[dict[str, Receipt]] = {}
        self._key = key
        self._signer = signer
        self._record_max_bytes: Final = record_max_bytes
        self._salts: Final = SaltStock()
        self._behind = False
        self._begin()

    def _begin(self) -> None:
        self._first = self.chain.seq
        self._lines: list[bytes] = []
        self._leaves: list[bytes] = []
        self._openings: list[Unsealed] = []

    def add(self, entry: Entry, now_us: int) -> Receipt:
        """Make the entry the next record, and return where it will stand once it is durable.

        An event id that came before gives its record's receipt. Raises `AuditError`
        `audit_record_invalid` for an entry that cannot be a record; the log is as it was.
        """
        if entry.event_id is not None and entry.event_id in self._events:
            return self._events[entry.event_id]
        if now_us < self.chain.ts:
            if entry.type != "boot":  # a process run begins with its own `boot`
                self._step_back(now_us)
        else:
            self._behind = False
        receipt = self._append(entry, now_us)
        if entry.event_id is not None:
            self._events[entry.event_id] = receipt
        return receipt

    def seal(self) -> Batch:
        """End the batch with a signed checkpoint and begin the next one."""
        data, note = b"", ""
        if self._lines:
            checkpoint, note = self.chain.seal(self._key, self._signer)
            self._lines += (checkpoint, b"")
            data = b"\n".join(self._lines)
        batch = Batch(self._first, self.chain.seq, data, note, self._openings, self._leaves)
        self._begin()
        return batch

    def use(self, key: NoteKey, signer: Ed25519PrivateKey) -> None:
        """Sign with another key from the next batch on."""
        self._key, self._signer = key, signer

    def _append(self, entry: Entry, now_us: int) -> Receipt:
        seq = self.chain.seq
        try:
            fields, salts = commit_openings(entry, self._salts.take)
            line, leaf = self.chain.append(
                type=entry.type,
                op=entry.op,
                boot=self.boot,
                ts=now_us,
                fields=fields,
                max_bytes=self._record_max_bytes,
                event=entry.event_id,
            )
        except ValueError as error:
            raise invalid(str(error)) from None
        self._lines.append(line)
        self._leaves.append(leaf)
        if salts:
            self._openings.append(Unsealed(seq, entry.openings, salts))
        return Receipt(seq, leaf)

    def _step_back(self, now_us: int) -> None:
        """Say once that the clock was set back; times stand still until it has caught up."""
        behind_us = self.chain.ts - now_us
        if behind_us >= _STEP_US and not self._behind:
            self._behind = True
            fields = {"behind_us": behind_us}
            self._append(Entry(type="clock.step", op=self.boot, fields=fields), now_us)
