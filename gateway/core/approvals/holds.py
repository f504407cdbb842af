"""Legal holds: what may not be erased, and that it takes two people to say so (spec §7).

::

    propose ──> proposed ──confirm──> set ──ask_release──> releasing ──confirm_release──> released
                   │ after 24 h        ^                       │ after 24 h
                   v                   └───────────────────────┘
                 lapsed

INVARIANT: a hold protects from the moment that one person asks for it, until two people have
released it. What is in doubt is not erased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approvals.approval import person
from gateway.core.approvals.declined import Declined

EVERYBODY: Final = "*"
"""The subject of a hold on everything."""

WAIT_S: Final = 86_400
"""How long a first person's request waits for a second one, in seconds."""

State = Literal["proposed", "set", "releasing", "released", "lapsed"]
Move = Literal["confirm", "ask_release", "confirm_release"]

TRANSITIONS: Final[Mapping[State, Mapping[Move, State]]] = MappingProxyType(
    {
        "proposed": {"confirm": "set"},
        "set": {"ask_release": "releasing"},
        "releasing": {"confirm_release": "released"},
        "released": {},
        "lapsed": {},
    }
)
"""Every legal move of a person. Time moves `proposed` to `lapsed` and `releasing` back to `set`."""

_LAPSED: Final[Mapping[State, State]] = {"proposed": "lapsed", "releasing": "set"}
_SECOND: Final[frozenset[Move]] = frozenset({"confirm", "confirm_release"})
_PROTECTING: Final[frozenset[State]] = frozenset({"proposed", "set", "releasing"})


class Hold(Struct, frozen=True, kw_only=True):
    """A legal hold. `subject` is the id of a data subject's key, or `*`. Times in seconds.

    `asked_by`, `asked_at` and `reason` are of the request that waits for a second person; they are
    empty where none waits. `nonce` is the secret that tags of its people are made with.
    """

    id: str
    subject: str
    state: State
    nonce: str
    asked_by: str = ""
    asked_at: int = 0
    reason: str = ""

    def protects(self, key_id: str) -> bool:
        """Whether it forbids to erase this data subject. Ask one that is `as_of` now."""
        return self.state in _PROTECTING and self.subject in {EVERYBODY, key_id}


class HoldStore(Protocol):
    """Durable holds. One process writes; every method is one transaction."""

    async def put(self, hold: Hold) -> None:
        """Store a hold, in place of an earlier state of it."""
        ...

    async def get(self, hold_id: str) -> Hold | None:
        """Return a hold as it was stored."""
        ...

    async def find(self) -> list[Hold]:
        """Return all holds in the order of their ids."""
        ...


def as_of(hold: Hold, now_s: int) -> Hold:
    """Return the hold as it is now: a request that nobody joined has lapsed."""
    if hold.state in _LAPSED and now_s >= hold.asked_at + WAIT_S:
        return replace(hold, state=_LAPSED[hold.state], asked_by="", asked_at=0, reason="")
    return hold


def move(hold: Hold, step: Move, by: str, now_s: int, reason: str = "") -> Hold | Declined:
    """Return the hold after a person's step, or why it cannot be taken. `hold` is `as_of` now."""
    target = TRANSITIONS[hold.state].get(step)
    if target is None:
        return Declined("hold_conflict", f"the hold is `{hold.state}`; {_HINTS[hold.state]}")
    if step not in _SECOND:
        return replace(hold, state=target, asked_by=by, asked_at=now_s, reason=reason)
    if person(by) == person(hold.asked_by):
        return Declined("hold_same_person", "a second person must confirm; you asked for it")
    return replace(hold, state=target, asked_by="", asked_at=0, reason="")


def find_protecting(holds: Sequence[Hold], key_id: str, now_s: int) -> Hold | None:
    """Return a hold that forbids to erase a data subject."""
    return next((hold for hold in holds if as_of(hold, now_s).protects(key_id)), None)


_HINTS: Final[Mapping[State, str]] = {
    "proposed": "a second person can confirm it, or it lapses 24 hours after it was asked for",
    "set": "ask for its release first",
    "releasing": "a second person can confirm the release",
    "released": "it has ended; ask for a new one",
    "lapsed": "nobody confirmed it in time; ask for a new one",
}
