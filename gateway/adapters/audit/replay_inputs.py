"""The recorded inputs of a log, one after another: the fast way through a month of openings.

Segments and their openings are read side by side, each once and in order. What does not lie where
it is expected (a crash left lines, a subject was erased) is looked up by `ValueReader`, which can
also say why a value is not there. Either way a value is believed only if the record commits to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from gateway.adapters.audit.audit_openings import Sealed, Vault, derive, is_committed, unseal_with
from gateway.adapters.audit.audit_query import Found
from gateway.adapters.audit.audit_values import ValueReader
from gateway.core.log.audit_filter import Selection
from gateway.core.policy.asked import Asked, read_asked

INPUT: Final = "policy.input"
_DECIDED: Final = (b'"decision":{', b'"policy":{')
_SEQ: Final = b'{"seq":'
_CIPHERS_MAX: Final = 4096


class Recorded(Struct, frozen=True):
    """A recorded decision with the input that it was made on, or why that cannot be had.

    `why`: `erased`, `lost`, `altered`, or `unreadable` (none was recorded, or it is none).
    """

    record: Mapping[str, Any]
    asked: Asked | None
    why: Literal["", "erased", "lost", "altered", "unreadable"] = ""


class Decisions(Selection):
    """A selection that also leaves out, unparsed, the records that tell of no decision."""

    def __init__(self, selection: Selection) -> None:
        """`selection`: what else is asked for."""
        super().__init__(selection.filter, selection.subjects)

    def may_take(self, line: bytes) -> bool:
        """See `Selection`."""
        return all(needle in line for needle in _DECIDED) and super().may_take(line)


class Inputs:
    """Opens the inputs of records; fast for those of one log in order."""

    def __init__(self, directory: Path, vault: Vault) -> None:
        self._vault: Final = vault
        self._slow: Final = ValueReader(directory, vault)
        self._ciphers: Final[dict[tuple[str, str], AESGCM | None]] = {}
        self._segment: Path | None = None
        self._openings: Iterator[tuple[int, bytes]] = iter(())
        self._ahead: tuple[int, bytes] | None = None
        self._sealed: Final = msgspec.json.Decoder(Sealed).decode

    def read(self, records: Iterable[Found]) -> Iterator[Recorded]:
        """Yield each record with its input. Memory does not grow with their number."""
        for found in records:
            yield self._read(found)

    def _read(self, found: Found) -> Recorded:
        value = self._find(found)
        why: Literal["", "erased", "lost", "altered"] = ""
        if value is None:
            try:
                slow = self._slow.open(found.record, found.segment, INPUT)
            except LookupError:
                return Recorded(found.record, None, "unreadable")
            value, why = slow.opened, slow.why
        if value is None:
            return Recorded(found.record, None, why or "lost")
        try:
            return Recorded(found.record, read_asked(value))
        except ValueError:
            return Recorded(found.record, None, "unreadable")

    def _find(self, found: Found) -> bytes | None:
        """Return the input if it lies next in the openings, as it does unless a crash was there."""
        policy = found.record["policy"]
        commitment = policy.get("input")
        if not isinstance(commitment, dict):
            return None
        for line in self._lines(found.segment, found.record["seq"]):
            try:
                sealed = self._sealed(line)
            except msgspec.DecodeError:
                continue
            cipher = self._cipher(sealed.key, sealed.boot)
            values = {} if cipher is None else _unsealed(sealed, cipher)
            if INPUT in values and is_committed(INPUT, *values[INPUT], commitment):
                return values[INPUT][1]
        return None

    def _lines(self, segment: Path, seq: int) -> list[bytes]:
        """Return the lines about a record from where the last search ended."""
        if segment != self._segment:
            self._segment = segment
            self._openings = _numbered(segment.parent / "openings" / segment.name)
            self._ahead = next(self._openings, None)
        found: list[bytes] = []
        while self._ahead is not None and self._ahead[0] <= seq:
            if self._ahead[0] == seq:
                found.append(self._ahead[1])
            self._ahead = next(self._openings, None)
        return found

    def _cipher(self, key: str, boot: str) -> AESGCM | None:
        try:
            return self._ciphers[key, boot]
        except KeyError:
            dek = self._vault.load(key)
            if len(self._ciphers) >= _CIPHERS_MAX:
                self._ciphers.clear()
            found = self._ciphers[key, boot] = None if dek is None else derive(dek, boot)
            return found


def _unsealed(sealed: Sealed, cipher: AESGCM) -> dict[str, tuple[bytes, bytes]]:
    try:
        return unseal_with(sealed, cipher)
    except (InvalidTag, OverflowError):
        return {}


def _numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (record number, line) of each whole line of a file of openings."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            digits = line[len(_SEQ) : line.find(b",")]
            if line.startswith(_SEQ) and line.endswith(b"\n") and digits.isdigit():
                yield int(digits), line
