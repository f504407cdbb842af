"""Opens a log after any ending: checks it, cuts what a crash left torn, and says what it found.

Only bytes behind the last complete batch may be cut, and only where they look like a batch that a
crash interrupted; such a batch was never acknowledged. Anything else is damage, and a log with
damage is not written to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

from gateway.adapters.audit.audit_files import Files, list_segments, segment_name
from gateway.adapters.audit.audit_reader import read_lines
from gateway.core.entry import Receipt
from gateway.core.errors import ConfigurationError
from gateway.core.kills.kill import REVOCATIONS, Kill, read_kill
from gateway.core.kills.stopped import StoppedPeople
from gateway.core.log.chain import CHECKPOINT_PREFIX, Chain
from gateway.core.log.chain_check import (
    WINDOW_LINES,
    Anchor,
    Break,
    ChainCheck,
    Record,
    Sealed,
    explain,
)
from gateway.core.log.note import NoteKey
from gateway.core.log.note import parse as parse_note
from gateway.core.people.sign_in_changes import SignInChanges
from gateway.core.records.notice_records import PendingNotices
from gateway.core.releases.history import History
from gateway.core.tokens.issued import IssuedTokens, read_issued

_KILLS_SWEPT: Final = 4_096
"""At so many kills, and at each further as many, revocations that ran out are let go."""

Fold = Callable[[dict[str, Any]], None]
Leaf = Callable[[bytes], None]


class OpenIntent(Struct, frozen=True):
    """A call that may have been sent and whose end is not on record. `approval`: id, if held."""

    seq: int
    tool: str
    approval: str | None
    run: str
    root: str


class RecoveredOperation(Struct, frozen=True):
    """What the log knows of an approved call: whether it may have been sent, and how it ended.

    `outcome_status`: that of its outcome; `not_sent` where it certainly did not reach the tool,
    `unknown` where nobody knows, None without an outcome.
    """

    intent: bool
    outcome_status: str | None
    approval: str = ""


class Recovered(Struct, frozen=True):
    """What the log knew when it was opened, by operation id.

    `holds`: the subject of each legal hold that was set; None for one that was released since.
    `redacted`: the last `redact` of each data subject, by key id. `kills`: what was stopped, by the
    id of the kill; None for one that was lifted. `tokens`: those that may still live.
    `registered`: the last version of each entry of the registry, by its name in records.
    `stopped`: when people were last killed or suspended. `sign_ins`: what a state from before
    `fold_from` does not know. `releases`: what was published, and what decides.
    `notices`: those without an end.
    """

    open_intents: dict[str, OpenIntent]
    operations: dict[str, RecoveredOperation]
    event_ids: set[str]
    ended_runs: set[str] = msgspec.field(default_factory=set)
    holds: dict[str, str | None] = msgspec.field(default_factory=dict)
    redacted: dict[str, int] = msgspec.field(default_factory=dict)
    kills: dict[str, Kill | None] = msgspec.field(default_factory=dict)
    tokens: IssuedTokens = msgspec.field(default_factory=IssuedTokens)
    registered: dict[str, int] = msgspec.field(default_factory=dict)
    stopped: StoppedPeople = msgspec.field(default_factory=StoppedPeople)
    sign_ins: SignInChanges = msgspec.field(default_factory=SignInChanges)
    releases: History = msgspec.field(default_factory=History)
    notices: PendingNotices = msgspec.field(default_factory=PendingNotices)


class Cut(Struct, frozen=True):
    """Bytes cut from the end of a segment, and the file that keeps them."""

    segment: str
    bytes: int
    kept_in: str


class Recovery(Struct, frozen=True):
    """An openable log. `segment`: the one to go on in; None for a new log.

    `keys` are those of its epochs; the last one began at `epoch_us` (µs since 1970).
    """

    chain: Chain
    segment: Path | None
    genesis: dict[str, Any] | None
    events: dict[str, Receipt]
    recovered: Recovered
    cut: Cut | None
    keys: tuple[NoteKey, ...]
    epoch_us: int


class _Index:
    """Gathers what starting needs to know of the records."""

    def __init__(self, fold: Fold | None, fold_from: int, leaf: Leaf) -> None:
        self._leaf: Final = leaf
        self._fold: Final = fold
        self._fold_from: Final = fold_from
        self.events: Final[dict[str, Receipt]] = {}
        self.recovered: Final = Recovered({}, {}, set())
        self.genesis: dict[str, Any] | None = None
        self.epoch_us = 0

    def add(self, record: Record) -> None:
        self._leaf(record.leaf)
        value = record.value
        if "event" in value:
            self.events[value["event"]] = Receipt(record.seq, record.leaf)
            self.recovered.event_ids.add(value["event"])
        kind = value["type"]
        if kind == "call.intent":
            self._open(record.seq, value)
        elif kind in {"call.outcome", "call.orphan"}:
            self._close(value)
        elif kind == "genesis":
            self.genesis = value
            self.epoch_us = value["ts"]
        elif kind == "key.rotate":
            self.epoch_us = value["ts"]
        else:
            self._note(record.seq, kind, value)
        if (
            self._fold is not None
            and record.seq >= self._fold_from
            and kind in {"call.intent", "call.outcome", "run.create"}
        ):
            self._fold(value)

    def _note(self, seq: int, kind: str, value: dict[str, Any]) -> None:
        """Note what an older state than the log must not undo."""
        recovered = self.recovered
        if kind == "run.end":
            recovered.ended_runs.add(value["run"])
        elif kind in {"hold.set", "hold.release"}:
            recovered.holds[value["hold"]] = value["subject"] if kind == "hold.set" else None
        elif kind == "redact":
            recovered.redacted[value["subject"]] = seq
        elif kind == "token.issue":
            recovered.tokens.add(read_issued(value))
        elif kind in {"kill.set", "kill.lift", "token.revoke"}:
            self._kill(value)
        elif kind == "registry.change" and "version" in value:
            recovered.registered[value["entry"]] = value["version"]
        else:
            recovered.releases.fold(value)
            recovered.notices.fold(value)
        if kind in {"kill.set", "registry.change"}:
            recovered.stopped.fold(value)
        if self._fold is not None and seq >= self._fold_from:
            recovered.sign_ins.fold(value)

    def _kill(self, value: dict[str, Any]) -> None:
        kills = self.recovered.kills
        if value["type"] == "kill.lift":
            kills[value["kill"]] = None
        elif (kill := read_kill(value)) is not None:
            kills[kill.id] = kill
            if len(kills) % _KILLS_SWEPT == 0:  # revocations outlive their tokens by a minute
                for one in list(kills.values()):
                    if one is not None and one.kind in REVOCATIONS and one.is_over(kill.at):
                        del kills[one.id]

    def _open(self, seq: int, value: dict[str, Any]) -> None:
        actor, tool = value.get("actor", {}), value.get("tool", {})
        approval = value.get("approval")
        self.recovered.open_intents[value["op"]] = OpenIntent(
            seq, tool.get("id", ""), approval, actor.get("run", ""), actor.get("root", "")
        )
        if approval is not None:
            self.recovered.operations[value["op"]] = RecoveredOperation(
                intent=True, outcome_status=None, approval=approval
            )

    def _close(self, value: dict[str, Any]) -> None:
        self.recovered.open_intents.pop(value["op"], None)
        known = self.recovered.operations.get(value["op"])
        if known is not None:
            self.recovered.operations[value["op"]] = RecoveredOperation(
                intent=True, approval=known.approval, outcome_status=read_end(value)
            )


def read_end(record: Mapping[str, Any]) -> str:
    """Return how an outcome, or an orphan, says that a call ended; see `RecoveredOperation`."""
    delivery = record.get("delivery")
    status = delivery if delivery in {"not_sent", "unknown"} else record.get("status", "unknown")
    return str(status)


def recover(
    directory: Path,
    *,
    origin: str,
    keys: Sequence[NoteKey],
    files: Files,
    fold: Fold | None = None,
    fold_from: int = 0,
    leaf: Leaf = lambda _leaf: None,
) -> Recovery:
    """Check the log in `directory` and return where it goes on. The caller holds its lock.

    Every record's place, link and time is checked, every root, and the last signature of each
    epoch, which covers them all. One of `keys` must be the last epoch's. `leaf` is called with the
    leaf hash of each record of a complete batch. Raises `ConfigurationError` naming file, line and
    remedy for a damaged log. Whether lines are in canonical form is for verifiers: only whoever
    holds the key can have written others.
    """
    segments = list_segments(directory)
    # INVARIANT: what is believed here is durable, before anything is done because of it: a key
    # adopted, a subject erased, a batch written behind it.
    if segments:
        files.settle(segments[-1])
        files.sync_directory(directory)
    index = _Index(fold, fold_from, leaf)
    check = ChainCheck(origin, None, canonical=False)
    scan = _Scan(directory, check, index, _load_anchor(directory), keys)
    for segment in segments[:-1]:
        scan.read(segment)
        if scan.torn is not None:
            raise scan.torn
    if segments:
        scan.read(segments[-1])
    scan.finish()
    cut = _cut(segments[-1], scan, files) if scan.torn is not None else None
    return Recovery(
        scan.sealed,
        segments[-1] if segments else None,
        index.genesis,
        index.events,
        index.recovered,
        cut,
        tuple(scan.keys),
        index.epoch_us,
    )


class _Scan:
    """Reads segments in order. `sealed`: the chain, and `good`: the offset, after the last batch.

    `torn` is set, as the error that it would be in any other place, where a segment ends in
    something that an interrupted write can leave.
    """

    def __init__(
        self,
        directory: Path,
        check: ChainCheck,
        index: _Index,
        anchor: Anchor | None,
        keys: Sequence[NoteKey],
    ) -> None:
        self._keys: Final = keys
        self._directory: Final = directory
        self._check: Final = check
        self._index: Final = index
        self._anchor: Final = anchor
        self._batch: list[Record] = []
        self.sealed = check.chain.copy()
        self.keys: list[NoteKey] = []
        self.good = 0
        self.torn: ConfigurationError | None = None

    def read(self, segment: Path) -> None:
        """Read one segment up to its end, or to where it is torn."""
        self.good = offset = 0
        if segment.name != segment_name(self._check.chain.seq):
            raise self._damage(segment, 1, "a segment before this one is missing")
        number = 0
        for number, line in enumerate(read_lines(segment), 1):
            answer = self._check.feed(line[:-1]) if line.endswith(b"\n") else None
            offset += len(line)
            if answer is None or isinstance(answer, Break):
                self._stop(segment, number, line, offset, answer)
                return
            if isinstance(answer, Sealed):
                self._seal(answer, offset)
            else:
                self._batch.append(answer)
        if self._batch:
            self.torn = self._damage(segment, number, "the records after the last checkpoint")

    def finish(self) -> None:
        """Verify the last signature and the copy of the last checkpoint, once all is read."""
        size = self.sealed.seq
        broken = self._check.tail() if size else None
        if broken is None and size and self._check.keys[-1] not in self._keys:
            raise _of_another_key(self._directory, self._check.keys[-1])
        if broken is None and self._anchor is not None:
            broken = self._anchor.verdict(size, self._check.keys)
        if broken is not None:
            raise _damaged(f"`{self._directory}`, record {broken.seq}", broken)

    def _seal(self, answer: Sealed, offset: int) -> None:
        for record in self._batch:
            self._index.add(record)
        self._batch.clear()
        self.sealed = self._check.chain.copy()
        self.keys = self._check.keys.copy()
        self.good = offset
        if self._anchor is not None:
            self._anchor.meet(answer)

    def _stop(
        self, segment: Path, number: int, line: bytes, offset: int, broken: Break | None
    ) -> None:
        """Decide whether what stands here, up to `offset`, is torn or damaged.

        A write that a crash cut short leaves the start of a batch: good lines, then perhaps the
        start of one. Where the disk wrote later blocks first, it leaves a batch with holes of zero
        bytes, which no record holds.
        """
        with segment.open("rb") as file:
            file.seek(self.good)
            rest = file.read()
        starts_only = broken is None and self.good + len(rest) == offset and not _is_whole(line)
        has_holes = b"\0" in rest and rest.count(b"\n" + CHECKPOINT_PREFIX) <= 1
        if starts_only or has_holes:
            self.torn = self._damage(segment, number, "the last batch is torn")
            return
        if broken is None:
            raise self._damage(segment, number, "something stands where the line should end")
        after = rest[offset - self.good :].split(b"\n", WINDOW_LINES)[:WINDOW_LINES]
        raise _damaged(
            _place(segment, number), explain(broken, line[:-1], after, self._check.chain)
        )

    def _damage(self, segment: Path, number: int, what: str) -> ConfigurationError:
        return _damaged(_place(segment, number), Break("torn", self._check.chain.seq, what))


def _is_whole(line: bytes) -> bool:
    """Whether a line without LF is a whole one whose LF was changed, not the start of one."""
    try:
        orjson.loads(line[:-1])
    except orjson.JSONDecodeError:
        return False
    return True


def _place(segment: Path, number: int) -> str:
    return f"`{segment}`, line {number}"


def _damaged(place: str, broken: Break) -> ConfigurationError:
    return ConfigurationError(
        f"the audit log is damaged at {place}: {broken.kind}: {broken.what}; keep a copy of it, "
        "see `countersign audit verify`, then restore it from a backup or name another directory"
    )


def _of_another_key(directory: Path, key: NoteKey) -> ConfigurationError:
    """Say whose log it is: a backup holds no signing key, and a rotation destroys the old one."""
    return ConfigurationError(
        f"the audit log in `{directory}` goes on under the key `{key.name}+{key.id.hex()}`, and "
        "the signing key is another (wrong_key); put that key back, or begin a new log with "
        "another directory, origin and state"
    )


def _load_anchor(directory: Path) -> Anchor | None:
    path = directory / "checkpoint"
    try:
        return Anchor(parse_note(path.read_bytes().decode()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigurationError(
            f"`{path}` is no checkpoint: {error}; if `countersign audit verify` finds nothing "
            "else, delete it"
        ) from None


def _cut(segment: Path, scan: _Scan, files: Files) -> Cut:
    """Move what lies behind the last complete batch into a file of its own, durably."""
    content = segment.read_bytes()
    number = 1
    kept = segment.with_name(f"{segment.name}.torn")
    while kept.exists():
        number += 1
        kept = segment.with_name(f"{segment.name}.torn.{number}")
    files.replace(kept, content[scan.good :])
    files.sync_directory(kept.parent)
    os.truncate(segment, scan.good)
    files.sync_path(segment)
    return Cut(segment.name, len(content) - scan.good, kept.name)
