"""Has the log's checkpoints cosigned and kept elsewhere, and says how much of it is not yet.

Nothing on the call path waits for this, and nothing here can refuse a call: a log whose witnesses
are all gone goes on, and its window is told. What is in the window, whoever holds the disk and the
signing key could still write anew unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import structlog
from msgspec import Struct

from gateway.adapters.witness.witness_client import Witness
from gateway.adapters.witness.witness_file import WitnessFile
from gateway.core.log import note as notes
from gateway.core.log.cosignature import (
    FORKED,
    Cosignature,
    NoCosignature,
    build_witnessed,
    build_witnessed_note,
)
from gateway.core.log.note import SignedCheckpoint
from gateway.core.ports import AuditLog, Clock, Ids
from gateway.logs import describe

_SECOND_NS: Final = 1_000_000_000
_log: Final = structlog.get_logger("gateway.witness")

Newest = Callable[[], str | None]
"""Returns the newest durable signed checkpoint's note; None where there is none. May read files."""

Kept = Literal[
    "kept", "other_history", "unreadable", "unreachable", "timed_out", "refused", "no_credential"
]


class Anchor(Protocol):
    """A place elsewhere where checkpoints are kept."""

    @property
    def name(self) -> str:
        """What the logs call it."""
        ...

    async def keep(self, size: int, note: str) -> Kept:
        """Keep a note for good. Bounded in time; never overwrites what is there."""
        ...


class Settings(Struct, frozen=True, kw_only=True):
    """How often, how many, and when to say that it has been too long."""

    quorum: int
    interval_s: float
    alert_after_s: float


class _ToKeep(Struct, frozen=True):
    """A checkpoint for the anchors, and when it was the newest."""

    size: int
    note: str
    seen_ns: int


class Witnessing:
    """One log's witnesses and anchors. `run` is its life; `turn` is one turn of it."""

    def __init__(
        self,
        *,
        audit: AuditLog,
        newest: Newest,
        witnesses: Sequence[Witness],
        anchors: Sequence[Anchor],
        file: WitnessFile,
        settings: Settings,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._audit: Final = audit
        self._newest: Final = newest
        self._witnesses: Final = witnesses
        self._anchors: Final = anchors
        self._file: Final = file
        self._settings: Final = settings
        self._clock: Final = clock
        self._ids: Final = ids
        self._size = 0
        self._time_s: int | None = None
        self._own: list[int] = []
        self._covered_ns = clock.monotonic_ns()
        self._behind = False
        self._said: Final[dict[str, str]] = {}
        self._to_keep: _ToKeep | None = None
        self._kept: Final[dict[str, int]] = {}

    def resume(self) -> None:
        """Go on from what `witness/checkpoint` says. Does I/O; call it before `run`."""
        found = self._file.read([witness.key for witness in self._witnesses])
        if found is None:
            return
        checkpoint, cosignatures = found
        if len(cosignatures) < self._settings.quorum:
            return
        if checkpoint.size > self._audit.size:
            # An honest log only grows; the witnesses will say the same.
            _log.error("witness_ahead", witnessed=checkpoint.size, records=self._audit.size)
            return
        time_s = min(one.time_s for one in cosignatures)
        age_ns = max(self._clock.now_ns() - time_s * _SECOND_NS, 0)
        self._cover(checkpoint.size, time_s, self._clock.monotonic_ns() - age_ns)
        for witness in self._witnesses:
            if any(one.key_id == witness.key.id for one in cosignatures):
                witness.size = checkpoint.size

    async def run(self) -> None:
        """Take turns until cancelled. What goes wrong in one is told, and the next tries anew.

        They begin `interval_s` apart, however long somebody takes to answer in one.
        """
        while True:
            begun_ns = self._clock.monotonic_ns()
            try:
                await self.turn()
            except Exception as error:  # noqa: BLE001 - one bad turn must not end it for good
                _log.error("witness_turn_failed", error=describe(error))
            took_s = (self._clock.monotonic_ns() - begun_ns) / _SECOND_NS
            await asyncio.sleep(max(self._settings.interval_s - took_s, 0))

    async def turn(self) -> None:
        """Have the newest checkpoint cosigned and kept, where there is anything new in it."""
        try:
            await self._advance()
            await self._keep()
        finally:
            self._watch()

    def status(self) -> Mapping[str, Any]:
        """What `/readyz` tells: how old the last witnessed checkpoint is, and what is beyond it."""
        age_s = None
        if self._time_s is not None:
            age_s = max(self._clock.now_ns() // _SECOND_NS - self._time_s, 0)
        return {
            "size": self._size,
            "age_s": age_s,
            "records_beyond": self._beyond(self._audit.size),
            "behind_s": self._behind_s(),
            "behind": self._behind,
            "problems": dict(self._said),
        }

    def _beyond(self, size: int) -> int:
        """How many of `size` records no quorum has seen, but for those that say what one saw."""
        own = sum(self._size <= seq < size for seq in self._own)
        return max(size - self._size - own, 0)

    def _behind_s(self) -> int:
        """How long, at most, the oldest of them has been there."""
        if not self._beyond(self._audit.size):
            return 0
        return (self._clock.monotonic_ns() - self._covered_ns) // _SECOND_NS

    async def _advance(self) -> None:
        seen_ns = self._clock.monotonic_ns()
        note = await asyncio.to_thread(self._newest)
        if note is None:
            return
        signed = notes.parse(note)
        if not self._beyond(signed.checkpoint.size):
            self._covered_ns = seen_ns
        elif self._witnesses:
            await self._ask(note, signed, seen_ns)
        else:
            self._to_keep = _ToKeep(signed.checkpoint.size, note, seen_ns)

    async def _ask(self, note: str, signed: SignedCheckpoint, seen_ns: int) -> None:
        answers = await asyncio.gather(*(one.submit(note, signed) for one in self._witnesses))
        found: list[Cosignature] = []
        for witness, answer in zip(self._witnesses, answers, strict=True):
            if isinstance(answer, NoCosignature):
                self._complain(witness.name, answer.reason, forked=answer.reason in FORKED)
            else:
                self._rejoice(witness.name)
                found.append(answer)
        if len(found) < self._settings.quorum:
            return
        # Into the log, then into the file. A log that takes no record leaves both undone.
        receipt = await self._audit.record(
            build_witnessed(self._ids.new(), signed.checkpoint, found)
        )
        size, whole = signed.checkpoint.size, build_witnessed_note(note, found)
        self._own = [seq for seq in (*self._own, receipt.seq) if seq >= size]
        self._cover(size, min(one.time_s for one in found), seen_ns)
        self._to_keep = _ToKeep(size, whole, seen_ns)
        await asyncio.to_thread(self._file.write, whole)

    def _cover(self, size: int, time_s: int, seen_ns: int) -> None:
        self._size, self._time_s, self._covered_ns = size, time_s, seen_ns

    async def _keep(self) -> None:
        """Hand the last checkpoint to every anchor that has not kept it yet."""
        last = self._to_keep
        if last is None:
            return
        lacking = [one for one in self._anchors if self._kept.get(one.name, -1) < last.size]
        answers = await asyncio.gather(*(one.keep(last.size, last.note) for one in lacking))
        for anchor, answer in zip(lacking, answers, strict=True):
            if answer == "kept":
                self._kept[anchor.name] = last.size
                self._rejoice(anchor.name)
            else:
                self._complain(anchor.name, answer, forked=answer == "other_history")
        if not self._witnesses and all(answer == "kept" for answer in answers):
            self._to_keep = None
            self._cover(last.size, self._clock.now_ns() // _SECOND_NS, last.seen_ns)

    def _complain(self, name: str, reason: str, *, forked: bool) -> None:
        """Say once by name what is wrong, and again when it changes."""
        if self._said.get(name) == reason:
            return
        self._said[name] = reason
        if forked:
            _log.error("witness_saw_other_history", witness=name, reason=reason)
        else:
            _log.warning("witness_failed", witness=name, reason=reason)

    def _rejoice(self, name: str) -> None:
        if self._said.pop(name, None) is not None:
            _log.info("witness_answers_again", witness=name)

    def _watch(self) -> None:
        behind_s = self._behind_s()
        behind = behind_s > self._settings.alert_after_s
        if behind and not self._behind:
            records = self._beyond(self._audit.size)
            _log.warning("witness_behind", seconds=behind_s, records=records, size=self._size)
        elif self._behind and not behind:
            _log.info("witness_caught_up", size=self._size)
        self._behind = behind
