"""What is done to a finished log, line by line, and what it takes to cover it up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.conformance.audit.writer import (
    ZEROS,
    Files,
    Key,
    Record,
    checkpoint_line,
    encode,
    leaf_hash,
    note_text,
    tree_root,
)

CHECKPOINT: Final = b'{"cp":'


@dataclass
class Line:
    """One line with its LF, and the segment that it stands in."""

    segment: str
    data: bytes

    @property
    def is_record(self) -> bool:
        """Say whether it is a record and no checkpoint line."""
        return not self.data.startswith(CHECKPOINT)

    @property
    def record(self) -> Record:
        """The record, or the checkpoint line, parsed."""
        parsed: Record = json.loads(self.data)
        return parsed

    @property
    def note(self) -> str:
        """The checkpoint line's note."""
        return str(self.record["cp"])


class Draft:
    """The lines of a log, to be changed; everything else of its directory stays."""

    def __init__(self, files: Files) -> None:
        names = sorted(name for name in files if name.endswith(".jsonl"))
        self.others = {name: data for name, data in files.items() if name not in names}
        self.lines = [
            Line(name, data) for name in names for data in files[name].splitlines(keepends=True)
        ]

    def files(self) -> Files:
        """Return the directory as it is now; a segment without lines is no file."""
        found: Files = {}
        for line in self.lines:
            found[line.segment] = found.get(line.segment, b"") + line.data
        return found | self.others

    def at(self, seq: int) -> int:
        """Return the place of the record of this number, as it was written."""
        places = [at for at, line in enumerate(self.lines) if line.is_record]
        return places[seq]

    def after(self, seq: int) -> int:
        """Return the place of the first checkpoint line after the record of this number."""
        start = self.at(seq)
        return next(at for at in range(start, len(self.lines)) if not self.lines[at].is_record)

    def edit(self, seq: int, /, **changes: object) -> Draft:
        """Change fields of a record; `...` takes one away. Nothing else is made to fit."""
        return self.change(seq, lambda record: apply_changes(record, changes))

    def change(self, seq: int, how: Callable[[Record], Record]) -> Draft:
        """Put another record in the place of one."""
        line = self.lines[self.at(seq)]
        line.data = encode(how(line.record)) + b"\n"
        return self

    def note(self, seq: int, how: Callable[[str], str]) -> Draft:
        """Change the note of the checkpoint line after a record."""
        line = self.lines[self.after(seq)]
        line.data = checkpoint_line(how(line.note))
        return self

    def delete(self, first: int, last: int | None = None) -> Draft:
        """Take away records and what stands between them."""
        del self.lines[self.at(first) : self.at(first if last is None else last) + 1]
        return self

    def insert(self, at: int, data: bytes) -> Draft:
        """Put a line before the one at this place, into its segment."""
        segment = self.lines[min(at, len(self.lines) - 1)].segment
        self.lines.insert(at, Line(segment, data))
        return self

    def swap(self, one: int, other: int) -> Draft:
        """Let the lines at two places change places."""
        a, b = self.lines[one], self.lines[other]
        a.data, b.data = b.data, a.data
        return self

    def cut(self, at: int) -> Draft:
        """Take away everything from this place on."""
        del self.lines[at:]
        return self

    def relink(self, *, renumber: bool = False, key: Key | None = None) -> Draft:
        """Work out again every link and root, as one does who wants it not to be seen.

        Signatures are made with `key`, or stay the old ones, which then belong to other text.
        """
        chain = _Chain(renumber=renumber, key=key)
        for line in self.lines:
            line.data = chain.record(line) if line.is_record else chain.checkpoint(line)
        return self


class _Chain:
    """Links lines that were changed to each other."""

    def __init__(self, *, renumber: bool, key: Key | None) -> None:
        self._leaves: list[bytes] = []
        self._sealed: str | None = None
        self._renumber = renumber
        self._key = key

    def record(self, line: Line) -> bytes:
        record = line.record | {"prev": self._leaves[-1].hex() if self._leaves else ZEROS}
        record.pop("cp", None)
        if self._sealed is not None:
            record["cp"], self._sealed = self._sealed, None
        if self._renumber:
            record["seq"] = len(self._leaves)
        data = encode(record)
        self._leaves.append(leaf_hash(data))
        return data + b"\n"

    def checkpoint(self, line: Line) -> bytes:
        text = note_text(len(self._leaves), tree_root(self._leaves))
        signature = line.note.split("\n\n")[1] if self._key is None else self._key.line(text)
        data = checkpoint_line(f"{text}\n{signature}")
        self._sealed = hashlib.sha256(data.removesuffix(b"\n")).hexdigest()
        return data


def apply_changes(record: Record, changes: dict[str, Any]) -> Record:
    """Return the record with fields changed; a name with dots reaches into an object."""
    changed = json.loads(json.dumps(record))
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = changed
        for name in way:
            inner = inner[name]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return dict(changed)


def forged(draft: Draft, seq: int, /, **changes: object) -> bytes:
    """Return a line that claims the place `seq`: the record there with other fields."""
    record = apply_changes(draft.lines[draft.at(seq)].record, changes)
    return encode(record) + b"\n"


def resign(note: str, key: Key) -> str:
    """Return the note with the same text, signed by another key."""
    text = note.split("\n\n", maxsplit=1)[0] + "\n"
    return f"{text}\n{key.line(text)}"
