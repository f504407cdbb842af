"""What the log says of releases: who proposed, what was published, what decides, what comes next.

The log is the one memory of it: folding its records gives the same answer at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

State = Literal["published", "shadow", "active", "superseded", "halted"]
EVENTS: Final = frozenset(
    {"policy.propose", "policy.publish", "policy.rollback", "policy.activate", "policy.halt"}
)


class Proposal(Struct, frozen=True, kw_only=True):
    """One publisher's word that waits for another's. `at` in seconds."""

    id: str
    number: int
    revision: str
    kid: str
    token: str
    at: int


class Publication(Struct, frozen=True, kw_only=True):
    """A release that enough publishers signed. `tokens` are their statements."""

    number: int
    act: str
    revision: str
    kids: tuple[str, ...]
    tokens: tuple[str, ...]
    shadow_s: int
    at: int


class Standing(Struct, frozen=True):
    """A publication as it stands now."""

    publication: Publication
    state: State


class History:
    """The row of releases. `target` should decide, `active` is what was last put on record."""

    def __init__(self) -> None:
        self.number = 0
        self.proposals: dict[str, Proposal] = {}
        self.active: Publication | None = None
        self._published: dict[int, Publication] = {}
        self._halted: set[int] = set()
        self._before: dict[int, int] = {}
        self._activated: set[int] = set()

    @property
    def target(self) -> Publication | None:
        """What should decide: the newest publication, or what was before one that was halted.

        None before the first one. A publication takes the place of all earlier ones, whether they
        ever decided or not.
        """
        active, newest = self.active, self._published.get(self.number)
        if newest is not None and self.number not in self._halted:
            return newest
        while active is not None and active.number in self._halted:
            active = self.find_before(active.number)
        return active

    @property
    def is_waiting(self) -> bool:
        """Whether something was published that does not decide yet."""
        return self.target is not self.active

    def fold(self, record: Mapping[str, Any]) -> None:
        """Take in a record of the log; others than `EVENTS` and those without a release: none."""
        kind = record["type"]
        if kind not in EVENTS or "number" not in record:
            return
        number = record["number"]
        if kind == "policy.propose":
            self._propose(record)
        elif kind in {"policy.publish", "policy.rollback"}:
            self._publish(record)
        elif kind == "policy.halt":
            self._halted.add(number)
        elif (found := self._published.get(number)) is not None:
            # The first time only: the way back from a halt leads to nothing that was halted.
            if self.active is not None and number not in self._activated:
                self._before[number] = self.active.number
            self._activated.add(number)
            self.active = found

    def find_before(self, number: int) -> Publication | None:
        """Return what decided before a publication took its place."""
        return self._published.get(self._before.get(number, -1))

    def was_active(self, revision: str) -> bool:
        """Whether a release ever decided."""
        return any(
            one.revision == revision and number in self._activated
            for number, one in self._published.items()
        )

    def standings(self) -> list[Standing]:
        """Return every publication with its state, newest first."""
        rows = sorted(self._published.items(), reverse=True)
        return [Standing(one, self._state(number, one)) for number, one in rows]

    def _state(self, number: int, one: Publication) -> State:
        if number in self._halted:
            return "halted"
        if self.active is not None and number == self.active.number:
            return "active"
        if one is self.target:
            return "shadow" if one.shadow_s else "published"
        return "superseded"

    def _propose(self, record: Mapping[str, Any]) -> None:
        proposal = Proposal(
            id=record["op"],
            number=record["number"],
            revision=record["release"],
            kid=record["kids"][0],
            token=record["statements"][0],
            at=record["ts"] // 1_000_000,
        )
        # A publisher has one word at a time.
        for one in [one for one in self.proposals.values() if one.kid == proposal.kid]:
            del self.proposals[one.id]
        self.proposals[proposal.id] = proposal

    def _publish(self, record: Mapping[str, Any]) -> None:
        number = record["number"]
        self._published[number] = Publication(
            number=number,
            act=record["type"].partition(".")[2],
            revision=record["release"],
            kids=tuple(record["kids"]),
            tokens=tuple(record["statements"]),
            shadow_s=record.get("shadow_s", 0),
            at=record["ts"] // 1_000_000,
        )
        self.number = max(self.number, number)
        self.proposals = {
            key: one for key, one in self.proposals.items() if one.number > self.number
        }
