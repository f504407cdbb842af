"""One case of the corpus, and how it is written down."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.audit.writer import EPOCHS, Files

EXIT_OF = {"forked": 4, "rewound": 4}


@dataclass(frozen=True)
class Finding:
    """What a verifier must find first: the kind, the rule of a `semantic` one, and the place."""

    kind: str
    seq: int | None
    rule: str | None = None

    def expect(self) -> dict[str, Any]:
        """Return the case's `expect`."""
        found: dict[str, Any] = {"exit": EXIT_OF.get(self.kind, 1), "kind": self.kind}
        return found | ({"rule": self.rule} if self.rule else {}) | {"seq": self.seq}


@dataclass(frozen=True)
class Case:
    """A directory, what the reader knows, and what must be found; see README.md."""

    name: str
    what: str
    files: Files
    finding: Finding | None = None
    exit: int | None = None
    keys: tuple[str, ...] = (EPOCHS[0].vkey,)
    witnesses: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    before: Files = field(default_factory=dict)
    require: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    publishers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object of `cases.jsonl`; what is empty is left out."""
        expect: dict[str, Any] = {"exit": 0, "kind": None, "seq": None}
        if self.finding is not None:
            expect = self.finding.expect()
        if self.exit is not None:
            expect["exit"] = self.exit
        if self.also:
            expect["also"] = list(self.also)
        optional = {
            "witnesses": list(self.witnesses),
            "publishers": list(self.publishers),
            "known": list(self.known),
            "before": _written(self.before),
            "require": list(self.require),
        }
        return {
            "name": self.name,
            "what": self.what,
            "files": _written(self.files),
            "keys": list(self.keys),
            **{name: value for name, value in optional.items() if value},
            "expect": expect,
        }


def _written(files: Files) -> dict[str, str | dict[str, str]]:
    return {name: _content(data) for name, data in sorted(files.items())}


def _content(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(data).decode()}
