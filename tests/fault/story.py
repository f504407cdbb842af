"""What a writer does in the fault suite, and what must hold of its log after any ending.

The story uses all that writes: intents and outcomes of many callers, entries with event ids, small
segments, keys that change, subjects that are erased, the reserve and the checkpoint copy. Each
acknowledged receipt is told to `ack` before anything else happens, as a caller would act on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import orjson

from gateway.adapters.audit.audit_files import Files, list_segments
from gateway.adapters.audit.audit_key_file import KeyFile
from gateway.adapters.audit.audit_keys import load_or_create_kek
from gateway.adapters.audit.audit_verify import verify
from gateway.adapters.audit.file_audit import FileAuditLog
from gateway.core.calls.call import Intent, Outcome, RecordedIntent
from gateway.core.entry import Entry, Opening
from gateway.core.errors import AuditError, ConfigurationError
from gateway.core.limits import Limits
from gateway.core.log.merkle import hash_leaf
from gateway.core.ports import Clock
from tests.patience import PATIENT

ORIGIN: Final = "gateway.example.com/audit"
DEPLOYMENT: Final = {"environment": "test"}
SUBJECTS: Final = 5
_CHECKPOINT: Final = b'{"cp":'
_NOTHING: Final = cast("Any", None)

Kind = Literal["opened", "intent", "outcome", "record", "rotated", "erasing", "value"]


class Ack(NamedTuple):
    """What the log has promised: this record stands at this place; or a subject is erased.

    `text` is the operation id; of `opened` the first verifier key; of `value` the subject whose
    value `seq` commits to; of `erasing` the subject that may be erased from now on.
    """

    kind: Kind
    seq: int = 0
    leaf: str = ""
    text: str = ""


Tell = Callable[[Ack], None]


class QuickClock:
    """The machine's time; the monotonic one runs fast, so that what is lazy happens often."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() * 2000


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000_000_000_000

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns


class Place(NamedTuple):
    """Where a log and its keys live."""

    root: Path

    @property
    def audit(self) -> Path:
        return self.root / "state" / "audit"

    def open(
        self,
        *,
        clock: Clock | None = None,
        segment_max_bytes: int = 12_000,
        reserve_bytes: int = 65_536,
        limits: Limits = PATIENT,
        files: Files | None = None,
    ) -> FileAuditLog:
        """Open the log as the gateway does, keys and all."""
        return FileAuditLog.open(
            self.audit,
            origin=ORIGIN,
            signer=KeyFile(self.root / "keys" / "audit.pem", files),
            kek=load_or_create_kek(self.root / "keys" / "audit.kek"),
            clock=clock or QuickClock(),
            limits=limits,
            deployment=DEPLOYMENT,
            segment_max_bytes=segment_max_bytes,
            reserve_bytes=reserve_bytes,
            files=files,
        )

    def lines(self) -> list[bytes]:
        """Return all lines of the log, without LF; one that is torn, too."""
        return [
            line
            for segment in list_segments(self.audit)
            for line in segment.read_bytes().split(b"\n")
            if line
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the log, in order."""
        return [orjson.loads(line) for line in self.lines() if not line.startswith(_CHECKPOINT)]


def intent(op: str, subject: str, approval: str | None = None) -> Intent:
    """A call about to be sent. The log looks at nothing but its entry."""
    fields: dict[str, Any] = {
        "actor": {"agent": "bot", "run": "run-1", "root": "root-1"},
        "tool": {"id": "billing.refund"},
    }
    if approval is not None:
        fields["approval"] = approval
    openings = (Opening("args", value_of(op), subject),)
    return Intent(
        resolved=_NOTHING,
        decision=_NOTHING,
        entry=Entry(type="call.intent", op=op, fields=fields, openings=openings),
        idempotency_key="k",
        deadline_ms=1000,
        find_stop=lambda: None,
    )


def value_of(op: str) -> bytes:
    """The arguments of a call."""
    return b'{"call":"%b"}' % op.encode()


def outcome(recorded: RecordedIntent) -> Outcome:
    """What is recorded when the tool has answered."""
    entry = Entry(
        type="call.outcome",
        op=recorded.intent.entry.op,
        fields={"intent": recorded.seq, "status": "ok", "delivery": "sent"},
    )
    return Outcome(intent=recorded, status="ok", delivery="sent", entry=entry)


class Writer:
    """The story, on a log that runs. `name` begins every operation id."""

    def __init__(self, log: FileAuditLog, tell: Tell, *, name: str, seed: int) -> None:
        self._log: Final = log
        self._tell: Final = tell
        self._name: Final = name
        self._random: Final = random.Random(seed)  # noqa: S311 - a story to be told again
        self._number = 0

    async def call(self, *, finish: bool = True) -> None:
        """Record an intent and, but for one that is left open, its outcome."""
        self._number += 1
        op = f"{self._name}-{self._number}"
        subject = f"subject-{self._random.randrange(SUBJECTS)}"
        approval = f"ap-{op}" if self._number % 4 == 0 else None
        recorded = await self._log.record_intent(intent(op, subject, approval))
        self._tell(Ack("intent", recorded.seq, recorded.leaf.hex(), op))
        self._tell(Ack("value", recorded.seq, "", subject))
        if finish:
            done = await self._log.record_outcome(outcome(recorded))
            self._tell(Ack("outcome", done.seq, done.leaf.hex(), op))

    async def event(self) -> None:
        """Record something that may be asked for twice and stands once."""
        self._number += 1
        op = f"{self._name}-{self._number}"
        entry = Entry(type="config.change", op=op, fields={"setting": "x"}, event_id=f"e-{op}")
        receipt = await self._log.record(entry)
        self._tell(Ack("record", receipt.seq, receipt.leaf.hex(), op))

    async def rotate(self) -> None:
        """Change the signing key."""
        self._number += 1
        op = f"{self._name}-{self._number}"
        entry = Entry(type="key.rotate", op=op, fields={"why": "command"})
        receipt = await self._log.rotate_key(entry, time.time_ns() // 1000)
        self._tell(Ack("rotated", receipt.seq, receipt.leaf.hex(), op))

    async def erase(self) -> None:
        """Erase a subject, durably."""
        self._number += 1
        op, subject = f"{self._name}-{self._number}", f"subject-{self._random.randrange(SUBJECTS)}"
        key_id = self._log.key_id(subject)
        fields = {"subject": key_id, "basis": "request", "openings": 1}
        entry = Entry(type="redact", op=op, fields=fields, event_id=f"e-{op}")
        self._tell(Ack("erasing", 0, "", subject))
        receipt = await self._log.redact(entry, key_id)
        self._tell(Ack("record", receipt.seq, receipt.leaf.hex(), op))

    async def write_on(self, callers: int = 12) -> None:
        """Write until the process ends, with many callers at once."""

        async def keep_calling(number: int) -> None:
            while True:
                await self.call(finish=self._random.random() < 0.8)
                if number == 0 and self._random.random() < 0.2:
                    await self._random.choice((self.rotate, self.erase, self.event))()

        await asyncio.gather(*map(keep_calling, range(callers)))


def tell_opened(log: FileAuditLog, tell: Tell) -> None:
    """Tell that a log was opened; its first key is what a reader would pin."""
    tell(Ack("opened", log.size, "", log.epochs[0]))


def close(log: FileAuditLog) -> None:
    """Close a log that was never started, and so waits for nothing. Faster than a loop."""
    with contextlib.suppress(StopIteration):
        log.close().send(None)


def inspect(
    place: Place,
    acks: Sequence[Ack],
    clock: Clock | None = None,
    *,
    values_are_kept: bool = False,
) -> list[str]:
    """Open a log after its writer's end; return all that is not as it was promised.

    `values_are_kept`: the machine went on, so that no opening may be lost either.
    """
    try:
        log = place.open(clock=clock)
    except (ConfigurationError, AuditError) as error:
        return [f"it cannot be opened: {error}"]
    opened_at = log.size
    problems = list(_values(log, acks, values_are_kept=values_are_kept))
    close(log)
    lines = [line for line in place.lines() if not line.startswith(_CHECKPOINT)]
    leaves = [hash_leaf(line).hex() for line in lines]
    for ack in acks:
        if ack.leaf and leaves[ack.seq : ack.seq + 1] != [ack.leaf]:
            problems.append(f"lost: {ack.kind} {ack.text} at {ack.seq}")
        if ack.kind == "opened" and len(leaves) < ack.seq:
            problems.append(f"lost: {ack.seq} records stood there once, {len(leaves)} do now")
    records = [orjson.loads(line) for line in lines[: opened_at - 1]]
    problems += _orphans(records, set(log.recovered.open_intents))
    pinned = next((ack.text for ack in acks if ack.kind == "opened"), None)
    report = verify(place.audit, vkey=pinned)
    problems += [f"it does not verify: {finding}" for finding in report.findings]
    return problems


def _orphans(records: list[dict[str, Any]], found: set[str]) -> list[str]:
    """Compare the intents that recovery holds for open with those that nothing closes."""
    intents = {record["op"] for record in records if record["type"] == "call.intent"}
    closed = {
        record["op"] for record in records if record["type"] in {"call.outcome", "call.orphan"}
    }
    events = [record["event"] for record in records if "event" in record]
    problems = [] if found == intents - closed else [f"open intents: {found ^ (intents - closed)}"]
    if closed - intents:
        problems.append(f"outcomes without intent: {closed - intents}")
    if len(set(events)) < len(events):
        problems.append("an event stands twice")
    return problems


def _values(log: FileAuditLog, acks: Sequence[Ack], *, values_are_kept: bool) -> Iterator[str]:
    """Whether values of a subject up to its erasure are unreadable, and all others not.

    What the log says counts, also where it was not acknowledged: record and erasure come together.
    """
    erased = dict(log.recovered.redacted)
    erasing = {ack.text for ack in acks if ack.kind == "erasing"}
    for ack in [ack for ack in acks if ack.kind == "value"][-6:]:
        is_erased = ack.seq <= erased.get(log.key_id(ack.text), -1)
        if not is_erased and (ack.text in erasing or not values_are_kept):
            continue
        is_readable = log.read_opening(ack.seq, "args") is not None
        if is_readable == is_erased:
            yield f"{'erased, and readable' if is_readable else 'not readable'}: {ack}"
