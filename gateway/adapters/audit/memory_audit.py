"""The audit log in memory: the twin of `file_audit` for tests and try-outs. Lost on exit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.audit.audit_faults import invalid, overloaded, unavailable
from gateway.adapters.audit.audit_openings import commit_openings
from gateway.core.approvals.approval import person
from gateway.core.calls.call import Intent, Outcome, RecordedIntent, RecordedOutcome
from gateway.core.entry import Entry, Opening, Receipt
from gateway.core.errors import AuditError
from gateway.core.limits import Limits
from gateway.core.log import note
from gateway.core.log.chain import CHECKPOINT_PREFIX, PROFILE, Chain
from gateway.core.log.merkle import hash_leaf, nodes_over
from gateway.core.log.tlog_proof import prove

_BOOT: Final = "0" * 32


class MemoryAuditLog:
    """The `AuditLog` port, chained and signed like the real one, every record a batch of its own.

    `lines` are the lines of the log without LF, checkpoints included; `records` what they say. Made
    to fail by `overload` and `poison`.
    """

    def __init__(
        self,
        *,
        origin: str = "memory.example/audit",
        signer: Ed25519PrivateKey | None = None,
        now_us: Callable[[], int] = lambda: 0,
        limits: Limits | None = None,
        deployment: dict[str, str] | None = None,
    ) -> None:
        self._signer: Final = signer or Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._now_us: Final = now_us
        self._limits: Final = limits or Limits()
        self._chain: Final = Chain(origin)
        self._events: Final[dict[str, Receipt]] = {}
        self._openings: Final[dict[tuple[int, str], Opening]] = {}
        self._erased: Final[dict[str, int]] = {}
        self._failure: AuditError | None = None
        self._poisoned = False
        self.key: Final = note.build_key(origin, self._signer.public_key())
        self.lines: Final[list[bytes]] = []
        vkey = note.build_vkey(self.key)
        fields = {"profile": PROFILE, "key": vkey, "deployment": deployment or {}}
        self._append(Entry(type="genesis", op=_BOOT, fields=fields))
        start = {"key": vkey, "cut": None, "open_intents": 0}
        self._append(Entry(type="boot", op=_BOOT, fields=start))

    @property
    def records(self) -> Sequence[dict[str, Any]]:
        """Every record, as read back from its line."""
        return [value for value in map(orjson.loads, self.lines) if "v" in value]

    async def record_intent(self, intent: Intent) -> RecordedIntent:
        """As the port promises."""
        receipt = self._append(intent.entry)
        return RecordedIntent(intent, receipt.seq, receipt.leaf)

    async def record_outcome(self, outcome: Outcome) -> RecordedOutcome:
        """As the port promises."""
        receipt = self._append(outcome.entry, admitted=True)
        return RecordedOutcome(outcome, receipt.seq, receipt.leaf)

    async def record(self, entry: Entry) -> Receipt:
        """As the port promises."""
        return self._append(entry)

    async def prove(self, record: Receipt) -> str:
        """As the port promises."""
        lines = [line for line in self.lines if not line.startswith(CHECKPOINT_PREFIX)]
        signed: str = orjson.loads(self.lines[-1])["cp"]
        return prove(record, signed, nodes_over(list(map(hash_leaf, lines))))

    @property
    def healthy(self) -> bool:
        """False once poisoned."""
        return not self._poisoned

    @property
    def size(self) -> int:
        """Number of records: the next sequence number."""
        return self._chain.seq

    def read_opening(self, seq: int, path: str) -> bytes | None:
        """Return the value committed to at `path` of record `seq`; None when it is erased.

        Raises `LookupError` when there is no such commitment.
        """
        try:
            opening = self._openings[seq, path]
        except KeyError:
            raise LookupError(f"record {seq} commits to nothing at `{path}`") from None
        return None if seq < self._erased.get(self.key_id(opening.subject), 0) else opening.value

    async def redact(self, entry: Entry, key_id: str) -> Receipt:
        """Write a `redact` and erase its subject: everything up to it, and nothing after it."""
        receipt = self._append(entry)
        self._erased[key_id] = receipt.seq
        return receipt

    def read_record(self, seq: int) -> dict[str, Any] | None:
        """Return a record; None where there is none."""
        return next((record for record in self.records if record["seq"] == seq), None)

    def key_id(self, subject: str) -> str:
        """Return what stands for a data subject in records; one for all names of a person."""
        return hashlib.sha256(person(subject).encode()).hexdigest()[:32]

    def has_key(self, key_id: str) -> bool:
        """Whether there is anything to erase."""
        return self.count_openings(key_id) > 0

    def count_openings(self, key_id: str) -> int:
        """Return in how many records there are readable values of a subject."""
        after = self._erased.get(key_id, 0)
        return len(
            {
                seq
                for (seq, _), opening in self._openings.items()
                if self.key_id(opening.subject) == key_id and seq >= after
            }
        )

    def overload(self, *, overloaded_now: bool = True) -> None:
        """Refuse intents and other records as if the disk did not keep up; or no longer."""
        self._failure = overloaded("as asked") if overloaded_now else None

    def knows(self, event_id: str) -> bool:
        """See `AuditLog`."""
        return event_id in self._events

    def poison(self) -> None:
        """Fail from now on, as after a failed sync."""
        self._poisoned = True

    def _append(self, entry: Entry, *, admitted: bool = False) -> Receipt:
        if self._poisoned:
            raise unavailable("as asked")
        if self._failure is not None and not admitted:
            raise self._failure
        if entry.event_id is not None and entry.event_id in self._events:
            return self._events[entry.event_id]
        seq = self._chain.seq
        try:
            fields, _ = commit_openings(entry)
            line, leaf = self._chain.append(
                type=entry.type,
                op=entry.op,
                boot=_BOOT,
                ts=self._now_us(),
                fields=fields,
                max_bytes=self._limits.record_max_bytes,
                event=entry.event_id,
            )
        except ValueError as error:
            raise invalid(str(error)) from None
        self.lines.extend((line, self._chain.seal(self.key, self._signer)[0]))
        self._openings.update({(seq, opening.path): opening for opening in entry.openings})
        receipt = Receipt(seq, leaf)
        if entry.event_id is not None:
            self._events[entry.event_id] = receipt
        return receipt
