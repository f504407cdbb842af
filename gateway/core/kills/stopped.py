"""When each person was last stopped: votes and sessions of until then are void (DESIGN §4).

The log is what is durable; this is memory, made anew from it at each start. Somebody who is let go
on gets none of them back: it was perhaps not they who cast the vote, or who was signed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_IDLE: Final = frozenset({"suspended", "retired"})


class StoppedPeople:
    """The last time that each person was killed or suspended, by the id of their key."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def note(self, key_id: str, at_s: int) -> None:
        """Know that a person was stopped. INVARIANT: the time never goes back."""
        self._at[key_id] = max(at_s, self._at.get(key_id, at_s))

    def voids(self, key_id: str, at_s: int) -> bool:
        """Whether something was before its person was last stopped, or within that second."""
        return at_s <= self._at.get(key_id, -1)

    def fold(self, record: Mapping[str, Any]) -> None:
        """Note what a record of the log says: a `kill.set` or `registry.change`, of a person."""
        if record.get("kind") != "human":
            return
        at_s = record["ts"] // 1_000_000
        if record["type"] == "kill.set":
            self.note(record["target"], at_s)
        elif record.get("step") == "applied" and not _IDLE.isdisjoint(
            (record["before"], record["after"])
        ):
            self.note(record["entry"].removeprefix("human:"), at_s)
