"""Verifies a log's directory: reads it line by line and lets `core.chain_check` judge."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.adapters.audit.audit_files import is_locked, list_segments, segment_name
from gateway.adapters.audit.audit_reader import read_lines
from gateway.adapters.audit.audit_tile_check import TileBreak, TileCheck
from gateway.core.log.chain_check import (
    WINDOW_LINES,
    Anchor,
    Break,
    ChainCheck,
    Kind,
    Record,
    Sealed,
    explain,
)
from gateway.core.log.note import NoteKey, SignedCheckpoint, parse_vkey
from gateway.core.log.note import parse as parse_note

UNPINNED: Final = (
    "UNPINNED_KEY: the key was read from the log's own directory; whoever rewrote the log could "
    "have replaced it too. give the key that you keep elsewhere with `--vkey`"
)
GROWING: Final = (
    "the log is being written: what follows its last checkpoint is not signed yet, and not believed"
)


class Finding(Struct, frozen=True):
    """What happened to a log and where: `seq` of the record, `place` as `file:line`."""

    kind: Kind
    seq: int
    place: str
    what: str


class Report(Struct, frozen=True):
    """The answer of a verification. Times in µs since the epoch; `root` in hex."""

    valid: bool
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    origin: str
    key: str
    records: int
    checkpoints: int
    root: str
    first_ts: int | None
    last_ts: int | None


def verify(
    directory: Path,
    *,
    vkey: str | None = None,
    known: str | None = None,
    every_signature: bool = False,
) -> Report:
    """Check a log from its first to its last byte.

    `vkey` pins the key (C2SP verifier key); without it the log's own `log.vkey` is believed, with
    a warning. `known` is a signed checkpoint kept elsewhere that the log must contain; the log's
    own `checkpoint` copy must be contained always. Raises `ValueError` when `vkey` or `known` is
    malformed, `FileNotFoundError` when there is no log.
    """
    if not list_segments(directory):
        raise FileNotFoundError(f"`{directory}` holds no audit log")
    warnings = () if vkey is not None else (UNPINNED,)
    outside = None if known is None else parse_note(known)
    try:
        key = parse_vkey(vkey if vkey is not None else _first_key(directory))
    except (ValueError, FileNotFoundError) as error:
        if vkey is not None:
            raise
        finding = Finding("wrong_key", 0, "log.vkey", f"the log's key cannot be read: {error}")
        return Report(
            valid=False,
            findings=(finding,),
            warnings=warnings,
            origin="",
            key="",
            records=0,
            checkpoints=0,
            root="",
            first_ts=None,
            last_ts=None,
        )
    return _Verification(directory, key, every_signature=every_signature).run(outside, warnings)


class _Verification:
    def __init__(self, directory: Path, key: NoteKey, *, every_signature: bool) -> None:
        self._directory: Final = directory
        self._key: Final = key
        self._check: Final = ChainCheck(key.name, key, every_signature=every_signature)
        self._contradicted: Final[list[TileBreak]] = []
        self._tiles: Final = TileCheck(directory, self._contradicted.append)
        self._anchors: Final[list[tuple[str, Anchor]]] = []
        self._checkpoints = 0
        self._first_ts: int | None = None
        self._place = ""
        self._growing = False
        self._was_held = is_locked(directory)

    def run(self, known: SignedCheckpoint | None, warnings: tuple[str, ...]) -> Report:
        """Stop at the first break: what comes after it stands on nothing.

        Tiles may tell of another before it, where all later links were worked out again.
        """
        if known is not None:
            self._anchors.append(("known checkpoint", Anchor(known)))
        unreadable = self._own_copy()
        finding = self._read() or next(self._ending(unreadable), None)
        findings = () if finding is None else (finding,)
        told = [Finding(one.kind, one.seq, one.place, one.what) for one in self._contradicted]
        findings = tuple(sorted((*findings, *told), key=lambda one: one.seq)[:1])
        chain = self._check.chain
        if self._growing:
            warnings += (GROWING,)
        return Report(
            valid=not findings,
            findings=findings,
            warnings=warnings,
            origin=chain.origin,
            key=f"{self._key.name}+{self._key.id.hex()}",
            records=self._check.sealed_seq,
            checkpoints=self._checkpoints,
            root=chain.tree.root().hex(),
            first_ts=self._first_ts,
            last_ts=chain.ts if chain.seq else None,
        )

    def _own_copy(self) -> str:
        """Read the log's own copy before the log, which may grow. Return why it cannot be read."""
        try:
            copy = parse_note(_read_text(self._directory / "checkpoint"))
        except FileNotFoundError:
            return ""
        except ValueError as error:
            return f"the copy is no checkpoint: {error}"
        self._anchors.append(("checkpoint", Anchor(copy)))
        return ""

    def _read(self) -> Finding | None:
        found = list_segments(self._directory)
        segments = [one for one in found if one.stat().st_size] or found[:1]
        for segment in segments:
            self._place = f"{segment.name}:1"
            if segment.name != segment_name(self._check.chain.seq):
                seq = self._check.chain.seq
                return self._found(Break("deleted", seq, f"no segment starts at record {seq}"))
            finding = self._read_segment(segment, is_last=segment is segments[-1])
            if finding is not None:
                return finding
        self._tiles.finish(growing=self._was_held or is_locked(self._directory))
        return None

    def _read_segment(self, segment: Path, *, is_last: bool) -> Finding | None:
        lines = read_lines(segment)
        for number, line in enumerate(lines, 1):
            self._place = f"{segment.name}:{number}"
            if not line.endswith(b"\n"):
                return self._unfinished(may_grow=is_last and next(lines, None) is None)
            answer = self._check.feed(line[:-1])
            if isinstance(answer, Break):
                after = [item.rstrip(b"\n") for item in islice(lines, WINDOW_LINES)]
                return self._found(explain(answer, line[:-1], after, self._check.chain))
            self._note(answer)
        return None if self._check.is_sealed else self._unfinished(may_grow=is_last)

    def _note(self, answer: Record | Sealed) -> None:
        if isinstance(answer, Sealed):
            self._checkpoints += 1
            for _, anchor in self._anchors:
                anchor.meet(answer)
            return
        self._tiles.add(answer.leaf)
        if self._first_ts is None:
            self._first_ts = self._check.chain.ts

    def _unfinished(self, *, may_grow: bool) -> Finding | None:
        """Judge an end without a checkpoint: in a log being written it is the batch on its way."""
        if may_grow and is_locked(self._directory):
            self._growing = True
            return None
        seq = self._check.chain.seq
        return self._found(Break("torn", seq, "what follows the last checkpoint is not complete"))

    def _ending(self, unreadable: str) -> Iterator[Finding]:
        broken = self._check.tail()
        if broken is not None:
            yield self._found(broken)
        for name, anchor in self._anchors:
            broken = anchor.verdict(self._check.sealed_seq, self._check.keys)
            if broken is not None:
                self._place = name
                yield self._found(broken)
        if unreadable:
            yield Finding("edited", max(self._check.sealed_seq - 1, 0), "checkpoint", unreadable)

    def _found(self, broken: Break) -> Finding:
        return Finding(broken.kind, broken.seq, self._place, broken.what)


def _first_key(directory: Path) -> str:
    """The key of the first epoch, as the log's own directory tells it."""
    return _read_text(directory / "log.vkey").partition("\n")[0]


def _read_text(path: Path) -> str:
    return path.read_bytes().decode()
