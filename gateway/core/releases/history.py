"""What the log says of releases: who proposed, what was published, what decides, what comes next.

The log is the one memory of it: folding its records gives the same answer at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

State = Literal["published", "shadow", "active", "superseded", "halted"]
EVENTS: Final = frozenset(
    {
        "policy.propose",
        "policy.withdraw",
        "policy.publish",
        "policy.rollback",
        "policy.activate",
        "policy.halt",
    }
)


class Said(Struct, frozen=True, kw_only=True):
    """What publishers say the same of, whether they ask for it or take it back.

    `again`: how often it was withdrawn before, so that what was withdrawn is said no more.
    """

    number: int
    revision: str
    shadow_s: int = 0
    again: int = 0


class Proposal(Struct, frozen=True, kw_only=True):
    """One publisher's word that waits for another's. `at` in seconds.

    `impact`: what it would have changed (`core.records.impact_told`); None where nothing is known.
    """

    id: str
    number: int
    revision: str
    kid: str
    token: str
    at: int
    act: str = "publish"
    shadow_s: int = 0
    again: int = 0
    impact: Mapping[str, Any] | None = None

    @property
    def said(self) -> Said:
        """What is proposed."""
        return Said(
            number=self.number, revision=self.revision, shadow_s=self.shadow_s, again=self.again
        )


class Publication(Struct, frozen=True, kw_only=True):
    """A release that enough publishers signed. `tokens` are their statements.

    What the row itself says of it, whatever its record says: `replaces`, the revision that should
    have decided then; `is_return`, whether it is one that decided before and that nobody had gone
    back from; `is_withdrawn`, whether it had been.
    """

    number: int
    act: str
    revision: str
    kids: tuple[str, ...]
    tokens: tuple[str, ...]
    shadow_s: int
    at: int
    again: int = 0
    replaces: str = ""
    is_return: bool = False
    is_withdrawn: bool = False
    impact: Mapping[str, Any] | None = None


class Withdrawal(Struct, frozen=True, kw_only=True):
    """What was proposed and taken back: by whose key, and when. `at` in seconds."""

    number: int
    revision: str
    shadow_s: int
    again: int
    kid: str
    at: int


class Standing(Struct, frozen=True):
    """A publication as it stands now."""

    publication: Publication
    state: State


class History:
    """The row of releases. `target` should decide, `active` is what was last put on record.

    `withdrawals`: everything that was ever taken back, oldest first.
    `latest_s`: the latest time that it heard of. A clock that is put back revives no proposal.
    """

    def __init__(self) -> None:
        self.number = 0
        self.latest_s = 0
        self.proposals: dict[str, Proposal] = {}
        self.active: Publication | None = None
        self._published: dict[int, Publication] = {}
        self._halted: set[int] = set()
        self._before: dict[int, int] = {}
        self._activated: set[int] = set()
        self._left: set[str] = set()
        self.withdrawals: list[Withdrawal] = []
        self._withdrawn: set[Said] = set()

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
        self.see(record["ts"] // 1_000_000)
        if kind not in EVENTS or "number" not in record:
            return
        number = record["number"]
        if kind == "policy.propose":
            self._propose(record)
        elif kind == "policy.withdraw":
            self._withdraw(record)
        elif kind in {"policy.publish", "policy.rollback"}:
            self._publish(record)
        elif kind == "policy.halt":
            self._halted.add(number)
            if (halted := self._published.get(number)) is not None:
                self._left.add(halted.revision)
        elif (found := self._published.get(number)) is not None:
            self._activate(found)

    def see(self, now_s: int) -> int:
        """Take note of the time, and return the latest one that was ever heard of."""
        self.latest_s = max(self.latest_s, now_s)
        return self.latest_s

    def find_before(self, number: int) -> Publication | None:
        """Return what decided before a publication took its place."""
        return self._published.get(self._before.get(number, -1))

    def was_active(self, revision: str) -> bool:
        """Whether a release ever decided."""
        return any(
            one.revision == revision and number in self._activated
            for number, one in self._published.items()
        )

    def may_return_alone(self, revision: str) -> bool:
        """Whether one publisher may go back to a release, where one is enough for the way back.

        Not to one that was halted or gone back from: two would have to agree that it is good again.
        """
        return self.was_active(revision) and revision not in self._left

    def is_withdrawn(self, said: Said) -> bool:
        """Whether this was proposed and taken back."""
        return said in self._withdrawn

    def count_withdrawn(self, number: int, revision: str, shadow_s: int) -> int:
        """Return what `again` has to be for this to be said now."""
        return sum(
            (one.number, one.revision, one.shadow_s) == (number, revision, shadow_s)
            for one in self._withdrawn
        )

    def withdrawn(self) -> list[Said]:
        """Return what was taken back for the next place in the row."""
        return sorted(self._withdrawn, key=lambda one: (one.revision, one.shadow_s, one.again))

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
            act=record.get("action", "publish"),
            shadow_s=record.get("shadow_s", 0),
            again=record.get("again", 0),
            impact=record.get("impact"),
        )
        # A publisher has one word at a time.
        for one in [one for one in self.proposals.values() if one.kid == proposal.kid]:
            del self.proposals[one.id]
        self.proposals[proposal.id] = proposal

    def _withdraw(self, record: Mapping[str, Any]) -> None:
        said = _said(record)
        self._withdrawn.add(said)
        self.withdrawals.append(
            Withdrawal(
                number=said.number,
                revision=said.revision,
                shadow_s=said.shadow_s,
                again=said.again,
                kid=record["kids"][0],
                at=record["ts"] // 1_000_000,
            )
        )
        self.proposals = {key: one for key, one in self.proposals.items() if one.said != said}

    def _activate(self, found: Publication) -> None:
        before = self.active
        # The first time only: the way back from a halt leads to nothing that was halted.
        if before is not None and found.number not in self._activated:
            self._before[found.number] = before.number
            if found.act == "rollback":
                self._left.add(before.revision)
        if len(found.kids) > 1:
            self._left.discard(found.revision)
        self._activated.add(found.number)
        self.active = found

    def _publish(self, record: Mapping[str, Any]) -> None:
        said, target = _said(record), self.target
        number = said.number
        self._published[number] = Publication(
            number=number,
            act=record["type"].partition(".")[2],
            revision=said.revision,
            kids=tuple(record["kids"]),
            tokens=tuple(record["statements"]),
            shadow_s=said.shadow_s,
            at=record["ts"] // 1_000_000,
            again=said.again,
            replaces="" if target is None else target.revision,
            is_return=self.may_return_alone(said.revision),
            is_withdrawn=said in self._withdrawn,
            impact=record.get("impact"),
        )
        self.number = max(self.number, number)
        self._withdrawn = {one for one in self._withdrawn if one.number > self.number}
        self.proposals = {
            key: one for key, one in self.proposals.items() if one.number > self.number
        }


def _said(record: Mapping[str, Any]) -> Said:
    return Said(
        number=record["number"],
        revision=record["release"],
        shadow_s=record.get("shadow_s", 0),
        again=record.get("again", 0),
    )
