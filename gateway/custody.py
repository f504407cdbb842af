"""What people do to the log itself: open a value, erase somebody, hold, change the key (spec §7).

Each of these is on record before it happens, and none happens without a person who answers for it.
Who may ask is decided at the door (`gateway.http.audit_admin`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined
from gateway.core.approvals.holds import (
    EVERYBODY,
    Hold,
    HoldStore,
    Move,
    as_of,
    find_protecting,
    move,
)
from gateway.core.calls import masking
from gateway.core.entry import Entry, Receipt
from gateway.core.policy.asked import read_asked
from gateway.core.ports import Clock, Ids
from gateway.core.records.audit_admin import (
    Basis,
    Why,
    build_hold,
    build_hold_asked,
    build_opened,
    build_redact,
    build_rotation,
    tool_of,
)


class KeptLog(Protocol):
    """What custody needs of the log beside its records. `read_*` and `count_*` block."""

    async def record(self, entry: Entry) -> Receipt:
        """Write a record durably. Raises `AuditError`."""
        ...

    async def redact(self, entry: Entry, key_id: str) -> Receipt:
        """Write a `redact` durably and erase its subject: both or neither."""
        ...

    def read_record(self, seq: int) -> dict[str, Any] | None:
        """Return a record; None where there is none."""
        ...

    def read_opening(self, seq: int, path: str) -> bytes | None:
        """Return a committed value, None when it cannot be read. Raises `LookupError`."""
        ...

    def key_id(self, subject: str) -> str:
        """Return what stands for a data subject in records."""
        ...

    def has_key(self, key_id: str) -> bool:
        """Whether there is anything of a data subject to erase."""
        ...

    def count_openings(self, key_id: str) -> int:
        """Return how many openings would be erased."""
        ...


class KeyedLog(Protocol):
    """A log whose signing key changes."""

    epoch_us: int

    async def rotate_key(self, entry: Entry, now_us: int) -> Receipt:
        """End the epoch."""
        ...

    @property
    def epochs(self) -> tuple[str, ...]:
        """The verifier keys, oldest first."""
        ...


class Opened(Struct, frozen=True, kw_only=True):
    """A value and what the record commits to. `masked`: sensitive parts were taken out."""

    seq: int
    path: str
    value: bytes
    commitment: Mapping[str, Any]
    masked: bool
    record: int


class Erased(Struct, frozen=True, kw_only=True):
    """A data subject is gone: how many openings, and the number of the record that says so."""

    subject: str
    openings: int
    record: int


class Custody:
    """Keeps values, holds and erasures. One for each log.

    `sensitive` returns the pointers that a tool's manifest names, None for a tool nobody knows;
    `sensitive_out` those into its answers.
    """

    def __init__(
        self,
        *,
        log: KeptLog,
        holds: HoldStore,
        clock: Clock,
        ids: Ids,
        sensitive: Callable[[str], Sequence[str] | None],
        sensitive_out: Callable[[str], Sequence[str] | None] = lambda _tool: None,
    ) -> None:
        self._log: Final = log
        self._holds: Final = holds
        self._clock: Final = clock
        self._ids: Final = ids
        self._sensitive: Final = sensitive
        self._sensitive_out: Final = sensitive_out
        # INVARIANT: no hold begins between the look at the holds and the record of an erasure.
        self._turn: Final = asyncio.Lock()
        self._recorded: Final[dict[str, str | None]] = {}

    # Opening a value

    async def open(
        self, by: str, seq: int, path: str, purpose: str, *, masked: bool = True
    ) -> Opened | Declined:
        """Return one value; its `audit.read` is durable before the value is even decrypted."""
        record = await asyncio.to_thread(self._log.read_record, seq)
        commitment = None if record is None else _commitment_at(record, path)
        if record is None or commitment is None:
            return Declined("opening_not_found", f"record {seq} commits to nothing at `{path}`")
        entry = build_opened(
            self._ids.new(), by=by, purpose=purpose, seq=seq, path=path, masked=masked
        )
        receipt = await self._log.record(entry)
        value = await asyncio.to_thread(self._read, record, path, masked=masked)
        if value is None:
            return Declined(
                "opening_erased",
                "the value cannot be read any more: its data subject was erased, or a crash lost "
                "it; the record and its commitment stand",
            )
        return Opened(
            seq=seq,
            path=path,
            value=value,
            commitment=commitment,
            masked=masked,
            record=receipt.seq,
        )

    def _read(self, record: Mapping[str, Any], path: str, *, masked: bool) -> bytes | None:
        value = self._log.read_opening(record["seq"], path)
        if value is None or not masked:
            return value
        match path:
            case "args":
                return masking.mask_arguments(value, self._pointers(record))
            case "policy.input":
                return masking.mask_input(value, self._pointers(record))
            case "result":
                shown = masking.mask_result(value, record)
                if shown != value:
                    return shown
                return masking.mask_output(value, self._pointers_out(record))
            case _ if path.startswith("inputs."):  # each of another tool: what it says itself holds
                return masking.mask_input(value, self._pointers_in(value))
            case _ if path.startswith("asked."):  # fits no tool, so nobody said what is sensitive
                return masking.mask_arguments(value, None)
            case _:  # who did something, and why they say they did
                return value

    def _pointers(self, record: Mapping[str, Any]) -> Sequence[str] | None:
        """Return what reviewers call sensitive now, and what they did when the record was made."""
        tool = tool_of(record)
        today = None if tool is None else self._sensitive(tool)
        then = None
        if _commitment_at(record, "policy.input") is not None:
            then = masking.read_sensitive(self._log.read_opening(record["seq"], "policy.input"))
        return None if today is None and then is None else (*(today or ()), *(then or ()))

    def _pointers_out(self, outcome: Mapping[str, Any]) -> Sequence[str] | None:
        """Return the same of a result: its tool is the one that the intent names."""
        seq = outcome.get("intent")
        intent = self._log.read_record(seq) if isinstance(seq, int) else None
        if intent is None:
            return None
        tool = tool_of(intent)
        found = [None if tool is None else self._sensitive_out(tool)]
        for record in (intent, outcome):
            if _commitment_at(record, "policy.input") is not None:
                document = self._log.read_opening(record["seq"], "policy.input")
                found.append(masking.read_sensitive_out(document))
        known = [each for each in found if each is not None]
        return [pointer for each in known for pointer in each] if known else None

    def _pointers_in(self, document: bytes) -> Sequence[str] | None:
        """Return what is sensitive of the tool that a policy input names: now, and at that time."""
        then = masking.read_sensitive(document)
        try:
            today = self._sensitive(read_asked(document).tool_id)
        except ValueError:
            return None
        return None if today is None and then is None else (*(today or ()), *(then or ()))

    # Erasing

    async def redact(self, by: str, subject: str, basis: Basis, reason: str) -> Erased | Declined:
        """Make everything that was kept of a data subject so far unreadable, and say so."""
        if person(by) == person(subject):
            return Declined("redact_own", "nobody erases their own traces; ask another admin")
        key_id = self._log.key_id(subject)
        async with self._turn:
            hold_id = await self._find_hold(key_id)
            if hold_id is not None:
                return Declined(
                    "redact_held",
                    f"legal hold `{hold_id}` protects this data subject; two people must release "
                    "it first",
                )
            if not self._log.has_key(key_id):
                return Declined(
                    "subject_not_found", "nothing is kept of this data subject; check the id"
                )
            openings = await asyncio.to_thread(self._log.count_openings, key_id)
            entry = build_redact(
                self._ids.new(),
                by=by,
                key_id=key_id,
                basis=basis,
                openings=openings,
                reason=reason,
            )
            receipt = await self._log.redact(entry, key_id)
        return Erased(subject=key_id, openings=openings, record=receipt.seq)

    # Holds

    async def holds(self) -> list[Hold]:
        """Return all holds as they are now."""
        now_s = self._now_s()
        return [as_of(hold, now_s) for hold in await self._holds.find()]

    async def propose_hold(self, by: str, subject: str | None, reason: str) -> Hold:
        """Protect a data subject (None: everybody) at once; a second person makes it last."""
        hold = Hold(
            id=self._ids.new(),
            subject=EVERYBODY if subject is None else self._log.key_id(subject),
            state="proposed",
            nonce=self._ids.secret(),
            asked_by=by,
            asked_at=self._now_s(),
            reason=reason,
        )
        async with self._turn:
            await self._log.record(build_hold_asked(self._ids.new(), hold, before=None))
            await self._holds.put(hold)
        return hold

    async def confirm_hold(self, by: str, hold_id: str) -> Hold | Declined:
        """Make a proposed hold last, as a second person."""
        return await self._move(by, hold_id, "confirm")

    async def ask_release(self, by: str, hold_id: str, reason: str) -> Hold | Declined:
        """Ask for the end of a hold. It protects until a second person confirms that."""
        return await self._move(by, hold_id, "ask_release", reason)

    async def confirm_release(self, by: str, hold_id: str) -> Hold | Declined:
        """End a hold, as a second person."""
        return await self._move(by, hold_id, "confirm_release")

    async def settle(self, recorded: Mapping[str, str | None]) -> None:
        """At a start: bring the store to what the log says of each hold (`Recovered.holds`).

        A crash can come between a record and the store, and a store can be put back from a backup;
        no hold that was set is forgotten by either.
        """
        self._recorded.update(recorded)
        known = {hold.id: hold for hold in await self._holds.find()}
        for hold_id, subject in recorded.items():
            hold = known.get(hold_id)
            if subject is None and hold is not None and hold.state != "released":
                await self._holds.put(_settled(hold, "released"))
            elif subject is not None and (hold is None or hold.state not in {"set", "releasing"}):
                nonce = self._ids.secret() if hold is None else hold.nonce
                found = Hold(id=hold_id, subject=subject, state="set", nonce=nonce)
                await self._holds.put(found)

    async def _move(self, by: str, hold_id: str, step: Move, reason: str = "") -> Hold | Declined:
        async with self._turn:
            stored = await self._holds.get(hold_id)
            if stored is None:
                return Declined("hold_not_found", "there is no such hold")
            now_s = self._now_s()
            before = as_of(stored, now_s)
            after = move(before, step, by, now_s, reason)
            if isinstance(after, Declined):
                return after
            if after.state == "set":  # before it is durable: what is in doubt is not erased
                self._recorded[hold_id] = after.subject
            await self._log.record(self._told(before, after, step, by))
            if after.state in {"set", "released"}:
                self._recorded[hold_id] = after.subject if after.state == "set" else None
            await self._holds.put(after)
        return after

    async def _find_hold(self, key_id: str) -> str | None:
        """Return a hold that forbids to erase a data subject, by the store or by the log."""
        hold = find_protecting(await self._holds.find(), key_id, self._now_s())
        if hold is not None:
            return hold.id
        recorded = self._recorded.items()
        return next((found for found, held in recorded if held in {EVERYBODY, key_id}), None)

    def _told(self, before: Hold, after: Hold, step: Move, by: str) -> Entry:
        op = self._ids.new()
        if step == "ask_release":
            return build_hold_asked(op, after, before=before.state)
        if step == "confirm":
            return build_hold("hold.set", op, before, confirmed_by=by)
        return build_hold("hold.release", op, before, confirmed_by=by)

    def _now_s(self) -> int:
        return self._clock.now_ns() // 1_000_000_000


async def rotate_key(
    log: KeyedLog, clock: Clock, ids: Ids, why: Why, by: str | None = None
) -> Receipt:
    """Let a new key sign from now on, because somebody asked or the old one's time is over."""
    entry = build_rotation(ids.new(), why, by=by)
    return await log.rotate_key(entry, clock.now_ns() // 1000)


def _settled(hold: Hold, state: Literal["released"]) -> Hold:
    return replace(hold, state=state, asked_by="", asked_at=0, reason="")


def _commitment_at(record: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Return the commitment at a dotted path."""
    found: object = record
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) and {"c", "bytes"} == set(found) else None
